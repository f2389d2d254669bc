//! Reads fields of a config.json one by one, so that every complaint names the field and its value.

use serde_json::{Map, Value};

use super::{Activation, ArchitectureError};

/// The fields of a config.json.
pub(super) struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    pub(super) fn new(value: &'a Value) -> Result<Self, ArchitectureError> {
        let fields = value.as_object();
        fields.map(Self).ok_or_else(|| ArchitectureError::NotJson("the outermost value is no object".into()))
    }

    /// A whole number from 1 to `max`; the bound keeps a hostile file from exhausting memory later on.
    pub(super) fn count(&self, field: &'static str, max: u32) -> Result<u32, ArchitectureError> {
        let value = self.0.get(field).unwrap_or(&Value::Null);
        let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
        count
            .filter(|count| (1..=max).contains(count))
            .ok_or_else(|| refused(field, value, format!("a whole number from 1 to {max}")))
    }

    /// As [`Self::count`], with the class's default where the field is absent.
    pub(super) fn count_or(
        &self,
        field: &'static str,
        max: u32,
        default: u32,
    ) -> Result<u32, ArchitectureError> {
        if self.absent(field) { Ok(default) } else { self.count(field, max) }
    }

    /// A positive number below 1.
    pub(super) fn epsilon_or(&self, field: &'static str, default: f64) -> Result<f64, ArchitectureError> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => {
                let number = value.as_f64().filter(|number| *number > 0.0 && *number < 1.0);
                number.ok_or_else(|| refused(field, value, "a number between 0 and 1".into()))
            }
        }
    }

    pub(super) fn text_or(
        &self,
        field: &'static str,
        default: &'a str,
    ) -> Result<&'a str, ArchitectureError> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::String(text)) => Ok(text),
            Some(value) => Err(refused(field, value, "a text".into())),
        }
    }

    pub(super) fn activation_or(
        &self,
        field: &'static str,
        default: &'a str,
    ) -> Result<Activation, ArchitectureError> {
        let name = self.text_or(field, default)?;
        let known = Activation::NAMES.iter().find(|(known, _)| *known == name);
        known.map(|(_, activation)| *activation).ok_or_else(|| {
            let names: Vec<&str> = Activation::NAMES.iter().map(|(name, _)| *name).collect();
            refused(field, &Value::String(name.to_owned()), names.join(", "))
        })
    }

    /// Fails unless the field is absent or has that value: there is an implementation for no other.
    pub(super) fn only(&self, field: &'static str, supported: &Value) -> Result<(), ArchitectureError> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(()),
            Some(value) if value == supported => Ok(()),
            Some(value) => Err(refused(field, value, supported.to_string())),
        }
    }

    fn absent(&self, field: &str) -> bool {
        matches!(self.0.get(field), None | Some(Value::Null))
    }
}

/// An error about a field; long values are cut.
pub(super) fn refused(field: &'static str, value: &Value, expected: String) -> ArchitectureError {
    let found = match value {
        Value::Null => "missing".to_owned(),
        value => value.to_string().chars().take(80).collect(),
    };
    ArchitectureError::Field { field, found, expected }
}
