//! Dataset entropy: -Σ λ log λ in nats, λ the eigenvalues of U Uᵀ / n, U the rows at unit norm, not centred.
//!
//! Zero rows have no direction and are left out, of n too.
//!
//! Skean et al., "Layer by Layer: Uncovering Hidden Representations in Language Models", 2025; Giraldo, Rao and Principe,
//! "Measures of Entropy from Data Using Infinitely Divisible Kernels", 2014, with α = 1.

use tch::Tensor;

use super::super::shared::Shared;
use super::super::{PartError, Undefined};
use super::entropy;

/// The entropy, from 0 to the logarithm of the smaller of n and d; undefined where all rows are zero.
pub fn dataset_entropy(shared: &Shared<'_>) -> Result<f64, PartError> {
    let layer = shared.layer;
    let kept: Vec<usize> = (0..layer.n_distinct()).filter(|i| layer.norm(*i) > 0.0).collect();
    if kept.is_empty() {
        return Err(Undefined::ZeroRows.into());
    }
    let n: f64 = kept.iter().map(|i| layer.counts[*i]).sum();
    let mut rows = Vec::with_capacity(kept.len() * layer.width);
    for i in &kept {
        // A row that occurs c times counts as one that is √c times as long.
        let factor = (layer.counts[*i] / n).sqrt() / layer.norm(*i);
        rows.extend(layer.row(*i).iter().map(|value| value * factor));
    }
    let size = |count: usize| i64::try_from(count).expect("a count of items in memory");
    let (m, d) = (size(kept.len()), size(layer.width));
    let rows = Tensor::f_from_slice(&rows)?.f_view([m, d])?;
    let turned = rows.f_transpose(0, 1)?;
    // Both products have the same eigenvalues, but for zeros.
    let gram = if m <= d { rows.f_matmul(&turned)? } else { turned.f_matmul(&rows)? };
    let eigenvalues = gram.f_linalg_eigvalsh("L")?;
    let mut values = vec![0.0; eigenvalues.numel()];
    eigenvalues.f_copy_data(&mut values, eigenvalues.numel())?;
    Ok(entropy(values.into_iter()))
}
