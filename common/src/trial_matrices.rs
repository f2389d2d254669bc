//! What one Monte Carlo trial yields: a layer × layer matrix per metric, and quantities of single layers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::metric::{LayerMetricName, MetricSpec};

/// The matrices of one trial, in the order in which the metrics were asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialMatrices {
    /// Layers compared: the side of every matrix.
    pub n_layers: u32,
    /// Each metric's matrix [n_layers, n_layers], row-major; NaN where it is undefined.
    pub matrices: Vec<(MetricSpec, Vec<f64>)>,
    /// What each metric says of unrelated rows of the same shapes, one side's rows being in another order: matrices
    /// [n_layers, n_layers] in the order of `matrices`; empty where the comparison is not calibrated.
    pub nulls: Vec<Vec<f64>>,
    /// Quantities of each layer, `[n_layers]`; NaN where a layer has none.
    pub layer_metrics: Vec<(LayerMetricName, Vec<f64>)>,
    /// Why a layer has no similarity to any, by its place among the layers compared.
    pub undefined: BTreeMap<u32, String>,
}
