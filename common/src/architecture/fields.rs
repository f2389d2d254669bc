//! Reads fields of a config.json one by one, so that every complaint names the field and its value.
//!
//! A field that is null counts as absent, as it does for the Python classes.

use serde_json::{Map, Value};

use super::{Activation, ArchitectureError};

/// The fields of a config.json, or of an object in it.
#[derive(Clone)]
pub(super) struct Fields<'a> {
    fields: &'a Map<String, Value>,
    /// What stands before a field's name in messages.
    path: String,
}

impl<'a> Fields<'a> {
    pub(super) fn new(value: &'a Value) -> Result<Self, ArchitectureError> {
        let fields = value.as_object();
        let fields =
            fields.ok_or_else(|| ArchitectureError::NotJson("the outermost value is no object".into()))?;
        Ok(Self { fields, path: String::new() })
    }

    /// The value of a field that is there and not null.
    pub(super) fn get(&self, field: &str) -> Option<&'a Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    pub(super) fn has(&self, field: &str) -> bool {
        self.get(field).is_some()
    }

    /// Whether the field is there and null, which some classes tell from an absent one.
    pub(super) fn says_null(&self, field: &str) -> bool {
        self.fields.get(field).is_some_and(Value::is_null)
    }

    /// The first of several names of one thing that is there, else the first.
    pub(super) fn spelling(&self, names: &[&'static str]) -> &'static str {
        names.iter().copied().find(|name| self.has(name)).unwrap_or(names[0])
    }

    /// The object in a field.
    pub(super) fn object(&self, field: &str) -> Result<Option<Self>, ArchitectureError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match value.as_object() {
            Some(fields) => Ok(Some(Self { fields, path: format!("{}{field}.", self.path) })),
            None => Err(self.refused(field, "an object")),
        }
    }

    /// A whole number from 1 to `max`; the bound keeps a hostile file from exhausting memory later on.
    pub(super) fn count(&self, field: &str, max: u32) -> Result<u32, ArchitectureError> {
        let count = self.whole(field).filter(|count| (1..=max).contains(count));
        count.ok_or_else(|| self.refused(field, format!("a whole number from 1 to {max}")))
    }

    /// As [`Self::count`], with the class's default where the field is absent.
    pub(super) fn count_or(&self, field: &str, max: u32, default: u32) -> Result<u32, ArchitectureError> {
        if self.has(field) { self.count(field, max) } else { Ok(default) }
    }

    /// As [`Self::count`], where the field may be absent.
    pub(super) fn count_if_any(&self, field: &str, max: u32) -> Result<Option<u32>, ArchitectureError> {
        if self.has(field) { self.count(field, max).map(Some) } else { Ok(None) }
    }

    /// A whole number that may be 0.
    pub(super) fn index_or(&self, field: &str, default: u32) -> Result<u32, ArchitectureError> {
        if !self.has(field) {
            return Ok(default);
        }
        self.whole(field).ok_or_else(|| self.refused(field, "a whole number from 0"))
    }

    fn whole(&self, field: &str) -> Option<u32> {
        let value = self.get(field)?;
        // Some tools write 4096.0.
        let whole = value.as_u64().or_else(|| value.as_f64().filter(|x| x.fract() == 0.0).map(|x| x as u64));
        whole.and_then(|whole| u32::try_from(whole).ok())
    }

    /// A positive number below 1.
    pub(super) fn epsilon_or(&self, field: &str, default: f64) -> Result<f64, ArchitectureError> {
        let number = self.number_or(field, default)?;
        if number > 0.0 && number < 1.0 {
            Ok(number)
        } else {
            Err(self.refused(field, "a number between 0 and 1"))
        }
    }

    /// Any number.
    pub(super) fn number_or(&self, field: &str, default: f64) -> Result<f64, ArchitectureError> {
        Ok(self.number_if_any(field)?.unwrap_or(default))
    }

    /// Any number, where the field may be absent.
    pub(super) fn number_if_any(&self, field: &str) -> Result<Option<f64>, ArchitectureError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let number = value.as_f64().filter(|number| number.is_finite());
        number.map(Some).ok_or_else(|| self.refused(field, "a number"))
    }

    /// A number above 0.
    pub(super) fn positive_or(&self, field: &str, default: f64) -> Result<f64, ArchitectureError> {
        let number = self.number_or(field, default)?;
        if number > 0.0 { Ok(number) } else { Err(self.refused(field, "a number above 0")) }
    }

    /// A list of numbers.
    pub(super) fn numbers(&self, field: &str) -> Result<Vec<f64>, ArchitectureError> {
        let list = self.get(field).and_then(Value::as_array);
        let numbers: Option<Vec<f64>> = list.and_then(|list| list.iter().map(Value::as_f64).collect());
        numbers.ok_or_else(|| self.refused(field, "a list of numbers"))
    }

    /// A list of texts, where the field may be absent.
    pub(super) fn texts_if_any(&self, field: &str) -> Result<Option<Vec<&'a str>>, ArchitectureError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let texts = value.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
        texts.map(Some).ok_or_else(|| self.refused(field, "a list of texts"))
    }

    pub(super) fn flag_or(&self, field: &str, default: bool) -> Result<bool, ArchitectureError> {
        match self.get(field) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.refused(field, "true or false")),
        }
    }

    pub(super) fn text_or(&self, field: &str, default: &'a str) -> Result<&'a str, ArchitectureError> {
        match self.get(field) {
            None => Ok(default),
            Some(value) => value.as_str().ok_or_else(|| self.refused(field, "a text")),
        }
    }

    pub(super) fn activation_or(
        &self,
        field: &str,
        default: &'a str,
    ) -> Result<Activation, ArchitectureError> {
        let name = self.text_or(field, default)?;
        let known = Activation::NAMES.iter().find(|(known, _)| *known == name);
        known.map(|(_, activation)| *activation).ok_or_else(|| {
            let names: Vec<&str> = Activation::NAMES.iter().map(|(name, _)| *name).collect();
            self.refused(field, names.join(", "))
        })
    }

    /// Fails unless the field is absent or has that value: there is an implementation for no other.
    pub(super) fn only(&self, field: &str, supported: &Value) -> Result<(), ArchitectureError> {
        match self.get(field) {
            None => Ok(()),
            Some(value) if value == supported => Ok(()),
            Some(_) => Err(self.refused(field, supported.to_string())),
        }
    }

    /// Fails where the field is there at all: there is no implementation of what it asks for.
    pub(super) fn absent(&self, field: &str) -> Result<(), ArchitectureError> {
        if self.has(field) { Err(self.refused(field, "null")) } else { Ok(()) }
    }

    /// Fails unless `divisor`, in `field`, divides the number in another field.
    pub(super) fn divides(
        &self,
        field: &str,
        divisor: u32,
        other: &str,
        number: u32,
    ) -> Result<(), ArchitectureError> {
        if divisor > 0 && number.is_multiple_of(divisor) {
            return Ok(());
        }
        let found = divisor.to_string();
        let expected = format!("a divisor of \"{other}\" {number}");
        Err(ArchitectureError::Field { field: format!("{}{field}", self.path), found, expected })
    }

    /// An error about a field; long values are cut.
    pub(super) fn refused(&self, field: &str, expected: impl Into<String>) -> ArchitectureError {
        let found = match self.fields.get(field) {
            None | Some(Value::Null) => "missing".to_owned(),
            Some(value) => value.to_string().chars().take(80).collect(),
        };
        ArchitectureError::Field { field: format!("{}{field}", self.path), found, expected: expected.into() }
    }
}
