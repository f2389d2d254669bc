//! Distance correlation: sqrt(⟨A, A'⟩ / (‖A‖ ‖A'‖)), A the matrix of euclidean distances less its row and column means
//! plus its grand mean (the biased estimator).
//!
//! Székely, Rizzo and Bakirov, "Measuring and testing dependence by correlation of distances", 2007, definition 5.

use super::pair_vector::{PairVector, Values};
use super::row_sums::SummedRows;
use super::{Failed, Part, PartError, Prepare, Sides};

/// Gathers the distances of one layer and centres them.
pub struct Distances(SummedRows);

impl Distances {
    /// For `n` rows.
    pub fn new(n: usize) -> Self {
        Self(SummedRows::new(n))
    }
}

impl Prepare for Distances {
    fn row(&mut self, i: usize, _own: f64, right: &[f64]) {
        self.0.row(i, right);
    }

    fn finish(self: Box<Self>) -> Result<Part, PartError> {
        let n = self.0.sums().len();
        let means: Vec<f64> = self.0.sums().iter().map(|sum| sum / n as f64).collect();
        let grand_mean = means.iter().sum::<f64>() / n as f64;
        let mut diagonal = Values::with_capacity(n, n);
        diagonal.extend(means.iter().map(|mean| grand_mean - 2.0 * mean));
        Ok(Part::new(PairVector::new(self.0.centred(&means, grand_mean), diagonal)))
    }
}

/// Distance correlation of all pairs of layers, in [0, 1]; a product that rounding left below zero counts as zero.
pub fn combine(sides: &Sides<'_>) -> Result<Vec<f64>, Failed> {
    let mut matrix = sides.cosines()?;
    for cell in &mut matrix {
        // A comparison, because `max` would turn NaN into 0.
        *cell = if *cell < 0.0 { 0.0 } else { cell.sqrt() };
    }
    Ok(matrix)
}
