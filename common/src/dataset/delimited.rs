//! `.csv` and `.tsv`: a header row, then records; quotes as in RFC 4180, in both.

use std::io::{self, Read};

use ::csv::{ByteRecord, ErrorKind, ReaderBuilder};

use super::column::{self, Column};
use super::error::At;
use super::lines::utf8;
use super::opener::name_of;
use super::rows::{Cell, Content, Row};
use super::source::{Columns, SourceFile};
use super::stream::ByteStream;
use super::{BadRow, DatasetError, ReadLimits};

/// What the csv reader reads ahead.
const BUFFER_BYTES: usize = 8 << 10;

/// The records of a delimited file.
pub(super) struct Delimited {
    reader: ::csv::Reader<Metered>,
    limits: ReadLimits,
    header: Vec<Column>,
    /// Places of the wanted columns in a record.
    places: Vec<usize>,
    record: ByteRecord,
    n_read: u64,
}

impl Delimited {
    /// Reads the header and finds the columns in it.
    pub(super) fn open(
        stream: ByteStream,
        delimiter: u8,
        source: &SourceFile,
        wanted: Option<&Columns>,
        limits: ReadLimits,
    ) -> Result<Self, DatasetError> {
        let metered = Metered { stream, budget: 0 };
        let mut builder = ReaderBuilder::new();
        builder.delimiter(delimiter).has_headers(false).flexible(true).buffer_capacity(BUFFER_BYTES);
        let mut this = Self {
            reader: builder.from_reader(metered),
            limits,
            header: Vec::new(),
            places: Vec::new(),
            record: ByteRecord::new(),
            n_read: 0,
        };
        if this.read_record()? {
            this.take_header(source)?;
            let names = wanted.map(|wanted| column::present(source, wanted, &this.header)).transpose()?;
            for name in names.unwrap_or_default() {
                this.places.push(this.place(source, &name)?);
            }
        }
        Ok(this)
    }

    pub(super) fn stream_mut(&mut self) -> &mut ByteStream {
        &mut self.reader.get_mut().stream
    }

    /// The columns that there are; none in an empty file.
    pub(super) fn header(&self) -> &[Column] {
        &self.header
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
        } else if self.record.len() != self.header.len() {
            Content::Bad(BadRow::FieldCount { found: self.record.len(), expected: self.header.len() })
        } else {
            let cell = |place: &usize| utf8(&self.record[*place]).map(|text| Cell::Text(text.to_owned()));
            let cells: Result<Vec<Cell>, BadRow> = self.places.iter().map(cell).collect();
            cells.map_or_else(Content::Bad, Content::Cells)
        };
        Ok(Some(Row { row: self.n_read - 1, at: At::Line(line), content }))
    }

    fn take_header(&mut self, source: &SourceFile) -> Result<(), DatasetError> {
        for field in &self.record {
            let name = utf8(field).map_err(|reason| DatasetError::Row {
                file: name_of(source),
                at: At::Line(1),
                reason,
            })?;
            self.header.push(Column { name: name.to_owned(), is_text: true });
        }
        Ok(())
    }

    fn place(&self, source: &SourceFile, name: &str) -> Result<usize, DatasetError> {
        let mut places = self.header.iter().enumerate().filter(|(_, column)| column.name == name);
        match (places.next(), places.next()) {
            (Some((place, _)), None) => Ok(place),
            _ => {
                let columns = column::listing(self.header.iter().map(|column| column.name.as_str()));
                Err(DatasetError::AmbiguousColumn { file: name_of(source), columns })
            }
        }
    }

    fn read_record(&mut self) -> Result<bool, DatasetError> {
        let line = self.reader.position().line();
        self.reader.get_mut().budget = u64::from(self.limits.record_bytes_max) + BUFFER_BYTES as u64;
        self.reader.read_byte_record(&mut self.record).map_err(|error| {
            let stream = &self.reader.get_ref().stream;
            let source = match error.into_kind() {
                ErrorKind::Io(source) => source,
                other => io::Error::other(format!("{other:?}")),
            };
            if source.get_ref().is_some_and(|inner| inner.is::<BudgetSpent>()) {
                let limit = self.limits.record_bytes_max.into();
                return DatasetError::RecordTooLong { file: stream.name(), at: At::Line(line), limit };
            }
            stream.typed(source)
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
