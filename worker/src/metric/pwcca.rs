//! Projection-weighted canonical correlation analysis: Σ w_i ρ_i / Σ w_i, w_i = Σ_j |⟨h_i, x_j⟩|.
//!
//! ρ are the canonical correlations of the centred layers, h_i the canonical directions in the span of the columns x_j of
//! one of them: of the layer with fewer columns as in the authors' code, of the first where they have as many. So the
//! metric is not symmetric. (ReSi copies that code, which leaves the whitening out of h_i; here it is the paper's.)
//!
//! Where the ranks of two layers add up to n or more, some ρ are 1 whatever the layers, and any directions of the space
//! that they have in common would do for h_i: the weights are arbitrary. A layer of rank above (n - 1) / 2 is therefore
//! undefined. Equal ρ also come from two layers that share columns by construction; the value is then one of several.
//!
//! Morcos, Raghu and Bengio, "Insights on representational similarity in neural networks with canonical correlation",
//! 2018, section 2.

use std::sync::Arc;

use lsa_common::metric::MetricSpec;
use tch::{Kind, Tensor};

use super::basis::Basis;
use super::matrix::{Matrix, products};
use super::shared::Shared;
use super::singular::{Svd, svd};
use super::{Failed, Part, PartError, Sides, Undefined};

/// The span of a layer's centred columns, and its columns within it.
struct Projected {
    basis: Arc<Basis>,
    /// The inner products of the basis and the columns, [r, d].
    columns: Matrix,
    width: usize,
}

/// A basis, and the columns in its coordinates.
pub fn prepare(_spec: &MetricSpec, shared: &Shared<'_>) -> Result<Part, PartError> {
    let (rows, basis) = (shared.centred_rows()?, shared.centred_basis()?);
    if 2 * basis.rank() >= shared.layer.n_rows() {
        return Err(Undefined::TooManyDimensions.into());
    }
    let columns = Matrix::new(&products(&basis.vectors.tensor(), &rows.values.tensor())?)?;
    Ok(Part::new(Projected { basis, columns, width: rows.width }))
}

/// PWCCA of all pairs of layers, in [0, 1].
pub fn combine(sides: &Sides<'_>) -> Result<Vec<f64>, Failed> {
    sides.pairwise(|a: &Projected, b| if b.width < a.width { weighted(b, a) } else { weighted(a, b) })
}

/// The mean canonical correlation, weighted by what the columns of `base` have along the directions.
fn weighted(base: &Projected, other: &Projected) -> Result<f64, Failed> {
    let Svd { left, values, .. } = svd(&base.basis.cosines(&other.basis)?)?;
    let along = products(&left, &base.columns.tensor())?;
    let weights = along.f_abs()?.f_sum_dim_intlist(1i64, false, Kind::Double)?;
    let correlations = Tensor::f_from_slice(&values)?;
    let weighted = f64::try_from(weights.f_dot(&correlations)?)?;
    Ok(weighted / f64::try_from(weights.f_sum(Kind::Double)?)?)
}
