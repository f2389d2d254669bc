//! Representational similarity analysis: Spearman's correlation of the strict upper triangles of the [n, n] matrices of
//! Pearson correlations between rows. Equal correlations share the mean of the ranks they span.
//!
//! Kriegeskorte, Mur and Bandettini, "Representational similarity analysis", 2008.

use lsa_common::metric::MetricSpec;

use super::pair_vector::{PairVector, Values, cosines};
use super::ranks::centred_double_ranks;
use super::scratch::Scratch;
use super::triangle::n_pairs;
use super::{Part, Prepare, Undefined};

/// Gathers the correlations of one layer and ranks them.
pub struct Ranks {
    correlations: Scratch<f64>,
}

impl Ranks {
    /// For `n` rows.
    pub fn new(n: usize) -> Self {
        Self { correlations: Scratch::with_capacity(n_pairs(n)) }
    }
}

impl Prepare for Ranks {
    fn row(&mut self, _i: usize, _own: f64, right: &[f64]) {
        self.correlations.extend_from_slice(right);
    }

    fn finish(self: Box<Self>) -> Result<Part, Undefined> {
        let ranks = centred_double_ranks(&self.correlations).ok_or(Undefined::EqualCorrelations)?;
        Ok(Part::new(PairVector::new(Values::Rounded(ranks), Values::Rounded(Vec::new()))))
    }
}

/// RSA of all pairs of layers, in [-1, 1]: ranks less their mean, so that Pearson's correlation is a cosine.
pub fn combine(_: &MetricSpec, a: &[Option<&Part>], b: Option<&[Option<&Part>]>) -> Vec<f64> {
    cosines(&Part::all(a), b.map(Part::all).as_deref())
}
