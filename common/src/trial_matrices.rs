//! What one Monte Carlo trial yields: a layer × layer matrix per metric.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::metric::MetricSpec;

/// The matrices of one trial, in the order in which the metrics were asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialMatrices {
    /// Layers compared: the side of every matrix.
    pub n_layers: u32,
    /// Each metric's matrix [n_layers, n_layers], row-major; NaN where it is undefined.
    pub matrices: Vec<(MetricSpec, Vec<f64>)>,
    /// Why a layer has no similarity to any, by its hidden-state index.
    pub undefined: BTreeMap<u32, String>,
}
