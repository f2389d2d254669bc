//! The pairs of a layer with the sums of their rows: what is gathered to be centred over rows and columns.

use super::pair_vector::Values;
use super::scratch::Scratch;
use super::triangle::{n_pairs, row_start};
use super::vectorised::vectorised;

/// The strict upper triangle of a symmetric matrix, and what each of its rows sums to without the diagonal.
pub struct SummedRows {
    upper: Scratch<f64>,
    sums: Vec<f64>,
}

vectorised! {
    /// Adds each value to its sum and returns the sum of all, in order.
    fn add_to_each(values: &[f64], sums: &mut [f64]) -> f64 {
        let mut total = -0.0;
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += value;
            total += value;
        }
        total
    }
}

impl SummedRows {
    /// For `n` rows.
    pub fn new(n: usize) -> Self {
        Self { upper: Scratch::with_capacity(n_pairs(n)), sums: vec![0.0; n] }
    }

    /// Takes the pairs (i, i + 1) to (i, n - 1), row after row.
    pub fn row(&mut self, i: usize, right: &[f64]) {
        self.upper.extend_from_slice(right);
        let (done, later) = self.sums.split_at_mut(i + 1);
        done[i] += add_to_each(right, later);
    }

    /// The sum of each row.
    pub fn sums(&self) -> &[f64] {
        &self.sums
    }

    /// The triangle less `means` of both rows of a pair, plus `grand_mean`.
    pub fn centred(&self, means: &[f64], grand_mean: f64) -> Values {
        let n = means.len();
        let mut centred = Values::with_capacity(n, self.upper.len());
        let mut less = Vec::with_capacity(n);
        for i in 0..n {
            let row = &self.upper[row_start(n, i)..row_start(n, i + 1)];
            let own = means[i] - grand_mean;
            less.clear();
            less.extend(row.iter().zip(&means[i + 1..]).map(|(value, mean)| value - own - mean));
            centred.extend_from_slice(&less);
        }
        centred
    }
}
