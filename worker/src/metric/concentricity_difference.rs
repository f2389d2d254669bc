//! Concentricity difference: |c - c'|, c the mean cosine of the rows with the mean row. A zero row has cosine 0.
//!
//! Wang et al., "Towards Understanding the Instability of Network Embedding", 2020.

use lsa_common::metric::MetricSpec;

use super::layer::{ZERO_NORM, dot};
use super::magnitude_difference::mean_norm;
use super::shared::Shared;
use super::{Part, PartError, Undefined};

/// The mean cosine of the rows with the mean row; undefined where that is the zero row.
pub fn concentricity(_spec: &MetricSpec, shared: &Shared<'_>) -> Result<Part, PartError> {
    let layer = shared.layer;
    let mean_norm = mean_norm(layer);
    if mean_norm < ZERO_NORM {
        return Err(Undefined::ZeroMean.into());
    }
    let mean: Vec<f64> = layer.column_means.iter().map(|mean| mean + layer.grand_mean).collect();
    let cosine = |i: usize| {
        let norm = layer.norm(i);
        if norm == 0.0 { 0.0 } else { dot(layer.row(i), &mean) / (norm * mean_norm) }
    };
    let sum: f64 = layer.counts.iter().enumerate().map(|(i, count)| count * cosine(i)).sum();
    Ok(Part::new(sum / layer.n_rows() as f64))
}
