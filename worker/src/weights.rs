//! A safetensors file → named tensors in the compute dtype on the device.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use lsa_common::architecture::Layout;
use lsa_common::architecture::checkpoint::{self, CheckpointError, StoredTensor};
use safetensors::Dtype;
use tch::{Device, Kind, TchError, Tensor};

use crate::device::first_line;

/// Why weights could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file does not hold what the config implies.
    #[error("the weights do not fit the config")]
    Checkpoint(#[from] CheckpointError),
    /// Reading failed.
    #[error("cannot read the weights")]
    Io(#[from] std::io::Error),
    /// A loader asked for a tensor that its layout does not list, or twice.
    #[error("the loader of this architecture asked for tensor {0:?}, which its layout does not list")]
    NotListed(String),
    /// libtorch failed, usually for lack of memory.
    #[error("cannot place the weights on the device: {}", first_line(&.0.to_string()))]
    Torch(#[from] TchError),
}

/// The tensors of an encoder by the names of its family, all in one dtype on one device.
pub struct Weights {
    tensors: BTreeMap<String, Tensor>,
    has_pooler: bool,
    kind: Kind,
}

impl Weights {
    /// Reads the encoder out of a safetensors file of `file_bytes` bytes.
    ///
    /// The file is read tensor by tensor rather than mapped: a file that shrinks meanwhile is an error then,
    /// not a bus error. At most one tensor is in memory beside those that stay.
    pub fn load(
        file: &File,
        file_bytes: u64,
        layout: &Layout,
        kind: Kind,
        device: Device,
    ) -> Result<Self, WeightsError> {
        let found = checkpoint::read(&mut &*file, file_bytes, layout)?;
        let has_pooler = found.has_pooler;
        let load =
            |(name, stored): (String, StoredTensor)| Ok((name, load_tensor(file, &stored, kind, device)?));
        let tensors = found.tensors.into_iter().map(load).collect::<Result<_, WeightsError>>()?;
        Ok(Self { tensors, has_pooler, kind })
    }

    /// Whether a trained pooler is there.
    pub fn has_pooler(&self) -> bool {
        self.has_pooler
    }

    /// The dtype in which tensors are handed over.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// As [`Self::take`], in float32.
    pub fn take_float32(&mut self, name: &str) -> Result<Tensor, WeightsError> {
        Ok(self.take(name)?.f_to_kind(Kind::Float)?)
    }

    /// A tensor that several places use; it stays here as well.
    pub fn share(&self, name: &str) -> Result<Tensor, WeightsError> {
        let tensor = self.tensors.get(name).map(Tensor::shallow_clone);
        tensor.ok_or_else(|| WeightsError::NotListed(name.to_owned()))
    }

    /// Hands a tensor over; each goes to one place.
    pub fn take(&mut self, name: &str) -> Result<Tensor, WeightsError> {
        self.tensors.remove(name).ok_or_else(|| WeightsError::NotListed(name.to_owned()))
    }
}

fn load_tensor(
    file: &File,
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
    // The size was checked against the file's, so a hostile header cannot ask for more than is there.
    let mut bytes = vec![0u8; stored.size_bytes as usize];
    file.read_exact_at(&mut bytes, stored.start)?;
    let shape: Vec<i64> = stored.shape.iter().map(|side| *side as i64).collect();
    let tensor = Tensor::f_from_data_size(&bytes, &shape, stored_kind)?;
    Ok(tensor.f_to_kind(kind)?.f_to_device(device)?)
}
