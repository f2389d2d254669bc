//! Layer norm. Ba et al. 2016.

use tch::{TchError, Tensor};

use crate::weights::{Weights, WeightsError};

/// Normalises the last dimension, then scales and shifts it.
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// Takes `{name}.weight` and `{name}.bias`, both `[d]`.
    pub fn load(weights: &mut Weights, name: &str, eps: f64) -> Result<Self, WeightsError> {
        let weight = weights.take(&format!("{name}.weight"))?;
        Ok(Self { weight, bias: weights.take(&format!("{name}.bias"))?, eps })
    }

    /// [t, d] → [t, d].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.eps, false)
    }
}
