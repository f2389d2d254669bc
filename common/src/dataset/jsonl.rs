//! `.jsonl`: one JSON object a line; one field holds a text or a list of texts.
//!
//! Only the field that is wanted is kept; the rest of a record is checked and passed over, so that a record takes
//! no more memory than its line.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::column::{self, Column};
use super::lines::utf8;
use super::reader::{Content, Row};
use super::stream::{ByteStream, Line};
use super::{BadRow, DatasetError, ReadLimits};

/// The records of a JSON lines file.
pub(super) struct Jsonl {
    stream: ByteStream,
    limits: ReadLimits,
    /// The column asked for, or chosen at the first usable record.
    column: Option<String>,
    line: Vec<u8>,
    n_read: u64,
}

impl Jsonl {
    pub(super) fn new(stream: ByteStream, column: Option<&str>, limits: ReadLimits) -> Self {
        Self { stream, limits, column: column.map(str::to_owned), line: Vec::new(), n_read: 0 }
    }

    pub(super) fn stream_mut(&mut self) -> &mut ByteStream {
        &mut self.stream
    }

    pub(super) fn column(&self) -> Option<&str> {
        self.column.as_deref()
    }

    pub(super) fn next_row(&mut self) -> Result<Option<Row>, DatasetError> {
        let record_bytes_max = self.limits.record_bytes_max;
        let Some(read) = self.stream.read_line(&mut self.line, record_bytes_max as usize)? else {
            return Ok(None);
        };
        self.n_read += 1;
        let content = match read {
            Line::TooLong(bytes) => Content::Bad(BadRow::TooLong {
                bytes,
                limit_name: "record_bytes_max",
                limit: record_bytes_max.into(),
            }),
            Line::Whole => self.content()?,
        };
        Ok(Some(Row { row: self.n_read - 1, line: self.n_read, content }))
    }

    fn content(&mut self) -> Result<Content, DatasetError> {
        let text = match utf8(&self.line) {
            Ok(text) if text.trim().is_empty() => return Ok(Content::One(String::new())),
            Ok(text) => text,
            Err(reason) => return Ok(Content::Bad(reason)),
        };
        if !text.trim_start().starts_with('{') {
            let valid = serde_json::from_str::<IgnoredAny>(text);
            return Ok(Content::Bad(valid.map_or_else(not_json, |_| BadRow::NotAnObject)));
        }
        if self.column.is_none() {
            let columns = match parse(text, None) {
                Ok(parsed) => parsed.columns,
                Err(error) => return Ok(Content::Bad(not_json(error))),
            };
            self.column = match column::choose(self.stream.path(), None, &columns) {
                Err(DatasetError::NoColumn { columns, .. }) => {
                    return Ok(Content::Bad(BadRow::NoTextField { columns }));
                }
                chosen => Some(chosen?),
            };
        }
        let column = self.column.as_deref().expect("chosen above");
        let parsed = match parse(text, Some(column)) {
            Ok(parsed) => parsed,
            Err(error) => return Ok(Content::Bad(not_json(error))),
        };
        Ok(match parsed.cell {
            Some(Cell::Text(text)) => Content::One(text),
            Some(Cell::Texts(texts)) => Content::Many(texts),
            Some(Cell::Other) => Content::Bad(BadRow::NotAString { column: column.to_owned() }),
            None => Content::Bad(BadRow::MissingField {
                column: column.to_owned(),
                columns: column::listing(parsed.columns.iter().map(|column| column.name.as_str())),
            }),
        })
    }
}

fn not_json(error: serde_json::Error) -> BadRow {
    // A record is one line: "at line 1" says nothing, the column does.
    BadRow::NotJson { reason: error.to_string().replace("line 1 column", "column") }
}

/// The fields of a record, and the value of the one that is wanted.
struct Parsed {
    columns: Vec<Column>,
    cell: Option<Cell>,
}

fn parse(text: &str, wanted: Option<&str>) -> Result<Parsed, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let parsed = RecordSeed { wanted }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(parsed)
}

struct RecordSeed<'a> {
    wanted: Option<&'a str>,
}

impl<'de> DeserializeSeed<'de> for RecordSeed<'_> {
    type Value = Parsed;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Parsed, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RecordSeed<'_> {
    type Value = Parsed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parsed, A::Error> {
        let mut parsed = Parsed { columns: Vec::new(), cell: None };
        while let Some(name) = map.next_key::<String>()? {
            let is_text = match self.wanted {
                Some(wanted) if wanted != name => {
                    map.next_value::<IgnoredAny>()?;
                    false
                }
                Some(_) => {
                    parsed.cell = Some(map.next_value_seed(CellSeed)?);
                    true
                }
                None => !matches!(map.next_value_seed(CellSeed)?, Cell::Other),
            };
            parsed.columns.push(Column { name, is_text });
        }
        Ok(parsed)
    }
}

/// The value of a field.
enum Cell {
    Text(String),
    Texts(Vec<String>),
    Other,
}

struct CellSeed;

impl<'de> DeserializeSeed<'de> for CellSeed {
    type Value = Cell;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cell, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for CellSeed {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Cell, E> {
        Ok(Cell::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Cell, E> {
        Ok(Cell::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Cell, A::Error> {
        let mut texts = Vec::new();
        let mut all_texts = true;
        while let Some(cell) = seq.next_element_seed(CellSeed)? {
            match cell {
                Cell::Text(text) if all_texts => texts.push(text),
                _ => all_texts = false,
            }
        }
        Ok(if all_texts { Cell::Texts(texts) } else { Cell::Other })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cell, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Cell::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Cell, E> {
        Ok(Cell::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Cell, E> {
        Ok(Cell::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Cell, E> {
        Ok(Cell::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Cell, E> {
        Ok(Cell::Other)
    }

    fn visit_unit<E>(self) -> Result<Cell, E> {
        Ok(Cell::Other)
    }
}
