//! Which tensor lies where in a model's weight files, whatever format they are in; no tensor is read here.
//!
//! A file's format is told by its content: safetensors, the zip archives of torch since 1.6, or the bare pickles of
//! older ones. Nothing is executed, every offset is checked against the file's size, and what is held in memory is a
//! multiple of a file's directory, never of its tensors. Files are read at offsets and not mapped: one that shrinks
//! meanwhile is an error then, not a bus error.

mod index;
mod safetensors;
mod torch;
mod torch_legacy;
mod torch_zip;
mod zip;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use ::safetensors::Dtype;

use crate::pickle::PickleError;

pub use index::Index;
pub use safetensors::header_bytes as safetensors_header_bytes;

/// Ends of the names of weight files; an index may list no others.
const ENDINGS: [&str; 2] = [".safetensors", ".bin"];
/// At most this many names are listed per kind of fault.
const LISTED_MAX: usize = 20;
/// Letters of a name or text out of a file that an error shows.
const SHOWN_LETTERS_MAX: usize = 200;

/// Where one tensor lies.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTensor {
    /// The position of its file in the list of files.
    pub file: usize,
    /// The number format.
    pub dtype: Dtype,
    /// The shape.
    pub shape: Vec<usize>,
    /// Steps between neighbours along each dimension, in elements; none where contiguous and row-major.
    pub strides: Option<Vec<usize>>,
    /// The first byte in the file.
    pub start: u64,
    /// Bytes from the first to the end of the last element.
    pub size_bytes: u64,
}

impl StoredTensor {
    /// How many numbers it has; more than lie in the file where it repeats some.
    pub fn n_numbers(&self) -> u64 {
        self.shape.iter().fold(1, |product: u64, side| product.saturating_mul(*side as u64))
    }
}

/// All tensors of some weight files by the names they are stored under.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredTensors {
    /// Name → place. Names may share a place: tied weights.
    pub tensors: BTreeMap<String, StoredTensor>,
}

/// One open weight file.
#[derive(Debug)]
pub struct WeightFile {
    /// The name, for errors.
    pub name: String,
    /// The file, open for reading.
    pub file: File,
    /// Its size in bytes.
    pub size: u64,
}

/// Why the tensors of a model cannot be found in its files.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Reading failed.
    #[error("cannot read {file}")]
    Io {
        /// Which file.
        file: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No known format.
    #[error(
        "{file} is neither safetensors nor a torch checkpoint; fetch the file itself again, \
         in case this is a git-lfs pointer or an error page"
    )]
    UnknownFormat {
        /// Which file.
        file: String,
    },
    /// Cut off, or inconsistent in itself.
    #[error("{file} is not a sound {format}: {what}; fetch it again")]
    Malformed {
        /// Which file.
        file: String,
        /// What it seems to be.
        format: &'static str,
        /// What does not fit.
        what: String,
    },
    /// The pickle in it is damaged, or no plain list of tensors.
    #[error("{file} cannot be used; fetch it again, or save the model as safetensors")]
    Pickle {
        /// Which file.
        file: String,
        /// Why.
        #[source]
        source: PickleError,
    },
    /// An archive with compressed entries.
    #[error("{file}: entry {entry:?} is compressed; unpack the archive and zip it again with zip -0")]
    Compressed {
        /// Which file.
        file: String,
        /// Which entry.
        entry: String,
    },
    /// A tensor that does not fit its storage or the file.
    #[error("{file}: tensor {tensor:?} {what}; save the model again as safetensors")]
    Tensor {
        /// Which file.
        file: String,
        /// Which tensor.
        tensor: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Two files have a tensor of one name.
    #[error("tensor {tensor:?} is in {first} and in {second}; keep the files of one revision")]
    Twice {
        /// Which tensor.
        tensor: String,
        /// One file.
        first: String,
        /// The other.
        second: String,
    },
    /// The index is no index, or names what it must not.
    #[error("{file}: {what}; fetch it again")]
    Index {
        /// The index.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// The index and the files that it lists disagree.
    #[error("{file} and the files that it lists disagree: {what}; take all of them from one revision")]
    IndexMismatch {
        /// The index.
        file: String,
        /// Which tensors, by kind of fault.
        what: String,
    },
}

/// Whether a file of this name would be one of weights.
pub fn is_weight_file(name: &str) -> bool {
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// The tensors of all `files`, which are weights and no index.
pub fn read(files: &[WeightFile]) -> Result<StoredTensors, CheckpointError> {
    let mut stored = StoredTensors::default();
    for (place, file) in files.iter().enumerate() {
        let mut head = [0; 9];
        let length = file.size.min(head.len() as u64) as usize;
        file.read_at(&mut head[..length], 0)?;
        let tensors = match head {
            // First, for the length of its header may look like the beginning of anything.
            _ if safetensors::header_bytes(&head, file.size).is_some() => safetensors::read(file)?,
            [b'P', b'K', 3, 4, ..] => torch_zip::read(file)?,
            [0x80, 2..=5, ..] => torch_legacy::read(file)?,
            _ => return Err(CheckpointError::UnknownFormat { file: file.name.clone() }),
        };
        for (name, tensor) in tensors {
            if let Some(other) = stored.tensors.get(&name) {
                let (first, second) = (files[other.file].name.clone(), file.name.clone());
                return Err(CheckpointError::Twice { tensor: shown(&name), first, second });
            }
            stored.tensors.insert(name, StoredTensor { file: place, ..tensor });
        }
    }
    Ok(stored)
}

impl WeightFile {
    /// Fills `buffer` with the bytes from `start` on.
    fn read_at(&self, buffer: &mut [u8], start: u64) -> Result<(), CheckpointError> {
        let read = self.file.read_exact_at(buffer, start);
        read.map_err(|source| CheckpointError::Io { file: self.name.clone(), source })
    }

    /// `length` bytes from `start` on; the caller has bounded them by the file's size.
    fn bytes(&self, start: u64, length: u64) -> Result<Vec<u8>, CheckpointError> {
        let mut bytes = vec![0; length as usize];
        self.read_at(&mut bytes, start)?;
        Ok(bytes)
    }

    fn malformed(&self, format: &'static str, what: impl Into<String>) -> CheckpointError {
        CheckpointError::Malformed { file: self.name.clone(), format, what: what.into() }
    }
}

/// The beginning of a text out of a file.
fn shown(text: &str) -> String {
    text.chars().take(SHOWN_LETTERS_MAX).collect()
}

/// Names for an error, shortened.
pub(crate) fn listed(mut names: Vec<String>) -> String {
    let more = names.len().saturating_sub(LISTED_MAX);
    names.truncate(LISTED_MAX);
    let names = names.join(", ");
    if more == 0 { names } else { format!("{names} and {more} more") }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write as _;

    use super::*;

    /// A weight file of these bytes, which has no name in any folder any more.
    pub(crate) fn weight_file(name: &str, bytes: &[u8]) -> WeightFile {
        let mut file = tempfile::tempfile().expect("temporary file");
        file.write_all(bytes).expect("written");
        WeightFile { name: name.to_owned(), file, size: bytes.len() as u64 }
    }

    #[test]
    fn the_content_tells_the_format() {
        let check = |bytes: &[u8], expected: &str| {
            let error = read(&[weight_file("some.file", bytes)]).expect_err("unsound").to_string();
            assert!(error.contains("some.file") && error.contains(expected), "{error}");
        };
        check(b"", "neither safetensors nor a torch checkpoint");
        check(b"version https", "git-lfs pointer");
        check(b"PK\x03\x04", "zip archive");
        check(b"PK\x05\x06", "neither");
        check(b"\x80\x02N.", "torch checkpoint");
        // The length 640 begins as a pickle does, but the brace behind it decides.
        let mut header = b"{}".to_vec();
        header.resize(640, b' ');
        let bytes = [&640u64.to_le_bytes()[..], &header].concat();
        assert_eq!(read(&[weight_file("x", &bytes)]).expect("sound"), StoredTensors::default());
    }

    #[test]
    fn a_name_in_two_files_is_refused() {
        let header = br#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header, b"x"].concat();
        let error = read(&[weight_file("one", &bytes), weight_file("two", &bytes)]).expect_err("twice");
        let error = error.to_string();
        assert!(error.contains("tensor \"a\" is in one and in two"), "{error}");
    }
}
