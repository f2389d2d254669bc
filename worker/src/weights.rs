//! Weight files → named tensors in the compute dtype on the device.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;

use lsa_common::architecture::Layout;
use lsa_common::architecture::checkpoint::{MatchError, matched};
use lsa_common::checkpoint::{self, CheckpointError, StoredTensor, WeightFile};
use safetensors::Dtype;
use tch::{Device, Kind, TchError, Tensor};

use crate::device::first_line;

/// How much of a file is read and converted at a time; a multiple of every number's size.
const PIECE_BYTES: usize = 16 << 20;

/// Why weights could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The files are damaged.
    #[error("the weights cannot be read")]
    Checkpoint(#[from] CheckpointError),
    /// The files do not hold what the config implies.
    #[error("the weights do not fit the config")]
    Match(#[from] MatchError),
    /// A loader asked for a tensor that its layout does not list, or twice.
    #[error("the loader of this architecture asked for tensor {0:?}, which its layout does not list")]
    NotListed(String),
    /// libtorch failed, usually for lack of memory.
    #[error("cannot place the weights on the device: {}", first_line(&.0.to_string()))]
    Torch(#[from] TchError),
}

/// The tensors of an encoder by the names of its family, read when they are taken.
pub struct Weights<'a> {
    files: &'a [WeightFile],
    stored: BTreeMap<String, StoredTensor>,
    has_pooler: bool,
    kind: Kind,
    device: Device,
}

impl<'a> Weights<'a> {
    /// Finds the encoder in its weight files; what is taken comes in the given dtype, on the device.
    ///
    /// Files are read piece by piece rather than mapped: a file that shrinks meanwhile is an error then, not a bus
    /// error. Beside the tensors that were taken, at most one piece is in memory, and one tensor that is not
    /// contiguous.
    pub fn open(
        files: &'a [WeightFile],
        layout: &Layout,
        kind: Kind,
        device: Device,
    ) -> Result<Self, WeightsError> {
        let found = matched(&checkpoint::read(files)?, layout)?;
        Ok(Self { files, stored: found.tensors, has_pooler: found.has_pooler, kind, device })
    }

    /// Whether a trained pooler is there.
    pub fn has_pooler(&self) -> bool {
        self.has_pooler
    }

    /// The dtype of what is taken.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Reads a tensor; each goes to one place.
    pub fn take(&mut self, name: &str) -> Result<Tensor, WeightsError> {
        let tensor = self.read(name, self.kind)?;
        self.stored.remove(name);
        Ok(tensor)
    }

    /// As [`Self::take`], in float32.
    pub fn take_float32(&mut self, name: &str) -> Result<Tensor, WeightsError> {
        let tensor = self.read(name, Kind::Float)?;
        self.stored.remove(name);
        Ok(tensor)
    }

    /// Reads a tensor that several places use.
    pub fn share(&self, name: &str) -> Result<Tensor, WeightsError> {
        self.read(name, self.kind)
    }

    fn read(&self, name: &str, kind: Kind) -> Result<Tensor, WeightsError> {
        let stored = self.stored.get(name).ok_or_else(|| WeightsError::NotListed(name.to_owned()))?;
        load_tensor(&self.files[stored.file], stored, kind, self.device)
    }
}

fn load_tensor(
    file: &WeightFile,
    stored: &StoredTensor,
    kind: Kind,
    device: Device,
) -> Result<Tensor, WeightsError> {
    let shape = sizes(&stored.shape);
    let span = load_span(file, stored, kind, device)?;
    let Some(strides) = &stored.strides else { return Ok(span.f_reshape(shape)?) };
    Ok(span.f_as_strided(shape, sizes(strides), 0)?.f_contiguous()?)
}

/// Every number from the first to the last of a tensor, as they lie in the file.
fn load_span(
    file: &WeightFile,
    stored: &StoredTensor,
    kind: Kind,
    device: Device,
) -> Result<Tensor, WeightsError> {
    let stored_kind = match stored.dtype {
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F64 => Kind::Double,
        // The checkpoint was accepted, so nothing but F32 is left.
        _ => Kind::Float,
    };
    let width = stored_kind.elt_size_in_bytes();
    // The size was checked against the file's, so a hostile directory cannot ask for more than is there.
    let n_numbers = stored.size_bytes as usize / width;
    let span = Tensor::f_empty([n_numbers as i64], (kind, device))?;
    let mut piece = vec![0u8; PIECE_BYTES.min(n_numbers * width)];
    let mut done = 0;
    while done < n_numbers {
        let count = (n_numbers - done).min(PIECE_BYTES / width);
        let piece = &mut piece[..count * width];
        let read = file.file.read_exact_at(piece, stored.start + (done * width) as u64);
        read.map_err(|source| CheckpointError::Io { file: file.name.clone(), source })?;
        let numbers = Tensor::f_from_data_size(piece, &[count as i64], stored_kind)?;
        // Converts and moves to the device in one step.
        span.f_narrow(0, done as i64, count as i64)?.f_copy_(&numbers)?;
        done += count;
    }
    Ok(span)
}

fn sizes(lengths: &[usize]) -> Vec<i64> {
    lengths.iter().map(|length| *length as i64).collect()
}
