//! Norms of the last dimension: by mean and variance (Ba et al. 2016) or by the mean square (Zhang and Sennrich 2019).
//!
//! They are computed in float32 whatever the compute dtype, and so is what they give.

use lsa_common::architecture::parts::{self, HeadNormSpan, NormKind, NormWeight, Parameter};
use tch::{Kind, TchError, Tensor};

use crate::weights::{Weights, WeightsError};

/// Normalises the last dimension, then scales and shifts it.
pub struct Norm {
    kind: NormKind,
    width: i64,
    /// Broadcast against what is normalised.
    weight: Option<Tensor>,
    bias: Option<Tensor>,
    eps: f64,
}

impl Norm {
    /// Takes `{name}.weight` and `{name}.bias`, as far as the norm has them.
    pub fn load(weights: &mut Weights<'_>, stored: &parts::Norm) -> Result<Self, WeightsError> {
        let mut taken = |part: &str| weights.take_float32(&format!("{}.{part}", stored.name));
        let weight = match stored.weight {
            NormWeight::None => None,
            NormWeight::Stored => Some(taken("weight")?),
            NormWeight::StoredPlusOne => Some(taken("weight")?.f_add_scalar(1.0)?),
        };
        let bias = stored.bias.then(|| taken("bias")).transpose()?;
        Ok(Self { kind: stored.kind, width: i64::from(stored.width), weight, bias, eps: stored.eps })
    }

    /// As [`Self::load`] of weights that other blocks use as well.
    pub fn shared(weights: &Weights<'_>, stored: &parts::Norm) -> Result<Self, WeightsError> {
        let shared = |part: &str| -> Result<Tensor, WeightsError> {
            Ok(weights.share(&format!("{}.{part}", stored.name))?.f_to_kind(Kind::Float)?)
        };
        let weight = Some(shared("weight")?);
        let bias = stored.bias.then(|| shared("bias")).transpose()?;
        Ok(Self { kind: stored.kind, width: i64::from(stored.width), weight, bias, eps: stored.eps })
    }

    /// [t, d] → [t, d], float32.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let x = x.f_to_kind(Kind::Float)?;
        match self.kind {
            NormKind::Layer => {
                x.f_layer_norm([self.width], self.weight.as_ref(), self.bias.as_ref(), self.eps, false)
            }
            NormKind::Rms => {
                let mean = x.f_square()?.f_mean_dim([-1i64].as_slice(), true, Kind::Float)?;
                let mut normed = x.f_mul(&mean.f_add_scalar(self.eps)?.f_rsqrt()?)?;
                match &self.weight {
                    Some(weight) => normed.f_mul_(weight),
                    None => Ok(normed),
                }
            }
        }
    }
}

/// Norms of the queries and the keys of all heads.
pub struct HeadNorm {
    query: Norm,
    key: Norm,
    span: HeadNormSpan,
}

impl HeadNorm {
    /// Takes the weights; `head_dim` is the width of a head.
    pub fn load(
        weights: &mut Weights<'_>,
        stored: &parts::HeadNorm,
        head_dim: u32,
    ) -> Result<Self, WeightsError> {
        let mut norm = |parameters: &[Parameter]| {
            let taken = parameters.iter().map(|parameter| weights.take_float32(&parameter.name));
            let taken: Vec<Tensor> = taken.collect::<Result<_, _>>()?;
            let weight = match (&taken[..], stored.span) {
                ([one], _) => one.shallow_clone(),
                (many, _) => Tensor::f_stack(many, 0)?,
            };
            let weight = if stored.plus_one { weight.f_add_scalar(1.0)? } else { weight };
            let width = match stored.span {
                HeadNormSpan::Head | HeadNormSpan::HeadWithOwnWeights => i64::from(head_dim),
                HeadNormSpan::AllHeads => weight.size()[0],
            };
            let (kind, eps) = (stored.kind, stored.eps);
            Ok::<Norm, WeightsError>(Norm { kind, width, weight: Some(weight), bias: None, eps })
        };
        Ok(Self { query: norm(&stored.query)?, key: norm(&stored.key)?, span: stored.span })
    }

    /// Queries [t, heads, width] → the same, normed, float32.
    pub fn query(&self, x: &Tensor) -> Result<Tensor, TchError> {
        self.apply(&self.query, x)
    }

    /// Keys [t, key heads, width] → the same, normed, float32.
    pub fn key(&self, x: &Tensor) -> Result<Tensor, TchError> {
        self.apply(&self.key, x)
    }

    fn apply(&self, norm: &Norm, x: &Tensor) -> Result<Tensor, TchError> {
        match self.span {
            HeadNormSpan::Head => norm.forward(x),
            HeadNormSpan::AllHeads => norm.forward(&x.f_flatten(1, 2)?)?.f_view_as(x),
            HeadNormSpan::HeadWithOwnWeights => {
                let bare =
                    Norm { weight: None, kind: norm.kind, width: norm.width, bias: None, eps: norm.eps };
                let normed = bare.forward(x)?;
                match &norm.weight {
                    Some(weight) => normed.f_mul(weight),
                    None => Ok(normed),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn the_root_mean_square_becomes_the_weight() {
        const ERROR_MAX: f64 = 1e-6;
        let norm = Norm {
            kind: NormKind::Rms,
            width: 2,
            weight: Some(Tensor::from_slice(&[2f32, 1.])),
            bias: None,
            eps: 0.0,
        };
        let x = Tensor::from_slice(&[3f32, 3., 0., 4.]).view([2, 2]);
        let found = norm.forward(&x).expect("computed");
        let expected = Tensor::from_slice(&[2f32, 1., 0., 2f32.sqrt()]).view([2, 2]);
        assert!((found - expected).abs().max().double_value(&[]) <= ERROR_MAX);
    }

    #[test]
    fn heads_may_have_weights_of_their_own() {
        const ERROR_MAX: f64 = 1e-6;
        let options = (Kind::Float, Device::Cpu);
        let weight = Tensor::rand([3, 4], options);
        let norm = |weight: Tensor| Norm {
            kind: NormKind::Layer,
            width: 4,
            weight: Some(weight),
            bias: None,
            eps: 1e-3,
        };
        let x = Tensor::randn([5, 3, 4], options);
        let span = HeadNormSpan::HeadWithOwnWeights;
        let both = HeadNorm { query: norm(weight.shallow_clone()), key: norm(weight.shallow_clone()), span };
        let found = both.query(&x).expect("computed");
        for head in 0..3 {
            let alone = norm(weight.get(head)).forward(&x.select(1, head)).expect("computed");
            assert!((found.select(1, head) - alone).abs().max().double_value(&[]) <= ERROR_MAX);
        }
    }
}
