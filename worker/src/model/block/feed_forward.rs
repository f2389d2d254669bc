//! The feed-forward block: two matrices with an activation between them.

use lsa_common::architecture::Activation;
use tch::{TchError, Tensor};

use super::linear::Linear;

/// down(activation(up(x))).
pub struct FeedForward {
    up: Linear,
    down: Linear,
    activation: Activation,
}

impl FeedForward {
    /// Puts the parts together.
    pub fn new(up: Linear, down: Linear, activation: Activation) -> Self {
        Self { up, down, activation }
    }

    /// [t, d] → [t, d], the residual not included.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let mut inner = self.up.forward(x)?;
        let inner = match self.activation {
            Activation::Gelu => inner.f_gelu_("none")?,
            Activation::GeluTanh => inner.f_gelu_("tanh")?,
            Activation::Relu => inner.f_relu_()?,
            Activation::Silu => inner.f_silu_()?,
        };
        self.down.forward(&inner)
    }
}
