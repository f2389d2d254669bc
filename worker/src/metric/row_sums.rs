//! The pairs of a layer with the sums of their rows: what is gathered to be centred over rows and columns.

use super::pair_vector::Values;
use super::scratch::Scratch;
use super::triangle::{n_pairs, row_start};

/// The strict upper triangle of a symmetric matrix, and what each of its rows sums to without the diagonal.
pub struct SummedRows {
    upper: Scratch<f64>,
    sums: Vec<f64>,
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
        done[i] += right.iter().sum::<f64>();
        later.iter_mut().zip(right).for_each(|(sum, value)| *sum += value);
    }

    /// The sum of each row.
    pub fn sums(&self) -> &[f64] {
        &self.sums
    }

    /// The triangle less `means` of both rows of a pair, plus `grand_mean`.
    pub fn centred(&self, means: &[f64], grand_mean: f64) -> Values {
        let n = means.len();
        let mut centred = Values::with_capacity(n, self.upper.len());
        for i in 0..n {
            let row = &self.upper[row_start(n, i)..row_start(n, i + 1)];
            let own = means[i] - grand_mean;
            centred.extend(row.iter().zip(&means[i + 1..]).map(|(value, mean)| value - own - mean));
        }
        centred
    }
}
