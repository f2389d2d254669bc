//! Representational similarity analysis: Spearman's correlation of the strict upper triangles of the [n, n] matrices of
//! similarities between rows, by default Pearson's correlations. Equal ones share the mean of the ranks they span.
//!
//! Kriegeskorte, Mur and Bandettini, "Representational similarity analysis", 2008.

use lsa_common::metric::{Inner, MetricSpec};

use super::pair_vector::{PairVector, Values};
use super::ranks::centred_double_ranks;
use super::scratch::Scratch;
use super::triangle::n_pairs;
use super::{Failed, Part, PartError, Prepare, Sides, Undefined};

/// Gathers the similarities of one layer and ranks them.
pub struct Ranks {
    similarities: Scratch<f64>,
    /// Distances rank the other way round than similarities do.
    sign: f64,
}

impl Ranks {
    /// For `n` rows.
    pub fn new(spec: &MetricSpec, n: usize) -> Self {
        let sign = if spec.inner == Some(Inner::Euclidean) { -1.0 } else { 1.0 };
        Self { similarities: Scratch::with_capacity(n_pairs(n)), sign }
    }
}

impl Prepare for Ranks {
    fn row(&mut self, _i: usize, _own: f64, right: &[f64]) {
        self.similarities.extend(right.iter().map(|value| self.sign * value));
    }

    fn finish(self: Box<Self>) -> Result<Part, PartError> {
        let ranks = centred_double_ranks(&self.similarities).ok_or(Undefined::EqualSimilarities)?;
        Ok(Part::new(PairVector::new(Values::whole(ranks), Values::whole(Vec::new()))))
    }
}

/// RSA of all pairs of layers, in [-1, 1]: ranks less their mean, so that Pearson's correlation is a cosine.
pub fn combine(sides: &Sides<'_>) -> Result<Vec<f64>, Failed> {
    sides.cosines()
}
