//! Texts → pooled rows of every layer: tokens, batches, one forward pass, pooling.
//!
//! The same texts and request give the same bytes whatever the number of threads: batches are computed whole,
//! each on one thread, and their composition depends on the lengths of the texts and the token budget alone.

mod batch_run;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use lsa_common::checkpoint::CheckpointError;
use lsa_common::failure::FailureClass;
use lsa_common::model::{Dtype, PinnedModel, Pooling};
use lsa_common::model_source::{self, Description, ModelSourceError};
use lsa_common::tokenize::{Encoded, TokenizeError, Tokenizer};
use rayon::prelude::*;
use tch::{Device, TchError};

use crate::batch;
use crate::device;
use crate::model::{self, Encoder, LoadError};
use crate::weights::WeightsError;
use batch_run::{BatchRows, BatchRun};

/// Texts tokenized by one thread at a time.
const TOKENIZE_TEXTS: usize = 64;

/// A model and its tokenizer on a device, shared by threads.
pub struct Extractor {
    tokenizer: Tokenizer,
    encoder: SharedEncoder,
    /// The same encoder in float32, loaded when a row overflows in half precision.
    full_precision: OnceLock<SharedEncoder>,
    loading: Mutex<()>,
    model: PinnedModel,
    folder: PathBuf,
    description: Description,
    dtype: Dtype,
    device: Device,
}

/// An encoder that several threads use at once.
struct SharedEncoder(Box<dyn Encoder>);

// SAFETY: an encoder's tensors never change after loading and are only read by operations that make new tensors;
// libtorch allows that from several threads at once (reference counts are atomic, no autograd state is touched
// because every thread computes under `no_grad`).
unsafe impl Sync for SharedEncoder {}

/// What is asked of a pass over the texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtractRequest {
    /// The most tokens of a text, special tokens included.
    pub max_length: u32,
    /// The most tokens of a batch.
    pub token_budget: u64,
    /// The entries of the hidden states to keep; they come back ascending, each once.
    pub layers: Vec<u32>,
    /// The poolings to apply to each.
    pub poolings: Vec<Pooling>,
    /// Whether texts without tokens are left out rather than an error.
    pub skip_empty: bool,
}

/// Pooled rows of all layers and poolings.
#[derive(Clone, Debug, PartialEq)]
pub struct Pooled {
    /// Rows kept: n.
    pub n_rows: usize,
    /// Which texts they come from, ascending: all of them unless some had no tokens.
    pub kept: Vec<u32>,
    /// The layers asked for, ascending.
    pub layers: Vec<PooledLayer>,
    /// Per pooling and layer: [n, width], row-major; row i comes from text `kept[i]`.
    pub rows: BTreeMap<Pooling, Vec<Vec<f32>>>,
    /// What there is to say about the pass.
    pub notes: ExtractNotes,
}

/// A layer of [`Pooled`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PooledLayer {
    /// The entry of the hidden states.
    pub layer: u32,
    /// Its width.
    pub width: u32,
}

/// What there is to say about a pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtractNotes {
    /// Tokens that went through the model.
    pub n_tokens: u64,
    /// Texts that were cut.
    pub n_truncated: u64,
    /// Rows that were not finite in half precision and were redone in float32, per layer asked for.
    pub nonfinite_rows_per_layer: Vec<u64>,
    /// Whether a batch was split for lack of memory: its bytes may differ from those of an unsplit run.
    pub split: bool,
}

/// Why a pass failed.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The model's files are not usable.
    #[error(transparent)]
    Source(#[from] ModelSourceError),
    /// The model could not be loaded.
    #[error("cannot load model {id:?}")]
    Load {
        /// Which model.
        id: String,
        /// Why.
        #[source]
        source: LoadError,
    },
    /// The tokenizer is not usable, or has no room.
    #[error("cannot tokenize with the tokenizer of model {id:?}")]
    Tokenizer {
        /// Which model.
        id: String,
        /// Why.
        #[source]
        source: TokenizeError,
    },
    /// A text broke the tokenizer.
    #[error("text {row} (counted from 0) cannot be tokenized: {reason}")]
    Text {
        /// The row, counted from 0.
        row: u64,
        /// In the tokenizer's words.
        reason: String,
    },
    /// A text without tokens.
    #[error("text {row} (counted from 0) has no tokens; remove it, or allow empty texts to be skipped")]
    Empty {
        /// The row, counted from 0.
        row: u64,
    },
    /// Tokenizer and weights do not belong together.
    #[error(
        "text {row} (counted from 0) has token id {token}, but the model has only {vocab_size} token embeddings; \
         take tokenizer and weights from one revision"
    )]
    UnknownToken {
        /// The row, counted from 0.
        row: u64,
        /// The id.
        token: u32,
        /// Rows of the token embedding.
        vocab_size: u32,
    },
    /// Longer than the position scheme.
    #[error("max_length {max_length} is more than the {limit} positions of model {id:?}; lower it")]
    TooLong {
        /// As asked for.
        max_length: u32,
        /// The model's limit.
        limit: u32,
        /// Which model.
        id: String,
    },
    /// A layer that the model does not have.
    #[error("layer {layer} does not exist: model {id:?} has layers 0 to {last}")]
    NoLayer {
        /// As asked for.
        layer: u32,
        /// The last there is.
        last: u32,
        /// Which model.
        id: String,
    },
    /// A pooler that the checkpoint does not have.
    #[error("model {0:?} has no trained pooler; choose another pooling")]
    NoPooler(String),
    /// An overflow in float32.
    #[error("text {row} (counted from 0) has values that are not finite at layer {layer}, even in float32")]
    NonFinite {
        /// The row, counted from 0.
        row: u64,
        /// The layer.
        layer: u32,
    },
    /// One text alone does not fit.
    #[error(
        "out of memory on text {row} (counted from 0) of {n_tokens} tokens, alone in its batch; \
         lower max_length, or use a device with more memory"
    )]
    OutOfMemory {
        /// The row, counted from 0.
        row: u64,
        /// Its tokens.
        n_tokens: u64,
    },
    /// The GPU is gone.
    #[error("the device failed: {0}")]
    DeviceLost(String),
    /// Anything else that libtorch refused.
    #[error("libtorch failed: {0}")]
    Torch(String),
    /// No threads to be had.
    #[error("cannot start threads: {0}")]
    Threads(String),
    /// The caller said so.
    #[error("stopped")]
    Stopped,
}

impl ExtractError {
    /// What the caller should do.
    pub fn failure_class(&self) -> FailureClass {
        match self {
            Self::Source(source) => source.failure_class(),
            Self::Load {
                source:
                    LoadError::Weights(
                        WeightsError::Torch(_) | WeightsError::Checkpoint(CheckpointError::Io { .. }),
                    ),
                ..
            }
            | Self::OutOfMemory { .. }
            | Self::Threads(_)
            | Self::Stopped => FailureClass::Retry,
            Self::DeviceLost(_) => FailureClass::Fatal,
            Self::Load { .. }
            | Self::Tokenizer { .. }
            | Self::Text { .. }
            | Self::Empty { .. }
            | Self::UnknownToken { .. }
            | Self::TooLong { .. }
            | Self::NoLayer { .. }
            | Self::NoPooler(_)
            | Self::NonFinite { .. }
            | Self::Torch(_) => FailureClass::Reject,
        }
    }
}

impl Extractor {
    /// Loads a pinned model from `folder`; every file's digest is checked first.
    pub fn load(
        model: &PinnedModel,
        folder: &Path,
        dtype: Dtype,
        device: Device,
    ) -> Result<Self, ExtractError> {
        let files = model_source::open(model, folder)?;
        let tokenizer = Tokenizer::load(&files.tokenizer)
            .map_err(|source| ExtractError::Tokenizer { id: model.id.clone(), source })?;
        let encoder = files
            .verify_while(|| model::load(&files, dtype, device))?
            .map_err(|source| ExtractError::Load { id: model.id.clone(), source })?;
        Ok(Self {
            tokenizer,
            encoder: SharedEncoder(encoder),
            full_precision: OnceLock::new(),
            loading: Mutex::new(()),
            model: model.clone(),
            folder: folder.to_owned(),
            description: files.description,
            dtype,
            device,
        })
    }

    /// Entries of the hidden states.
    pub fn n_layers(&self) -> u32 {
        self.encoder.0.n_layers()
    }

    /// Width of an entry of the hidden states.
    pub fn width(&self, layer: u32) -> u32 {
        self.encoder.0.width(layer)
    }

    /// Runs texts through the model and pools every layer asked for.
    ///
    /// On a CPU `threads` batches run at once; on a GPU one, with `threads` threads for the tokenizer. `progress`
    /// is called with the number of rows done after each batch, from any thread; `false` stops the pass.
    pub fn extract(
        &self,
        texts: &[String],
        what: &ExtractRequest,
        threads: usize,
        progress: &(dyn Fn(u64) -> bool + Sync),
    ) -> Result<Pooled, ExtractError> {
        self.check(what)?;
        let pool = thread_pool(threads)?;
        let tokens = pool.install(|| self.tokenize(texts, what.max_length))?;
        self.extract_encoded(tokens, what, &pool, progress)
    }

    /// As [`Self::extract`], for texts that are tokens already.
    pub fn extract_tokens(
        &self,
        tokens: Vec<Encoded>,
        what: &ExtractRequest,
        threads: usize,
        progress: &(dyn Fn(u64) -> bool + Sync),
    ) -> Result<Pooled, ExtractError> {
        self.check(what)?;
        let lengths = tokens.iter().map(|text| text.ids.len());
        let longest = lengths.max().unwrap_or(0).try_into().unwrap_or(u32::MAX);
        if let Some(limit) = self.description.position_limit().filter(|limit| longest > *limit) {
            return Err(ExtractError::TooLong { max_length: longest, limit, id: self.model.id.clone() });
        }
        self.extract_encoded(tokens, what, &thread_pool(threads)?, progress)
    }

    fn extract_encoded(
        &self,
        tokens: Vec<Encoded>,
        what: &ExtractRequest,
        pool: &rayon::ThreadPool,
        progress: &(dyn Fn(u64) -> bool + Sync),
    ) -> Result<Pooled, ExtractError> {
        let mut what = what.clone();
        what.layers.sort_unstable();
        what.layers.dedup();
        let what = &what;
        self.check_tokens(&tokens, what.skip_empty)?;
        let lengths: Vec<u32> = tokens.iter().map(|text| text.ids.len() as u32).collect();
        let mut batches = batch::plan(&lengths, device::batch_tokens(self.device, what.token_budget));
        // The longest first, so that no thread is left alone with one at the end; the order changes no result.
        batches.reverse();
        let gathered = Mutex::new(Gathered::new(self, &lengths, what));
        let (next, done, stopped) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let work = || -> Result<(), ExtractError> {
            let _guard = tch::no_grad_guard();
            while !stopped.load(Ordering::Relaxed) {
                let Some(rows) = batches.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                let run = BatchRun { extractor: self, tokens: &tokens, what };
                let computed = run.rows(rows).inspect_err(|_| stopped.store(true, Ordering::Relaxed))?;
                let n_rows = rows.len() as u64;
                locked(&gathered).place(rows, computed);
                if !progress(done.fetch_add(n_rows, Ordering::Relaxed) + n_rows) {
                    stopped.store(true, Ordering::Relaxed);
                    return Err(ExtractError::Stopped);
                }
            }
            Ok(())
        };
        if self.device.is_cuda() {
            work()?;
        } else {
            pool.broadcast(|_| work()).into_iter().collect::<Result<(), _>>()?;
        }
        let mut pooled = gathered.into_inner().unwrap_or_else(PoisonError::into_inner).pooled;
        pooled.notes.n_tokens = lengths.iter().map(|length| u64::from(*length)).sum();
        pooled.notes.n_truncated = tokens.iter().filter(|text| text.truncated).count() as u64;
        Ok(pooled)
    }

    fn check(&self, what: &ExtractRequest) -> Result<(), ExtractError> {
        let id = || self.model.id.clone();
        if let Some(limit) = self.description.position_limit().filter(|limit| what.max_length > *limit) {
            return Err(ExtractError::TooLong { max_length: what.max_length, limit, id: id() });
        }
        let last = self.n_layers() - 1;
        if let Some(layer) = what.layers.iter().copied().find(|layer| *layer > last) {
            return Err(ExtractError::NoLayer { layer, last, id: id() });
        }
        if what.poolings.contains(&Pooling::Pooler) && self.encoder.0.pooler().is_none() {
            return Err(ExtractError::NoPooler(id()));
        }
        Ok(())
    }

    fn tokenize(&self, texts: &[String], max_length: u32) -> Result<Vec<Encoded>, ExtractError> {
        let encode = |(chunk, texts): (usize, &[String])| {
            self.tokenizer.encode_batch(texts, max_length).map_err(|error| match error {
                TokenizeError::Text { index, reason } => {
                    ExtractError::Text { row: (chunk * TOKENIZE_TEXTS + index) as u64, reason }
                }
                source => ExtractError::Tokenizer { id: self.model.id.clone(), source },
            })
        };
        let chunks: Result<Vec<_>, _> = texts.par_chunks(TOKENIZE_TEXTS).enumerate().map(encode).collect();
        Ok(chunks?.into_iter().flatten().collect())
    }

    /// An id outside the embedding would be read out of bounds on some devices.
    fn check_tokens(&self, tokens: &[Encoded], skip_empty: bool) -> Result<(), ExtractError> {
        let vocab_size = self.description.vocab_size();
        for (row, text) in (0u64..).zip(tokens) {
            if text.ids.is_empty() && !skip_empty {
                return Err(ExtractError::Empty { row });
            }
            if let Some(token) = text.ids.iter().copied().find(|id| *id >= vocab_size) {
                return Err(ExtractError::UnknownToken { row, token, vocab_size });
            }
        }
        Ok(())
    }

    /// The encoder in float32.
    fn full_precision(&self) -> Result<&SharedEncoder, ExtractError> {
        if let Some(encoder) = self.full_precision.get() {
            return Ok(encoder);
        }
        let _one_loads = locked(&self.loading);
        if let Some(encoder) = self.full_precision.get() {
            return Ok(encoder);
        }
        let files = model_source::open(&self.model, &self.folder)?;
        let encoder = files
            .verify_while(|| model::load(&files, Dtype::Float32, self.device))?
            .map_err(|source| ExtractError::Load { id: self.model.id.clone(), source })?;
        Ok(self.full_precision.get_or_init(|| SharedEncoder(encoder)))
    }
}

fn thread_pool(threads: usize) -> Result<rayon::ThreadPool, ExtractError> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .start_handler(|_| device::single_threaded())
        .build()
        .map_err(|error| ExtractError::Threads(error.to_string()))
}

/// Rows of finished batches, each put where it belongs.
struct Gathered {
    /// Where the row of each text goes.
    place: Vec<usize>,
    poolings: Vec<Pooling>,
    pooled: Pooled,
}

impl Gathered {
    fn new(extractor: &Extractor, lengths: &[u32], what: &ExtractRequest) -> Self {
        let mut place = Vec::with_capacity(lengths.len());
        let mut kept = Vec::new();
        for (row, length) in (0u32..).zip(lengths) {
            place.push(kept.len());
            if *length > 0 {
                kept.push(row);
            }
        }
        let n_rows = kept.len();
        let layer = |layer: &u32| PooledLayer { layer: *layer, width: extractor.width(*layer) };
        let layers: Vec<PooledLayer> = what.layers.iter().map(layer).collect();
        let empty = || layers.iter().map(|layer| vec![0f32; n_rows * layer.width as usize]).collect();
        let rows = what.poolings.iter().map(|pooling| (*pooling, empty())).collect();
        let notes =
            ExtractNotes { nonfinite_rows_per_layer: vec![0; layers.len()], ..ExtractNotes::default() };
        let pooled = Pooled { n_rows, kept, layers, rows, notes };
        Self { place, poolings: what.poolings.clone(), pooled }
    }

    fn place(&mut self, rows: &[u32], computed: BatchRows) {
        let Pooled { layers, rows: all, notes, .. } = &mut self.pooled;
        for (layer_idx, (layer, of_layer)) in layers.iter().zip(&computed.layers).enumerate() {
            let width = layer.width as usize;
            for (pooling, values) in self.poolings.iter().zip(of_layer) {
                let Some(target) = all.get_mut(pooling).and_then(|layers| layers.get_mut(layer_idx)) else {
                    continue;
                };
                for (row, value) in rows.iter().zip(values.chunks_exact(width)) {
                    let start = self.place[*row as usize] * width;
                    target[start..start + width].copy_from_slice(value);
                }
            }
        }
        notes.split |= computed.split;
        for (total, redone) in
            notes.nonfinite_rows_per_layer.iter_mut().zip(&computed.nonfinite_rows_per_layer)
        {
            *total += redone;
        }
    }
}

/// A lock whose holder panicked holds data that is complete all the same: writes happen in one call each.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl From<TchError> for ExtractError {
    fn from(error: TchError) -> Self {
        let message = device::first_line(&error.to_string());
        if message.contains("CUDA error")
            || message.contains("CUDNN_STATUS")
            || message.contains("CUBLAS_STATUS")
        {
            Self::DeviceLost(message)
        } else {
            Self::Torch(message)
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::batch::Batch;
    use crate::model::PackedBatch;
    use crate::model::block::linear::counter;

    use super::*;

    #[test]
    fn no_padded_token_enters_a_linear_map() {
        device::prepare_libtorch();
        for name in ["open/bert", "open/llama", "open/t5", "open/modernbert", "open/gpt2", "more/xlnet"] {
            let folder = format!("{}/../tests/fixtures/models/{name}", env!("CARGO_MANIFEST_DIR"));
            let found = model_source::local(&folder, None).expect("a folder").expect("a path");
            let found = found.pin().expect("a fixture");
            let files = model_source::open(&found, &found.folder).expect("unchanged");
            let encoder = model::load(&files, Dtype::Float32, Device::Cpu).expect("loaded");
            // Lengths that share a padded group in attention.
            let texts: Vec<Vec<u32>> = [7, 8, 8, 9, 30].map(|length| (0..length).collect()).into();
            let batch = Batch::pack(texts.iter().map(Vec::as_slice));
            let packed = PackedBatch::new(&batch, Device::Cpu).expect("packed");
            counter::take();
            let _guard = tch::no_grad_guard();
            encoder.forward(&packed, &mut |_, _| Ok(())).expect("computed");
            let rows = counter::take();
            let n_blocks = encoder.n_layers() as usize - 1;
            // Distances of a text of 30 tokens, once in each block, are no tokens.
            let (distances, tokens): (Vec<i64>, Vec<i64>) = rows.iter().partition(|n_rows| **n_rows == 59);
            assert_eq!(distances.len(), if name == "more/xlnet" { n_blocks } else { 0 }, "{name}: {rows:?}");
            assert!(tokens.len() >= 4 * n_blocks, "{name}: {rows:?}");
            assert!(tokens.iter().all(|n_rows| *n_rows == 62), "{name}: {rows:?}");
        }
    }
}
