//! Effective rank: exp(-Σ p log p), p the singular values of X divided by their sum; X is not centred.
//!
//! Roy and Vetterli, "The Effective Rank: A Measure of Effective Dimensionality", 2007.

use tch::Tensor;

use super::super::shared::Shared;
use super::super::{PartError, Undefined};
use super::entropy;

/// The effective rank, from 1 to the smaller of n and d; undefined where all rows are zero.
pub fn effective_rank(shared: &Shared<'_>) -> Result<f64, PartError> {
    let layer = shared.layer;
    let mut rows = layer.values.clone();
    // A row that occurs c times counts in every inner product of columns as one that is √c times as long.
    for (row, count) in rows.chunks_exact_mut(layer.width).zip(&layer.counts) {
        row.iter_mut().for_each(|value| *value *= count.sqrt());
    }
    let values = singular_values(&rows, layer.width)?;
    let sum: f64 = values.iter().sum();
    if sum == 0.0 {
        return Err(Undefined::ZeroRows.into());
    }
    Ok(entropy(values.iter().map(|value| value / sum)).exp())
}

/// The singular values of rows of that width, descending.
fn singular_values(rows: &[f64], width: usize) -> Result<Vec<f64>, PartError> {
    let size = |count: usize| i64::try_from(count).expect("a count of items in memory");
    let (m, d) = (size(rows.len() / width), size(width));
    let rows = Tensor::f_from_slice(rows)?.f_view([m, d])?;
    let tall = if m >= d { rows } else { rows.f_transpose(0, 1)? };
    // The triangular factor is square and has the same singular values.
    let (_, triangular) = Tensor::f_linalg_qr(&tall, "r")?;
    drop(tall);
    let (_, values, _) = triangular.f_svd(true, false)?;
    let mut out = vec![0.0; values.numel()];
    values.f_copy_data(&mut out, values.numel())?;
    Ok(out)
}
