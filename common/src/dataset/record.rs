//! One JSON object: the cells of the columns that are wanted.
//!
//! Only what is wanted is kept; the rest of a record is checked and passed over, so that a record takes no more
//! memory than its bytes.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::BadRow;
use super::column::{self, Column};
use super::lines::utf8;
use super::rows::{Cell, Content};
use super::source::Columns;

/// A field of a record.
pub(super) struct Field {
    pub(super) name: String,
    /// Its value, where that was wanted.
    pub(super) value: Option<Value>,
}

impl Field {
    /// The field as a column of the file.
    pub(super) fn column(&self) -> Column {
        let is_text = matches!(self.value, Some(Value::Cell(Cell::Text(_) | Cell::Texts(_))));
        Column { name: self.name.clone(), is_text }
    }
}

/// The value of a field.
pub(super) enum Value {
    /// A string, a list of strings or `null`.
    Cell(Cell),
    /// Anything else.
    Other,
}

/// What a record holds in `columns`. Without columns, none could be chosen, and every record is told apart as unusable.
pub(super) fn content(record: &[u8], columns: Option<&Columns>) -> Content {
    let text = match utf8(record) {
        Ok(text) if text.trim().is_empty() => return Content::Cells(vec![Cell::Blank]),
        Ok(text) => text,
        Err(reason) => return Content::Bad(reason),
    };
    let names = columns.map_or(&[][..], |columns| &columns.names);
    let mut fields = match fields(text, columns.map(|columns| &columns.names[..])) {
        Ok(fields) => fields,
        Err(reason) => return Content::Bad(reason),
    };
    let listing = |fields: &[Field]| column::listing(fields.iter().map(|field| field.name.as_str()));
    if names.is_empty() {
        return Content::Bad(BadRow::NoTextField { columns: listing(&fields) });
    }
    let mut cells: Vec<Cell> = names.iter().map(|_| Cell::Blank).collect();
    let mut is_empty = true;
    for field in &mut fields {
        let Some(place) = names.iter().position(|name| *name == field.name) else { continue };
        match field.value.take() {
            Some(Value::Cell(cell)) => cells[place] = cell,
            Some(Value::Other) => return Content::Bad(BadRow::NotAString { column: field.name.clone() }),
            None => {}
        }
        is_empty = false;
    }
    if is_empty {
        return Content::Bad(BadRow::MissingField { column: names[0].clone(), columns: listing(&fields) });
    }
    Content::Cells(cells)
}

/// The fields of a record, with the values of those that are `wanted`: none names all.
pub(super) fn fields(text: &str, wanted: Option<&[String]>) -> Result<Vec<Field>, BadRow> {
    if !text.trim_start().starts_with('{') {
        let valid = serde_json::from_str::<IgnoredAny>(text);
        return Err(valid.map_or_else(not_json, |_| BadRow::NotAnObject));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let fields = RecordSeed { wanted }.deserialize(&mut deserializer);
    fields.and_then(|fields| deserializer.end().map(|()| fields)).map_err(not_json)
}

/// One value by itself.
pub(super) fn value(bytes: &[u8]) -> Result<Value, BadRow> {
    let text = utf8(bytes)?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = ValueSeed.deserialize(&mut deserializer);
    value.and_then(|value| deserializer.end().map(|()| value)).map_err(not_json)
}

fn not_json(error: serde_json::Error) -> BadRow {
    // A record is most often one line: "at line 1" says nothing, the column does.
    BadRow::NotJson { reason: error.to_string().replace("line 1 column", "column") }
}

struct RecordSeed<'a> {
    wanted: Option<&'a [String]>,
}

impl<'de> DeserializeSeed<'de> for RecordSeed<'_> {
    type Value = Vec<Field>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Field>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RecordSeed<'_> {
    type Value = Vec<Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Field>, A::Error> {
        let mut fields = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = if self.wanted.is_none_or(|wanted| wanted.contains(&name)) {
                Some(map.next_value_seed(ValueSeed)?)
            } else {
                map.next_value::<IgnoredAny>()?;
                None
            };
            fields.push(Field { name, value });
        }
        Ok(fields)
    }
}

struct ValueSeed;

impl<'de> DeserializeSeed<'de> for ValueSeed {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Cell(Cell::Text(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Cell(Cell::Text(text)))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Cell(Cell::Blank))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut texts = Vec::new();
        let mut all_texts = true;
        while let Some(value) = seq.next_element_seed(ValueSeed)? {
            match value {
                Value::Cell(Cell::Text(text)) if all_texts => texts.push(text),
                Value::Cell(Cell::Blank) if all_texts => texts.push(String::new()),
                _ => all_texts = false,
            }
        }
        Ok(if all_texts { Value::Cell(Cell::Texts(texts)) } else { Value::Other })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Other)
    }
}
