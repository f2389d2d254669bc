//! An array where it lies: in a file or in memory, of any number format, read as float64.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use half::{bf16, f16};
use safetensors::Dtype;

use super::{ArrayFileError, LOADED_BYTES_MAX};

/// The number format of an array's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    Float16,
    Bfloat16,
    Float32,
    Float64,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
}

impl Element {
    /// The element of a tensor with that dtype, where it is a floating-point number of one of the common formats.
    pub fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F64 => Some(Self::Float64),
            Dtype::F32 => Some(Self::Float32),
            Dtype::F16 => Some(Self::Float16),
            Dtype::BF16 => Some(Self::Bfloat16),
            _ => None,
        }
    }

    /// Bytes of one element.
    pub fn size(self) -> u64 {
        match self {
            Self::Int8 | Self::Uint8 => 1,
            Self::Float16 | Self::Bfloat16 | Self::Int16 | Self::Uint16 => 2,
            Self::Float32 | Self::Int32 | Self::Uint32 => 4,
            Self::Float64 | Self::Int64 | Self::Uint64 => 8,
        }
    }

    /// Whether the elements are whole numbers.
    pub fn is_integer(self) -> bool {
        !matches!(self, Self::Float16 | Self::Bfloat16 | Self::Float32 | Self::Float64)
    }

    /// One element from its little-endian bytes, which are as many as [`size`](Self::size) says.
    pub fn decode_little(self, bytes: &[u8]) -> f64 {
        let mut padded = [0; 8];
        padded[..bytes.len()].copy_from_slice(bytes);
        self.decode(padded)
    }

    fn decode(self, bytes: [u8; 8]) -> f64 {
        let [a, b, c, d, ..] = bytes;
        match self {
            Self::Float16 => f16::from_le_bytes([a, b]).to_f64(),
            Self::Bfloat16 => bf16::from_le_bytes([a, b]).to_f64(),
            Self::Float32 => f64::from(f32::from_le_bytes([a, b, c, d])),
            Self::Float64 => f64::from_le_bytes(bytes),
            Self::Int8 => f64::from(i8::from_le_bytes([a])),
            Self::Int16 => f64::from(i16::from_le_bytes([a, b])),
            Self::Int32 => f64::from(i32::from_le_bytes([a, b, c, d])),
            Self::Int64 => i64::from_le_bytes(bytes) as f64,
            Self::Uint8 => f64::from(a),
            Self::Uint16 => f64::from(u16::from_le_bytes([a, b])),
            Self::Uint32 => f64::from(u32::from_le_bytes([a, b, c, d])),
            Self::Uint64 => u64::from_le_bytes(bytes) as f64,
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

/// Where an array's bytes are.
pub enum Bytes {
    /// In a file, from this place on.
    File(Arc<File>, u64),
    /// In a compressed entry of a zip archive, still to be loaded.
    ZipEntry(usize),
    /// In memory, from this place on.
    Memory(Vec<u8>, u64),
}

/// A named array.
pub struct StoredArray {
    pub name: String,
    pub shape: Vec<u64>,
    pub element: Element,
    pub big_endian: bool,
    /// Whether the first axis, not the last, is the one whose neighbours lie side by side.
    pub fortran_order: bool,
    pub bytes: Bytes,
}

impl StoredArray {
    /// Bytes of all elements; `None` where that is more than a u64 can say.
    pub fn n_bytes(&self) -> Option<u64> {
        self.shape.iter().try_fold(self.element.size(), |product, side| product.checked_mul(*side))
    }

    /// Elements between neighbours along each axis.
    pub fn strides(&self) -> Vec<u64> {
        let mut strides = vec![1u64; self.shape.len()];
        // Arrays reach this point only if their size is known to fit their file.
        if self.fortran_order {
            for axis in 1..strides.len() {
                strides[axis] = strides[axis - 1].saturating_mul(self.shape[axis - 1]);
            }
        } else {
            for axis in (1..strides.len()).rev() {
                strides[axis - 1] = strides[axis].saturating_mul(self.shape[axis]);
            }
        }
        strides
    }

    /// Brings the bytes into memory where they cannot be read row by row from the file.
    pub fn load_if_needed(&mut self, path: &Path) -> Result<(), ArrayFileError> {
        let too_large = |n_bytes| ArrayFileError::Damaged {
            path: path.to_owned(),
            fault: format!(
                "array {:?} of {n_bytes} bytes is larger than the {LOADED_BYTES_MAX} bytes that are loaded at most; \
                 save it as an uncompressed .npy file in C order",
                self.name
            ),
        };
        let n_bytes = self.n_bytes().unwrap_or(u64::MAX);
        match &self.bytes {
            Bytes::File(file, start) if self.fortran_order => {
                if n_bytes > LOADED_BYTES_MAX {
                    return Err(too_large(n_bytes));
                }
                let mut bytes = vec![0; usize::try_from(n_bytes).map_err(|_| too_large(n_bytes))?];
                let read = file.read_exact_at(&mut bytes, *start);
                read.map_err(|source| ArrayFileError::Read { path: path.to_owned(), source })?;
                self.bytes = Bytes::Memory(bytes, 0);
            }
            Bytes::ZipEntry(entry) => {
                if n_bytes > LOADED_BYTES_MAX {
                    return Err(too_large(n_bytes));
                }
                let (bytes, start) = super::archive::load_npz_entry(path, *entry, n_bytes)?;
                self.bytes = Bytes::Memory(bytes, start);
            }
            Bytes::File(..) | Bytes::Memory(..) => {}
        }
        Ok(())
    }

    /// Appends `count` elements, from element `first` on, every `stride`-th.
    pub fn read(&self, first: u64, stride: u64, count: usize, out: &mut Vec<f64>) -> io::Result<()> {
        let size = self.element.size();
        let outside = || io::Error::new(io::ErrorKind::UnexpectedEof, "the array ends before the row does");
        let place = |element: u64| element.checked_mul(size).ok_or_else(outside);
        match &self.bytes {
            Bytes::File(file, start) if stride == 1 => {
                let mut row = vec![0; count * size as usize];
                file.read_exact_at(&mut row, start + place(first)?)?;
                out.extend(row.chunks_exact(size as usize).map(|bytes| self.decode(bytes)));
                Ok(())
            }
            Bytes::Memory(bytes, start) => {
                for element in 0..count as u64 {
                    let begin =
                        usize::try_from(start + place(first + element * stride)?).map_err(|_| outside())?;
                    let bytes = bytes.get(begin..).and_then(|rest| rest.get(..size as usize));
                    out.push(self.decode(bytes.ok_or_else(outside)?));
                }
                Ok(())
            }
            Bytes::File(..) | Bytes::ZipEntry(_) => Err(io::Error::other("the array was not loaded")),
        }
    }

    fn decode(&self, bytes: &[u8]) -> f64 {
        let mut ordered = [0; 8];
        ordered[..bytes.len()].copy_from_slice(bytes);
        if self.big_endian {
            ordered[..bytes.len()].reverse();
        }
        self.element.decode(ordered)
    }
}
