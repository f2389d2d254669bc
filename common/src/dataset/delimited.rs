//! `.csv` and `.tsv`: a header row, then records; quotes as in RFC 4180, in both.

use std::io::{self, Read};

use ::csv::{ByteRecord, ErrorKind, ReaderBuilder};

use super::column::{self, Column};
use super::lines::utf8;
use super::reader::{Content, Row};
use super::stream::ByteStream;
use super::{BadRow, DatasetError, ReadLimits};

/// What the csv reader reads ahead.
const BUFFER_BYTES: usize = 8 << 10;

/// The records of a delimited file.
pub(super) struct Delimited {
    reader: ::csv::Reader<Metered>,
    limits: ReadLimits,
    column: Option<String>,
    column_idx: usize,
    n_columns: usize,
    record: ByteRecord,
    n_read: u64,
}

impl Delimited {
    /// Reads the header and finds the column in it.
    pub(super) fn new(
        stream: ByteStream,
        delimiter: u8,
        asked: Option<&str>,
        limits: ReadLimits,
    ) -> Result<Self, DatasetError> {
        let metered = Metered { stream, budget: 0 };
        let mut builder = ReaderBuilder::new();
        builder.delimiter(delimiter).has_headers(false).flexible(true).buffer_capacity(BUFFER_BYTES);
        let mut this = Self {
            reader: builder.from_reader(metered),
            limits,
            column: None,
            column_idx: 0,
            n_columns: 0,
            record: ByteRecord::new(),
            n_read: 0,
        };
        if this.read_record()? {
            this.take_header(asked)?;
        }
        Ok(this)
    }

    pub(super) fn stream_mut(&mut self) -> &mut ByteStream {
        &mut self.reader.get_mut().stream
    }

    pub(super) fn column(&self) -> Option<&str> {
        self.column.as_deref()
    }

    pub(super) fn next_row(&mut self) -> Result<Option<Row>, DatasetError> {
        if !self.read_record()? {
            return Ok(None);
        }
        let line = self.record.position().map_or(0, ::csv::Position::line);
        self.n_read += 1;
        let bytes = self.record.as_slice().len() as u64;
        let limit = u64::from(self.limits.record_bytes_max);
        let content = if bytes > limit {
            Content::Bad(BadRow::TooLong { bytes, limit_name: "record_bytes_max", limit })
        } else if self.record.len() != self.n_columns {
            Content::Bad(BadRow::FieldCount { found: self.record.len(), expected: self.n_columns })
        } else {
            utf8(&self.record[self.column_idx])
                .map_or_else(Content::Bad, |text| Content::One(text.to_owned()))
        };
        Ok(Some(Row { row: self.n_read - 1, line, content }))
    }

    fn take_header(&mut self, asked: Option<&str>) -> Result<(), DatasetError> {
        let path = self.reader.get_ref().stream.path().to_owned();
        let mut columns = Vec::new();
        for field in &self.record {
            let name =
                utf8(field).map_err(|reason| DatasetError::Row { path: path.clone(), line: 1, reason })?;
            columns.push(Column { name: name.to_owned(), is_text: true });
        }
        let chosen = column::choose(&path, asked, &columns)?;
        let mut places = columns.iter().enumerate().filter(|(_, column)| column.name == chosen);
        let (Some((column_idx, _)), None) = (places.next(), places.next()) else {
            let columns = column::listing(columns.iter().map(|column| column.name.as_str()));
            return Err(DatasetError::AmbiguousColumn { path, columns });
        };
        self.column_idx = column_idx;
        self.n_columns = columns.len();
        self.column = Some(chosen);
        Ok(())
    }

    fn read_record(&mut self) -> Result<bool, DatasetError> {
        let line = self.reader.position().line();
        self.reader.get_mut().budget = u64::from(self.limits.record_bytes_max) + BUFFER_BYTES as u64;
        self.reader.read_byte_record(&mut self.record).map_err(|error| {
            let path = self.reader.get_ref().stream.path().to_owned();
            let source = match error.into_kind() {
                ErrorKind::Io(source) => source,
                other => io::Error::other(format!("{other:?}")),
            };
            if source.get_ref().is_some_and(|inner| inner.is::<BudgetSpent>()) {
                return DatasetError::RecordTooLong {
                    path,
                    line,
                    limit: self.limits.record_bytes_max.into(),
                };
            }
            self.reader.get_ref().stream.typed(source)
        })
    }
}

/// A stream that gives only so many bytes for one record: an open quote would swallow the rest of the file.
struct Metered {
    stream: ByteStream,
    budget: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("the record is too long")]
struct BudgetSpent;

impl Read for Metered {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n_read = self.stream.read(out)?;
        let Some(left) = self.budget.checked_sub(n_read as u64) else {
            return Err(io::Error::other(BudgetSpent));
        };
        self.budget = left;
        Ok(n_read)
    }
}
