//! GULP without regularisation (λ = 0): how far the best linear predictions from two layers are apart,
//! tr(Σ⁻¹ΣΣ⁻¹Σ) + tr(Σ'⁻¹Σ'Σ'⁻¹Σ') - 2 tr(Σ⁻¹ Σ_× Σ'⁻¹ Σ_×ᵀ), of centred layers.
//!
//! Σ⁻¹Σ projects onto the span of the columns, so that this is r + r' - 2 ‖Uᵀ U'‖², r the numerical rank and U the left
//! singular vectors; Σ⁻¹ is the pseudoinverse where the rank is less than the number of columns. Computed as the sum of
//! what each basis has outside the other, ‖U - U' U'ᵀ U‖² + ‖U' - U Uᵀ U'‖², which does not cancel for layers with nearly
//! the same span. Layers with at least as many columns as rows predict anything there is and are all 0 apart.
//!
//! Boix-Adsera, Lawrence, Stepaniants and Rigollet, "GULP: a prediction-based metric between representations", 2022.

use std::sync::Arc;

use lsa_common::metric::MetricSpec;
use tch::{TchError, Tensor};

use super::basis::Basis;
use super::matrix::sum_of_squares;
use super::shared::Shared;
use super::unordered::unordered_pairs;
use super::{Failed, Part, PartError, Sides};

/// A basis of the span of the centred columns.
pub fn prepare(_spec: &MetricSpec, shared: &Shared<'_>) -> Result<Part, PartError> {
    Ok(Part::new(shared.centred_basis()?))
}

/// GULP distances of all pairs of layers, in [0, r + r'].
pub fn combine(sides: &Sides<'_>) -> Result<Vec<f64>, Failed> {
    unordered_pairs(sides, |a: &Arc<Basis>, b| {
        let cosines = a.cosines(b)?;
        let of_a = outside(&a.vectors.tensor(), &b.vectors.tensor(), &cosines.f_transpose(0, 1)?)?;
        let of_b = outside(&b.vectors.tensor(), &a.vectors.tensor(), &cosines)?;
        Ok(of_a + of_b)
    })
}

/// The square of what `vectors` have outside the span of `basis`, given the inner products of `basis` and `vectors`.
fn outside(vectors: &Tensor, basis: &Tensor, cosines: &Tensor) -> Result<f64, TchError> {
    sum_of_squares(&vectors.f_sub(&basis.f_matmul(cosines)?)?)
}
