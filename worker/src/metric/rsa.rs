//! Representational similarity analysis: Spearman's correlation of the strict upper triangles of the [n, n] matrices of
//! similarities between rows, by default Pearson's correlations. Equal ones share the mean of the ranks they span.
//!
//! Kriegeskorte, Mur and Bandettini, "Representational similarity analysis", 2008.

use lsa_common::metric::{Inner, MetricSpec};

use super::pair_vector::{PairVector, Values};
use super::ranks::{centred_double_ranks, range};
use super::scratch::Scratch;
use super::triangle::n_pairs;
use super::{Failed, Part, PartError, Prepare, Sides, Undefined};

/// What rounding may leave between similarities that are equal, as a share of their size: float32 rows tell a thousand
/// times less apart.
const ROUNDING: f64 = 1e-12;

/// Whether similarities from `low` to `high` differ by nothing but rounding, so that their ranks would be noise: rows may
/// all be as far apart, as the corners of a simplex are.
pub fn are_equal(spec: &MetricSpec, low: f64, high: f64) -> bool {
    let size = if spec.inner == Some(Inner::Euclidean) { low.abs().max(high.abs()) } else { 1.0 };
    high - low <= ROUNDING * size
}

/// Gathers the similarities of one layer and ranks them.
pub struct Ranks {
    similarities: Scratch<f64>,
    spec: MetricSpec,
    /// Distances rank the other way round than similarities do.
    sign: f64,
}

impl Ranks {
    /// For `n` rows.
    pub fn new(spec: &MetricSpec, n: usize) -> Self {
        let sign = if spec.inner == Some(Inner::Euclidean) { -1.0 } else { 1.0 };
        Self { similarities: Scratch::with_capacity(n_pairs(n)), spec: spec.clone(), sign }
    }
}

impl Prepare for Ranks {
    fn row(&mut self, _i: usize, _own: f64, right: &[f64]) {
        self.similarities.extend(right.iter().map(|value| self.sign * value));
    }

    fn finish(self: Box<Self>) -> Result<Part, PartError> {
        let (low, high) = range(&self.similarities);
        if are_equal(&self.spec, low, high) {
            return Err(Undefined::EqualSimilarities.into());
        }
        let ranks = centred_double_ranks(&self.similarities).ok_or(Undefined::EqualSimilarities)?;
        Ok(Part::new(PairVector::new(Values::whole(ranks), Values::whole(Vec::new()))))
    }
}

/// RSA of all pairs of layers, in [-1, 1]: ranks less their mean, so that Pearson's correlation is a cosine.
pub fn combine(sides: &Sides<'_>) -> Result<Vec<f64>, Failed> {
    sides.cosines()
}

#[cfg(test)]
mod tests {
    use lsa_common::metric::MetricName;

    use super::*;

    #[test]
    fn similarities_that_differ_by_rounding_alone_say_nothing() {
        let are_equal = |inner, low, high| {
            are_equal(&MetricSpec { inner: Some(inner), ..MetricSpec::new(MetricName::Rsa) }, low, high)
        };
        assert!(are_equal(Inner::Euclidean, -2.0, -2.0 + 1e-15));
        assert!(are_equal(Inner::Euclidean, -2e20, -2e20 * (1.0 - 1e-15)));
        assert!(!are_equal(Inner::Euclidean, -2e-20, -1e-20));
        assert!(!are_equal(Inner::Euclidean, -2.0, -2.0 + 1e-7), "float32 rows tell that apart");
        assert!(are_equal(Inner::Correlation, -1e-17, 1e-17));
        assert!(!are_equal(Inner::Cosine, 0.5, 0.5 + 1e-7));
    }
}
