//! Orthogonal Procrustes distance of centred layers of Frobenius norm 1:
//! min_Q ‖Xc Q - X'c‖ = √(2 - 2 ‖Xcᵀ X'c‖_*), Q orthogonal. The narrower layer gets columns of zeros.
//!
//! Ding, Denain and Steinhardt, "Grounding Representation Similarity Through Statistical Testing", 2021, section 2.

use lsa_common::metric::MetricSpec;

use super::shape::chords;
use super::shared::Shared;
use super::{Failed, Part, PartError, Sides};

/// The shape of the layer.
pub fn prepare(_spec: &MetricSpec, shared: &Shared<'_>) -> Result<Part, PartError> {
    Ok(Part::new(shared.shape()?))
}

/// The distance of all pairs of layers, in [0, √2].
pub fn combine(sides: &Sides<'_>) -> Result<Vec<f64>, Failed> {
    Ok(chords(sides)?.to_vec())
}
