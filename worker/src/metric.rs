//! The similarity metrics: what each one keeps of a layer, and how layers are compared by what was kept.
//!
//! A metric is two functions. The first sees one layer, a row of the upper triangle of pairs at a time, and keeps a [`Part`]; the second, `combine`, turns the parts of two sets of layers into a matrix. Neither
//! samples, moves data between devices or fills in defaults. A new metric is a file with these two and an entry in
//! [`metric`]; what is known of it whatever the data stands in `lsa_common::metric`, and tests are made from that.

use std::any::Any;

use lsa_common::metric::{K_DEFAULT, MetricName, MetricSpec};
use rayon::prelude::*;

pub mod gram;
pub mod layer;
pub mod quantity;

pub mod cka;
pub mod debiased_cka;
pub mod distance_correlation;
pub mod jaccard;
pub mod mutual_knn;
pub mod neighbours;
pub mod rank_similarity;
pub mod rsa;

pub mod pair_vector;
pub mod ranks;
pub mod row_sums;
pub mod scratch;
pub mod triangle;

use quantity::Quantity;

/// What a metric keeps of one layer: all that comparing it with other layers takes.
pub struct Part(Box<dyn Any + Send + Sync>);

impl Part {
    /// A part that holds `kept`.
    pub fn new<T: Any + Send + Sync>(kept: T) -> Self {
        Self(Box::new(kept))
    }

    /// What it holds.
    ///
    /// # Panics
    /// Where that is no `T`: a metric is given the parts that it made itself.
    pub fn get<T: Any>(&self) -> &T {
        self.0.downcast_ref().expect("a part of the same metric")
    }

    /// What is in each of `parts`, in place.
    pub fn all<'a, T: Any>(parts: &[Option<&'a Self>]) -> Vec<Option<&'a T>> {
        parts.iter().map(|part| part.map(Self::get)).collect()
    }
}

/// Why a metric says nothing about a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undefined {
    /// All rows are equal up to rounding, so there is nothing to compare.
    #[error("all rows are equal up to rounding")]
    ConstantLayer,
    /// All pairs of rows are as similar, so their order says nothing.
    #[error("all pairs of rows have the same Pearson correlation, so RSA is undefined")]
    EqualCorrelations,
    /// All pairs of rows have the same inner product about the mean row, which the unbiased estimator takes for none.
    #[error("all pairs of rows have the same inner product about their mean, so DebiasedCKA is undefined")]
    EqualProducts,
}

/// Gathers a part from one layer's pairs of rows.
pub trait Prepare {
    /// Takes the values of the pairs (i, i + 1) to (i, n - 1), and `own` of (i, i); called once for each row i, ascending.
    fn row(&mut self, i: usize, own: f64, right: &[f64]);

    /// The part, after all rows.
    fn finish(self: Box<Self>) -> Result<Part, Undefined>;
}

/// Compares layers by their parts: [a, b] row-major, `b` being `None` to compare `a` with itself.
///
/// An undefined layer is `None` and gives NaN in its row and column. Runs on the current thread pool; the result does
/// not depend on its size. The matrix of `a` with itself is exactly symmetric where the metric is.
pub type Combine = fn(&MetricSpec, a: &[Option<&Part>], b: Option<&[Option<&Part>]>) -> Vec<f64>;

/// A metric: what it reads, how it begins with a layer, and how it compares layers.
pub struct Metric {
    /// What it wants to know of each pair of rows.
    pub reads: Quantity,
    /// Begins with a layer of n rows.
    pub prepare: fn(&MetricSpec, n: usize) -> Box<dyn Prepare>,
    /// Compares layers.
    pub combine: Combine,
}

/// How the metric of that name is computed.
pub fn metric(name: MetricName) -> Metric {
    let kernel: fn(&MetricSpec, usize) -> Box<dyn Prepare> = |_, n| Box::new(cka::Kernel::new(n));
    let nearest: fn(&MetricSpec, usize) -> Box<dyn Prepare> =
        |spec, n| Box::new(neighbours::Nearest::new(n, spec.k.unwrap_or(K_DEFAULT) as usize));
    match name {
        MetricName::Cka => Metric { reads: Quantity::Kernel, prepare: kernel, combine: cka::combine },
        MetricName::DebiasedCka => Metric {
            reads: Quantity::Kernel,
            prepare: |_, n| Box::new(debiased_cka::Kernel::new(n)),
            combine: debiased_cka::combine,
        },
        MetricName::Rsa => Metric {
            reads: Quantity::Pearson,
            prepare: |_, n| Box::new(rsa::Ranks::new(n)),
            combine: rsa::combine,
        },
        MetricName::JaccardSimilarity => {
            Metric { reads: Quantity::Cosine, prepare: nearest, combine: jaccard::combine }
        }
        MetricName::MutualKnn => {
            Metric { reads: Quantity::Cosine, prepare: nearest, combine: mutual_knn::combine }
        }
        MetricName::RankSimilarity => {
            Metric { reads: Quantity::Cosine, prepare: nearest, combine: rank_similarity::combine }
        }
        MetricName::DistanceCorrelation => Metric {
            reads: Quantity::Distance,
            prepare: |_, n| Box::new(distance_correlation::Distances::new(n)),
            combine: distance_correlation::combine,
        },
    }
}

/// The matrix of a metric that compares two parts at a time; each pair is compared once where the metric is symmetric.
pub fn pairwise<T: Any + Send + Sync>(
    spec: &MetricSpec,
    a: &[Option<&Part>],
    b: Option<&[Option<&Part>]>,
    compare: impl Fn(&T, &T) -> f64 + Sync,
) -> Vec<f64> {
    let mirrored = b.is_none() && spec.name.info().symmetric;
    let (a, others) = (Part::all::<T>(a), b.map(Part::all::<T>));
    let others = others.as_ref().unwrap_or(&a);
    let width = others.len();
    let pairs: Vec<(usize, usize)> =
        (0..a.len()).flat_map(|i| (if mirrored { i } else { 0 }..width).map(move |j| (i, j))).collect();
    let values: Vec<f64> = pairs
        .par_iter()
        .with_max_len(1)
        .map(|(i, j)| match (a[*i], others[*j]) {
            (Some(left), Some(right)) => compare(left, right),
            _ => f64::NAN,
        })
        .collect();
    let mut matrix = vec![f64::NAN; a.len() * width];
    for ((i, j), value) in pairs.into_iter().zip(values) {
        matrix[i * width + j] = value;
        if mirrored {
            matrix[j * width + i] = value;
        }
    }
    matrix
}
