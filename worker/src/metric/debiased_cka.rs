//! Debiased CKA: CKA with the unbiased estimator of HSIC in place of the biased one. May be below zero.
//!
//! With K~ the kernel of the centred rows, its diagonal set to zero, and 1 the vector of ones,
//! HSIC(K, L) = [tr(K~ L~) + (1ᵀK~1)(1ᵀL~1) / ((n-1)(n-2)) - 2 1ᵀK~L~1 / (n-2)] / (n (n-3)).
//!
//! Song et al., "Feature Selection via Dependence Maximization", 2012, equation 4; Nguyen, Raghu and Kornblith, 2021.

use lsa_common::metric::MetricSpec;

use super::pair_vector::{PairVector, Values, cosines};
use super::scratch::Scratch;
use super::triangle::{n_pairs, row_start};
use super::{Part, Prepare, Undefined};

/// Gathers the kernel of one layer and centres it so that the estimator is an inner product.
///
/// Székely and Rizzo's U-centring (2014, proposition 1) turns the three terms above into one: with
/// A_ij = K_ij - s_i / (n-2) - s_j / (n-2) + s / ((n-1)(n-2)) off the diagonal, s_i the sums of rows without their
/// diagonal and s their sum, HSIC(K, L) is ⟨A, B⟩ / (n (n-3)) over the pairs of different rows.
pub struct Kernel {
    upper: Scratch<f64>,
    row_sums: Vec<f64>,
}

impl Kernel {
    /// For `n` rows, at least 4.
    pub fn new(n: usize) -> Self {
        Self { upper: Scratch::with_capacity(n_pairs(n)), row_sums: vec![0.0; n] }
    }
}

impl Prepare for Kernel {
    fn row(&mut self, i: usize, _own: f64, right: &[f64]) {
        self.upper.extend_from_slice(right);
        let (done, later) = self.row_sums.split_at_mut(i + 1);
        done[i] += right.iter().sum::<f64>();
        later.iter_mut().zip(right).for_each(|(sum, value)| *sum += value);
    }

    fn finish(self: Box<Self>) -> Result<Part, Undefined> {
        let n = self.row_sums.len();
        let count = n as f64;
        let means: Vec<f64> = self.row_sums.iter().map(|sum| sum / (count - 2.0)).collect();
        let grand = self.row_sums.iter().sum::<f64>() / ((count - 1.0) * (count - 2.0));
        let mut upper = Values::with_capacity(n, self.upper.len());
        for i in 0..n {
            let row = &self.upper[row_start(n, i)..row_start(n, i + 1)];
            let own = means[i] - grand;
            upper.extend(row.iter().zip(&means[i + 1..]).map(|(value, mean)| value - own - mean));
        }
        Ok(Part::new(PairVector::new(upper, Values::with_capacity(n, 0))))
    }
}

/// Debiased CKA of all pairs of layers, in [-1, 1].
pub fn combine(_: &MetricSpec, a: &[Option<&Part>], b: Option<&[Option<&Part>]>) -> Vec<f64> {
    cosines(&Part::all(a), b.map(Part::all).as_deref())
}
