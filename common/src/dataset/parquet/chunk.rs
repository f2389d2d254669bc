//! One column of one row group: page after page, of which one is held, and cell after cell out of it.
//!
//! The crate's column reader pulls pages out of a queue that holds one at most. Where it finds the queue empty it gives
//! up with `NeedMoreData`, keeps what it has, and is called again once the next page is there.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::parquet::basic::{Compression as Codec, Encoding, Type as Physical};
use ::parquet::column::page::{Page, PageMetadata, PageReader};
use ::parquet::column::reader::ColumnReaderImpl;
use ::parquet::data_type::{ByteArray, ByteArrayType};
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::ColumnChunkMetaData;
use ::parquet::file::serialized_reader::SerializedPageReader;
use bytes::Bytes;

use super::super::lines::utf8;
use super::super::opener::{FileOpener, name_of};
use super::super::rows::Cell;
use super::super::source::SourceFile;
use super::super::{BadRow, DatasetError, ReadLimits, error::At};
use super::delta;
use super::leaf::Leaf;
use super::thrift::{self, PageHeader};
use crate::contained::contained;

/// The largest page, stored or unfolded. Pages are meant to have 1 MiB; writers that look at their size after every
/// thousand rows exceed it with long texts.
const PAGE_BYTES_MAX: usize = 256 << 20;

/// The longest page header: old writers put the largest text of a page there.
const HEADER_BYTES_MAX: usize = 16 << 20;

/// Items of lists in one page; each takes 32 bytes while its row is read.
const PAGE_ITEMS_MAX: usize = 4 << 20;

/// Read at first, and the most that is read ahead.
const FETCH_BYTES: (usize, usize) = (256 << 10, 8 << 20);

/// What a column is read from, and the row that is read.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) source: &'a SourceFile,
    pub(super) files: &'a dyn FileOpener,
    pub(super) row: u64,
}

impl Place<'_> {
    fn broken(self, reason: &str) -> DatasetError {
        broken(self.source, reason)
    }
}

fn broken(source: &SourceFile, reason: &str) -> DatasetError {
    DatasetError::BrokenParquet { file: name_of(source), reason: reason.chars().take(300).collect() }
}

/// A column of a row group.
pub(super) struct ChunkReader {
    leaf: Leaf,
    metadata: ColumnChunkMetaData,
    /// What is left of the column in the file.
    next: u64,
    end: u64,
    /// Bytes from `next` on that were read already.
    ahead: Bytes,
    fetch_bytes: usize,
    /// Values, nulls included, of the pages so far.
    n_values: u64,
    queue: Queue,
    reader: ColumnReaderImpl<ByteArrayType>,
    values: Vec<ByteArray>,
    definitions: Vec<i16>,
    repetitions: Vec<i16>,
}

impl ChunkReader {
    pub(super) fn open(
        source: &SourceFile,
        metadata: &ColumnChunkMetaData,
        leaf: &Leaf,
    ) -> Result<Self, DatasetError> {
        if metadata.file_path().is_some() {
            return Err(broken(source, "a column lies in another file"));
        }
        if metadata.column_descr().physical_type() != Physical::BYTE_ARRAY {
            return Err(broken(source, "a column has another type than its schema"));
        }
        if metadata.compression() == Codec::LZ4 {
            return Err(broken(source, "it uses the deprecated codec LZ4; write it with LZ4_RAW or zstd"));
        }
        let data = metadata.data_page_offset();
        let dictionary = metadata.dictionary_page_offset().filter(|place| (1..data).contains(place));
        let start = u64::try_from(dictionary.unwrap_or(data)).ok();
        let size = u64::try_from(metadata.compressed_size()).ok();
        let end = start.zip(size).and_then(|(start, size)| start.checked_add(size));
        let (Some(start), Some(end)) = (start, end.filter(|end| *end <= source.size)) else {
            return Err(broken(source, "a column lies outside the file"));
        };
        let queue = Queue::default();
        let reader = ColumnReaderImpl::new(metadata.column_descr_ptr(), Box::new(queue.clone()));
        Ok(Self {
            leaf: leaf.clone(),
            metadata: metadata.clone(),
            next: start,
            end,
            ahead: Bytes::new(),
            fetch_bytes: FETCH_BYTES.0,
            n_values: 0,
            queue,
            reader,
            values: Vec::new(),
            definitions: Vec::new(),
            repetitions: Vec::new(),
        })
    }

    /// The cell of the next row, or why it is unusable.
    pub(super) fn next_cell(
        &mut self,
        place: Place<'_>,
        limits: ReadLimits,
        n_unfolded: &mut u64,
    ) -> Result<Result<Cell, BadRow>, DatasetError> {
        self.values.clear();
        self.definitions.clear();
        self.repetitions.clear();
        loop {
            let outcome = contained(|| {
                self.reader.read_records(
                    1,
                    Some(&mut self.definitions),
                    Some(&mut self.repetitions),
                    &mut self.values,
                )
            });
            match outcome {
                Ok(Ok((1, ..))) => return Ok(self.cell(limits)),
                Ok(Ok(_)) => return Err(place.broken(&format!("a column ends before row {}", place.row))),
                Ok(Err(ParquetError::NeedMoreData(_))) => self.next_page(place, limits, n_unfolded)?,
                Ok(Err(error)) => return Err(place.broken(&error.to_string())),
                Err(said) => return Err(place.broken(&said)),
            }
            // A row of lists may go on over many pages.
            if self.n_bytes() > u64::from(limits.record_bytes_max) || self.values.len() > PAGE_ITEMS_MAX {
                return Err(DatasetError::RecordTooLong {
                    file: name_of(place.source),
                    at: At::Row(place.row),
                    limit: limits.record_bytes_max.into(),
                });
            }
        }
    }

    fn n_bytes(&self) -> u64 {
        self.values.iter().map(|value| value.len() as u64).sum()
    }

    fn cell(&self, limits: ReadLimits) -> Result<Cell, BadRow> {
        let (bytes, limit) = (self.n_bytes(), u64::from(limits.record_bytes_max));
        if bytes > limit {
            return Err(BadRow::TooLong { bytes, limit_name: "record_bytes_max", limit });
        }
        let text = |value: &ByteArray| utf8(value.data()).map(str::to_owned);
        let Some(lists) = self.leaf.lists else {
            return self.values.first().map_or(Ok(Cell::Blank), |value| text(value).map(Cell::Text));
        };
        if let [level] = self.definitions[..]
            && level < lists.list
        {
            return Ok(Cell::Blank);
        }
        let max = self.metadata.column_descr().max_def_level();
        let mut values = self.values.iter();
        let mut texts = Vec::with_capacity(self.values.len());
        for level in &self.definitions {
            if *level == max {
                texts.extend(values.next().map(text).transpose()?);
            } else if *level >= lists.item {
                texts.push(String::new());
            }
        }
        Ok(Cell::Texts(texts))
    }

    /// Puts the next page that holds something into the queue.
    fn next_page(
        &mut self,
        place: Place<'_>,
        limits: ReadLimits,
        n_unfolded: &mut u64,
    ) -> Result<(), DatasetError> {
        while !self.has_ended() {
            let header = self.header(place)?;
            let (stored, unfolded) = sizes(&header).ok_or_else(|| place.broken("a page is too large"))?;
            let length = header.length + stored;
            if length as u64 > self.end - self.next {
                return Err(place.broken("a page is longer than its column"));
            }
            *n_unfolded += unfolded as u64;
            if *n_unfolded > limits.decompressed_bytes_max {
                let limit = limits.decompressed_bytes_max;
                return Err(DatasetError::TooLarge { file: name_of(place.source), limit });
            }
            self.fetch(place, length)?;
            let bytes = self.ahead.split_to(length);
            self.next += length as u64;
            let n_values = header.n_values.unsigned_abs();
            let is_dictionary = header.kind == PageHeader::DICTIONARY;
            if header.kind == PageHeader::INDEX || (n_values == 0 && !is_dictionary) {
                continue;
            }
            // Room for a dictionary is made by what it claims: each of its strings has four bytes of length.
            if is_dictionary && n_values as usize > unfolded / 4 {
                return Err(place.broken("a dictionary claims too much"));
            }
            if !is_dictionary {
                self.n_values += u64::from(n_values);
                if self.leaf.lists.is_some() && n_values as usize > PAGE_ITEMS_MAX {
                    return Err(place.broken("a page has more than 4194304 items of lists"));
                }
            }
            let page = self.decode(&header, &bytes, unfolded).map_err(|reason| place.broken(&reason))?;
            let ended = self.has_ended();
            *self.queue.inner() = Waiting { page: Some(page), ended };
            return Ok(());
        }
        self.queue.inner().ended = true;
        Ok(())
    }

    /// Whether there are no more pages: what follows the last value is padding.
    fn has_ended(&self) -> bool {
        let n_values = u64::try_from(self.metadata.num_values()).unwrap_or(0);
        self.next >= self.end || self.n_values >= n_values
    }

    fn header(&mut self, place: Place<'_>) -> Result<PageHeader, DatasetError> {
        loop {
            match thrift::page_header(&self.ahead) {
                Ok(header) => return Ok(header),
                Err(thrift::TRUNCATED)
                    if self.ahead.len() < HEADER_BYTES_MAX
                        && (self.ahead.len() as u64) < self.end - self.next =>
                {
                    self.fetch(place, self.ahead.len() + 1)?;
                }
                Err(thrift::Fault(reason)) => return Err(place.broken(reason)),
            }
        }
    }

    /// Reads until at least `n_wanted` bytes from `next` on are there; the column has as many.
    fn fetch(&mut self, place: Place<'_>, n_wanted: usize) -> Result<(), DatasetError> {
        let n_there = self.ahead.len();
        let Some(n_missing) = n_wanted.checked_sub(n_there).filter(|missing| *missing > 0) else {
            return Ok(());
        };
        let n_left = self.end - self.next - n_there as u64;
        let n_read = (n_missing.max(self.fetch_bytes) as u64).min(n_left);
        self.fetch_bytes = (self.fetch_bytes * 2).min(FETCH_BYTES.1);
        let read = place.files.read_at(place.source, self.next + n_there as u64, n_read)?;
        if read.len() as u64 != n_read {
            return Err(place.broken("fewer bytes were read than it has"));
        }
        self.ahead = match n_there {
            0 => Bytes::from(read),
            _ => Bytes::from([&self.ahead[..], &read].concat()),
        };
        Ok(())
    }

    /// The page of `bytes`, header included, decompressed; `bytes` is all that the crate gets to see.
    fn decode(&self, header: &PageHeader, bytes: &Bytes, unfolded: usize) -> Result<Page, String> {
        let levels = if header.kind == PageHeader::DATA_V2 { header.levels_size } else { 0 };
        let levels = usize::try_from(levels).unwrap_or(usize::MAX);
        let stored = bytes[header.length..].get(levels..).ok_or("a page is shorter than its levels")?;
        if !header.is_stored {
            check_unfolding(self.metadata.compression(), stored, unfolded - levels)?;
        }
        let page = contained(|| {
            let alone = ColumnChunkMetaData::builder(self.metadata.column_descr_ptr())
                .set_compression(self.metadata.compression())
                .set_data_page_offset(0)
                .set_total_compressed_size(bytes.len() as i64)
                .build()?;
            SerializedPageReader::new(Arc::new(bytes.clone()), &alone, 0, None)?.get_next_page()
        });
        let page = page?.map_err(|error| error.to_string())?.ok_or("a page is missing")?;
        self.check_delta(&page)?;
        Ok(page)
    }

    /// Refuses a delta encoding that claims more lengths than the page has values.
    fn check_delta(&self, page: &Page) -> Result<(), String> {
        let n_runs = match page.encoding() {
            Encoding::DELTA_LENGTH_BYTE_ARRAY => 1,
            Encoding::DELTA_BYTE_ARRAY => 2,
            _ => return Ok(()),
        };
        let descriptor = self.metadata.column_descr();
        let buffer = &page.buffer()[..];
        let values = match page {
            Page::DataPageV2 { def_levels_byte_len, rep_levels_byte_len, .. } => {
                buffer.get(*def_levels_byte_len as usize + *rep_levels_byte_len as usize..)
            }
            Page::DataPage { .. } | Page::DictionaryPage { .. } => {
                let n_levels =
                    usize::from(descriptor.max_rep_level() > 0) + usize::from(descriptor.max_def_level() > 0);
                (0..n_levels).try_fold(buffer, |rest, _| {
                    let (length, rest) = rest.split_first_chunk::<4>()?;
                    rest.get(u32::from_le_bytes(*length) as usize..)
                })
            }
        };
        let fits = values.is_some_and(|values| delta::claims_fit(values, n_runs, page.num_values().into()));
        if fits { Ok(()) } else { Err("a page claims more lengths than it has values".to_owned()) }
    }
}

/// Stored and unfolded size of a page, where both are within bounds.
fn sizes(header: &PageHeader) -> Option<(usize, usize)> {
    let size = |size: i32| usize::try_from(size).ok().filter(|size| *size <= PAGE_BYTES_MAX);
    Some((size(header.stored_size)?, size(header.unfolded_size)?))
}

/// Refuses what would unfold to another size than the page says, for the codecs that do not look at it.
fn check_unfolding(codec: Codec, stored: &[u8], unfolded: usize) -> Result<(), String> {
    match codec {
        Codec::GZIP(_) => unfolds_to(flate2::read::MultiGzDecoder::new(stored), unfolded),
        Codec::BROTLI(_) => unfolds_to(brotli::Decompressor::new(stored, 4096), unfolded),
        _ => Ok(()),
    }
}

fn unfolds_to(reader: impl Read, size: usize) -> Result<(), String> {
    // A page of nulls alone has no data, compressed or not.
    if size == 0 {
        return Ok(());
    }
    let unfolded = io::copy(&mut reader.take(size as u64 + 1), &mut io::sink());
    match unfolded {
        Ok(unfolded) if unfolded == size as u64 => Ok(()),
        Ok(_) => Err("a page unfolds to another size than it says".to_owned()),
        Err(error) => Err(format!("a page does not decompress: {error}")),
    }
}

/// The page that comes next, between the one who fetches it and the crate's reader.
#[derive(Clone, Default)]
struct Queue(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    page: Option<Page>,
    /// Whether no page follows this one.
    ended: bool,
}

impl Queue {
    fn inner(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Iterator for Queue {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Queue {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        let mut waiting = self.inner();
        match waiting.page.take() {
            None if !waiting.ended => Err(ParquetError::NeedMoreData(1)),
            page => Ok(page),
        }
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        Err(ParquetError::NYI("pages are not looked ahead at".to_owned()))
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        self.get_next_page().map(drop)
    }

    fn at_record_boundary(&mut self) -> Result<bool, ParquetError> {
        Ok(self.inner().ended)
    }
}
