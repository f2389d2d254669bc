//! Which arrays a file holds; their headers are checked here, their elements stay where they are.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use flate2::Crc;
use flate2::read::DeflateDecoder;
use safetensors::tensor::Metadata;
use zip::{CompressionMethod, ZipArchive};

use super::ArrayFileError;
use super::npy::{NpyHeader, read_header};
use super::stored::{Bytes, Element, StoredArray};

/// Headers of safetensors files beyond this are refused, as the format's own library does.
const SAFETENSORS_HEADER_MAX: u64 = 100_000_000;

/// The arrays of a file, which its name says how to read.
pub fn open(path: &Path) -> Result<Vec<StoredArray>, ArrayFileError> {
    let read = |source| ArrayFileError::Read { path: path.to_owned(), source };
    let open_by: fn(&Path, File, u64) -> Result<Vec<StoredArray>, ArrayFileError> =
        match path.extension().and_then(|kind| kind.to_str()) {
            Some("npy") => open_npy,
            Some("npz") => |path, file, _| open_npz(path, file),
            Some("safetensors") => open_safetensors,
            _ => return Err(ArrayFileError::UnknownKind(path.to_owned())),
        };
    let file = File::open(path).map_err(read)?;
    let metadata = file.metadata().map_err(read)?;
    if !metadata.is_file() {
        return Err(damaged(path, "this is not a file"));
    }
    open_by(path, file, metadata.len())
}

fn damaged(path: &Path, fault: impl ToString) -> ArrayFileError {
    ArrayFileError::Damaged { path: path.to_owned(), fault: fault.to_string() }
}

fn open_npy(path: &Path, file: File, length: u64) -> Result<Vec<StoredArray>, ArrayFileError> {
    let header = read_header(BufReader::new(&file)).map_err(|error| damaged(path, error))?;
    let start = header.data_start;
    let array = stored(String::new(), header, Bytes::File(Arc::new(file), start));
    let end = array.n_bytes().and_then(|n_bytes| n_bytes.checked_add(start));
    if end.is_none_or(|end| end > length) {
        return Err(damaged(path, format!("the file ends before its array of shape {:?} does", array.shape)));
    }
    Ok(vec![array])
}

fn stored(name: String, header: NpyHeader, bytes: Bytes) -> StoredArray {
    let NpyHeader { element, big_endian, fortran_order, shape, .. } = header;
    StoredArray { name, shape, element, big_endian, fortran_order, bytes }
}

fn open_npz(path: &Path, file: File) -> Result<Vec<StoredArray>, ArrayFileError> {
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| damaged(path, error))?;
    let mut arrays = Vec::new();
    for entry in 0..archive.len() {
        let (name, reader) = npz_entry(path, &mut archive, entry)?;
        let Some(name) = name.strip_suffix(".npy") else { continue };
        let header = read_header(reader).map_err(|error| damaged(path, format!("{name}: {error}")))?;
        arrays.push(stored(name.to_owned(), header, Bytes::ZipEntry(entry)));
    }
    Ok(arrays)
}

/// The name and the decompressed bytes of an entry.
fn npz_entry<'a>(
    path: &Path,
    archive: &'a mut ZipArchive<BufReader<File>>,
    entry: usize,
) -> Result<(String, Box<dyn Read + 'a>), ArrayFileError> {
    let raw = archive.by_index_raw(entry).map_err(|error| damaged(path, error))?;
    let name = raw.name().map_err(|error| damaged(path, error))?.into_owned();
    if raw.encrypted() {
        return Err(damaged(path, format!("{name} is encrypted")));
    }
    let reader: Box<dyn Read + 'a> = match raw.compression() {
        CompressionMethod::Stored => Box::new(raw),
        CompressionMethod::DEFLATE => Box::new(DeflateDecoder::new(raw)),
        other => {
            return Err(damaged(path, format!("{name} is compressed by {other}; save it with numpy.savez")));
        }
    };
    Ok((name, reader))
}

/// The bytes of an entry whose array has `n_bytes`, checksum verified, and where in them the array begins.
pub fn load_npz_entry(path: &Path, entry: usize, n_bytes: u64) -> Result<(Vec<u8>, u64), ArrayFileError> {
    let file = File::open(path).map_err(|source| ArrayFileError::Read { path: path.to_owned(), source })?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| damaged(path, error))?;
    let expected = archive.by_index_raw(entry).map_err(|error| damaged(path, error))?.crc32();
    let (name, mut reader) = npz_entry(path, &mut archive, entry)?;
    let fault = |fault: &str| damaged(path, format!("{name}: {fault}"));
    let mut bytes = Vec::new();
    // One header more than the elements; what goes on beyond that is not this array.
    let limit = n_bytes.saturating_add(1 << 17);
    reader.by_ref().take(limit).read_to_end(&mut bytes).map_err(|error| fault(&error.to_string()))?;
    let start = read_header(&bytes[..]).map_err(|error| fault(&error.to_string()))?.data_start;
    if start.checked_add(n_bytes) != Some(bytes.len() as u64) {
        return Err(fault("the length of the entry does not fit its shape"));
    }
    let mut checksum = Crc::new();
    checksum.update(&bytes);
    if checksum.sum() != expected {
        return Err(fault("the checksum does not fit; the file is damaged"));
    }
    Ok((bytes, start))
}

fn open_safetensors(path: &Path, file: File, length: u64) -> Result<Vec<StoredArray>, ArrayFileError> {
    let read = |source| ArrayFileError::Read { path: path.to_owned(), source };
    let too_short = || damaged(path, "the file ends within its header");
    if length < 8 {
        return Err(too_short());
    }
    let mut header_length = [0; 8];
    file.read_exact_at(&mut header_length, 0).map_err(read)?;
    let header_length = u64::from_le_bytes(header_length);
    if header_length > SAFETENSORS_HEADER_MAX || header_length > length - 8 {
        return Err(too_short());
    }
    let start = 8 + header_length;
    let mut header = vec![0; usize::try_from(header_length).map_err(|_| too_short())?];
    file.read_exact_at(&mut header, 8).map_err(read)?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| damaged(path, error))?;
    if metadata.data_len() as u64 != length - start {
        return Err(damaged(path, "the tensors that the header names do not fill the file"));
    }
    let file = Arc::new(file);
    let mut arrays = Vec::new();
    for (name, info) in metadata.tensors() {
        let element = Element::of(info.dtype).ok_or_else(|| {
            damaged(path, format!("tensor {name:?} is {:?}; expected F64, F32, F16 or BF16", info.dtype))
        })?;
        // The header was checked when it was read: offsets follow one another and fit dtypes and shapes.
        let array = StoredArray {
            shape: info.shape.iter().map(|side| *side as u64).collect(),
            element,
            big_endian: false,
            fortran_order: false,
            bytes: Bytes::File(Arc::clone(&file), start + info.data_offsets.0 as u64),
            name,
        };
        arrays.push(array);
    }
    Ok(arrays)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::panic::catch_unwind;

    use super::super::{ArrayFile, npy_bytes};
    use super::*;
    use crate::trial::LayerSource;

    /// A zip archive with one stored entry, `a.npy`.
    fn npz(npy: &[u8]) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        zip.start_file("a.npy", options).unwrap();
        zip.write_all(npy).unwrap();
        zip.finish().unwrap().into_inner()
    }

    fn safetensors(values: &[f32]) -> Vec<u8> {
        let header = format!(
            r#"{{"mean":{{"dtype":"F32","shape":[2,2,3],"data_offsets":[0,{}]}}}}"#,
            values.len() * 4
        );
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        bytes
    }

    /// Opens a file of these bytes and reads all of it; the sum of all rows where that works.
    fn read_all(folder: &Path, kind: &str, bytes: &[u8]) -> Result<f64, String> {
        let path = folder.join(format!("x.{kind}"));
        std::fs::write(&path, bytes).unwrap();
        let file = ArrayFile::open(&path, None).map_err(|error| error.to_string())?;
        let rows: Vec<u32> = (0..file.n_rows().min(1000)).collect();
        let sum = |layer| {
            let rows = file.rows(layer, &rows).map_err(|error| error.to_string())?;
            Ok(rows.values.iter().sum::<f64>())
        };
        (0..file.n_layers().min(1000)).map(sum).sum()
    }

    #[test]
    fn damaged_files_are_errors_and_never_panics() {
        let folder = tempfile::tempdir().unwrap();
        let values: Vec<f64> = (0..12).map(f64::from).collect();
        let npy = npy_bytes(&[2, 2, 3], &values);
        let files = [
            ("npz", npz(&npy)),
            ("safetensors", safetensors(&values.iter().map(|x| *x as f32).collect::<Vec<_>>())),
            ("npy", npy),
        ];
        for (kind, bytes) in &files {
            assert_eq!(read_all(folder.path(), kind, bytes), Ok(66.0), "{kind}");
            for length in 0..bytes.len() {
                let cut = &bytes[..length];
                assert!(read_all(folder.path(), kind, cut).is_err(), "{kind} cut at {length}");
            }
            // Every byte of the header turned over, and every pattern of bits in it.
            for place in 0..bytes.len().min(300) {
                for mask in [0x01, 0x10, 0x80, 0xff] {
                    let mut changed = bytes.clone();
                    changed[place] ^= mask;
                    let outcome = catch_unwind(|| read_all(folder.path(), kind, &changed));
                    assert!(outcome.is_ok(), "{kind}: panic with byte {place} ^ {mask:#x}");
                }
            }
        }
    }

    #[test]
    fn shapes_that_do_not_fit_the_file_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let check = |shape: &str, expected: &str| {
            let dictionary = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}");
            let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
            bytes.extend(u16::try_from(dictionary.len()).unwrap().to_le_bytes());
            bytes.extend(dictionary.as_bytes());
            bytes.extend([0; 96]);
            let error = read_all(folder.path(), "npy", &bytes).unwrap_err();
            assert!(error.contains(expected), "{shape}: {error}");
            npz(&bytes)
        };
        let check_npz = |bytes: &[u8]| assert!(read_all(folder.path(), "npz", bytes).is_err());
        check_npz(&check("(2, 2, 4)", "the file ends before its array"));
        check_npz(&check("(4294967296, 4294967296, 4294967296)", "the file ends before its array"));
        check_npz(&check("(0, 2, 3)", "is empty"));
        check_npz(&check("(12,)", "expected one array [layers, n, d]"));
        check("(3, 4)", "expected one array [layers, n, d]");
    }
}
