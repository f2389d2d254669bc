//! The similarity metrics: what each one keeps of a layer, and how layers are compared by what was kept.
//!
//! A metric is two functions. `prepare` sees one layer, a row of the upper triangle of pairs at a time, and keeps a
//! [`Part`]; `combine` turns the parts of two sets of layers into a matrix. Neither samples, moves data between
//! devices or fills in defaults. A new metric is a file with these two and an entry in [`metric`]; tests are made
//! from the properties declared there.

use lsa_common::metric::{K_DEFAULT, MetricName, MetricSpec};

pub mod gram;
pub mod layer;
pub mod quantity;

pub mod cka;
pub mod distance_correlation;
pub mod neighbours;
pub mod rsa;

pub mod pair_vector;
pub mod ranks;
pub mod scratch;
pub mod triangle;

use neighbours::Neighbours;
use pair_vector::PairVector;
use quantity::Quantity;

/// What a metric keeps of one layer: all that comparing it with other layers takes.
pub enum Part {
    /// A vector over all pairs of rows.
    Pairs(PairVector),
    /// The nearest neighbours of every row.
    Neighbours(Neighbours),
}

impl Part {
    /// The vectors among `parts`, in place; what is none counts as undefined.
    fn pairs<'a>(parts: &[Option<&'a Self>]) -> Vec<Option<&'a PairVector>> {
        let pairs = |part: &&'a Self| match part {
            Self::Pairs(vector) => Some(vector),
            Self::Neighbours(_) => None,
        };
        parts.iter().map(|part| part.as_ref().and_then(pairs)).collect()
    }
}

/// Why a metric says nothing about a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undefined {
    /// All rows are equal up to rounding, so there is nothing to compare.
    #[error("all rows are equal up to rounding")]
    ConstantLayer,
    /// All pairs of rows are correlated alike, so their order says nothing.
    #[error("all pairs of rows have the same Pearson correlation, so RSA is undefined")]
    EqualCorrelations,
}

/// Gathers a part from one layer's pairs of rows.
pub trait Prepare {
    /// Takes the values of the pairs (i, i + 1) to (i, n - 1), and `own` of (i, i); called once for each row i, ascending.
    fn row(&mut self, i: usize, own: f64, right: &[f64]);

    /// The part, after all rows.
    fn finish(self: Box<Self>) -> Result<Part, Undefined>;
}

/// What may be done to the rows of a layer without changing a metric's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariance {
    /// Multiplying all rows by one orthogonal matrix.
    Rotation,
    /// Multiplying all rows by one positive number.
    Scaling,
    /// Adding one vector to all rows.
    Translation,
    /// Adding one number to all entries of a row, another to those of the next.
    RowOffset,
    /// Multiplying each row by a positive number of its own.
    RowScaling,
    /// Putting the rows of both sides into another common order; for data without ties.
    RowOrder,
}

/// What holds of a metric whatever the data.
#[derive(Clone, Copy, Debug)]
pub struct Properties {
    /// Whether comparing a with b and b with a gives the same.
    pub symmetric: bool,
    /// The smallest and the largest value.
    pub range: (f64, f64),
    /// Whether a larger value means that layers are more alike.
    pub larger_is_more_similar: bool,
    /// What does not change the value.
    pub invariances: &'static [Invariance],
}

/// Compares layers by their parts: [a, b] row-major, `b` being `None` to compare `a` with itself.
///
/// An undefined layer is `None` and gives NaN in its row and column. Runs on the current thread pool; the result does
/// not depend on its size.
pub type Combine = fn(a: &[Option<&Part>], b: Option<&[Option<&Part>]>) -> Vec<f64>;

/// A metric: what it reads, how it begins with a layer, how it compares layers, and what is known of it.
pub struct Metric {
    /// What it wants to know of each pair of rows.
    pub reads: Quantity,
    /// Begins with a layer of n rows.
    pub prepare: fn(&MetricSpec, n: usize) -> Box<dyn Prepare>,
    /// Compares layers.
    pub combine: Combine,
    /// What holds whatever the data.
    pub properties: Properties,
}

/// The metric of that name.
pub fn metric(name: MetricName) -> Metric {
    use Invariance::{Rotation, RowOffset, RowOrder, RowScaling, Scaling, Translation};
    let properties =
        |range, invariances| Properties { symmetric: true, range, larger_is_more_similar: true, invariances };
    match name {
        MetricName::Cka => Metric {
            reads: Quantity::Kernel,
            prepare: |_, n| Box::new(cka::Kernel::new(n)),
            combine: cka::combine,
            properties: properties((0.0, 1.0), &[Rotation, Scaling, Translation, RowOrder]),
        },
        // A rotation mixes the entries of a row, and with them its mean: RSA is not invariant under it.
        MetricName::Rsa => Metric {
            reads: Quantity::Pearson,
            prepare: |_, n| Box::new(rsa::Ranks::new(n)),
            combine: rsa::combine,
            properties: properties((-1.0, 1.0), &[Scaling, RowScaling, RowOffset, RowOrder]),
        },
        MetricName::JaccardSimilarity => Metric {
            reads: Quantity::Cosine,
            prepare: |spec, n| Box::new(neighbours::Nearest::new(n, spec.k.unwrap_or(K_DEFAULT) as usize)),
            combine: neighbours::combine,
            properties: properties((0.0, 1.0), &[Rotation, Scaling, RowScaling, RowOrder]),
        },
        MetricName::DistanceCorrelation => Metric {
            reads: Quantity::Distance,
            prepare: |_, n| Box::new(distance_correlation::Distances::new(n)),
            combine: distance_correlation::combine,
            properties: properties((0.0, 1.0), &[Rotation, Scaling, Translation, RowOrder]),
        },
    }
}
