//! `.jsonl`, and what holds records of JSON in general: objects, one after the other.

use super::error::At;
use super::json::JsonArray;
use super::lines::utf8;
use super::record::{self, Field};
use super::rows::{Content, Row};
use super::source::Columns;
use super::stream::{ByteStream, Line};
use super::{BadRow, DatasetError, ReadLimits};

/// The records of a JSON file.
pub(super) struct JsonRecords {
    source: Source,
    record_bytes_max: u32,
    /// None where the first records do not say which columns hold texts.
    columns: Option<Columns>,
    record: Vec<u8>,
    n_read: u64,
}

/// What the records come out of.
enum Source {
    /// One a line.
    Lines(ByteStream),
    /// The items of an array.
    Array(JsonArray),
}

impl JsonRecords {
    pub(super) fn lines(stream: ByteStream, columns: Option<&Columns>, limits: ReadLimits) -> Self {
        Self::new(Source::Lines(stream), columns, limits)
    }

    pub(super) fn array(array: JsonArray, columns: Option<&Columns>, limits: ReadLimits) -> Self {
        Self::new(Source::Array(array), columns, limits)
    }

    fn new(source: Source, columns: Option<&Columns>, limits: ReadLimits) -> Self {
        let record_bytes_max = limits.record_bytes_max;
        Self { source, record_bytes_max, columns: columns.cloned(), record: Vec::new(), n_read: 0 }
    }

    pub(super) fn stream_mut(&mut self) -> &mut ByteStream {
        match &mut self.source {
            Source::Lines(stream) => stream,
            Source::Array(array) => array.stream_mut(),
        }
    }

    pub(super) fn next_row(&mut self) -> Result<Option<Row>, DatasetError> {
        let Some((at, read)) = self.next_record()? else {
            return Ok(None);
        };
        let content = match read {
            Line::TooLong(bytes) => Content::Bad(BadRow::TooLong {
                bytes,
                limit_name: "record_bytes_max",
                limit: self.record_bytes_max.into(),
            }),
            Line::Whole => record::content(&self.record, self.columns.as_ref()),
        };
        Ok(Some(Row { row: self.n_read - 1, at, content }))
    }

    /// All fields of the next record; nothing where it is unusable.
    pub(super) fn next_fields(&mut self) -> Result<Option<Vec<Field>>, DatasetError> {
        Ok(self.next_record()?.map(|(_, read)| {
            let text = if read == Line::Whole { utf8(&self.record).ok() } else { None };
            text.and_then(|text| record::fields(text, None).ok()).unwrap_or_default()
        }))
    }

    fn next_record(&mut self) -> Result<Option<(At, Line)>, DatasetError> {
        let bytes_max = self.record_bytes_max as usize;
        let read = match &mut self.source {
            Source::Lines(stream) => {
                stream.read_line(&mut self.record, bytes_max)?.map(|line| (At::Line(self.n_read + 1), line))
            }
            Source::Array(array) => array.next_item(&mut self.record, bytes_max)?,
        };
        self.n_read += u64::from(read.is_some());
        Ok(read)
    }
}
