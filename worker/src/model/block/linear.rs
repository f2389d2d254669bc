//! x W' + b.

use tch::{Device, Kind, TchError, Tensor};

use crate::device;
use crate::weights::{Weights, WeightsError};

/// An affine map of the last dimension.
pub struct Linear {
    weight: Tensor,
    bias: Tensor,
    /// Whether weight and bias are in oneDNN's layout, and inputs and outputs are to be copied into it and back.
    in_onednn: bool,
}

impl Linear {
    /// Takes `{name}.weight` [out, in] and `{name}.bias` `[out]`.
    pub fn load(weights: &mut Weights, name: &str) -> Result<Self, WeightsError> {
        Self::load_side_by_side(weights, &[name.to_owned()])
    }

    /// Takes several maps of the same input as one, their outputs side by side: one large product, not many.
    pub fn load_side_by_side(weights: &mut Weights, names: &[String]) -> Result<Self, WeightsError> {
        let mut taken = |part: &str| -> Result<Vec<Tensor>, WeightsError> {
            names.iter().map(|name| weights.take(&format!("{name}.{part}"))).collect()
        };
        let (weights, biases) = (taken("weight")?, taken("bias")?);
        Ok(Self::new(Tensor::f_cat(&weights, 0)?, Tensor::f_cat(&biases, 0)?)?)
    }

    /// A map by a weight [out, in] and a bias `[out]`.
    pub fn new(weight: Tensor, bias: Tensor) -> Result<Self, TchError> {
        let on_cpu = weight.device() == Device::Cpu && weight.kind() == Kind::Float;
        if on_cpu && device::float32_products_by_onednn() {
            let (weight, bias) = (weight.f_to_mkldnn(Kind::Float)?, bias.f_to_mkldnn(Kind::Float)?);
            return Ok(Self { weight, bias, in_onednn: true });
        }
        Ok(Self { weight, bias, in_onednn: false })
    }

    /// [t, in] → [t, out].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        if self.in_onednn {
            let product = x.f_to_mkldnn(Kind::Float)?.f_mkldnn_linear(&self.weight, Some(&self.bias))?;
            return product.f_to_dense(Kind::Float, false);
        }
        x.f_linear(&self.weight, Some(&self.bias))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_libraries_give_the_same_product() {
        // Sums of 100 products of unit size, in another order.
        const ERROR_MAX: f64 = 1e-4;
        let tensor = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        let (x, weight, bias) = (tensor(&[33, 100]), tensor(&[7, 100]), tensor(&[7]));
        let expected = x.linear(&weight, Some(&bias));
        let found = Linear::new(weight, bias).and_then(|linear| linear.forward(&x)).expect("computed");
        let error = (found - expected).abs().max().double_value(&[]);
        assert!(error <= ERROR_MAX, "{error}");
    }
}
