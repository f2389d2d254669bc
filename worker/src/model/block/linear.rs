//! x W' + b.

use tch::{TchError, Tensor};

use crate::weights::{Weights, WeightsError};

/// An affine map of the last dimension.
pub struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// Takes `{name}.weight` [out, in] and `{name}.bias` [out].
    pub fn load(weights: &mut Weights, name: &str) -> Result<Self, WeightsError> {
        let weight = weights.take(&format!("{name}.weight"))?;
        Ok(Self { weight, bias: weights.take(&format!("{name}.bias"))? })
    }

    /// A map from given tensors.
    #[cfg(test)]
    pub fn for_test(weight: Tensor, bias: Tensor) -> Self {
        Self { weight, bias }
    }

    /// Several maps of the same input as one, their outputs side by side: one large product instead of many.
    pub fn side_by_side(parts: &[Self]) -> Result<Self, TchError> {
        let weights: Vec<&Tensor> = parts.iter().map(|part| &part.weight).collect();
        let biases: Vec<&Tensor> = parts.iter().map(|part| &part.bias).collect();
        Ok(Self { weight: Tensor::f_cat(&weights, 0)?, bias: Tensor::f_cat(&biases, 0)? })
    }

    /// [t, in] → [t, out].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_linear(&self.weight, Some(&self.bias))
    }
}
