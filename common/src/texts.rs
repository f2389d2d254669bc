//! The stored form of prepared texts: Parquet parts that any tool can open.
//!
//! A part holds at most [`PART_ROWS_MAX`] texts in one row group of four columns: `file` (int32, its place in the plan),
//! `row` (int64, where the text stood in the file), `column` (int32, its place among the columns read) and `text` (utf8).
//! The metadata says what the files are and which columns of them were read. Equal input gives equal bytes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::column::reader::ColumnReader;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader, RowGroupReader};
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use serde::{Deserialize, Serialize};

use crate::dataset::{Columns, Place, SourceFile};
use crate::hub::ContentId;

/// The most texts in one part.
pub const PART_ROWS_MAX: usize = 16_384;

const SCHEMA: &str = "message texts {
    required int32 file; required int64 row; required int32 column; required binary text (UTF8);
}";
const CREATED_BY: &str = "lsa texts v2";
const FILES_KEY: &str = "lsa.files";

/// A text and where it stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// Place of its file in the plan.
    pub file: u32,
    /// Line (`.txt`, `.jsonl`), record after the header (`.csv`, `.tsv`), item of an array (`.json`) or row (`.parquet`),
    /// from 0. Texts of one list share their row.
    pub row: u64,
    /// Place of its column among those that were read of the file; 0 where they were joined.
    pub column: u16,
    /// The text itself.
    pub text: String,
}

/// A file that texts of a part come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOrigin {
    /// Its place in the plan.
    pub file: u32,
    /// What its bytes are.
    pub content: ContentId,
    /// Where it lies on the hub. A local path says nothing elsewhere, and is left out.
    pub name: Option<String>,
    /// The columns that were read, where it has columns.
    pub columns: Option<Columns>,
}

impl FileOrigin {
    /// The origin of texts out of file number `file` of a plan, of which `columns` are read; none of a file that nobody
    /// has pinned.
    pub fn new(file: u32, source: &SourceFile, columns: Option<&Columns>) -> Option<Self> {
        let name = match &source.place {
            Place::Local { .. } => None,
            Place::Hub { repo, commit, path } => Some(format!("{repo}@{commit}/{path}")),
        };
        Some(Self { file, content: source.content.clone()?, name, columns: columns.cloned() })
    }
}

/// Why bytes are no part, or texts cannot become one.
#[derive(Debug, thiserror::Error)]
pub enum TextsError {
    /// More rows than a part may hold.
    #[error("{n_rows} texts are more than the {PART_ROWS_MAX} that a part holds")]
    TooManyRows {
        /// How many were given.
        n_rows: usize,
    },
    /// A row number that int64 cannot hold.
    #[error("row {row} does not fit an int64")]
    RowTooLarge {
        /// The row.
        row: u64,
    },
    /// A text of a file that is not among the origins.
    #[error("file {file} has no origin")]
    NoOrigin {
        /// The file's place in the plan.
        file: u32,
    },
    /// The Parquet writer failed.
    #[error("the texts could not be written as parquet")]
    Write(#[source] ParquetError),
    /// The Parquet reader failed.
    #[error("the part is not readable parquet; the object is damaged")]
    Read(#[source] ParquetError),
    /// The Parquet reader gave up in disorder.
    #[error("the part is not readable parquet: {0}; the object is damaged")]
    Broken(String),
    /// Readable, but not what this module writes.
    #[error("the part is not one of lsa's: {0}")]
    Foreign(String),
    /// Rows that the part does not have.
    #[error("rows {} to {} are wanted of a part of {n_rows}", range.start, range.end)]
    OutOfRange {
        /// The rows wanted.
        range: Range<usize>,
        /// The rows there are.
        n_rows: usize,
    },
}

/// The bytes of a part; `texts` are its rows in order. Of the `origins` those are kept whose texts are in it.
pub fn encode_part(texts: &[Text], origins: &[FileOrigin]) -> Result<Bytes, TextsError> {
    if texts.len() > PART_ROWS_MAX {
        return Err(TextsError::TooManyRows { n_rows: texts.len() });
    }
    let mut kept: BTreeMap<u32, &FileOrigin> = BTreeMap::new();
    let mut columns = Columnar::default();
    for Text { file, row, column, text } in texts {
        if !kept.contains_key(file) {
            let origin = origins.iter().find(|origin| origin.file == *file);
            kept.insert(*file, origin.ok_or(TextsError::NoOrigin { file: *file })?);
        }
        columns.files.push(i32::try_from(*file).map_err(|_| TextsError::NoOrigin { file: *file })?);
        columns.rows.push(i64::try_from(*row).map_err(|_| TextsError::RowTooLarge { row: *row })?);
        columns.columns.push(i32::from(*column));
        columns.texts.push(ByteArray::from(text.as_str()));
    }
    let kept: Vec<&FileOrigin> = kept.into_values().collect();
    write(&columns, &kept).map(Bytes::from).map_err(TextsError::Write)
}

/// The origins of a part's texts, and how many texts it has.
pub fn describe_part(bytes: Bytes) -> Result<(Vec<FileOrigin>, usize), TextsError> {
    contained(|| {
        let reader = open(bytes)?;
        Ok((origins(&reader)?, n_rows(&reader)?))
    })
}

/// The texts in `range` of a part's rows.
///
/// Callers verify the bytes' digest first; bytes that are damaged all the same give an error, never a panic.
pub fn decode_part(bytes: Bytes, range: Range<usize>) -> Result<Vec<Text>, TextsError> {
    contained(|| decode(bytes, range))
}

/// The columns of a part.
#[derive(Default)]
struct Columnar {
    files: Vec<i32>,
    rows: Vec<i64>,
    columns: Vec<i32>,
    texts: Vec<ByteArray>,
}

fn write(columns: &Columnar, origins: &[&FileOrigin]) -> Result<Vec<u8>, ParquetError> {
    let origins = serde_json::to_string(origins).expect("origins are plain data");
    let metadata = vec![KeyValue::new(FILES_KEY.to_owned(), origins)];
    let properties = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_dictionary_enabled(false)
        .set_encoding(Encoding::PLAIN)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_key_value_metadata(Some(metadata))
        .build();
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    write_column::<Int32Type>(&mut group, &columns.files)?;
    write_column::<Int64Type>(&mut group, &columns.rows)?;
    write_column::<Int32Type>(&mut group, &columns.columns)?;
    write_column::<ByteArrayType>(&mut group, &columns.texts)?;
    group.close()?;
    writer.close()?;
    Ok(bytes)
}

fn write_column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, &mut Vec<u8>>,
    values: &[T::T],
) -> Result<(), ParquetError> {
    let mut column = group.next_column()?.expect("the schema has four columns");
    column.typed::<T>().write_batch(values, None, None)?;
    column.close()
}

fn decode(bytes: Bytes, range: Range<usize>) -> Result<Vec<Text>, TextsError> {
    let reader = open(bytes)?;
    let n_rows = n_rows(&reader)?;
    if range.start > range.end || range.end > n_rows {
        return Err(TextsError::OutOfRange { range, n_rows });
    }
    if range.is_empty() {
        return Ok(Vec::new());
    }
    let group = reader.get_row_group(0).map_err(TextsError::Read)?;
    let group = group.as_ref();
    let files = read_column::<Int32Type>(group, 0, &range)?;
    let rows = read_column::<Int64Type>(group, 1, &range)?;
    let columns = read_column::<Int32Type>(group, 2, &range)?;
    let texts = read_column::<ByteArrayType>(group, 3, &range)?;
    let decoded = files.into_iter().zip(rows).zip(columns).zip(texts);
    decoded.map(|(((file, row), column), text)| decode_text(file, row, column, &text)).collect()
}

fn decode_text(file: i32, row: i64, column: i32, text: &ByteArray) -> Result<Text, TextsError> {
    let negative = || TextsError::Foreign(format!("its places {file}, {row} and {column} cannot be"));
    let text = std::str::from_utf8(text.data());
    let text = text.map_err(|_| TextsError::Foreign(format!("the text of row {row} is not UTF-8")))?;
    Ok(Text {
        file: u32::try_from(file).map_err(|_| negative())?,
        row: u64::try_from(row).map_err(|_| negative())?,
        column: u16::try_from(column).map_err(|_| negative())?,
        text: text.to_owned(),
    })
}

fn open(bytes: Bytes) -> Result<SerializedFileReader<Bytes>, TextsError> {
    let reader = SerializedFileReader::new(bytes).map_err(TextsError::Read)?;
    let expected = parse_message_type(SCHEMA).map_err(TextsError::Read)?;
    if *reader.metadata().file_metadata().schema() != expected {
        return Err(TextsError::Foreign("its columns are not file, row, column and text".to_owned()));
    }
    Ok(reader)
}

fn origins(reader: &SerializedFileReader<Bytes>) -> Result<Vec<FileOrigin>, TextsError> {
    let metadata = reader.metadata().file_metadata().key_value_metadata();
    let files = metadata.and_then(|pairs| pairs.iter().find(|pair| pair.key == FILES_KEY));
    let files = files.and_then(|pair| serde_json::from_str(pair.value.as_deref()?).ok());
    files.ok_or_else(|| TextsError::Foreign(format!("its metadata has no {FILES_KEY}")))
}

fn n_rows(reader: &SerializedFileReader<Bytes>) -> Result<usize, TextsError> {
    let groups = reader.metadata().row_groups();
    let [group] = groups else {
        return Err(TextsError::Foreign(format!("it has {} row groups instead of one", groups.len())));
    };
    let n_rows = usize::try_from(group.num_rows()).ok().filter(|n_rows| *n_rows <= PART_ROWS_MAX);
    n_rows.ok_or_else(|| TextsError::Foreign(format!("it claims {} rows", group.num_rows())))
}

fn read_column<T: DataType>(
    group: &dyn RowGroupReader,
    column_idx: usize,
    range: &Range<usize>,
) -> Result<Vec<T::T>, TextsError>
where
    T::T: Clone,
{
    let reader: ColumnReader = group.get_column_reader(column_idx).map_err(TextsError::Read)?;
    let mut reader = T::get_column_reader(reader)
        .ok_or_else(|| TextsError::Foreign(format!("column {column_idx} has another type")))?;
    let n_skipped = reader.skip_records(range.start).map_err(TextsError::Read)?;
    let mut values = Vec::with_capacity(range.len());
    let mut n_read = 0;
    while n_skipped == range.start && n_read < range.len() {
        let (n_records, _, _) =
            reader.read_records(range.len() - n_read, None, None, &mut values).map_err(TextsError::Read)?;
        if n_records == 0 {
            break;
        }
        n_read += n_records;
    }
    if values.len() != range.len() {
        return Err(TextsError::Foreign(format!("column {column_idx} ends early")));
    }
    Ok(values)
}

/// Runs the parquet reader, which asserts here and there, so that damaged bytes end in an error.
fn contained<T>(read: impl FnOnce() -> Result<T, TextsError>) -> Result<T, TextsError> {
    crate::contained::contained(read).unwrap_or_else(|said| Err(TextsError::Broken(said)))
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_core::{Rng, SeedableRng};

    use super::*;

    use crate::id::Digest;

    fn origins() -> Vec<FileOrigin> {
        let columns = Columns { names: vec!["review text".to_owned()], joined: false };
        let origin = |file| FileOrigin {
            file,
            content: ContentId::Sha256(Digest::of(b"file")),
            name: None,
            columns: Some(columns.clone()),
        };
        vec![origin(0), FileOrigin { name: Some("dataset a/b@c/d.jsonl".to_owned()), ..origin(7) }, origin(1)]
    }

    fn texts(n: usize, generator: &mut ChaCha8Rng) -> Vec<Text> {
        let letters: Vec<char> = "ab \n\t\"äß€😀\u{0}\u{FEFF}".chars().collect();
        let mut letter = |_| letters[generator.next_u32() as usize % letters.len()];
        let text = |row: usize| Text {
            file: if row.is_multiple_of(2) { 0 } else { 7 },
            row: (row * 3) as u64,
            column: (row % 5) as u16,
            text: (0..row % 40).map(&mut letter).collect(),
        };
        (0..n).map(text).collect()
    }

    fn text(row: u64, text: &str) -> Text {
        Text { file: 0, row, column: 0, text: text.to_owned() }
    }

    #[test]
    fn parts_give_back_what_was_put_in() {
        let mut generator = ChaCha8Rng::seed_from_u64(1);
        for n in [0, 1, 2, 1000, PART_ROWS_MAX] {
            let texts = texts(n, &mut generator);
            let bytes = encode_part(&texts, &origins()).expect("a valid part");
            assert_eq!(encode_part(&texts, &origins()).expect("a valid part"), bytes);
            let (described, n_described) = describe_part(bytes.clone()).expect("a valid part");
            assert_eq!((&described[..], n_described), (&origins()[..n.min(2)], n));
            for range in [0..n, 0..n / 2, n / 3..n, n / 3..n / 2, n..n] {
                let decoded = decode_part(bytes.clone(), range.clone()).expect("a valid part");
                assert_eq!(decoded, texts[range]);
            }
        }
    }

    #[test]
    fn a_part_of_long_texts_spans_pages() {
        let texts: Vec<Text> = (0..40).map(|row| text(row, &"x".repeat(100_000 + row as usize))).collect();
        let bytes = encode_part(&texts, &origins()).expect("a valid part");
        assert_eq!(decode_part(bytes, 13..40).expect("a valid part"), texts[13..]);
    }

    #[test]
    fn limits() {
        let many = vec![text(0, ""); PART_ROWS_MAX + 1];
        assert!(matches!(encode_part(&many, &origins()), Err(TextsError::TooManyRows { .. })));
        let far = text(u64::MAX, "");
        assert!(matches!(
            encode_part(std::slice::from_ref(&far), &origins()),
            Err(TextsError::RowTooLarge { .. })
        ));
        let strange = Text { file: 3, ..text(0, "") };
        assert!(matches!(encode_part(&[strange], &origins()), Err(TextsError::NoOrigin { file: 3 })));
        let bytes = encode_part(&many[..3], &origins()).expect("a valid part");
        assert!(matches!(decode_part(bytes, 1..4), Err(TextsError::OutOfRange { n_rows: 3, .. })));
    }

    /// The bytes of a part are part of the stored format: other bytes are another reader version.
    #[test]
    fn bytes_are_pinned() {
        let texts = [text(0, "a"), Text { file: 7, column: 1, ..text(2, "bc") }];
        let bytes = encode_part(&texts, &origins()).expect("a valid part");
        assert_eq!(Digest::of(&bytes).short(), "d9d384327cf7");
    }

    #[test]
    fn damaged_bytes_are_errors_or_other_texts() {
        let mut generator = ChaCha8Rng::seed_from_u64(2);
        let texts = texts(50, &mut generator);
        let bytes = encode_part(&texts, &origins()).expect("a valid part");
        for n_bytes in 0..bytes.len() {
            assert!(decode_part(bytes.slice(..n_bytes), 0..50).is_err(), "cut to {n_bytes} bytes");
        }
        for place in 0..bytes.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut damaged = bytes.to_vec();
                damaged[place] ^= mask;
                // Parquet pages carry no checksum here: a changed byte may give other texts, which the digest
                // in the record finds; what counts is that it ends in order.
                let _ = decode_part(damaged.into(), 0..50);
            }
        }
    }
}
