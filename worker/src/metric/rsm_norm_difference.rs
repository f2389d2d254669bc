//! RSM norm difference: the spectral norm of D - D', D the [n, n] matrix of the distances of rows: euclidean, or
//! 1 - cosine or 1 - correlation, with a diagonal of zeros.
//!
//! Euclidean distances are those of the rows as given: the metric is not invariant to scale.
//!
//! Yin and Shen, "On the Dimensionality of Word Embedding", 2018 (there the Frobenius norm); the spectral norm as the
//! ReSi benchmark computes it.

use lsa_common::metric::{Inner, MetricSpec};

use super::layer::{Layer, times_power_of_two};
use super::spectral_norm::spectral_norm;
use super::triangle::n_pairs;
use super::{Failed, Part, PartError, Prepare, Sides, Undefined};

/// The distances of one layer. They stay float64 whatever the number of rows, because differences are taken of them.
pub struct Distances {
    n: usize,
    euclidean: bool,
    upper: Vec<f64>,
    /// The distances are 2^scale_exponent times `upper`.
    scale_exponent: i32,
}

impl Distances {
    /// For the rows of `layer`.
    pub fn new(spec: &MetricSpec, layer: &Layer) -> Self {
        let n = layer.n_rows();
        let euclidean = spec.inner == Some(Inner::Euclidean);
        let scale_exponent = if euclidean { layer.scale_exponent } else { 0 };
        Self { n, euclidean, upper: Vec::with_capacity(n_pairs(n)), scale_exponent }
    }
}

impl Prepare for Distances {
    fn row(&mut self, _i: usize, _own: f64, right: &[f64]) {
        let euclidean = self.euclidean;
        self.upper.extend(right.iter().map(|value| if euclidean { *value } else { 1.0 - value }));
    }

    fn finish(self: Box<Self>) -> Result<Part, PartError> {
        // No norm of a difference is larger than this one.
        let bound = 2.0 * self.n as f64 * self.upper.iter().copied().fold(0.0, f64::max);
        if !times_power_of_two(bound, self.scale_exponent).is_finite() {
            return Err(Undefined::Overflow.into());
        }
        Ok(Part::new(*self))
    }
}

/// The spectral norm of the difference of all pairs of layers, at least 0.
pub fn combine(sides: &Sides<'_>) -> Result<Vec<f64>, Failed> {
    sides.pairwise(norm_of_difference)
}

fn norm_of_difference(a: &Distances, b: &Distances) -> Result<f64, Failed> {
    // Both to the scale of the larger one, so that neither overflows.
    let scale_exponent = a.scale_exponent.max(b.scale_exponent);
    let factor = |part: &Distances| times_power_of_two(1.0, part.scale_exponent - scale_exponent);
    let (factor_a, factor_b) = (factor(a), factor(b));
    let difference: Vec<f64> =
        a.upper.iter().zip(&b.upper).map(|(x, y)| factor_a * x - factor_b * y).collect();
    Ok(times_power_of_two(spectral_norm(a.n, &difference)?, scale_exponent))
}
