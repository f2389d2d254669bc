//! The feed-forward block: two maps with an activation between them, a third that gates, or a choice of experts.

use lsa_common::architecture::parts::{self, Activation, Inner};
use tch::{Kind, TchError, Tensor};

use super::linear::{self, Linear};
use crate::weights::{Weights, WeightsError};

/// A feed-forward block.
pub enum FeedForward {
    /// One for all tokens.
    Dense(Dense),
    /// Several, of which each token takes some.
    Experts(Experts),
}

impl FeedForward {
    /// Takes the maps.
    pub fn load(weights: &mut Weights<'_>, stored: &parts::FeedForward) -> Result<Self, WeightsError> {
        match stored {
            parts::FeedForward::Dense(dense) => Dense::load(weights, dense).map(Self::Dense),
            parts::FeedForward::Experts { router, experts, per_token } => {
                let router = Linear::load(weights, router)?;
                let experts = experts.iter().map(|expert| Dense::load(weights, expert));
                let experts = experts.collect::<Result<_, _>>()?;
                Ok(Self::Experts(Experts { router, experts, per_token: i64::from(*per_token) }))
            }
        }
    }

    /// [t, d] → [t, d], the residual not included.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Self::Dense(dense) => dense.forward(x),
            Self::Experts(experts) => experts.forward(x),
        }
    }
}

/// down(activation(up(x))), or down(activation(gate(x)) · up(x)).
pub struct Dense {
    inner: Linear,
    gated: bool,
    down: Linear,
    activation: Activation,
}

impl Dense {
    fn load(weights: &mut Weights<'_>, stored: &parts::DenseFeedForward) -> Result<Self, WeightsError> {
        let (weight, bias) = linear::take_inner(weights, &stored.inner)?;
        let gated = match &stored.inner {
            Inner::Plain(_) => false,
            Inner::Gated { .. } | Inner::GatedFused { .. } => true,
        };
        let inner = Linear::new(weight, bias)?;
        Ok(Self { inner, gated, down: Linear::load(weights, &stored.down)?, activation: stored.activation })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let inner = self.inner.forward(x)?;
        if !self.gated {
            return self.down.forward(&activated(inner, self.activation)?);
        }
        let half = inner.size()[1] / 2;
        let gate = activated(inner.f_narrow(1, 0, half)?.f_contiguous()?, self.activation)?;
        let up = inner.f_narrow(1, half, half)?;
        self.down.forward(&{ gate }.f_mul_(&up)?)
    }
}

/// The activation of numbers that nobody else needs.
pub fn activated(mut x: Tensor, activation: Activation) -> Result<Tensor, TchError> {
    match activation {
        Activation::Gelu => x.f_gelu_("none"),
        Activation::GeluTanh => x.f_gelu_("tanh"),
        Activation::GeluSigmoid => {
            let gate = x.f_mul_scalar(1.702)?.f_sigmoid_()?;
            x.f_mul_(&gate)
        }
        Activation::Relu => x.f_relu_(),
        Activation::ReluSquared => x.f_relu_()?.f_square_(),
        Activation::Silu => x.f_silu_(),
        Activation::Tanh => x.f_tanh_(),
    }
}

/// A router and the experts that it chooses from. Shazeer et al. 2017; Jiang et al. 2024.
pub struct Experts {
    router: Linear,
    experts: Vec<Dense>,
    per_token: i64,
}

impl Experts {
    /// Experts in their order, each on the tokens that chose it: the sum of a token has a fixed order.
    fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let x = x.f_to_kind(self.router.kind())?;
        let scores = self.router.forward(&x)?.f_softmax(-1, Kind::Float)?;
        let (weights, chosen) = scores.f_topk(self.per_token, -1, true, true)?;
        let weights = weights.f_div(&weights.f_sum_dim_intlist([-1i64].as_slice(), true, Kind::Float)?)?;
        let weights = weights.f_to_kind(x.kind())?;
        let mut sum = x.f_zeros_like()?;
        for (place, expert) in (0i64..).zip(&self.experts) {
            let places = chosen.f_eq(place)?.f_nonzero()?;
            if places.size()[0] == 0 {
                continue;
            }
            let (tokens, ranks) = (places.f_select(1, 0)?, places.f_select(1, 1)?);
            let weight = weights.f_index(&[Some(&tokens), Some(&ranks)])?.f_unsqueeze(1)?;
            let output = expert.forward(&x.f_index_select(0, &tokens)?)?.f_mul_(&weight)?;
            // A token chooses an expert once, so no two rows are added to the same place.
            sum = sum.f_index_add_(0, &tokens, &output)?;
        }
        Ok(sum)
    }
}
