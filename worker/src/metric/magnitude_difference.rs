//! Magnitude difference: |‖mean x‖ - ‖mean x'‖|, the mean over the rows as given: not invariant to scale.
//!
//! Wang et al., "Towards Understanding the Instability of Network Embedding", 2020.

use lsa_common::metric::MetricSpec;

use super::layer::{Layer, sum_of, times_power_of_two};
use super::shared::Shared;
use super::{Part, PartError, Undefined};

/// The norm of the mean row.
pub fn magnitude(_spec: &MetricSpec, shared: &Shared<'_>) -> Result<Part, PartError> {
    let magnitude = times_power_of_two(mean_norm(shared.layer), shared.layer.scale_exponent);
    if magnitude.is_finite() { Ok(Part::new(magnitude)) } else { Err(Undefined::Overflow.into()) }
}

/// The norm of the mean row, scaled as the layer is.
pub fn mean_norm(layer: &Layer) -> f64 {
    let grand_mean = layer.grand_mean;
    let means = &layer.column_means;
    sum_of(means, means, |mean, _| (mean + grand_mean) * (mean + grand_mean)).sqrt()
}
