//! The stored form of prepared texts: Parquet parts that any tool can open.
//!
//! A part holds at most [`PART_ROWS_MAX`] texts in one row group of two columns, `row` (int64, where the text stood
//! in its file) and `text` (utf8). The file's metadata names the origin. Equal input gives equal bytes.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::column::reader::ColumnReader;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader, RowGroupReader};
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use crate::id::Digest;

/// The most texts in one part.
pub const PART_ROWS_MAX: usize = 16_384;

const SCHEMA: &str = "message texts { required int64 row; required binary text (UTF8); }";
const CREATED_BY: &str = "lsa texts v1";
const SHA256_KEY: &str = "lsa.file_sha256";
const COLUMN_KEY: &str = "lsa.column";

/// A text and where it stood in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// Line (`.txt`, `.jsonl`) or record after the header (`.csv`, `.tsv`), from 0.
    /// Texts of one JSON list share their row.
    pub row: u64,
    /// The text itself.
    pub text: String,
}

/// Where the texts of a part come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextsOrigin {
    /// Digest of the file.
    pub sha256: Digest,
    /// The column that held the texts, where the file has columns.
    pub column: Option<String>,
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

/// The bytes of a part; `texts` are its rows in order.
pub fn encode_part(texts: &[Text], origin: &TextsOrigin) -> Result<Bytes, TextsError> {
    if texts.len() > PART_ROWS_MAX {
        return Err(TextsError::TooManyRows { n_rows: texts.len() });
    }
    let place = |text: &Text| i64::try_from(text.row).map_err(|_| TextsError::RowTooLarge { row: text.row });
    let rows = texts.iter().map(place).collect::<Result<Vec<i64>, _>>()?;
    let values: Vec<ByteArray> = texts.iter().map(|text| ByteArray::from(text.text.as_str())).collect();
    write(&rows, &values, origin).map(Bytes::from).map_err(TextsError::Write)
}

/// The origin and the number of rows of a part.
pub fn describe_part(bytes: Bytes) -> Result<(TextsOrigin, usize), TextsError> {
    contained(|| {
        let reader = open(bytes)?;
        Ok((origin(&reader)?, n_rows(&reader)?))
    })
}

/// The texts in `range` of a part's rows.
///
/// Callers verify the bytes' digest first; bytes that are damaged all the same give an error, never a panic.
pub fn decode_part(bytes: Bytes, range: Range<usize>) -> Result<Vec<Text>, TextsError> {
    contained(|| decode(bytes, range))
}

fn write(rows: &[i64], values: &[ByteArray], origin: &TextsOrigin) -> Result<Vec<u8>, ParquetError> {
    let mut metadata = vec![KeyValue::new(SHA256_KEY.to_owned(), origin.sha256.to_string())];
    metadata.extend(origin.column.iter().map(|column| KeyValue::new(COLUMN_KEY.to_owned(), column.clone())));
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
    write_column::<Int64Type>(&mut group, rows)?;
    write_column::<ByteArrayType>(&mut group, values)?;
    group.close()?;
    writer.close()?;
    Ok(bytes)
}

fn write_column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, &mut Vec<u8>>,
    values: &[T::T],
) -> Result<(), ParquetError> {
    let mut column = group.next_column()?.expect("the schema has two columns");
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
    let rows = read_column::<Int64Type>(group.as_ref(), 0, &range)?;
    let values = read_column::<ByteArrayType>(group.as_ref(), 1, &range)?;
    let text = |(row, value): (i64, ByteArray)| {
        let row = u64::try_from(row).map_err(|_| TextsError::Foreign(format!("row {row} is negative")))?;
        let text = std::str::from_utf8(value.data());
        let text = text.map_err(|_| TextsError::Foreign(format!("the text of row {row} is not UTF-8")))?;
        Ok(Text { row, text: text.to_owned() })
    };
    rows.into_iter().zip(values).map(text).collect()
}

fn open(bytes: Bytes) -> Result<SerializedFileReader<Bytes>, TextsError> {
    let reader = SerializedFileReader::new(bytes).map_err(TextsError::Read)?;
    let expected = parse_message_type(SCHEMA).map_err(TextsError::Read)?;
    if *reader.metadata().file_metadata().schema() != expected {
        return Err(TextsError::Foreign("its columns are not row and text".to_owned()));
    }
    Ok(reader)
}

fn origin(reader: &SerializedFileReader<Bytes>) -> Result<TextsOrigin, TextsError> {
    let metadata = reader.metadata().file_metadata().key_value_metadata();
    let find = |key| metadata?.iter().find(|pair| pair.key == key)?.value.clone();
    let sha256 = find(SHA256_KEY).and_then(|text| text.parse().ok());
    let sha256 = sha256.ok_or_else(|| TextsError::Foreign(format!("its metadata has no {SHA256_KEY}")))?;
    Ok(TextsOrigin { sha256, column: find(COLUMN_KEY) })
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

    fn origin() -> TextsOrigin {
        TextsOrigin { sha256: Digest::of(b"file"), column: Some("review text".to_owned()) }
    }

    fn texts(n: usize, generator: &mut ChaCha8Rng) -> Vec<Text> {
        let letters: Vec<char> = "ab \n\t\"äß€😀\u{0}\u{FEFF}".chars().collect();
        let mut letter = |_| letters[generator.next_u32() as usize % letters.len()];
        let text =
            |row: usize| Text { row: (row * 3) as u64, text: (0..row % 40).map(&mut letter).collect() };
        (0..n).map(text).collect()
    }

    #[test]
    fn parts_give_back_what_was_put_in() {
        let mut generator = ChaCha8Rng::seed_from_u64(1);
        for n in [0, 1, 2, 1000, PART_ROWS_MAX] {
            let texts = texts(n, &mut generator);
            let bytes = encode_part(&texts, &origin()).expect("a valid part");
            assert_eq!(encode_part(&texts, &origin()).expect("a valid part"), bytes);
            assert_eq!(describe_part(bytes.clone()).expect("a valid part"), (origin(), n));
            for range in [0..n, 0..n / 2, n / 3..n, n / 3..n / 2, n..n] {
                let decoded = decode_part(bytes.clone(), range.clone()).expect("a valid part");
                assert_eq!(decoded, texts[range]);
            }
        }
    }

    #[test]
    fn a_part_of_long_texts_spans_pages() {
        let texts: Vec<Text> =
            (0..40).map(|row| Text { row, text: "x".repeat(100_000 + row as usize) }).collect();
        let bytes = encode_part(&texts, &origin()).expect("a valid part");
        assert_eq!(decode_part(bytes, 13..40).expect("a valid part"), texts[13..]);
    }

    #[test]
    fn limits() {
        let text = Text { row: 0, text: String::new() };
        let many = vec![text.clone(); PART_ROWS_MAX + 1];
        assert!(matches!(encode_part(&many, &origin()), Err(TextsError::TooManyRows { .. })));
        let far = Text { row: u64::MAX, ..text };
        assert!(matches!(
            encode_part(std::slice::from_ref(&far), &origin()),
            Err(TextsError::RowTooLarge { .. })
        ));
        let bytes = encode_part(&many[..3], &origin()).expect("a valid part");
        assert!(matches!(decode_part(bytes, 1..4), Err(TextsError::OutOfRange { n_rows: 3, .. })));
    }

    /// The bytes of a part are part of the stored format: other bytes are another reader version.
    #[test]
    fn bytes_are_pinned() {
        let texts = [Text { row: 0, text: "a".to_owned() }, Text { row: 2, text: "bc".to_owned() }];
        let bytes = encode_part(&texts, &origin()).expect("a valid part");
        assert_eq!(Digest::of(&bytes).short(), "7bbf9b766d13");
    }

    #[test]
    fn damaged_bytes_are_errors_or_other_texts() {
        let mut generator = ChaCha8Rng::seed_from_u64(2);
        let texts = texts(50, &mut generator);
        let bytes = encode_part(&texts, &origin()).expect("a valid part");
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
