//! Distance correlation: sqrt(⟨A, A'⟩ / (‖A‖ ‖A'‖)), A the matrix of euclidean distances less its row and column means
//! plus its grand mean (the biased estimator).
//!
//! Székely, Rizzo and Bakirov, "Measuring and testing dependence by correlation of distances", 2007, definition 5.

use super::pair_vector::{PairVector, Values, cosines};
use super::scratch::Scratch;
use super::triangle::{n_pairs, row_start};
use lsa_common::metric::MetricSpec;

use super::{Part, Prepare, Undefined};

/// Gathers the distances of one layer and centres them.
pub struct Distances {
    upper: Scratch<f64>,
    row_sums: Vec<f64>,
}

impl Distances {
    /// For `n` rows.
    pub fn new(n: usize) -> Self {
        Self { upper: Scratch::with_capacity(n_pairs(n)), row_sums: vec![0.0; n] }
    }
}

impl Prepare for Distances {
    fn row(&mut self, i: usize, _own: f64, right: &[f64]) {
        self.upper.extend_from_slice(right);
        let (done, later) = self.row_sums.split_at_mut(i + 1);
        done[i] += right.iter().sum::<f64>();
        later.iter_mut().zip(right).for_each(|(sum, distance)| *sum += distance);
    }

    fn finish(self: Box<Self>) -> Result<Part, Undefined> {
        let n = self.row_sums.len();
        let means: Vec<f64> = self.row_sums.iter().map(|sum| sum / n as f64).collect();
        let grand_mean = means.iter().sum::<f64>() / n as f64;
        let mut upper = Values::with_capacity(n, self.upper.len());
        for i in 0..n {
            let row = &self.upper[row_start(n, i)..row_start(n, i + 1)];
            let own = means[i] - grand_mean;
            upper.extend(row.iter().zip(&means[i + 1..]).map(|(distance, mean)| distance - own - mean));
        }
        let mut diagonal = Values::with_capacity(n, n);
        diagonal.extend(means.iter().map(|mean| grand_mean - 2.0 * mean));
        Ok(Part::new(PairVector::new(upper, diagonal)))
    }
}

/// Distance correlation of all pairs of layers, in [0, 1]; a product that rounding left below zero counts as zero.
pub fn combine(_: &MetricSpec, a: &[Option<&Part>], b: Option<&[Option<&Part>]>) -> Vec<f64> {
    let mut matrix = cosines(&Part::all(a), b.map(Part::all).as_deref());
    for cell in &mut matrix {
        // A comparison, because `max` would turn NaN into 0.
        *cell = if *cell < 0.0 { 0.0 } else { cell.sqrt() };
    }
    matrix
}
