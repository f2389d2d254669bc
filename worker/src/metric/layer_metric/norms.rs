//! Statistics of the norms of the rows as given.

use super::super::layer::{Layer, dot, times_power_of_two};
use super::super::shared::Shared;
use super::super::{PartError, Undefined};

/// The mean.
pub fn mean(shared: &Shared<'_>) -> Result<f64, PartError> {
    let layer = shared.layer;
    as_given(layer, scaled_mean(layer, &norms(layer)))
}

/// The standard deviation, ddof 0.
pub fn std(shared: &Shared<'_>) -> Result<f64, PartError> {
    let layer = shared.layer;
    let norms = norms(layer);
    let mean = scaled_mean(layer, &norms);
    let squares = norms.iter().zip(&layer.counts).map(|(norm, count)| count * (norm - mean) * (norm - mean));
    as_given(layer, (squares.sum::<f64>() / layer.n_rows() as f64).sqrt())
}

/// The smallest.
pub fn min(shared: &Shared<'_>) -> Result<f64, PartError> {
    as_given(shared.layer, norms(shared.layer).into_iter().fold(f64::INFINITY, f64::min))
}

/// The largest.
pub fn max(shared: &Shared<'_>) -> Result<f64, PartError> {
    as_given(shared.layer, norms(shared.layer).into_iter().fold(0.0, f64::max))
}

/// The norm of every distinct row, scaled; a small one is not taken for zero.
fn norms(layer: &Layer) -> Vec<f64> {
    layer.values.chunks_exact(layer.width).map(|row| dot(row, row).sqrt()).collect()
}

/// Equal norms have exactly their mean, so that they have no deviation.
fn scaled_mean(layer: &Layer, norms: &[f64]) -> f64 {
    let n = layer.n_rows() as f64;
    let first = norms[0];
    first + norms.iter().zip(&layer.counts).map(|(norm, count)| count * (norm - first)).sum::<f64>() / n
}

fn as_given(layer: &Layer, scaled: f64) -> Result<f64, PartError> {
    let value = times_power_of_two(scaled, layer.scale_exponent);
    if value.is_finite() { Ok(value) } else { Err(Undefined::Overflow.into()) }
}
