//! Anisotropy: the mean cosine of all pairs of different rows, among them equal ones. A zero row has cosine 0 to all.
//!
//! With u the rows at unit norm, it is (‖Σ u‖² - Σ ‖u‖²) / (n (n - 1)): no pair need be looked at.
//!
//! Ethayarajh, "How Contextual are Contextualized Word Representations?", 2019, section 4.1.

use super::super::layer::dot;
use super::super::shared::Shared;
use super::super::{PartError, Undefined};

/// The mean cosine, in [-1, 1]; undefined for fewer than 2 rows and where all rows are zero.
pub fn anisotropy(shared: &Shared<'_>) -> Result<f64, PartError> {
    let layer = shared.layer;
    let n = layer.n_rows() as f64;
    if n < 2.0 {
        return Err(Undefined::FewRows(2).into());
    }
    let mut sum = vec![0.0; layer.width];
    let mut squares = 0.0;
    for (i, count) in layer.counts.iter().enumerate() {
        let norm = layer.norm(i);
        if norm > 0.0 {
            squares += count;
            let factor = count / norm;
            sum.iter_mut().zip(layer.row(i)).for_each(|(sum, value)| *sum += factor * value);
        }
    }
    if squares == 0.0 {
        return Err(Undefined::ZeroRows.into());
    }
    Ok((dot(&sum, &sum) - squares) / (n * (n - 1.0)))
}
