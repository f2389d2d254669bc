//! Weight files → named tensors in the compute dtype on the device.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

use lsa_common::architecture::Layout;
use lsa_common::architecture::checkpoint::{MatchError, matched};
use lsa_common::checkpoint::{self, CheckpointError, StoredTensor, WeightFile};
use nix::sys::mman::{MmapAdvise, madvise};
use rayon::prelude::*;
use safetensors::Dtype;
use tch::{Device, Kind, TchError, Tensor};

use crate::device::first_line;

/// How much of a file is read and converted at a time; a multiple of every number's size.
const PIECE_BYTES: usize = 16 << 20;

/// The size of a huge page on the machines that have them.
const HUGE_PAGE_BYTES: usize = 2 << 20;

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

    /// Reads several tensors as one, one below the other; each goes to one place.
    ///
    /// They must agree in all sides but the first.
    pub fn take_stacked(&mut self, names: &[String]) -> Result<Tensor, WeightsError> {
        let mut parts = Vec::with_capacity(names.len());
        for name in names {
            let stored = self.stored.remove(name).ok_or_else(|| WeightsError::NotListed(name.clone()))?;
            parts.push(stored);
        }
        if let [one] = &parts[..] {
            return load_tensor(&self.files[one.file], one, self.kind, self.device);
        }
        let rows = |stored: &StoredTensor| stored.shape.first().map_or(1, |rows| *rows as i64);
        let mut shape = parts.first().map(|stored| sizes(&stored.shape)).unwrap_or_default();
        if let Some(first) = shape.first_mut() {
            *first = parts.iter().map(rows).sum();
        }
        let all = empty(&shape, self.kind, self.device)?;
        let mut start = 0;
        for stored in &parts {
            let place = all.f_narrow(0, start, rows(stored))?;
            start += rows(stored);
            load_into(&place, &self.files[stored.file], stored)?;
        }
        Ok(all)
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
    let tensor = empty(&sizes(&stored.shape), kind, device)?;
    load_into(&tensor, file, stored)?;
    Ok(tensor)
}

/// A tensor to be filled, in huge pages where it is large.
///
/// Touching fresh memory page by page can take longer than reading the file: on a virtual machine 6.4 GB took 15 s in
/// pages of 4 KiB and 4 s in pages of 2 MiB.
fn empty(shape: &[i64], kind: Kind, device: Device) -> Result<Tensor, TchError> {
    let tensor = Tensor::f_empty(shape, (kind, device))?;
    let n_bytes = tensor.numel() * kind.elt_size_in_bytes();
    if device == Device::Cpu && n_bytes >= 2 * HUGE_PAGE_BYTES {
        let start = (tensor.data_ptr() as usize).next_multiple_of(HUGE_PAGE_BYTES);
        let end = (tensor.data_ptr() as usize + n_bytes) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
        if let Some(start) = NonNull::new(start as *mut std::ffi::c_void) {
            // SAFETY: the range lies within the tensor's memory; the advice changes nothing that it holds.
            let advised = unsafe { madvise(start, end - start.as_ptr() as usize, MmapAdvise::MADV_HUGEPAGE) };
            // A kernel without huge pages says so, and goes on with small ones.
            advised.ok();
        }
    }
    Ok(tensor)
}

/// Reads a tensor into a contiguous one of its shape.
fn load_into(place: &Tensor, file: &WeightFile, stored: &StoredTensor) -> Result<(), WeightsError> {
    let Some(strides) = &stored.strides else {
        return load_span(&place.f_view(-1)?, file, stored);
    };
    // Every number from the first to the last, as they lie in the file.
    let stored_kind = stored_kind(stored.dtype);
    let n_numbers = stored.size_bytes as i64 / stored_kind.elt_size_in_bytes() as i64;
    let span = Tensor::f_empty([n_numbers], (place.kind(), place.device()))?;
    load_span(&span, file, stored)?;
    let strided = span.f_as_strided(sizes(&stored.shape), sizes(strides), None)?;
    place.shallow_clone().f_copy_(&strided)?;
    Ok(())
}

/// Reads as many numbers as a flat tensor has room for.
fn load_span(span: &Tensor, file: &WeightFile, stored: &StoredTensor) -> Result<(), WeightsError> {
    let io = |source| CheckpointError::Io { file: file.name.clone(), source };
    let stored_kind = stored_kind(stored.dtype);
    let width = stored_kind.elt_size_in_bytes();
    let n_numbers = span.numel();
    if n_numbers == 0 {
        return Ok(());
    }
    if stored_kind == span.kind() && span.device() == Device::Cpu {
        // SAFETY: a contiguous tensor on the CPU is `numel` numbers from `data_ptr` on, nobody else has it yet, and
        // any bytes are numbers of these kinds.
        let bytes =
            unsafe { std::slice::from_raw_parts_mut(span.data_ptr().cast::<u8>(), n_numbers * width) };
        // Several pieces at once: what takes the time is memory that nobody has touched before.
        let pieces = bytes.par_chunks_mut(PIECE_BYTES).enumerate();
        let start = |place: usize| stored.start + (place * PIECE_BYTES) as u64;
        return Ok(pieces
            .try_for_each(|(place, piece)| file.file.read_exact_at(piece, start(place)))
            .map_err(io)?);
    }
    let mut piece = vec![0u8; PIECE_BYTES.min(n_numbers * width)];
    let mut done = 0;
    while done < n_numbers {
        let count = (n_numbers - done).min(PIECE_BYTES / width);
        let piece = &mut piece[..count * width];
        file.file.read_exact_at(piece, stored.start + (done * width) as u64).map_err(io)?;
        // SAFETY: the piece outlives the tensor, which is only read from.
        let numbers =
            unsafe { Tensor::f_from_blob(piece.as_ptr(), &[count as i64], &[1], stored_kind, Device::Cpu)? };
        // Converts and moves to the device in one step.
        span.f_narrow(0, done as i64, count as i64)?.f_copy_(&numbers)?;
        done += count;
    }
    Ok(())
}

fn stored_kind(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F64 => Kind::Double,
        // The checkpoint was accepted, so nothing but F32 is left.
        _ => Kind::Float,
    }
}

fn sizes(lengths: &[usize]) -> Vec<i64> {
    lengths.iter().map(|length| *length as i64).collect()
}
