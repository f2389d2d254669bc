//! One Monte Carlo trial: every layer is read once and prepared for all metrics at once, then all layers are compared.
//!
//! The result does not depend on the number of threads: libtorch runs with one intra-op thread, each layer is the work
//! of one thread, and every sum has a fixed order. So the threads of this module are the only parallelism there is.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lsa_common::cost::trial_plan;
use lsa_common::failure::FailureClass;
use lsa_common::metric::{LayerMetricName, MetricName, MetricSpec};
use lsa_common::trial_matrices::TrialMatrices;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::metric::gram::centred_gram;
use crate::metric::kept::{ScratchFile, keep_in};
use crate::metric::layer::{Layer, NonFinite};
use crate::metric::minibatch_cka::BATCH_ROWS_MIN;
use crate::metric::quantity::{Pairs, Quantity};
use crate::metric::scratch::free_spare_buffers;
use crate::metric::shared::Shared;
use crate::metric::tensor::{self, pairs::TensorPairs};
use crate::metric::{
    Failed, LayerMetric, Memo, Part, PartError, Prepare, Sides, Source, Undefined, layer_metric, metric,
};
use crate::resources::Resources;

/// The most rows of a trial: indices of their pairs must fit 32 bits.
pub const ROWS_MAX: usize = 1 << 16;

/// The most threads of a trial, whatever is asked for.
const THREADS_MAX: usize = 1024;

/// Where a trial's rows come from: the same n rows in several layers.
pub trait LayerSource: Sync {
    /// The number of layers.
    fn n_layers(&self) -> usize;

    /// The number n of rows that every layer has.
    fn n_rows(&self) -> u32;

    /// The number d of entries of each row of a layer.
    fn width(&self, layer: usize) -> usize;

    /// The named rows of a layer, in the order of `rows`; called from several threads, once for each layer.
    fn rows(&self, layer: usize, rows: &[u32]) -> Result<LayerRows, SourceError>;
}

/// Rows of one layer.
pub struct LayerRows {
    /// The number d of entries of a row.
    pub width: usize,
    /// The rows [n, d], row-major. Stored float32 is converted: all that follows is computed in float64.
    pub values: Vec<f64>,
}

/// Why a source could not give rows.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// Whether another attempt may succeed.
    pub class: FailureClass,
    /// What went wrong, where, and how to mend it.
    pub message: String,
    /// What it was caused by.
    #[source]
    pub cause: Option<Box<dyn Error + Send + Sync>>,
}

/// Why a trial has no result.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// Nothing to compare.
    #[error("there are no layers to compare")]
    NoLayers,
    /// A metric is not defined on so few rows.
    #[error("{0}; take more rows or leave the metric out")]
    TooFewRows(String),
    /// A number of neighbours that no row has.
    #[error("{metric} of {n} rows with k = {k}: k has to be at least 1 and less than the rows")]
    Neighbours {
        /// The metric's name.
        metric: MetricName,
        /// The neighbours asked for.
        k: u32,
        /// The rows there are.
        n: usize,
    },
    /// A parameter that the metric cannot work with.
    #[error("{metric} with {parameter} = {value}: {parameter} has to be {allowed}")]
    Parameter {
        /// The metric's name.
        metric: MetricName,
        /// The parameter's key.
        parameter: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// The matrices of all pairs of rows would be too large.
    #[error("a trial of {n} rows is too large; take a sample of at most {ROWS_MAX} rows")]
    TooManyRows {
        /// The rows asked for.
        n: usize,
    },
    /// A row that does not exist.
    #[error("row {row} is asked for, but the layers have {n_rows} rows, numbered from 0")]
    RowOutOfRange {
        /// The row asked for.
        row: u32,
        /// The rows there are.
        n_rows: u32,
    },
    /// What the source gave is not what was asked for.
    #[error("layer {layer}: {given} values are not {n} rows of width {width}")]
    Shape {
        /// The layer's index.
        layer: usize,
        /// Rows asked for.
        n: usize,
        /// The width that came with them.
        width: usize,
        /// Values that came.
        given: usize,
    },
    /// A NaN or an infinity.
    #[error(
        "layer {layer}, row {row} holds a NaN or an infinity; remove the row or extract it again in float32"
    )]
    NonFinite {
        /// The layer's index.
        layer: usize,
        /// The row's index among all rows of the source.
        row: u32,
    },
    /// The rows of a layer could not be read.
    #[error("layer {layer} cannot be read")]
    Source {
        /// The layer's index.
        layer: usize,
        /// Why.
        #[source]
        source: SourceError,
    },
    /// libtorch failed, as a rule for lack of memory.
    #[error("layer {layer} cannot be prepared: {message}")]
    Torch {
        /// The layer's index.
        layer: usize,
        /// The first line of what libtorch said.
        message: String,
    },
    /// The same while layers were compared.
    #[error("{metric} cannot be computed: {message}")]
    Compare {
        /// The metric's name.
        metric: MetricName,
        /// The first line of what libtorch said.
        message: String,
    },
    /// Not even one layer at a time fits.
    #[error(
        "a trial of {n} rows takes {} of memory, and {} may be used; allow more with --memory-gib, or take fewer rows",
        gib(*needed_bytes), gib(*budget_bytes)
    )]
    Memory {
        /// The rows asked for.
        n: usize,
        /// The least that the trial can do with.
        needed_bytes: u64,
        /// What it may use.
        budget_bytes: u64,
    },
    /// A scratch file cannot be made, written or read; most often the disk is full.
    #[error(
        "parts of layers take {} in {}, which failed; free space there, name another folder with --scratch, or allow more memory",
        gib(*bytes), folder.display()
    )]
    Scratch {
        /// Where.
        folder: PathBuf,
        /// What they take in all.
        bytes: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The threads could not be started.
    #[error("cannot start {threads} threads")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// Why.
        #[source]
        source: rayon::ThreadPoolBuildError,
    },
    /// The caller asked to stop.
    #[error("the trial was stopped")]
    Stopped,
}

impl TrialError {
    /// What to do about it.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Source { source, .. } => source.class,
            Self::Torch { .. }
            | Self::Compare { .. }
            | Self::Memory { .. }
            | Self::Scratch { .. }
            | Self::Threads { .. }
            | Self::Stopped => FailureClass::Retry,
            Self::NoLayers
            | Self::TooFewRows(_)
            | Self::Neighbours { .. }
            | Self::Parameter { .. }
            | Self::TooManyRows { .. }
            | Self::RowOutOfRange { .. }
            | Self::Shape { .. }
            | Self::NonFinite { .. } => FailureClass::Reject,
        }
    }
}

fn gib(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / f64::from(1u32 << 30))
}

/// What a trial computes.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Similarities of all pairs of layers.
    pub metrics: &'a [MetricSpec],
    /// Quantities of each layer.
    pub layer_metrics: &'a [LayerMetricName],
}

/// Compares all layers of `source` over the given rows, by every metric.
///
/// With `null_rows`, the same rows in another order, every layer is also compared with every layer in that order.
/// `progress` is told how many layers are done, and stops the trial by returning `false`. The result does not depend
/// on `resources`, but for the last bits on whether tensors compute it. Sets libtorch to one intra-op thread, process-wide.
pub fn run_trial(
    source: &dyn LayerSource,
    rows: &[u32],
    null_rows: Option<&[u32]>,
    wanted: Wanted<'_>,
    resources: &Resources,
    progress: &(dyn Fn(u64) -> bool + Sync),
) -> Result<TrialMatrices, TrialError> {
    let times = if null_rows.is_some() { 2 } else { 1 };
    let resources = resources.where_tensors_fit(rows.len(), times * source.n_layers(), wanted.metrics);
    let own = if null_rows.is_some() { resources.half_the_memory() } else { resources.clone() };
    let layers = PreparedLayers::new(source, rows, wanted, &own, progress)?;
    let mut matrices = layers.compare()?;
    if let Some(null_rows) = null_rows {
        // A layer is prepared twice, and counted once.
        let n_layers = source.n_layers() as u64;
        let wanted = Wanted { layer_metrics: &[], ..wanted };
        let rest = resources.less_memory(layers.kept_bytes());
        let unrelated = PreparedLayers::new(source, null_rows, wanted, &rest, &|_| progress(n_layers))?;
        matrices.nulls = layers.null(&unrelated)?;
    }
    Ok(matrices)
}

/// All layers of a source, ready to be compared with one another or with those of another source.
pub struct PreparedLayers {
    pool: ThreadPool,
    metrics: Vec<MetricSpec>,
    layer_metrics: Vec<LayerMetricName>,
    layers: Vec<PreparedLayer>,
    kept_bytes: u64,
    scratch: Option<Scratch>,
}

/// Where parts of layers lie that do not fit into memory.
struct Scratch {
    folder: PathBuf,
    /// What the parts of all layers take.
    bytes: u64,
    file: Arc<ScratchFile>,
}

impl Scratch {
    fn new(folder: PathBuf, bytes: u64) -> Result<Self, TrialError> {
        match ScratchFile::new(&folder) {
            Ok(file) => Ok(Self { folder, bytes, file: Arc::new(file) }),
            Err(source) => Err(TrialError::Scratch { folder, bytes, source }),
        }
    }

    /// Whether all that was written and read is what it should be.
    fn check(&self) -> Result<(), TrialError> {
        let failed = |source| TrialError::Scratch { folder: self.folder.clone(), bytes: self.bytes, source };
        self.file.fault().map_or(Ok(()), |source| Err(failed(source)))
    }
}

/// What is kept of a layer.
struct PreparedLayer {
    /// For each metric.
    parts: Vec<Result<Part, Undefined>>,
    /// The value of each layer metric.
    values: Vec<Result<f64, Undefined>>,
}

impl PreparedLayers {
    /// Reads every layer once and prepares it for every metric; the arguments are those of [`run_trial`].
    pub fn new(
        source: &dyn LayerSource,
        rows: &[u32],
        wanted: Wanted<'_>,
        resources: &Resources,
        progress: &(dyn Fn(u64) -> bool + Sync),
    ) -> Result<Self, TrialError> {
        let n_layers = source.n_layers();
        check_rows(source, rows, wanted.metrics)?;
        if tch::get_num_threads() != 1 {
            tch::set_num_threads(1);
        }
        let threads = resources.threads.clamp(1, THREADS_MAX);
        let budget_bytes = resources.memory_bytes;
        let n = u32::try_from(rows.len()).expect("no more than the most rows");
        let width = |layer| u32::try_from(source.width(layer)).unwrap_or(u32::MAX);
        let widths: Vec<u32> = (0..n_layers).map(width).collect();
        let on_cpu: Vec<MetricSpec> =
            wanted.metrics.iter().filter(|spec| !is_on_device(spec, resources)).cloned().collect();
        let plan = trial_plan(n, &widths, &on_cpu, wanted.layer_metrics, threads, budget_bytes);
        if plan.memory_bytes > budget_bytes {
            let needed_bytes = plan.memory_bytes;
            return Err(TrialError::Memory { n: rows.len(), needed_bytes, budget_bytes });
        }
        let scratch = match plan.on_disk {
            true => Some(Scratch::new(resources.scratch.clone(), plan.scratch_bytes)?),
            false => None,
        };
        let done = AtomicU64::new(0);
        let device = Mutex::new(());
        // So that no more layers are in flight, there are no more threads while they are prepared.
        let preparing = thread_pool(plan.n_in_flight)?;
        preparing.broadcast(|_| keep_in(scratch.as_ref().map(|scratch| Arc::clone(&scratch.file))));
        let layers = preparing.install(|| {
            let layers = (0..n_layers).into_par_iter().with_max_len(1);
            layers
                .map(|layer| {
                    let prepared = prepare_layer(source, layer, rows, wanted, resources, &device)?;
                    scratch.as_ref().map_or(Ok(()), Scratch::check)?;
                    let goes_on = progress(done.fetch_add(1, Ordering::Relaxed) + 1);
                    if goes_on { Ok(prepared) } else { Err(TrialError::Stopped) }
                })
                .collect::<Result<Vec<_>, _>>()
        });
        // The spare buffers of a thread go with it, but it may end only after what follows has begun.
        preparing.broadcast(|_| free_spare_buffers());
        drop(preparing);
        Ok(Self {
            pool: thread_pool(threads)?,
            metrics: wanted.metrics.to_vec(),
            layer_metrics: wanted.layer_metrics.to_vec(),
            layers: layers?,
            kept_bytes: plan.kept_bytes,
            scratch,
        })
    }

    /// The memory in bytes that is held until the layers have been compared, as it was estimated.
    pub fn kept_bytes(&self) -> u64 {
        self.kept_bytes
    }

    /// The number of layers.
    pub fn n_layers(&self) -> usize {
        self.layers.len()
    }

    /// Why cells are NaN, by layer index.
    pub fn undefined(&self) -> BTreeMap<u32, String> {
        let mut undefined = BTreeMap::new();
        for (layer, prepared) in (0u32..).zip(&self.layers) {
            let parts = prepared.parts.iter().filter_map(|part| part.as_ref().err());
            let values = prepared.values.iter().filter_map(|value| value.as_ref().err());
            let mut reasons: Vec<String> = Vec::new();
            for reason in parts.chain(values).map(ToString::to_string) {
                if !reasons.contains(&reason) {
                    reasons.push(reason);
                }
            }
            if !reasons.is_empty() {
                undefined.insert(layer, reasons.join("; "));
            }
        }
        undefined
    }

    /// Compares the layers with one another.
    pub fn compare(&self) -> Result<TrialMatrices, TrialError> {
        Ok(TrialMatrices {
            n_layers: u32::try_from(self.n_layers()).expect("layers are counted in u32"),
            matrices: self.matrices(None)?,
            nulls: Vec::new(),
            layer_metrics: self.layer_metrics(),
            undefined: self.undefined(),
        })
    }

    /// The value of each layer metric for each layer; NaN where it is undefined.
    pub fn layer_metrics(&self) -> Vec<(LayerMetricName, Vec<f64>)> {
        let value = |layer: &PreparedLayer, place: usize| *layer.values[place].as_ref().unwrap_or(&f64::NAN);
        let values = |place: usize| self.layers.iter().map(|layer| value(layer, place)).collect();
        self.layer_metrics.iter().enumerate().map(|(place, name)| (*name, values(place))).collect()
    }

    /// Compares these layers with those of `other`, prepared for the same metrics over the same number of rows:
    /// each metric with its matrix [layers, other layers], row-major.
    pub fn compare_with(&self, other: &Self) -> Result<Vec<(MetricSpec, Vec<f64>)>, TrialError> {
        self.matrices(Some(other))
    }

    /// Compares these layers with the same ones over rows in another order. Both halves of the matrix of a symmetric
    /// metric say the same, so that their mean is taken.
    fn null(&self, unrelated: &Self) -> Result<Vec<Vec<f64>>, TrialError> {
        let side = self.n_layers();
        let mean = |(spec, matrix): (MetricSpec, Vec<f64>)| {
            if !spec.name.info().symmetric {
                return matrix;
            }
            let cell =
                |place: usize| f64::midpoint(matrix[place], matrix[place % side * side + place / side]);
            (0..matrix.len()).map(cell).collect()
        };
        Ok(self.compare_with(unrelated)?.into_iter().map(mean).collect())
    }

    fn matrices(&self, other: Option<&Self>) -> Result<Vec<(MetricSpec, Vec<f64>)>, TrialError> {
        self.pool.install(|| {
            let memo = Memo::default();
            let matrix = |(place, spec): (usize, &MetricSpec)| {
                let (a, b) = (self.parts_of(place), other.map(|other| other.parts_of(place)));
                let cells = (metric(spec).combine)(&Sides { spec, a: &a, b: b.as_deref(), memo: &memo });
                let failed = |Failed(message)| TrialError::Compare { metric: spec.name, message };
                Ok((spec.clone(), cells.map_err(failed)?))
            };
            let matrices = self.metrics.iter().enumerate().map(matrix).collect::<Result<_, _>>()?;
            let sides = [Some(self), other].into_iter().flatten();
            sides.filter_map(|side| side.scratch.as_ref()).try_for_each(Scratch::check)?;
            Ok(matrices)
        })
    }

    /// The parts of one metric, by layer; `None` where it is undefined.
    fn parts_of(&self, metric: usize) -> Vec<Option<&Part>> {
        self.layers.iter().map(|layer| layer.parts[metric].as_ref().ok()).collect()
    }
}

fn thread_pool(threads: usize) -> Result<ThreadPool, TrialError> {
    let pool = ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("trial-{i}"))
        // The number of a thread that has not computed anything large yet is not the one set for the process.
        .start_handler(|_| tch::set_num_threads(1))
        .build();
    pool.map_err(|source| TrialError::Threads { threads, source })
}

/// All that can be said against a trial before any layer is read.
pub fn check_rows(source: &dyn LayerSource, rows: &[u32], metrics: &[MetricSpec]) -> Result<(), TrialError> {
    if source.n_layers() == 0 {
        return Err(TrialError::NoLayers);
    }
    if rows.is_empty() {
        return Err(TrialError::TooFewRows("a trial needs at least 1 row, got 0".to_owned()));
    }
    if let Some(reason) = metrics.iter().find_map(|metric| metric.refuses(rows.len() as u64)) {
        return Err(TrialError::TooFewRows(reason));
    }
    for metric in metrics {
        if let Some(k) = metric.k.filter(|k| *k == 0 || *k as usize >= rows.len()) {
            return Err(TrialError::Neighbours { metric: metric.name, k, n: rows.len() });
        }
        check_parameters(metric)?;
    }
    if rows.len() > ROWS_MAX {
        return Err(TrialError::TooManyRows { n: rows.len() });
    }
    let n_rows = source.n_rows();
    match rows.iter().find(|row| **row >= n_rows) {
        Some(row) => Err(TrialError::RowOutOfRange { row: *row, n_rows }),
        None => Ok(()),
    }
}

/// Refuses a parameter whose value says nothing about the rows, whatever they are.
fn check_parameters(spec: &MetricSpec) -> Result<(), TrialError> {
    let refused = |parameter, value, allowed| {
        Err(TrialError::Parameter { metric: spec.name, parameter, value, allowed })
    };
    if let Some(rows) = spec.batch_size.filter(|rows| *rows < BATCH_ROWS_MIN) {
        return refused("batch_size", rows.to_string(), "at least 4");
    }
    if let Some(sigma) = spec.sigma.filter(|sigma| sigma.get() <= 0.0) {
        return refused("sigma", sigma.to_string(), "above 0");
    }
    Ok(())
}

/// Whether the metric is computed by tensors on a device.
fn is_on_device(spec: &MetricSpec, resources: &Resources) -> bool {
    resources.tensors.is_some() && tensor::is_on_device(spec)
}

/// Reads one layer and prepares it for every metric and layer metric; `device` lets one layer at a time onto it.
fn prepare_layer(
    source: &dyn LayerSource,
    layer: usize,
    rows: &[u32],
    wanted: Wanted<'_>,
    resources: &Resources,
    device: &Mutex<()>,
) -> Result<PreparedLayer, TrialError> {
    let LayerRows { width, values } =
        source.rows(layer, rows).map_err(|source| TrialError::Source { layer, source })?;
    let n = rows.len();
    if width == 0 || n.checked_mul(width) != Some(values.len()) {
        return Err(TrialError::Shape { layer, n, width, given: values.len() });
    }
    let prepared = Layer::new(values, width)
        .map_err(|NonFinite { row }| TrialError::NonFinite { layer, row: rows[row] })?;
    let failed = |Failed(message)| TrialError::Torch { layer, message };
    let shared = Shared::new(&prepared);
    let n_parts = wanted.metrics.len() + wanted.layer_metrics.len();
    let mut made: Vec<Option<Result<Part, PartError>>> = (0..n_parts).map(|_| None).collect();
    let mut by_pairs: Vec<ByPairs<'_>> = Vec::new();
    let on_device = |spec: &MetricSpec| is_on_device(spec, resources);
    let needs_pairs =
        wanted.metrics.iter().filter(|spec| !on_device(spec)).any(|spec| match metric(spec).source {
            Source::Pairs(..) => true,
            Source::Rows(_) => false,
            Source::Either { rows_suffice, .. } => !rows_suffice(n, width),
        });
    let needs_pairs = needs_pairs
        || wanted.layer_metrics.iter().any(|name| matches!(layer_metric(*name), LayerMetric::Pairs(..)));
    if let Some(tensors) =
        resources.tensors.filter(|_| !prepared.constant && wanted.metrics.iter().any(on_device))
    {
        let _alone = device.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pairs = TensorPairs::new(&prepared, tensors).map_err(|error| failed(error.into()))?;
        for (place, spec) in wanted.metrics.iter().enumerate().filter(|(_, spec)| on_device(spec)) {
            made[place] = Some(tensor::part(spec, &mut pairs));
        }
    }
    for (place, spec) in wanted.metrics.iter().enumerate() {
        match metric(spec).source {
            _ if made[place].is_some() => {}
            _ if prepared.constant => made[place] = Some(Err(Undefined::ConstantLayer.into())),
            Source::Either { reads, prepare, .. } if needs_pairs => {
                by_pairs.push(ByPairs { place, reads, begin: Box::new(move |layer| prepare(spec, layer)) });
            }
            Source::Pairs(reads, prepare) => {
                by_pairs.push(ByPairs { place, reads, begin: Box::new(move |layer| prepare(spec, layer)) });
            }
            Source::Rows(of_rows) | Source::Either { of_rows, .. } => {
                made[place] = Some(of_rows(spec, &shared));
            }
        }
    }
    for (place, name) in (wanted.metrics.len()..).zip(wanted.layer_metrics) {
        match layer_metric(*name) {
            LayerMetric::Pairs(..) if prepared.constant => {
                made[place] = Some(Err(Undefined::ConstantLayer.into()));
            }
            LayerMetric::Pairs(reads, prepare) => {
                by_pairs.push(ByPairs { place, reads, begin: Box::new(prepare) });
            }
            LayerMetric::Rows(value) => made[place] = Some(value(&shared).map(Part::new)),
        }
    }
    drop(shared);
    // One after another, so that they share memory. Ranks take most, but only when all pairs are there; they come last
    // and wait until the Gram matrix and the rows are gone.
    by_pairs
        .sort_by_key(|part| wanted.metrics.get(part.place).is_some_and(|spec| spec.name == MetricName::Rsa));
    let last = match by_pairs.pop() {
        None => None,
        Some(last) => {
            let gram = centred_gram(&prepared).map_err(|error| failed(error.into()))?;
            let mut pairs = Pairs::new(&prepared, &gram);
            for part in by_pairs {
                let place = part.place;
                made[place] = Some(part.gather(&mut pairs, &prepared).finish());
            }
            Some((last.place, last.gather(&mut pairs, &prepared)))
        }
    };
    drop(prepared);
    if let Some((place, part)) = last {
        made[place] = Some(part.finish());
    }
    let finish = |part: Option<Result<Part, PartError>>| match part.expect("a part for each metric") {
        Ok(part) => Ok(Ok(part)),
        Err(PartError::Undefined(reason)) => Ok(Err(reason)),
        Err(PartError::Failed(error)) => Err(failed(error)),
    };
    let mut parts: Vec<Result<Part, Undefined>> = made.into_iter().map(finish).collect::<Result<_, _>>()?;
    let values = parts.split_off(wanted.metrics.len());
    let values = values.into_iter().map(|value| value.map(|value| *value.get::<f64>())).collect();
    Ok(PreparedLayer { parts, values })
}

/// Begins to make a part of a layer.
type Begin<'a> = dyn FnOnce(&Layer) -> Box<dyn Prepare> + 'a;

/// A part that is to be made from all pairs of rows.
struct ByPairs<'a> {
    /// Which one it is.
    place: usize,
    /// What it reads of the pairs.
    reads: Quantity,
    /// Takes the memory for it.
    begin: Box<Begin<'a>>,
}

impl ByPairs<'_> {
    /// Shows all pairs to it.
    fn gather(self, pairs: &mut Pairs<'_>, layer: &Layer) -> Box<dyn Prepare> {
        let n = layer.n_rows();
        let mut part = (self.begin)(layer);
        let mut right = Vec::with_capacity(n);
        for i in 0..n {
            let own = pairs.row(self.reads, i, &mut right);
            part.row(i, own, &right);
        }
        part
    }
}
