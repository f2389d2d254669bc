//! Debiased CKA: CKA with the unbiased estimator of HSIC in place of the biased one. May be below zero.
//!
//! With K~ the kernel of the centred rows, its diagonal set to zero, and 1 the vector of ones,
//! HSIC(K, L) = [tr(K~ L~) + (1ᵀK~1)(1ᵀL~1) / ((n-1)(n-2)) - 2 1ᵀK~L~1 / (n-2)] / (n (n-3)).
//!
//! Song et al., "Feature Selection via Dependence Maximization", 2012, equation 4; Nguyen, Raghu and Kornblith, 2021.

use super::pair_vector::{PairVector, Values, cosines};
use super::row_sums::SummedRows;
use super::{Failed, Part, PartError, Prepare, Sides, Undefined};

/// A centred kernel of at most this part of its diagonal is rounding: products of float64 leave less.
const ROUNDING: f64 = 1e-12;

/// Gathers the kernel of one layer and centres it so that the estimator is an inner product.
///
/// Székely and Rizzo's U-centring (2014, proposition 1) turns the three terms above into one: with
/// A_ij = K_ij - s_i / (n-2) - s_j / (n-2) + s / ((n-1)(n-2)) off the diagonal, s_i the sums of rows without their
/// diagonal and s their sum, HSIC(K, L) is ⟨A, B⟩ / (n (n-3)) over the pairs of different rows.
pub struct Kernel {
    rows: SummedRows,
    /// The squares of the diagonal, summed: how large the numbers are that off the diagonal nearly cancel.
    diagonal: f64,
}

impl Kernel {
    /// For `n` rows, at least 4.
    pub fn new(n: usize) -> Self {
        Self { rows: SummedRows::new(n), diagonal: 0.0 }
    }
}

impl Prepare for Kernel {
    fn row(&mut self, i: usize, own: f64, right: &[f64]) {
        self.diagonal += own * own;
        self.rows.row(i, right);
    }

    fn finish(self: Box<Self>) -> Result<Part, PartError> {
        let n = self.rows.sums().len();
        let count = n as f64;
        let means: Vec<f64> = self.rows.sums().iter().map(|sum| sum / (count - 2.0)).collect();
        let grand_mean = self.rows.sums().iter().sum::<f64>() / ((count - 1.0) * (count - 2.0));
        let upper = self.rows.centred(&means, grand_mean);
        if upper.sum_of_squares().sqrt() <= ROUNDING * self.diagonal.sqrt() {
            return Err(Undefined::EqualProducts.into());
        }
        Ok(Part::new(PairVector::new(upper, Values::with_capacity(n, 0))))
    }
}

/// Debiased CKA of all pairs of layers, in [-1, 1].
pub fn combine(sides: &Sides<'_>) -> Result<Vec<f64>, Failed> {
    let (a, b) = sides.parts();
    Ok(cosines(&a, b.as_deref()))
}
