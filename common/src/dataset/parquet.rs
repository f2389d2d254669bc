//! `.parquet`: the footer, then only the pages of the wanted columns, row group after row group.
//!
//! Nothing that a file claims is believed before it is compared with what is there: sizes bound what is held in
//! memory, and the crate's decoders, which assert here and there, run contained.

mod chunk;
mod delta;
mod footer;
mod leaf;
mod thrift;

use ::parquet::file::metadata::ParquetMetaData;

use self::chunk::ChunkReader;
use self::leaf::Leaf;
use super::column::{self, Column};
use super::error::At;
use super::opener::{FileOpener, name_of};
use super::rows::{Content, Row};
use super::source::{Columns, SourceFile};
use super::{DatasetError, ReadLimits};

/// The rows of a Parquet file.
pub(super) struct ParquetRows<'a> {
    source: SourceFile,
    files: &'a dyn FileOpener,
    limits: ReadLimits,
    metadata: ParquetMetaData,
    header: Vec<Column>,
    wanted: Vec<Leaf>,
    /// The row group that is read, or comes next.
    group_idx: usize,
    /// The wanted columns of the row group that is read; empty between row groups.
    chunks: Vec<ChunkReader>,
    /// The row that comes next.
    row: u64,
    /// The first row behind the row group that is read.
    group_end: u64,
    /// No row before it is wanted.
    first_wanted: u64,
    /// What all pages so far unfolded to.
    n_unfolded: u64,
}

/// How many rows `source` has.
pub(super) fn n_rows(source: &SourceFile, files: &dyn FileOpener) -> Result<u64, DatasetError> {
    let metadata = footer::read(source, files)?;
    Ok(metadata.row_groups().iter().map(|group| group.num_rows().unsigned_abs()).sum())
}

impl<'a> ParquetRows<'a> {
    /// Reads the footer and finds the columns in it.
    pub(super) fn open(
        source: &SourceFile,
        files: &'a dyn FileOpener,
        wanted: Option<&Columns>,
        limits: ReadLimits,
    ) -> Result<Self, DatasetError> {
        let metadata = footer::read(source, files)?;
        let leaves = leaf::leaves(metadata.file_metadata().schema_descr().root_schema());
        let header: Vec<Column> = leaves.iter().filter(|leaf| !leaf.is_null).map(Leaf::column).collect();
        let mut chosen = Vec::new();
        let names = wanted.map(|wanted| column::present(source, wanted, &header)).transpose()?;
        for name in names.unwrap_or_default() {
            let mut found = leaves.iter().filter(|leaf| leaf.name == name);
            match (found.next(), found.next()) {
                (Some(leaf), None) if leaf.is_readable => chosen.push(leaf.clone()),
                (Some(_), None) => {
                    return Err(DatasetError::NotTextColumn { file: name_of(source), column: name });
                }
                _ => {
                    let columns = column::listing(header.iter().map(|column| column.name.as_str()));
                    return Err(DatasetError::AmbiguousColumn { file: name_of(source), columns });
                }
            }
        }
        Ok(Self {
            source: source.clone(),
            files,
            limits,
            metadata,
            header,
            wanted: chosen,
            group_idx: 0,
            chunks: Vec::new(),
            row: 0,
            group_end: 0,
            first_wanted: 0,
            n_unfolded: 0,
        })
    }

    /// The columns that there are, without those that hold nothing but nulls.
    pub(super) fn header(&self) -> &[Column] {
        &self.header
    }

    /// Row groups that end before `row` are passed over unread.
    pub(super) fn skip_to(&mut self, row: u64) {
        self.first_wanted = row;
    }

    pub(super) fn next_row(&mut self) -> Result<Option<Row>, DatasetError> {
        if self.wanted.is_empty() || !self.enter_group()? {
            return Ok(None);
        }
        let mut cells = Vec::with_capacity(self.chunks.len());
        let mut bad = None;
        for chunk in &mut self.chunks {
            let place = chunk::Place { source: &self.source, files: self.files, row: self.row };
            match chunk.next_cell(place, self.limits, &mut self.n_unfolded)? {
                Ok(cell) => cells.push(cell),
                Err(reason) => bad = Some(reason),
            }
        }
        let row = self.row;
        self.row += 1;
        let content = bad.map_or(Content::Cells(cells), Content::Bad);
        Ok(Some(Row { row, at: At::Row(row), content }))
    }

    /// Opens the columns of the next row group that has wanted rows, unless one is open; false at the end of the file.
    fn enter_group(&mut self) -> Result<bool, DatasetError> {
        while self.row == self.group_end || self.chunks.is_empty() {
            self.chunks.clear();
            let Some(group) = self.metadata.row_groups().get(self.group_idx) else {
                return Ok(false);
            };
            self.group_idx += 1;
            self.group_end = self.row + group.num_rows().unsigned_abs();
            if self.group_end <= self.first_wanted {
                self.row = self.group_end;
            }
            if self.row < self.group_end {
                for leaf in &self.wanted {
                    self.chunks.push(ChunkReader::open(&self.source, group.column(leaf.place), leaf)?);
                }
            }
        }
        Ok(true)
    }
}
