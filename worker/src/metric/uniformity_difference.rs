//! Uniformity difference: |u - u'|, u = log of the mean of exp(-2 ‖x_i - x_j‖²) over all i and j, equal ones too.
//!
//! The rows count as given: the metric is not invariant to scale. With S the sum over i < j, u is
//! log(1 + 2 S / n) - log n; the first term alone is kept, because the second is the same for both sides.
//!
//! Wang and Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity", 2020; as the
//! ReSi benchmark has it.

use super::layer::{Layer, times_power_of_two};
use super::{Part, PartError, Prepare};

/// Sums the potentials of one layer. None is above that of a row with itself, which is 1, so the sum never underflows.
pub struct Potentials {
    n: usize,
    scale_exponent: i32,
    sum: f64,
}

impl Potentials {
    /// For the rows of `layer`.
    pub fn new(layer: &Layer) -> Self {
        Self { n: layer.n_rows(), scale_exponent: layer.scale_exponent, sum: 0.0 }
    }
}

impl Prepare for Potentials {
    fn row(&mut self, _i: usize, _own: f64, right: &[f64]) {
        let potential = |distance: &f64| {
            let distance = times_power_of_two(*distance, self.scale_exponent);
            (-2.0 * distance * distance).exp()
        };
        self.sum += right.iter().map(potential).sum::<f64>();
    }

    fn finish(self: Box<Self>) -> Result<Part, PartError> {
        Ok(Part::new((2.0 * self.sum / self.n as f64).ln_1p()))
    }
}
