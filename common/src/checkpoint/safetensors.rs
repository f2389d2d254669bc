//! The header of a safetensors file.

use std::collections::BTreeMap;

use safetensors::tensor::Metadata;

use super::{CheckpointError, StoredTensor, WeightFile};

/// Headers beyond this are refused; the largest real ones have a few MB.
const HEADER_BYTES_MAX: u64 = 64 << 20;
/// Bytes before the header: its length.
const LENGTH_BYTES: u64 = 8;
const FORMAT: &str = "safetensors file";

/// How far the header of a safetensors file of `file_bytes` bytes reaches, its length included, by the file's first
/// bytes; nothing where they are not those of such a file.
pub fn header_bytes(head: &[u8; 9], file_bytes: u64) -> Option<u64> {
    let [length @ .., brace] = *head;
    let length = u64::from_le_bytes(length);
    let fits = length <= HEADER_BYTES_MAX && length <= file_bytes.saturating_sub(LENGTH_BYTES);
    (fits && brace == b'{').then(|| LENGTH_BYTES + length)
}

/// The tensors of a file that has room for its header.
pub(super) fn read(file: &WeightFile) -> Result<BTreeMap<String, StoredTensor>, CheckpointError> {
    let malformed = |what: String| file.malformed(FORMAT, what);
    let mut length = [0; LENGTH_BYTES as usize];
    file.read_at(&mut length, 0)?;
    let header_bytes = u64::from_le_bytes(length);
    let header = file.bytes(LENGTH_BYTES, header_bytes)?;
    // This checks that the tensors follow one another, and that each has the bytes that its shape needs.
    let header: Metadata = serde_json::from_slice(&header).map_err(|error| malformed(error.to_string()))?;
    let data_start = LENGTH_BYTES + header_bytes;
    match data_start.checked_add(header.data_len() as u64) {
        Some(end) if end == file.size => {}
        Some(end) if end < file.size => {
            return Err(malformed("there are bytes behind the last tensor".into()));
        }
        _ => return Err(malformed("it is cut off".into())),
    }
    let place = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
        let (start, end) = info.data_offsets;
        let tensor = StoredTensor {
            file: 0,
            dtype: info.dtype,
            shape: info.shape.clone(),
            strides: None,
            start: data_start + start as u64,
            size_bytes: (end - start) as u64,
        };
        (name, tensor)
    };
    Ok(header.tensors().into_iter().map(place).collect())
}

#[cfg(test)]
mod tests {
    use super::super::tests::weight_file;
    use super::super::{StoredTensors, read};
    use super::*;

    fn file(header: &str, data_bytes: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data_bytes, 0);
        bytes
    }

    const TWO: &str = r#"{"b":{"dtype":"F32","shape":[2],"data_offsets":[6,14]},"__metadata__":{"format":"pt"},
        "a":{"dtype":"BF16","shape":[3,1],"data_offsets":[0,6]}}"#;

    fn read_bytes(bytes: &[u8]) -> Result<StoredTensors, CheckpointError> {
        read(&[weight_file("model.safetensors", bytes)])
    }

    #[test]
    fn tensors_are_found() {
        let stored = read_bytes(&file(TWO, 14)).expect("sound");
        let data = 8 + TWO.len() as u64;
        let expected = |dtype, shape: &[usize], start, size_bytes| StoredTensor {
            file: 0,
            dtype,
            shape: shape.to_vec(),
            strides: None,
            start: data + start,
            size_bytes,
        };
        assert_eq!(stored.tensors["a"], expected(safetensors::Dtype::BF16, &[3, 1], 0, 6));
        assert_eq!(stored.tensors["b"], expected(safetensors::Dtype::F32, &[2], 6, 8));
        assert_eq!(stored.tensors.len(), 2);
    }

    #[test]
    fn damaged_files_are_refused() {
        let sound = file(TWO, 14);
        for length in 0..sound.len() {
            let error = read_bytes(&sound[..length]).expect_err("cut off").to_string();
            assert!(error.contains("model.safetensors"), "{error}");
        }
        let check = |bytes: Vec<u8>, expected: &str| {
            let error = read_bytes(&bytes).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(file(TWO, 13), "cut off");
        check(file(TWO, 15), "bytes behind the last tensor");
        check(file("{nonsense", 0), "not a sound safetensors file");
        check(file(&TWO.replace("[0,6]", "[0,5]"), 13), "not a sound safetensors file");
        check([&u64::MAX.to_le_bytes()[..], b"{}"].concat(), "neither safetensors");
    }
}
