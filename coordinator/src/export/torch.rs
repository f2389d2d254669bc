//! Embeddings as `.pt` files that `torch.load(weights_only=True)` opens as a float32 tensor.
//!
//! A `.pt` file is a zip archive: `data.pkl` says shape and strides and refers to the numbers in `data/0`. Entries
//! are stored, and their data begin at multiples of 64 bytes, so that torch can map the file into memory.

use std::io::{self, Cursor, Seek, Write};

use zip::ZipWriter;

use super::npz::stored;

/// The alignment that torch itself writes.
const ALIGNMENT: u16 = 64;
/// Marks padding in a local header, as in torch's own files.
const PADDING_ID: u16 = u16::from_le_bytes(*b"FB");
/// Numbers turned into bytes at a time.
const CHUNK: usize = 16 * 1024;

/// Where the embeddings of a layer's batch lie inside an experiment's directory.
pub fn embedding_path(layer: u32, batch: u64) -> String {
    format!("embeddings/layer_{layer}/batch_{batch}.pt")
}

/// Writes one tensor row by row, for tensors that should not be held in memory twice.
pub struct TensorWriter<W: Write + Seek> {
    archive: ZipWriter<W>,
    folder: String,
    missing: u64,
}

impl<W: Write + Seek> TensorWriter<W> {
    /// Begins a float32 tensor of shape [rows, columns].
    ///
    /// `folder` is the name of the folder inside the archive; torch uses the file's name without `.pt`.
    pub fn begin(output: W, folder: &str, shape: [u64; 2]) -> io::Result<Self> {
        let [rows, columns] = shape;
        let numel = rows.checked_mul(columns).filter(|n| *n <= i64::MAX as u64 / 4);
        let numel =
            numel.ok_or_else(|| io::Error::other(format!("a tensor [{rows}, {columns}] is too large")))?;
        let mut writer = Self { archive: ZipWriter::new(output), folder: folder.to_owned(), missing: numel };
        writer.entry("data.pkl", 0)?;
        writer.archive.write_all(&data_pkl(shape, numel))?;
        writer.entry("byteorder", 0)?;
        writer.archive.write_all(b"little")?;
        writer.entry("data/0", numel * 4)?;
        Ok(writer)
    }

    /// Appends numbers in row-major order. Fails where there are more than the shape says.
    pub fn write(&mut self, values: &[f32]) -> io::Result<()> {
        let count = values.len() as u64;
        self.missing = self.missing.checked_sub(count).ok_or_else(|| {
            io::Error::other(format!("{count} numbers for a tensor that lacks {}", self.missing))
        })?;
        for chunk in values.chunks(CHUNK) {
            let bytes: Vec<u8> = chunk.iter().flat_map(|value| value.to_le_bytes()).collect();
            self.archive.write_all(&bytes)?;
        }
        Ok(())
    }

    /// Completes the file. Fails where there were fewer numbers than the shape says.
    pub fn finish(mut self) -> io::Result<W> {
        if self.missing > 0 {
            return Err(io::Error::other(format!("the tensor lacks {} numbers", self.missing)));
        }
        self.entry("version", 0)?;
        self.archive.write_all(b"3\n")?;
        Ok(self.archive.finish()?)
    }

    fn entry(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        let options = stored().with_alignment_and_header_id(ALIGNMENT, PADDING_ID);
        let options = options.large_file(bytes >= u64::from(u32::MAX));
        Ok(self.archive.start_file(format!("{}/{name}", self.folder), options)?)
    }
}

/// The bytes of a `.pt` file with `values` as a float32 tensor of that shape, row-major.
pub fn tensor_file(folder: &str, shape: [u64; 2], values: &[f32]) -> io::Result<Vec<u8>> {
    let mut writer = TensorWriter::begin(Cursor::new(Vec::new()), folder, shape)?;
    writer.write(values)?;
    Ok(writer.finish()?.into_inner())
}

/// What `pickle` of protocol 2 says of a contiguous tensor, byte for byte as torch 2.11 writes it.
fn data_pkl([rows, columns]: [u64; 2], numel: u64) -> Vec<u8> {
    let mut out = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nq\x00((".to_vec();
    out.extend(b"X\x07\0\0\0storageq\x01ctorch\nFloatStorage\nq\x02X\x01\0\0\x000q\x03X\x03\0\0\0cpuq\x04");
    integer(&mut out, numel);
    out.extend(b"tq\x05Q");
    // Offset in the storage, then shape and strides.
    integer(&mut out, 0);
    integer(&mut out, rows);
    integer(&mut out, columns);
    out.extend(b"\x86q\x06");
    integer(&mut out, columns);
    integer(&mut out, 1);
    out.extend(b"\x86q\x07\x89ccollections\nOrderedDict\nq\x08)Rq\x09tq\x0aRq\x0b.");
    out
}

/// The shortest form of a non-negative integer, as Python chooses it.
fn integer(out: &mut Vec<u8>, value: u64) {
    if let Ok(byte) = u8::try_from(value) {
        out.extend([b'K', byte]);
    } else if let Ok(short) = u16::try_from(value) {
        out.push(b'M');
        out.extend(short.to_le_bytes());
    } else if let Ok(int) = i32::try_from(value) {
        out.push(b'J');
        out.extend(int.to_le_bytes());
    } else {
        // LONG1: little-endian two's complement in as few bytes as hold value and sign.
        let bytes = value.to_le_bytes();
        let length = (64 - value.leading_zeros()) / 8 + 1;
        let sign = [0u8];
        out.extend([0x8a, length as u8]);
        out.extend(bytes.iter().chain(&sign).take(length as usize));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn data_begin_at_multiples_of_64() {
        let bytes = tensor_file("batch_12", [3, 2], &[0.5, 1.0, 1.5, 2.0, 2.5, 3.0]).unwrap();
        let mut archive = zip::ZipArchive::new(Cursor::new(bytes.as_slice())).unwrap();
        let names: Vec<String> = archive.file_names().map(|name| name.unwrap().into_owned()).collect();
        assert_eq!(names, ["batch_12/data.pkl", "batch_12/byteorder", "batch_12/data/0", "batch_12/version"]);
        for name in names {
            let mut entry = archive.by_name(&name).unwrap();
            assert_eq!(entry.data_start().unwrap() % u64::from(ALIGNMENT), 0, "{name}");
            assert_eq!(entry.compression(), zip::CompressionMethod::Stored);
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            if name.ends_with("data/0") {
                assert_eq!(content[..8], [0, 0, 0, 0x3f, 0, 0, 0x80, 0x3f]);
            }
        }
    }

    /// Every entry of an archive: its name and its bytes.
    fn entries(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut archive = zip::ZipArchive::new(Cursor::new(archive)).unwrap();
        let places = 0..archive.len();
        let read = |place: usize| {
            let mut entry = archive.by_index(place).unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.name().unwrap().into_owned(), content)
        };
        places.map(read).collect()
    }

    #[test]
    fn entries_are_those_that_torch_writes() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/torch");
        let small: Vec<f32> = (0..6u8).map(|k| f32::from(k) / 4.0 - 0.5).collect();
        let long: Vec<f32> =
            (0..300u16).flat_map(|row| [0.0, 1.0].map(|k| f32::from(row) * 384.0 + k)).collect();
        for (name, shape, values) in [("batch_0", [2, 3], small), ("batch_1", [300, 2], long)] {
            let golden = entries(&std::fs::read(format!("{folder}/{name}.pt")).unwrap());
            let ours = entries(&tensor_file(name, shape, &values).unwrap());
            assert_eq!(ours.len(), 4);
            for entry in ours {
                assert!(golden.contains(&entry), "torch writes {} differently: {golden:?}", entry.0);
            }
        }
    }

    #[test]
    fn the_shape_is_kept_to() {
        assert!(tensor_file("x", [2, 2], &[0.0; 3]).is_err());
        assert!(tensor_file("x", [2, 2], &[0.0; 5]).is_err());
        assert!(tensor_file("x", [u64::MAX, 2], &[]).is_err());
        assert!(tensor_file("x", [0, 384], &[]).is_ok());
    }

    #[test]
    fn integers_are_as_short_as_python_writes_them() {
        let check = |value: u64, expected: &[u8]| {
            let mut out = Vec::new();
            integer(&mut out, value);
            assert_eq!(out, expected, "{value}");
        };
        check(255, b"K\xff");
        check(256, b"M\x00\x01");
        check(65_536, b"J\x00\x00\x01\x00");
        check(1 << 31, b"\x8a\x05\x00\x00\x00\x80\x00");
        check((1 << 40) - 1, b"\x8a\x06\xff\xff\xff\xff\xff\x00");
        check(u64::MAX, b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00");
    }
}
