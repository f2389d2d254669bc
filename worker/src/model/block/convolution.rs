//! A convolution over the neighbouring tokens of each text. He et al. 2021, sec. 5 (the largest models).

use lsa_common::architecture::parts::{self, Activation};
use tch::{TchError, Tensor};

use super::feed_forward::activated;
use super::norm::Norm;
use crate::weights::{Weights, WeightsError};

/// norm(output + activation(convolution(input))).
pub struct Convolution {
    weight: Tensor,
    bias: Tensor,
    groups: i64,
    activation: Activation,
    norm: Norm,
}

impl Convolution {
    /// Takes the kernel and the norm.
    pub fn load(weights: &mut Weights<'_>, stored: &parts::Convolution) -> Result<Self, WeightsError> {
        Ok(Self {
            weight: weights.take(&stored.weight.name)?,
            bias: weights.take(&stored.bias.name)?,
            groups: stored.groups.into(),
            activation: stored.activation,
            norm: Norm::load(weights, &stored.norm)?,
        })
    }

    /// The input and the output of a block, both [t, d], → [t, d].
    ///
    /// Beyond the ends of a text stand zeros, as in the Python library; texts go one by one.
    pub fn forward(&self, input: &Tensor, output: &Tensor, offsets: &[i64]) -> Result<Tensor, TchError> {
        let padding = self.weight.size()[2] / 2;
        let input = input.f_to_kind(self.weight.kind())?;
        let of_text = |ends: &[i64]| {
            let text = input.f_narrow(0, ends[0], ends[1] - ends[0])?.f_transpose(0, 1)?.f_unsqueeze(0)?;
            let mixed = text.f_conv1d(&self.weight, Some(&self.bias), [1], [padding], [1], self.groups)?;
            mixed.f_squeeze_dim(0)?.f_transpose(0, 1)
        };
        let mixed: Vec<Tensor> = offsets.windows(2).map(of_text).collect::<Result<_, TchError>>()?;
        let mixed = activated(Tensor::f_cat(&mixed, 0)?, self.activation)?;
        self.norm.forward(&output.f_add(&mixed)?)
    }
}
