//! Aligned cosine similarity: the mean cosine of x_i Q and x'_i over the rows i, Q = argmin ‖X Q - X'‖ orthogonal.
//!
//! The layers are not centred, the narrower one gets columns of zeros. Rows where either layer is zero are left out, as
//! in ReSi; where that leaves none, the value is NaN. Q is unique where Xᵀ X' has the rank of one of the layers, and as
//! exact as its smallest singular values are: a common mean that is large beside all else costs digits.
//!
//! Hamilton, Leskovec and Jurafsky, "Diachronic Word Embeddings Reveal Statistical Laws of Semantic Change", 2016.

use std::sync::Arc;

use lsa_common::metric::MetricSpec;
use tch::{Kind, TchError, Tensor};

use super::layer::ZERO_NORM;
use super::matrix::products;
use super::rows::Rows;
use super::shared::Shared;
use super::singular::{Svd, svd};
use super::unordered::unordered_pairs;
use super::{Failed, Part, PartError, Sides};

/// The rows up to a rotation.
pub fn prepare(_spec: &MetricSpec, shared: &Shared<'_>) -> Result<Part, PartError> {
    Ok(Part::new(shared.compact_rows()?))
}

/// The similarity of all pairs of layers, in [-1, 1].
pub fn combine(sides: &Sides<'_>) -> Result<Vec<f64>, Failed> {
    unordered_pairs(sides, |a: &Arc<Rows>, b| Ok(mean_cosine(&a.values.tensor(), &b.values.tensor())?))
}

fn mean_cosine(x: &Tensor, y: &Tensor) -> Result<f64, TchError> {
    let Svd { left, right, .. } = svd(&products(x, y)?)?;
    let over_columns = |matrix: &Tensor| matrix.f_sum_dim_intlist(1i64, false, Kind::Double);
    let norms = |rows: &Tensor| over_columns(&rows.f_square()?)?.f_sqrt();
    let inner = over_columns(&x.f_matmul(&left)?.f_mul(&y.f_matmul(&right)?)?)?;
    let [inner, x, y] = [inner, norms(x)?, norms(y)?].map(Vec::<f64>::try_from);
    let (mut sum, mut count) = (0.0, 0u32);
    for ((inner, x), y) in inner?.into_iter().zip(x?).zip(y?) {
        if x >= ZERO_NORM && y >= ZERO_NORM {
            sum += inner / (x * y);
            count += 1;
        }
    }
    Ok(sum / f64::from(count))
}
