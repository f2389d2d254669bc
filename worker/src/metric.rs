//! The similarity metrics: what each one keeps of a layer, and how layers are compared by what was kept.
//!
//! A metric is two functions. The first sees one layer, its rows at once or a row of the upper triangle of pairs at a
//! time, and keeps a [`Part`]; the second, `combine`, turns the parts of two sets of layers into a matrix. Neither
//! samples, moves data between devices or fills in defaults. A new metric is a file with these two and an entry in
//! [`metric`]; what is known of it whatever the data stands in `lsa_common::metric`, and tests are made from that.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use lsa_common::metric::{Inner, LayerMetricName, MetricName, MetricSpec};
use rayon::prelude::*;
use tch::TchError;

pub mod gram;
pub mod layer;
pub mod layer_metric;
pub mod quantity;

pub mod aligned_cosine_similarity;
pub mod cka;
pub mod concentricity_difference;
pub mod debiased_cka;
pub mod distance_correlation;
pub mod eigenspace_overlap_score;
pub mod gulp;
pub mod hard_correlation_match;
pub mod jaccard;
pub mod linear_regression;
pub mod magnitude_difference;
pub mod minibatch_cka;
pub mod mutual_knn;
pub mod orthogonal_angular_shape_metric_centered;
pub mod orthogonal_procrustes_centered_and_normalized;
pub mod permutation_procrustes;
pub mod procrustes_size_and_shape_distance;
pub mod pwcca;
pub mod rank_similarity;
pub mod rbf_cka;
pub mod rsa;
pub mod rsm_norm_difference;
pub mod second_order_cosine_similarity;
pub mod soft_correlation_match;
pub mod svcca;
pub mod uniformity_difference;

pub mod assignment;
pub mod basis;
pub mod difference;
pub mod kept;
pub mod matrix;
pub mod neighbours;
pub mod pair_vector;
pub mod ranks;
pub mod row_sums;
pub mod rows;
pub mod scratch;
pub mod shape;
pub mod shared;
pub mod singular;
pub mod spectral_norm;
pub mod tensor;
pub mod triangle;
pub mod unordered;
mod vectorised;

use layer::Layer;
use layer_metric::{anisotropy, dataset_entropy, effective_rank, intrinsic_dimension, norms};
use pair_vector::PairVector;
use quantity::Quantity;
use shared::Shared;
use tensor::vector::TensorVector;

/// What a metric keeps of one layer: all that comparing it with other layers takes.
pub struct Part(Box<dyn Any + Send + Sync>);

impl Part {
    /// A part that holds `kept`.
    pub fn new<T: Any + Send + Sync>(kept: T) -> Self {
        Self(Box::new(kept))
    }

    /// Whether it holds a `T`.
    pub fn is<T: Any>(&self) -> bool {
        self.0.is::<T>()
    }

    /// What it holds.
    ///
    /// # Panics
    /// Where that is no `T`: a metric is given the parts that it made itself.
    pub fn get<T: Any>(&self) -> &T {
        self.0.downcast_ref().expect("a part of the same metric")
    }
}

/// Why a metric says nothing about a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undefined {
    /// All rows are equal up to rounding, so there is nothing to compare.
    #[error("all rows are equal up to rounding")]
    ConstantLayer,
    /// All pairs of rows are as similar, so their order says nothing.
    #[error("all pairs of rows are equally similar, so RSA is undefined")]
    EqualSimilarities,
    /// All pairs of rows have the same inner product about the mean row, which the unbiased estimator takes for none.
    #[error("all pairs of rows have the same inner product about their mean, so DebiasedCKA is undefined")]
    EqualProducts,
    /// The same within every batch.
    #[error(
        "all pairs of rows of a batch have the same inner product about their mean, so MinibatchCKA is undefined"
    )]
    EqualBatchProducts,
    /// Half of the pairs of rows or more are equal, which leaves a Gaussian kernel no width.
    #[error("the median distance of two rows is 0, so RBFCKA is undefined")]
    ZeroMedian,
    /// All pairs of rows have the same kernel.
    #[error("the kernel of all pairs of rows is the same, so RBFCKA is undefined; take a smaller sigma")]
    EqualKernel,
    /// The mean row has no direction.
    #[error("the mean row is zero, so ConcentricityDifference is undefined")]
    ZeroMean,
    /// No row has a direction.
    #[error("all rows are zero")]
    ZeroRows,
    /// Numbers so large that what is made of them is not finite.
    #[error("norms or distances of the rows are beyond the range of float64")]
    Overflow,
    /// A quantity of one layer asks for more rows.
    #[error("there are fewer than {0} rows that differ")]
    FewRows(u32),
    /// Rows that differ have a distance that underflows.
    #[error("rows that differ have distance 0 in float64, so IntrinsicDimension is undefined")]
    RowsTooNear,
    /// Every row has its two nearest rows at the same distance.
    #[error("every row is as far from the nearest row as from the next, so IntrinsicDimension is undefined")]
    EqualDistances,
    /// Its columns span more than half of what there is, so that canonical directions are arbitrary.
    #[error("its dimensions are half as many as its rows or more, so PWCCA is undefined")]
    TooManyDimensions,
}

/// Why a layer has no part.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// The metric says nothing about such a layer: its cells are NaN.
    #[error(transparent)]
    Undefined(#[from] Undefined),
    /// The computation failed.
    #[error(transparent)]
    Failed(#[from] Failed),
}

impl From<TchError> for PartError {
    fn from(error: TchError) -> Self {
        Self::Failed(error.into())
    }
}

/// libtorch failed, as a rule for lack of memory: the first line of what it said.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failed(pub String);

impl From<TchError> for Failed {
    fn from(error: TchError) -> Self {
        Self(error.to_string().lines().next().unwrap_or_default().to_owned())
    }
}

/// Gathers a part from one layer's pairs of rows.
pub trait Prepare {
    /// Takes the values of the pairs (i, i + 1) to (i, n - 1), and `own` of (i, i); called once for each row i, ascending.
    fn row(&mut self, i: usize, own: f64, right: &[f64]);

    /// The part, after all rows.
    fn finish(self: Box<Self>) -> Result<Part, PartError>;
}

/// How the part of a layer is made.
pub enum Source {
    /// From this quantity of all pairs of rows; the function begins with a layer.
    Pairs(Quantity, fn(&MetricSpec, &Layer) -> Box<dyn Prepare>),
    /// From the rows themselves.
    Rows(fn(&MetricSpec, &Shared<'_>) -> Result<Part, PartError>),
    /// From this quantity of all pairs of rows; or, where nothing else needs the pairs, from the rows themselves.
    Either {
        /// What is read of the pairs.
        reads: Quantity,
        /// Begins with a layer.
        prepare: fn(&MetricSpec, &Layer) -> Box<dyn Prepare>,
        /// The part, from the rows.
        of_rows: fn(&MetricSpec, &Shared<'_>) -> Result<Part, PartError>,
        /// Whether that is less work for n rows of that width.
        rows_suffice: fn(n: usize, width: usize) -> bool,
    },
}

/// A metric: how it begins with a layer, and how it compares layers.
pub struct Metric {
    /// How the part of a layer is made.
    pub source: Source,
    /// Compares layers: [a, b] row-major. An undefined layer gives NaN in its row and column.
    ///
    /// Runs on the current thread pool; the result does not depend on its size. The matrix of a set of layers with
    /// itself is exactly symmetric where the metric is.
    pub combine: fn(&Sides<'_>) -> Result<Vec<f64>, Failed>,
}

/// What a metric compares rows by, where that can be chosen.
pub fn compared_by(spec: &MetricSpec) -> Quantity {
    match spec.inner {
        Some(Inner::Cosine) | None => Quantity::Cosine,
        Some(Inner::Correlation) => Quantity::Pearson,
        Some(Inner::Euclidean) => Quantity::Distance,
    }
}

/// How a metric is computed.
pub fn metric(spec: &MetricSpec) -> Metric {
    let pairs = |reads, prepare, combine| Metric { source: Source::Pairs(reads, prepare), combine };
    let inner = compared_by(spec);
    let rows = |make, combine| Metric { source: Source::Rows(make), combine };
    let nearest: fn(&MetricSpec, &Layer) -> Box<dyn Prepare> =
        |spec, layer| Box::new(neighbours::Nearest::new(spec, layer.n_rows()));
    match spec.name {
        MetricName::Cka => Metric {
            source: Source::Either {
                reads: Quantity::Kernel,
                prepare: |_, layer| Box::new(cka::Kernel::new(layer.n_rows())),
                of_rows: |_, shared| cka::of_rows(shared.layer),
                rows_suffice: cka::rows_suffice,
            },
            combine: cka::combine,
        },
        MetricName::DebiasedCka => pairs(
            Quantity::Kernel,
            |_, layer| Box::new(debiased_cka::Kernel::new(layer.n_rows())),
            debiased_cka::combine,
        ),
        MetricName::MinibatchCka => rows(minibatch_cka::kernels, cka::combine),
        MetricName::RbfCka => pairs(
            Quantity::Distance,
            |spec, layer| Box::new(rbf_cka::Kernel::new(spec, layer.n_rows())),
            cka::combine,
        ),
        MetricName::Rsa => {
            pairs(inner, |spec, layer| Box::new(rsa::Ranks::new(spec, layer.n_rows())), rsa::combine)
        }
        MetricName::JaccardSimilarity => pairs(inner, nearest, jaccard::combine),
        MetricName::MutualKnn => pairs(inner, nearest, mutual_knn::combine),
        MetricName::RankSimilarity => pairs(inner, nearest, rank_similarity::combine),
        MetricName::DistanceCorrelation => pairs(
            Quantity::Distance,
            |_, layer| Box::new(distance_correlation::Distances::new(layer.n_rows())),
            distance_correlation::combine,
        ),
        MetricName::SecondOrderCosineSimilarity => pairs(
            inner,
            |spec, layer| Box::new(second_order_cosine_similarity::Distances::new(spec, layer.n_rows())),
            second_order_cosine_similarity::combine,
        ),
        MetricName::RsmNormDifference => pairs(
            inner,
            |spec, layer| Box::new(rsm_norm_difference::Distances::new(spec, layer)),
            rsm_norm_difference::combine,
        ),
        MetricName::UniformityDifference => pairs(
            Quantity::Distance,
            |_, layer| Box::new(uniformity_difference::Potentials::new(layer)),
            difference::combine,
        ),
        MetricName::MagnitudeDifference => rows(magnitude_difference::magnitude, difference::combine),
        MetricName::ConcentricityDifference => {
            rows(concentricity_difference::concentricity, difference::combine)
        }
        MetricName::EigenspaceOverlapScore => {
            rows(eigenspace_overlap_score::prepare, eigenspace_overlap_score::combine)
        }
        MetricName::Svcca => rows(svcca::prepare, svcca::combine),
        MetricName::Pwcca => rows(pwcca::prepare, pwcca::combine),
        MetricName::Gulp => rows(gulp::prepare, gulp::combine),
        MetricName::LinearRegression => rows(linear_regression::prepare, linear_regression::combine),
        MetricName::OrthogonalProcrustesCenteredAndNormalized => rows(
            orthogonal_procrustes_centered_and_normalized::prepare,
            orthogonal_procrustes_centered_and_normalized::combine,
        ),
        MetricName::ProcrustesSizeAndShapeDistance => {
            rows(procrustes_size_and_shape_distance::prepare, procrustes_size_and_shape_distance::combine)
        }
        MetricName::OrthogonalAngularShapeMetricCentered => rows(
            orthogonal_angular_shape_metric_centered::prepare,
            orthogonal_angular_shape_metric_centered::combine,
        ),
        MetricName::AlignedCosineSimilarity => {
            rows(aligned_cosine_similarity::prepare, aligned_cosine_similarity::combine)
        }
        MetricName::PermutationProcrustes => {
            rows(permutation_procrustes::prepare, permutation_procrustes::combine)
        }
        MetricName::HardCorrelationMatch => {
            rows(hard_correlation_match::prepare, hard_correlation_match::combine)
        }
        MetricName::SoftCorrelationMatch => {
            rows(soft_correlation_match::prepare, soft_correlation_match::combine)
        }
    }
}

/// How a quantity of one layer is computed.
pub enum LayerMetric {
    /// From this quantity of all pairs of rows; the part holds a `f64`.
    Pairs(Quantity, fn(&Layer) -> Box<dyn Prepare>),
    /// From the rows themselves.
    Rows(fn(&Shared<'_>) -> Result<f64, PartError>),
}

/// How the quantity of that name is computed.
pub fn layer_metric(name: LayerMetricName) -> LayerMetric {
    match name {
        LayerMetricName::EffectiveRank => LayerMetric::Rows(effective_rank::effective_rank),
        LayerMetricName::DatasetEntropy => LayerMetric::Rows(dataset_entropy::dataset_entropy),
        LayerMetricName::Anisotropy => LayerMetric::Rows(anisotropy::anisotropy),
        LayerMetricName::IntrinsicDimension => LayerMetric::Pairs(Quantity::Distance, |layer| {
            Box::new(intrinsic_dimension::TwoNearest::new(layer))
        }),
        LayerMetricName::NormMean => LayerMetric::Rows(norms::mean),
        LayerMetricName::NormStd => LayerMetric::Rows(norms::std),
        LayerMetricName::NormMin => LayerMetric::Rows(norms::min),
        LayerMetricName::NormMax => LayerMetric::Rows(norms::max),
    }
}

/// The parts of two sets of layers that are compared by one metric; `None` is an undefined layer.
pub struct Sides<'a> {
    /// The metric.
    pub spec: &'a MetricSpec,
    /// The layers of the rows of the matrix.
    pub a: &'a [Option<&'a Part>],
    /// The layers of its columns; `None` to compare `a` with itself.
    pub b: Option<&'a [Option<&'a Part>]>,
    /// What metrics with the same parts have computed already.
    pub memo: &'a Memo,
}

impl Sides<'_> {
    /// What is in the parts of both sides.
    pub fn parts<T: Any>(&self) -> (Vec<Option<&T>>, Option<Vec<Option<&T>>>) {
        fn all<'p, T: Any>(parts: &[Option<&'p Part>]) -> Vec<Option<&'p T>> {
            parts.iter().map(|part| part.map(Part::get)).collect()
        }
        (all(self.a), self.b.map(all))
    }

    /// The matrix of a metric that is the cosine of vectors over all pairs of rows, wherever those lie.
    pub fn cosines(&self) -> Result<Vec<f64>, Failed> {
        if self.are_on_device() {
            let (a, b) = self.parts::<TensorVector>();
            return Ok(tensor::vector::cosines(&a, b.as_deref())?);
        }
        let (a, b) = self.parts::<PairVector>();
        Ok(pair_vector::cosines(&a, b.as_deref()))
    }

    /// Whether the parts are vectors on a device: all are, or none.
    pub fn are_on_device(&self) -> bool {
        self.a.iter().chain(self.b.unwrap_or_default()).flatten().any(|part| part.is::<TensorVector>())
    }

    /// The matrix of a metric that compares two parts at a time; each pair is compared once where the metric is symmetric.
    pub fn pairwise<T: Any + Send + Sync>(
        &self,
        compare: impl Fn(&T, &T) -> Result<f64, Failed> + Sync,
    ) -> Result<Vec<f64>, Failed> {
        let mirrored = self.b.is_none() && self.spec.name.info().symmetric;
        let (a, b) = self.parts::<T>();
        let b = b.as_ref().unwrap_or(&a);
        let width = b.len();
        let pairs: Vec<(usize, usize)> =
            (0..a.len()).flat_map(|i| (if mirrored { i } else { 0 }..width).map(move |j| (i, j))).collect();
        let values: Vec<f64> = pairs
            .par_iter()
            .with_max_len(1)
            .map(|(i, j)| match (a[*i], b[*j]) {
                (Some(left), Some(right)) => compare(left, right),
                _ => Ok(f64::NAN),
            })
            .collect::<Result<_, _>>()?;
        let mut matrix = vec![f64::NAN; a.len() * width];
        for ((i, j), value) in pairs.into_iter().zip(values) {
            matrix[i * width + j] = value;
            if mirrored {
                matrix[j * width + i] = value;
            }
        }
        Ok(matrix)
    }
}

/// Matrices that several metrics derive theirs from, by what they are; each is computed once.
#[derive(Default)]
pub struct Memo(Mutex<HashMap<&'static str, Arc<Vec<f64>>>>);

impl Memo {
    /// The matrix of that name; computed if nobody has asked for it yet.
    pub fn matrix(
        &self,
        name: &'static str,
        compute: impl FnOnce() -> Result<Vec<f64>, Failed>,
    ) -> Result<Arc<Vec<f64>>, Failed> {
        let mut matrices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(matrix) = matrices.get(name) {
            return Ok(Arc::clone(matrix));
        }
        let matrix = Arc::new(compute()?);
        matrices.insert(name, Arc::clone(&matrix));
        Ok(matrix)
    }
}
