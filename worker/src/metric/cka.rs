//! Linear centred kernel alignment, biased: ⟨K, K'⟩ / (‖K‖ ‖K'‖), K the Gram matrix of the rows less the mean row.
//!
//! Kornblith, Norouzi, Lee and Hinton, "Similarity of Neural Network Representations Revisited", 2019, section 3.

use std::iter;

use super::pair_vector::{PairVector, Values, cosines};
use super::triangle::n_pairs;
use lsa_common::metric::MetricSpec;

use super::{Part, Prepare, Undefined};

/// Gathers the kernel of one layer.
pub struct Kernel {
    upper: Values,
    diagonal: Values,
}

impl Kernel {
    /// For `n` rows.
    pub fn new(n: usize) -> Self {
        Self { upper: Values::with_capacity(n, n_pairs(n)), diagonal: Values::with_capacity(n, n) }
    }
}

impl Prepare for Kernel {
    fn row(&mut self, _i: usize, own: f64, right: &[f64]) {
        self.diagonal.extend(iter::once(own));
        self.upper.extend(right.iter().copied());
    }

    fn finish(self: Box<Self>) -> Result<Part, Undefined> {
        Ok(Part::new(PairVector::new(self.upper, self.diagonal)))
    }
}

/// CKA of all pairs of layers, in [0, 1].
pub fn combine(_: &MetricSpec, a: &[Option<&Part>], b: Option<&[Option<&Part>]>) -> Vec<f64> {
    cosines(&Part::all(a), b.map(Part::all).as_deref())
}
