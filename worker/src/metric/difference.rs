//! Metrics that are the difference of one number of each layer.

use super::{Failed, Sides};

/// The magnitude of the difference of all pairs of layers, whose parts are `f64`.
pub fn combine(sides: &Sides<'_>) -> Result<Vec<f64>, Failed> {
    sides.pairwise(|left: &f64, right: &f64| Ok((left - right).abs()))
}
