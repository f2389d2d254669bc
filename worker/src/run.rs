//! One attempt at one unit, on a blocking thread: the boundary that no panic crosses.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use lsa_common::artifact::encode_rows;
use lsa_common::dataset::{ByPlace, FileOpener, HubFiles, Place, TextsSpec};
use lsa_common::failure::FailureClass;
use lsa_common::hub::{HfHub, HubSettings};
use lsa_common::id::AttemptId;
use lsa_common::layout;
use lsa_common::mirror::{MirrorMode, MirroredHub};
use lsa_common::model::{Dtype, PinnedModel, Pooling};
use lsa_common::prepare::{PrepareError, prepare};
use lsa_common::record::{ExtractNotes, ShardLayer};
use lsa_common::report::{Damaged, Extracted, Failure, Outcome};
use lsa_common::seed::{null_order, trial_rows};
use lsa_common::store::{Store, StoreError};
use lsa_common::trial_matrices::TrialMatrices;
use lsa_common::unit::{CompareUnit, ExtractUnit, MirrorUnit, PrepareUnit, Unit};
use tch::Device;
use tokio::runtime::Handle;

use crate::extract::{ExtractError, ExtractRequest, Extractor, Pooled};
use crate::inputs::{self, InputError};
use crate::resources::MemoryArgs;
use crate::sampled_rows::SampledRows;
use crate::stored::{self, StoredError};
use crate::trial::{TrialError, Wanted, run_trial};

/// Objects of a shard that are written side by side: each of them is in memory once more meanwhile, and a bucket far away
/// takes a while to say that it has one.
const OBJECTS_AT_ONCE: usize = 4;

/// What every attempt of this process shares.
pub struct Runner {
    /// To wait for the bucket from a blocking thread.
    pub runtime: Handle,
    /// The bucket.
    pub store: Store,
    /// Files fetched from the bucket.
    pub cache: PathBuf,
    /// Where to compute.
    pub device: Device,
    /// CPU threads.
    pub threads: usize,
    /// What else comparisons may use of the machine.
    pub memory: MemoryArgs,
    /// The hub, through the bucket; made when it is needed first.
    hub: OnceCell<MirroredHub>,
    loaded: Option<Loaded>,
}

/// The model of the last unit; the next one most often needs it again.
struct Loaded {
    unit: lsa_common::id::Digest,
    extractor: Extractor,
}

/// How far an attempt is, and whether it should stop; shared with the lease loop.
#[derive(Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
    stop: AtomicBool,
}

impl Progress {
    /// Done, of a total.
    pub fn get(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    /// Asks the attempt to end at the next opportunity.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn begin(&self, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    fn reach(&self, done: u64) -> bool {
        self.done.fetch_max(done, Ordering::Relaxed);
        !self.is_stopped()
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Input(#[from] InputError),
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error(transparent)]
    Extract(#[from] ExtractError),
    #[error(transparent)]
    Stored(#[from] StoredError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("trial {trial}")]
    Trial {
        trial: u32,
        #[source]
        source: TrialError,
    },
    #[error(
        "{kept} of {n_texts} texts have tokens, fewer than the sample size {sample_size}; lower sample_size"
    )]
    TooFewTexts { kept: u32, n_texts: u32, sample_size: u32 },
    #[error("stopped")]
    Stopped,
}

impl RunError {
    fn failure_class(&self) -> FailureClass {
        match self {
            Self::Input(error) => error.failure_class(),
            Self::Prepare(error) => error.failure_class(),
            Self::Extract(error) => error.failure_class(),
            Self::Store(error) => error.failure_class(),
            Self::Trial { source, .. } => source.class(),
            Self::Stored(_) | Self::Stopped => FailureClass::Retry,
            Self::TooFewTexts { .. } => FailureClass::Reject,
        }
    }

    fn damaged(&self) -> Option<Damaged> {
        match self {
            Self::Stored(StoredError::Damaged { damaged, .. }) => Some(damaged.clone()),
            _ => None,
        }
    }
}

impl Runner {
    /// Nothing loaded yet.
    pub fn new(
        runtime: Handle,
        store: Store,
        cache: PathBuf,
        device: Device,
        threads: usize,
        memory: MemoryArgs,
    ) -> Self {
        Self { runtime, store, cache, device, threads, memory, hub: OnceCell::new(), loaded: None }
    }

    /// Does a unit. Plain tch operations panic; what they mean is told apart here and nowhere else.
    pub fn attempt(&mut self, unit: &Unit, attempt: AttemptId, progress: &Arc<Progress>) -> Outcome {
        let guarded = std::panic::AssertUnwindSafe(|| self.try_attempt(unit, attempt, progress));
        match std::panic::catch_unwind(guarded) {
            Ok(Ok(outcome)) => outcome,
            // Whoever asked for the stop knows why.
            Ok(Err(_)) if progress.is_stopped() => Outcome::HandedBack,
            Ok(Err(error)) => Outcome::Failed(Failure {
                failure_class: error.failure_class(),
                damaged: error.damaged(),
                message: crate::chain(&error),
                panicked: false,
            }),
            Err(panic) => {
                // Whatever is loaded may be half-changed.
                self.loaded = None;
                Outcome::Failed(panicked(&*panic))
            }
        }
    }

    fn try_attempt(
        &mut self,
        unit: &Unit,
        attempt: AttemptId,
        progress: &Progress,
    ) -> Result<Outcome, RunError> {
        match unit {
            Unit::Prepare(unit) => self.prepare(unit, attempt, progress),
            Unit::Mirror(unit) => self.mirror(unit, progress),
            Unit::Extract(unit) => self.extract(unit, attempt, progress),
            Unit::Compare(unit) => self.compare(unit, progress),
        }
    }

    fn prepare(
        &self,
        unit: &PrepareUnit,
        attempt: AttemptId,
        progress: &Progress,
    ) -> Result<Outcome, RunError> {
        progress.begin(u64::from(unit.texts.n_texts));
        let TextsSpec { plan, n_texts } = &unit.texts;
        let local = self.runtime.block_on(inputs::local_files(&self.store, &self.cache, &plan.files))?;
        let on_hub = plan.files.iter().any(|file| matches!(file.place, Place::Hub { .. }));
        let hub = if on_hub { Some(HubFiles::new(self.hub()?)) } else { None };
        let files = ByPlace { local: &local, hub: hub.as_ref().map(|hub| hub as &dyn FileOpener) };
        let go_on = |done| progress.reach(done);
        let (runtime, store, key) = (&self.runtime, &self.store, unit.texts_key);
        let prepared = prepare(runtime, store, key, plan, Some(*n_texts), &files, attempt, &go_on)?;
        Ok(Outcome::Prepared(prepared))
    }

    /// Puts the files of a model into the bucket, as far as they are not there.
    fn mirror(&self, unit: &MirrorUnit, progress: &Progress) -> Result<Outcome, RunError> {
        progress.begin(unit.model.files.iter().map(|file| file.size).sum());
        inputs::mirror(self.hub()?, &unit.model, &|done| progress.reach(done))?;
        Ok(Outcome::Mirrored)
    }

    fn hub(&self) -> Result<&MirroredHub, InputError> {
        if let Some(hub) = self.hub.get() {
            return Ok(hub);
        }
        let hub = HubSettings::from_environment().and_then(HfHub::new).map_err(InputError::from)?;
        let (store, runtime) = (self.store.clone(), self.runtime.clone());
        let hub = MirroredHub::new(MirrorMode::Auto, store, runtime, Some(Arc::new(hub)), self.cache.clone());
        Ok(self.hub.get_or_init(|| hub))
    }

    fn extract(
        &mut self,
        unit: &ExtractUnit,
        attempt: AttemptId,
        progress: &Progress,
    ) -> Result<Outcome, RunError> {
        progress.begin(u64::from(unit.n_rows));
        let rows = unit.rows();
        let first = rows.start;
        let texts = self.runtime.block_on(stored::texts(&self.store, unit.texts_key, rows))?;
        let what = ExtractRequest {
            max_length: unit.settings.max_length,
            token_budget: unit.settings.token_budget(),
            layers: unit.settings.layers.clone(),
            poolings: unit.poolings.clone(),
            skip_empty: unit.settings.skip_empty,
        };
        let threads = self.threads;
        let extractor = self.extractor(unit)?;
        let pooled = extractor.extract(&texts, &what, threads, &|done| progress.reach(done))?;
        if progress.is_stopped() {
            return Err(RunError::Stopped);
        }
        self.write_rows(unit, attempt, &pooled, first)
    }

    fn extractor(&mut self, unit: &ExtractUnit) -> Result<&Extractor, RunError> {
        let dtype: Dtype = unit.settings.dtype;
        let digests: Vec<_> = unit.model.files.iter().map(|file| (&file.name, file.sha256)).collect();
        let key = lsa_common::key::digest_of("loaded model", &(digests, dtype));
        if self.loaded.as_ref().is_none_or(|loaded| loaded.unit != key) {
            // The old weights go first: both at once may not fit.
            self.loaded = None;
            let folder = self.model_folder(&unit.model)?;
            let extractor = Extractor::load(&unit.model, &folder, dtype, self.device)?;
            self.loaded = Some(Loaded { unit: key, extractor });
        }
        Ok(&self.loaded.as_ref().expect("loaded above").extractor)
    }

    /// Where the files of a model are: on this machine, in the bucket, or, if it comes from one, on the hub.
    fn model_folder(&self, model: &PinnedModel) -> Result<PathBuf, InputError> {
        match self.runtime.block_on(inputs::model(&self.store, &self.cache, model)) {
            Err(InputError::Missing { .. }) if model.revision.is_some() => {
                inputs::model_from_hub(self.hub()?, &self.cache, model)
            }
            found => found,
        }
    }

    fn write_rows(
        &self,
        unit: &ExtractUnit,
        attempt: AttemptId,
        pooled: &Pooled,
        first: usize,
    ) -> Result<Outcome, RunError> {
        let n_rows = unit.n_rows as usize;
        let write = async |pooling: Pooling, place: usize| {
            let (layer, values) = (&pooled.layers[place], &pooled.rows[&pooling][place]);
            let width = layer.width as usize;
            let object = match pooled.kept.len() == n_rows {
                true => encode_rows(values, width),
                // Rows keep their places; a text without tokens has none to give.
                false => encode_rows(&spread(values, width, &pooled.kept, n_rows), width),
            };
            let key = layout::embedding_rows(unit.extraction_key, pooling, layer.layer, unit.shard, attempt);
            let object = self.store.put(&key, object.into()).await?;
            Ok::<_, StoreError>(ShardLayer { layer: layer.layer, width: layer.width, object })
        };
        let n_layers = pooled.layers.len();
        let all = unit.poolings.iter().flat_map(|pooling| (0..n_layers).map(|place| (*pooling, place)));
        let writes = stream::iter(all).map(|(pooling, place)| write(pooling, place));
        let written: Vec<ShardLayer> =
            self.runtime.block_on(writes.buffered(OBJECTS_AT_ONCE).try_collect())?;
        let of_poolings = written.chunks(n_layers.max(1)).map(<[ShardLayer]>::to_vec);
        let poolings = unit.poolings.iter().copied().zip(of_poolings).collect();
        let redone = unit.settings.layers.iter().zip(&pooled.notes.nonfinite_rows_per_layer);
        let without_tokens = (0..n_rows as u32).filter(|row| pooled.kept.binary_search(row).is_err());
        let notes = ExtractNotes {
            n_tokens: pooled.notes.n_tokens,
            n_truncated: pooled.notes.n_truncated,
            rows_without_tokens: without_tokens.map(|row| first as u32 + row).collect(),
            rows_redone: redone.filter(|(_, rows)| **rows > 0).map(|(layer, rows)| (*layer, *rows)).collect(),
            split: pooled.notes.split,
        };
        Ok(Outcome::Extracted(Extracted { poolings, notes }))
    }

    fn compare(&mut self, unit: &CompareUnit, progress: &Progress) -> Result<Outcome, RunError> {
        // Trials and a loaded model may not fit together.
        self.loaded = None;
        let n_layers = unit.n_layers() as u64;
        progress.begin(n_layers * unit.trials.len() as u64);
        let of_side = |side| {
            let records = stored::records_of_side(&self.store, side, unit.pooling, unit.n_texts);
            self.runtime.block_on(records)
        };
        let records: Vec<_> = unit.sides.iter().map(of_side).collect::<Result<_, _>>()?;
        let mut empty: Vec<u32> =
            records.iter().flatten().flat_map(|record| record.notes.rows_without_tokens.clone()).collect();
        empty.sort_unstable();
        let kept: Vec<u32> = (0..unit.n_texts).filter(|row| empty.binary_search(row).is_err()).collect();
        let settings = &unit.settings;
        let n_kept = kept.len() as u32;
        if n_kept < settings.sample_size {
            let (n_texts, sample_size) = (unit.n_texts, settings.sample_size);
            return Err(RunError::TooFewTexts { kept: n_kept, n_texts, sample_size });
        }
        let draws: Vec<(u32, Vec<u32>)> = unit
            .trials
            .iter()
            .map(|trial| {
                let places = trial_rows(settings.seed, *trial, n_kept, settings.sample_size);
                (*trial, places.into_iter().map(|place| kept[place as usize]).collect())
            })
            .collect();
        let mut union: Vec<u32> = draws.iter().flat_map(|(_, rows)| rows.iter().copied()).collect();
        union.sort_unstable();
        union.dedup();
        let go_on = || !progress.is_stopped();
        let resources = self.memory.resources(self.threads).on(self.device);
        let read = SampledRows::read(&self.runtime, &self.store, unit, &records, &union, &resources, &go_on)?;
        let source = read.ok_or(RunError::Stopped)?;
        let resources = resources.less_memory(source.n_bytes());
        let mut trials: Vec<(u32, TrialMatrices)> = Vec::with_capacity(draws.len());
        for (trial, rows) in draws {
            let before = trials.len() as u64 * n_layers;
            let go_on = |done: u64| progress.reach(before + done);
            let null_rows = settings.calibrate.then(|| {
                let order = null_order(settings.seed, trial, settings.sample_size);
                order.into_iter().map(|place| rows[place as usize]).collect::<Vec<u32>>()
            });
            let wanted = Wanted { metrics: &settings.metrics, layer_metrics: &settings.layer_metrics };
            let matrices = run_trial(&source, &rows, null_rows.as_deref(), wanted, &resources, &go_on)
                .map_err(|source| RunError::Trial { trial, source })?;
            trials.push((trial, matrices));
        }
        Ok(Outcome::Compared(trials))
    }
}

/// Rows at their places among `n_rows`; the others are NaN and never drawn.
fn spread(values: &[f32], width: usize, kept: &[u32], n_rows: usize) -> Vec<f32> {
    let mut all = vec![f32::NAN; n_rows * width];
    for (row, values) in kept.iter().zip(values.chunks_exact(width)) {
        let start = *row as usize * width;
        all[start..start + width].copy_from_slice(values);
    }
    all
}

/// A panic in a forward pass: lack of memory, a lost device, or a defect.
fn panicked(panic: &(dyn std::any::Any + Send)) -> Failure {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    let message = crate::device::first_line(text);
    let memory = ["out of memory", "can't allocate memory"].iter().any(|sign| message.contains(sign));
    let lost = ["CUDA error", "CUDNN_STATUS", "CUBLAS_STATUS"].iter().any(|sign| message.contains(sign));
    let failure_class = if lost && !memory { FailureClass::Fatal } else { FailureClass::Retry };
    let panicked = !memory && !lost;
    Failure { failure_class, message: format!("the attempt panicked: {message}"), damaged: None, panicked }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_are_told_apart() {
        let check = |text: &str, class: FailureClass, is_defect: bool| {
            let failure = panicked(&text.to_owned());
            assert_eq!((failure.failure_class, failure.panicked), (class, is_defect), "{text}");
        };
        check("CUDA out of memory. Tried to allocate 2 GiB", FailureClass::Retry, false);
        check("DefaultCPUAllocator: can't allocate memory", FailureClass::Retry, false);
        check("CUDA error: device-side assert triggered", FailureClass::Fatal, false);
        check("index out of bounds", FailureClass::Retry, true);
    }

    #[test]
    fn rows_without_tokens_keep_their_places() {
        let all = spread(&[1.0, 2.0, 3.0, 4.0], 2, &[0, 2], 3);
        assert_eq!(all[..2], [1.0, 2.0]);
        assert!(all[2..4].iter().all(|value| value.is_nan()));
        assert_eq!(all[4..], [3.0, 4.0]);
    }
}
