//! The rows of a file of any format, and the choice of its columns.

use std::collections::HashMap;

use super::column::{self, Column, Lengths};
use super::delimited::Delimited;
use super::error::At;
use super::json::Json;
use super::jsonl::JsonRecords;
use super::lines::Lines;
use super::opener::FileOpener;
use super::parquet::ParquetRows;
use super::record::Value;
use super::source::{Columns, Place, SourceFile};
use super::stream::ByteStream;
use super::{BadRow, DatasetError, Format, ReadLimits};
use crate::hub::ContentId;

/// Records that the choice of columns looks at.
const LOOKED_AT: usize = 100;

/// Columns that it looks at: a record may have a field for each of its bytes.
const COLUMNS_MAX: usize = 10_000;

/// A row of a file.
pub(super) struct Row {
    /// Line (`.txt`, `.jsonl`), record after the header (`.csv`, `.tsv`), item or row, from 0.
    pub(super) row: u64,
    /// Where it is, for messages.
    pub(super) at: At,
    pub(super) content: Content,
}

/// What a row holds.
pub(super) enum Content {
    /// A cell for each column that is wanted, in order.
    Cells(Vec<Cell>),
    /// Nothing usable.
    Bad(BadRow),
}

/// What a column holds in a row.
pub(super) enum Cell {
    /// Nothing: `null`.
    Blank,
    /// One text.
    Text(String),
    /// A list of texts.
    Texts(Vec<String>),
}

impl Cell {
    pub(super) fn texts(self) -> Vec<String> {
        match self {
            Self::Blank => vec![String::new()],
            Self::Text(text) => vec![text],
            Self::Texts(texts) => texts,
        }
    }
}

/// The rows of a file.
pub(super) enum Rows<'a> {
    Lines(Lines),
    Records(JsonRecords),
    Json(Box<Json>),
    Delimited(Box<Delimited>),
    Parquet(Box<ParquetRows<'a>>),
}

impl<'a> Rows<'a> {
    /// Opens `source` for its cells in `columns`; without columns, for its header or its fields.
    pub(super) fn open(
        source: &SourceFile,
        files: &'a dyn FileOpener,
        columns: Option<&Columns>,
        limits: ReadLimits,
    ) -> Result<Self, DatasetError> {
        let stream = || ByteStream::open(source, files, limits.decompressed_bytes_max);
        let delimited = |delimiter| {
            let opened = Delimited::open(stream()?, delimiter, source, columns, limits)?;
            Ok(Self::Delimited(Box::new(opened)))
        };
        match source.format {
            Format::Text => Ok(Self::Lines(Lines::new(stream()?, limits.text_bytes_max))),
            Format::Jsonl => Ok(Self::Records(JsonRecords::lines(stream()?, columns, limits))),
            Format::Json => Ok(Self::Json(Box::new(Json::open(source, files, columns, limits)?))),
            Format::Csv => delimited(b','),
            Format::Tsv => delimited(b'\t'),
            Format::Parquet => {
                Ok(Self::Parquet(Box::new(ParquetRows::open(source, files, columns, limits)?)))
            }
        }
    }

    pub(super) fn next_row(&mut self) -> Result<Option<Row>, DatasetError> {
        match self {
            Self::Lines(rows) => rows.next_row(),
            Self::Records(rows) => rows.next_row(),
            Self::Json(rows) => rows.next_row(),
            Self::Delimited(rows) => rows.next_row(),
            Self::Parquet(rows) => rows.next_row(),
        }
    }

    /// Says that no row before `row` is wanted any more. What can be passed over unread is; rows before it may still come.
    pub(super) fn skip_to(&mut self, row: u64) {
        match self {
            Self::Parquet(rows) => rows.skip_to(row),
            Self::Lines(_) | Self::Records(_) | Self::Json(_) | Self::Delimited(_) => {}
        }
    }

    /// Ends the reading, and tells what the file is, where that is known now.
    pub(super) fn finish(&mut self) -> Result<Option<ContentId>, DatasetError> {
        match self.stream_mut() {
            Some(stream) => stream.finish(),
            None => Ok(None),
        }
    }

    pub(super) fn had_bom(&mut self) -> bool {
        self.stream_mut().is_some_and(|stream| stream.had_bom())
    }

    pub(super) fn n_carriage_returns(&self) -> u64 {
        match self {
            Self::Lines(rows) => rows.n_carriage_returns(),
            Self::Records(_) | Self::Json(_) | Self::Delimited(_) | Self::Parquet(_) => 0,
        }
    }

    fn stream_mut(&mut self) -> Option<&mut ByteStream> {
        match self {
            Self::Lines(rows) => Some(rows.stream_mut()),
            Self::Records(rows) => Some(rows.stream_mut()),
            Self::Json(rows) => Some(rows.stream_mut()),
            Self::Delimited(rows) => Some(rows.stream_mut()),
            Self::Parquet(_) => None,
        }
    }

    /// The columns that the file says it has.
    fn header(&self) -> Option<&[Column]> {
        match self {
            Self::Lines(_) | Self::Records(_) => None,
            Self::Json(rows) => match rows.as_ref() {
                Json::Records(_) => None,
                Json::Columns(columns) => Some(columns.header()),
            },
            Self::Delimited(rows) => Some(rows.header()),
            Self::Parquet(rows) => Some(rows.header()),
        }
    }

    fn records_mut(&mut self) -> Option<&mut JsonRecords> {
        match self {
            Self::Records(rows) => Some(rows),
            Self::Json(rows) => match rows.as_mut() {
                Json::Records(rows) => Some(rows),
                Json::Columns(_) => None,
            },
            Self::Lines(_) | Self::Delimited(_) | Self::Parquet(_) => None,
        }
    }
}

/// The columns of `source` that hold its texts: those asked for, else what its header or its first records say.
///
/// None for `.txt`, and where a file has no record that says anything.
pub(super) fn choose_columns(
    source: &SourceFile,
    files: &dyn FileOpener,
    limits: ReadLimits,
) -> Result<Option<Columns>, DatasetError> {
    if source.format == Format::Text || source.columns.is_some() {
        return Ok(source.columns.clone());
    }
    let is_local = matches!(source.place, Place::Local { .. });
    let mut rows = Rows::open(source, files, None, limits)?;
    if let Some(records) = rows.records_mut() {
        return match is_local {
            true => choose_by_first_record(source, records),
            false => choose_by_records(source, records),
        };
    }
    let header = rows.header().unwrap_or_default();
    if header.is_empty() {
        return Ok(None);
    }
    if is_local {
        return column::choose_local(source, header).map(Some);
    }
    if let Some(known) = column::choose_known(header) {
        return Ok(Some(known));
    }
    let names = column::candidates(header);
    let mut measured: Vec<_> = names.iter().map(|name| (name.clone(), Lengths::default())).collect();
    if !names.is_empty() {
        let wanted = Columns { names, joined: false };
        let mut rows = Rows::open(source, files, Some(&wanted), limits)?;
        for _ in 0..LOOKED_AT {
            let Some(row) = rows.next_row()? else { break };
            let Content::Cells(cells) = row.content else { continue };
            for ((_, lengths), cell) in measured.iter_mut().zip(&cells) {
                lengths.add(cell);
            }
        }
    }
    column::choose_long(source, header, &measured).map(Some)
}

/// A local file's first record that has a text decides.
fn choose_by_first_record(
    source: &SourceFile,
    records: &mut JsonRecords,
) -> Result<Option<Columns>, DatasetError> {
    for _ in 0..LOOKED_AT {
        let Some(fields) = records.next_fields()? else { break };
        let columns: Vec<Column> = fields.iter().map(|field| field.column()).collect();
        if columns.iter().any(|column| column.is_text) {
            return column::choose_local(source, &columns).map(Some);
        }
    }
    Ok(None)
}

/// All of a hub file's first records decide together: columns in the order in which they appear first.
fn choose_by_records(
    source: &SourceFile,
    records: &mut JsonRecords,
) -> Result<Option<Columns>, DatasetError> {
    let mut columns: Vec<Column> = Vec::new();
    let mut measured: Vec<(String, Lengths)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for _ in 0..LOOKED_AT {
        let Some(fields) = records.next_fields()? else { break };
        for field in fields {
            let found = field.column();
            if columns.len() == COLUMNS_MAX && !places.contains_key(&found.name) {
                continue;
            }
            let place = *places.entry(found.name.clone()).or_insert(columns.len());
            if place == columns.len() {
                measured.push((found.name.clone(), Lengths::default()));
                columns.push(Column { name: found.name, is_text: false });
            }
            columns[place].is_text |= found.is_text;
            if let Some(Value::Cell(cell)) = &field.value {
                measured[place].1.add(cell);
            }
        }
    }
    if columns.is_empty() {
        return Ok(None);
    }
    if let Some(known) = column::choose_known(&columns) {
        return Ok(Some(known));
    }
    let candidates = column::candidates(&columns);
    measured.retain(|(name, _)| candidates.contains(name));
    column::choose_long(source, &columns, &measured).map(Some)
}
