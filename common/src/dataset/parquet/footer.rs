//! The end of a Parquet file: what it holds and where.

use ::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::super::DatasetError;
use super::super::opener::{FileOpener, name_of};
use super::super::source::SourceFile;
use super::thrift;
use crate::contained::contained;

/// The longest footer: in memory it takes up to a hundred times as much.
const FOOTER_BYTES_MAX: u64 = 16 << 20;

/// The most rows of a file.
const ROWS_MAX: u64 = 1 << 40;

/// Read at once, in the hope that the footer is no longer.
const FIRST_READ_BYTES: u64 = 64 << 10;

/// Length of the footer and the magic number behind it.
const TAIL_BYTES: u64 = 8;

/// Reads the footer of `source` and checks what the crate leaves to its callers.
pub(super) fn read(source: &SourceFile, files: &dyn FileOpener) -> Result<ParquetMetaData, DatasetError> {
    let broken = |reason: &str| DatasetError::BrokenParquet {
        file: name_of(source),
        reason: reason.chars().take(300).collect(),
    };
    let size = source.size;
    if size < 12 {
        return Err(broken("it is too short"));
    }
    let n_first = FIRST_READ_BYTES.min(size);
    let mut bytes = files.read_at(source, size - n_first, n_first)?;
    let tail = bytes.split_off(bytes.len() - TAIL_BYTES as usize);
    let (length, magic) = tail.split_at(4);
    match magic {
        b"PAR1" => {}
        b"PARE" => return Err(broken("its footer is encrypted")),
        _ => return Err(broken("it does not end as parquet does")),
    }
    let length = u32::from_le_bytes(length.try_into().expect("four bytes")).into();
    if length > size - 12 {
        return Err(broken("its footer is longer than the file"));
    }
    if length > FOOTER_BYTES_MAX {
        return Err(broken("its footer is longer than 16 MiB"));
    }
    if length > bytes.len() as u64 {
        bytes = files.read_at(source, size - TAIL_BYTES - length, length)?;
    }
    let footer = &bytes[bytes.len() - usize::try_from(length).expect("at most 16 MiB")..];
    thrift::check_schema(footer).map_err(|thrift::Fault(reason)| broken(reason))?;
    let metadata = match contained(|| ParquetMetaDataReader::decode_metadata(footer)) {
        Ok(Ok(metadata)) => metadata,
        Ok(Err(error)) => return Err(broken(&error.to_string())),
        Err(said) => return Err(broken(&said)),
    };
    let mut n_rows = 0u64;
    for group in metadata.row_groups() {
        let sum = u64::try_from(group.num_rows()).ok().and_then(|rows| n_rows.checked_add(rows));
        n_rows = sum.filter(|sum| *sum <= ROWS_MAX).ok_or_else(|| broken("its row counts are absurd"))?;
    }
    Ok(metadata)
}
