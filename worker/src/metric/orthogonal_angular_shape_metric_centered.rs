//! Angular distance of centred layers after the best rotation: arccos(‖Xcᵀ X'c‖_* / (‖Xc‖ ‖X'c‖)), in radians.
//! The narrower layer gets columns of zeros.
//!
//! Williams, Kunz, Kornblith and Linderman, "Generalized Shape Metrics on Neural Representations", 2021, equation 3.

use lsa_common::metric::MetricSpec;

use super::shape::chords;
use super::shared::Shared;
use super::{Failed, Part, PartError, Sides};

/// The shape of the layer.
pub fn prepare(_spec: &MetricSpec, shared: &Shared<'_>) -> Result<Part, PartError> {
    Ok(Part::new(shared.shape()?))
}

/// The angle of all pairs of layers, in [0, π/2]: that of the chord, which loses no digits where it is small.
pub fn combine(sides: &Sides<'_>) -> Result<Vec<f64>, Failed> {
    Ok(chords(sides)?.iter().map(|chord| 2.0 * (chord / 2.0).asin()).collect())
}
