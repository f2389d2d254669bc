//! Linear regression: the share of the variance of the first layer that a linear map of the second explains,
//! ‖Q'ᵀ Xc‖² / ‖Xc‖², Q' an orthonormal basis of the columns of X'c. Cell (a, b) is how well b predicts a.
//!
//! Q' has as many vectors as the numerical rank of X'c. A layer with at least as many columns as rows predicts all others
//! fully.
//!
//! Kornblith, Norouzi, Lee and Hinton, "Similarity of Neural Network Representations Revisited", 2019, section 2.

use std::sync::Arc;

use lsa_common::metric::MetricSpec;
use tch::{TchError, Tensor};

use super::basis::Basis;
use super::matrix::sum_of_squares;
use super::shared::Shared;
use super::{Failed, Part, PartError, Sides};

/// A basis of the span of the centred columns, with the singular values.
pub fn prepare(_spec: &MetricSpec, shared: &Shared<'_>) -> Result<Part, PartError> {
    Ok(Part::new(shared.centred_basis()?))
}

/// What the layer of the column explains of the layer of the row, for all pairs; in [0, 1].
pub fn combine(sides: &Sides<'_>) -> Result<Vec<f64>, Failed> {
    sides.pairwise(|a: &Arc<Basis>, b: &Arc<Basis>| Ok(explained(a, b)?))
}

/// With Xc = U S Vᵀ, ‖Q'ᵀ Xc‖ is ‖Q'ᵀ U S‖.
fn explained(of: &Basis, by: &Basis) -> Result<f64, TchError> {
    let values = Tensor::f_from_slice(&of.values)?;
    Ok(sum_of_squares(&by.cosines(of)?.f_mul(&values)?)? / sum_of_squares(&values)?)
}
