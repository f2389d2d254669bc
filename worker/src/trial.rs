//! One Monte Carlo trial: every layer is read once and prepared for all metrics at once, then all layers are compared.
//!
//! The result does not depend on the number of threads: libtorch runs with one intra-op thread, each layer is the work
//! of one thread, and every sum has a fixed order. So the threads of this module are the only parallelism there is.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};

use lsa_common::failure::FailureClass;
use lsa_common::metric::{MetricName, MetricSpec};
use lsa_common::trial_matrices::TrialMatrices;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::metric::gram::centred_gram;
use crate::metric::layer::{Layer, LayerFault};
use crate::metric::quantity::Pairs;
use crate::metric::scratch::free_spare_buffers;
use crate::metric::{Part, Undefined, metric};

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
    #[error("layer {layer}: the Gram matrix cannot be computed: {message}")]
    Torch {
        /// The layer's index.
        layer: usize,
        /// The first line of what libtorch said.
        message: String,
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
            Self::Torch { .. } | Self::Threads { .. } | Self::Stopped => FailureClass::Retry,
            Self::NoLayers
            | Self::TooFewRows(_)
            | Self::Neighbours { .. }
            | Self::TooManyRows { .. }
            | Self::RowOutOfRange { .. }
            | Self::Shape { .. }
            | Self::NonFinite { .. } => FailureClass::Reject,
        }
    }
}

/// Compares all layers of `source` over the given rows, by every metric.
///
/// Layers are prepared by `threads` threads, so that at most so many are in flight. `progress` is told how many layers
/// are done, and stops the trial by returning `false`. Sets libtorch to one intra-op thread, process-wide.
pub fn run_trial(
    source: &dyn LayerSource,
    rows: &[u32],
    metrics: &[MetricSpec],
    threads: usize,
    progress: &(dyn Fn(u64) -> bool + Sync),
) -> Result<TrialMatrices, TrialError> {
    Ok(PreparedLayers::new(source, rows, metrics, threads, progress)?.compare())
}

/// All layers of a source, ready to be compared with one another or with those of another source.
pub struct PreparedLayers {
    pool: ThreadPool,
    metrics: Vec<MetricSpec>,
    /// [layers][metrics]
    parts: Vec<Vec<Result<Part, Undefined>>>,
}

impl PreparedLayers {
    /// Reads every layer once and prepares it for every metric; the arguments are those of [`run_trial`].
    pub fn new(
        source: &dyn LayerSource,
        rows: &[u32],
        metrics: &[MetricSpec],
        threads: usize,
        progress: &(dyn Fn(u64) -> bool + Sync),
    ) -> Result<Self, TrialError> {
        let n_layers = source.n_layers();
        check_rows(source, rows, metrics)?;
        if tch::get_num_threads() != 1 {
            tch::set_num_threads(1);
        }
        let threads = threads.clamp(1, THREADS_MAX);
        let pool =
            ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("trial-{i}")).build();
        let pool = pool.map_err(|source| TrialError::Threads { threads, source })?;
        let done = AtomicU64::new(0);
        let parts = pool.install(|| {
            let layers = (0..n_layers).into_par_iter().with_max_len(1);
            layers
                .map(|layer| {
                    let parts = prepare_layer(source, layer, rows, metrics)?;
                    let goes_on = progress(done.fetch_add(1, Ordering::Relaxed) + 1);
                    if goes_on { Ok(parts) } else { Err(TrialError::Stopped) }
                })
                .collect::<Result<Vec<_>, _>>()
        });
        pool.broadcast(|_| free_spare_buffers());
        let parts = parts?;
        Ok(Self { pool, metrics: metrics.to_vec(), parts })
    }

    /// The number of layers.
    pub fn n_layers(&self) -> usize {
        self.parts.len()
    }

    /// Why cells are NaN, by layer index.
    pub fn undefined(&self) -> BTreeMap<u32, String> {
        let mut undefined = BTreeMap::new();
        for (layer, parts) in (0u32..).zip(&self.parts) {
            let mut reasons: Vec<String> =
                parts.iter().filter_map(|part| part.as_ref().err()).map(ToString::to_string).collect();
            reasons.dedup();
            if !reasons.is_empty() {
                undefined.insert(layer, reasons.join("; "));
            }
        }
        undefined
    }

    /// Compares the layers with one another.
    pub fn compare(&self) -> TrialMatrices {
        let n_layers = u32::try_from(self.n_layers()).expect("layers are counted in u32");
        TrialMatrices { n_layers, matrices: self.matrices(None), undefined: self.undefined() }
    }

    /// Compares these layers with those of `other`, prepared for the same metrics over the same number of rows:
    /// each metric with its matrix [layers, other layers], row-major.
    pub fn compare_with(&self, other: &Self) -> Vec<(MetricSpec, Vec<f64>)> {
        self.matrices(Some(other))
    }

    fn matrices(&self, other: Option<&Self>) -> Vec<(MetricSpec, Vec<f64>)> {
        self.pool.install(|| {
            let matrix = |(place, spec): (usize, &MetricSpec)| {
                let others = other.map(|other| other.parts_of(place));
                let cells = (metric(spec.name).combine)(spec, &self.parts_of(place), others.as_deref());
                (spec.clone(), cells)
            };
            self.metrics.iter().enumerate().map(matrix).collect()
        })
    }

    /// The parts of one metric, by layer; `None` where it is undefined.
    fn parts_of(&self, metric: usize) -> Vec<Option<&Part>> {
        self.parts.iter().map(|parts| parts[metric].as_ref().ok()).collect()
    }
}

/// All that can be said against a trial before any layer is read.
pub fn check_rows(source: &dyn LayerSource, rows: &[u32], metrics: &[MetricSpec]) -> Result<(), TrialError> {
    if source.n_layers() == 0 {
        return Err(TrialError::NoLayers);
    }
    if let Some(reason) = metrics.iter().find_map(|metric| metric.refuses(rows.len() as u64)) {
        return Err(TrialError::TooFewRows(reason));
    }
    for metric in metrics {
        if let Some(k) = metric.k.filter(|k| *k == 0 || *k as usize >= rows.len()) {
            return Err(TrialError::Neighbours { metric: metric.name, k, n: rows.len() });
        }
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

/// Reads one layer and prepares it for every metric.
fn prepare_layer(
    source: &dyn LayerSource,
    layer: usize,
    rows: &[u32],
    metrics: &[MetricSpec],
) -> Result<Vec<Result<Part, Undefined>>, TrialError> {
    let LayerRows { width, values } =
        source.rows(layer, rows).map_err(|source| TrialError::Source { layer, source })?;
    let n = rows.len();
    if width == 0 || n.checked_mul(width) != Some(values.len()) {
        return Err(TrialError::Shape { layer, n, width, given: values.len() });
    }
    let prepared = match Layer::new(values, width) {
        Ok(prepared) => prepared,
        Err(LayerFault::NonFinite { row }) => return Err(TrialError::NonFinite { layer, row: rows[row] }),
        Err(LayerFault::Constant) => {
            return Ok(metrics.iter().map(|_| Err(Undefined::ConstantLayer)).collect());
        }
    };
    let gram = centred_gram(&prepared).map_err(|error| {
        let message = error.to_string().lines().next().unwrap_or_default().to_owned();
        TrialError::Torch { layer, message }
    })?;
    let mut pairs = Pairs::new(&prepared, &gram);
    let mut parts: Vec<_> = metrics
        .iter()
        .map(|spec| {
            let metric = metric(spec.name);
            (metric.reads, (metric.prepare)(spec, n))
        })
        .collect();
    let mut right = Vec::with_capacity(n);
    for i in 0..n {
        for (reads, part) in &mut parts {
            let own = pairs.row(*reads, i, &mut right);
            part.row(i, own, &right);
        }
    }
    // What follows sorts and centres what was gathered; it needs the memory.
    drop(pairs);
    drop(gram);
    drop(prepared);
    Ok(parts.into_iter().map(|(_, part)| part.finish()).collect())
}
