//! The encoder that an [`Architecture`] describes, built from its parts.
//!
//! The residual stream is float32 whatever the compute dtype: maps and attention take and give the compute dtype,
//! what they give is added up in float32.

use std::cell::OnceCell;

use lsa_common::architecture::parts::{self, Activation};
use lsa_common::architecture::{Architecture, parts::Sublayer};
use tch::{Kind, TchError, Tensor};

use super::block::attention::{Attention, AttentionContext};
use super::block::convolution::Convolution;
use super::block::embedding::Embedding;
use super::block::feed_forward::{FeedForward, activated};
use super::block::linear::Linear;
use super::block::norm::Norm;
use super::block::relative_bias::RelativeBias;
use super::block::rotary::Angles;
use super::{Encoder, LayerVisitor, PackedBatch};
use crate::pooling::TrainedPooler;
use crate::weights::{Weights, WeightsError};

type Pooler = Box<dyn Fn(&Tensor) -> Result<Tensor, TchError> + Send>;

/// An encoder of shared parts.
pub struct Transformer {
    widths: Vec<u32>,
    /// The compute dtype.
    kind: Kind,
    embedding: Embedding,
    rotaries: Vec<parts::Rotary>,
    biases: Vec<RelativeBias>,
    blocks: Vec<Block>,
    /// Which block makes each entry of the hidden states after the first.
    order: Vec<usize>,
    final_norm: Option<Norm>,
    projection_out: Option<Linear>,
    pooler: Option<Pooler>,
}

struct Block {
    attention: Attention,
    attention_norms: Norms,
    feed_forward: FeedForward,
    feed_forward_norms: Norms,
    parallel: bool,
    residual_scale: f64,
    convolution: Option<Convolution>,
}

/// The norms around half a block.
struct Norms {
    before: Option<Norm>,
    inside: Option<Norm>,
    after: Option<Norm>,
}

impl Transformer {
    /// Takes the weights that the architecture lists, in the order in which they are used.
    pub fn load(architecture: &Architecture, weights: &mut Weights) -> Result<Self, WeightsError> {
        let embedding = Embedding::load(weights, &architecture.embedding)?;
        let biases = architecture.relative_biases.iter().map(|bias| RelativeBias::load(weights, bias));
        let biases = biases.collect::<Result<_, _>>()?;
        let blocks = architecture.blocks.iter().map(|block| Block::load(weights, block));
        let blocks = blocks.collect::<Result<_, _>>()?;
        let final_norm = architecture.final_norm.as_ref().map(|norm| Norm::load(weights, norm));
        let projection_out = architecture.projection_out.as_ref().map(|map| Linear::load(weights, map));
        let pooler = match &architecture.pooler {
            Some(stored) if weights.has_pooler() => Some(pooler(weights, stored)?),
            Some(_) | None => None,
        };
        Ok(Self {
            kind: weights.kind(),
            widths: (0..architecture.n_layers()).map(|layer| architecture.width(layer)).collect(),
            embedding,
            rotaries: architecture.rotaries.clone(),
            biases,
            blocks,
            order: architecture.order.clone(),
            final_norm: final_norm.transpose()?,
            projection_out: projection_out.transpose()?,
            pooler,
        })
    }
}

fn pooler(weights: &mut Weights<'_>, stored: &parts::Pooler) -> Result<Pooler, WeightsError> {
    let dense = Linear::load(weights, &stored.dense)?;
    let activation: Activation = stored.activation;
    Ok(Box::new(move |first: &Tensor| activated(dense.forward(first)?, activation)))
}

impl Norms {
    fn load<T>(weights: &mut Weights<'_>, stored: &Sublayer<T>) -> Result<Self, WeightsError> {
        let mut norm =
            |norm: &Option<parts::Norm>| norm.as_ref().map(|norm| Norm::load(weights, norm)).transpose();
        Ok(Self { before: norm(&stored.before)?, inside: norm(&stored.inside)?, after: norm(&stored.after)? })
    }

    fn before(&self, x: &Tensor) -> Result<Tensor, TchError> {
        applied(&self.before, x)
    }

    /// The output of the half, added to `x`.
    fn added(&self, output: Tensor, x: &Tensor, residual_scale: f64) -> Result<Tensor, TchError> {
        let mut output = applied(&self.inside, &output)?.f_to_kind(x.kind())?;
        if residual_scale != 1.0 {
            output = output.f_mul_scalar_(residual_scale)?;
        }
        applied(&self.after, &output.f_add_(x)?)
    }
}

fn applied(norm: &Option<Norm>, x: &Tensor) -> Result<Tensor, TchError> {
    match norm {
        Some(norm) => norm.forward(x),
        None => Ok(x.shallow_clone()),
    }
}

impl Block {
    fn load(weights: &mut Weights<'_>, stored: &parts::Block) -> Result<Self, WeightsError> {
        Ok(Self {
            attention_norms: Norms::load(weights, &stored.attention)?,
            attention: Attention::load(weights, &stored.attention.map)?,
            feed_forward_norms: Norms::load(weights, &stored.feed_forward)?,
            feed_forward: FeedForward::load(weights, &stored.feed_forward.map)?,
            parallel: stored.parallel,
            residual_scale: stored.residual_scale,
            convolution: stored
                .convolution
                .as_ref()
                .map(|part| Convolution::load(weights, part))
                .transpose()?,
        })
    }

    fn forward(
        &self,
        x: &Tensor,
        context: &AttentionContext<'_>,
        offsets: &[i64],
    ) -> Result<Tensor, TchError> {
        let normed = self.attention_norms.before(x)?;
        let attended = self.attention.forward(&normed, context)?;
        let halfway = self.attention_norms.added(attended, x, self.residual_scale)?;
        let input = if self.parallel {
            match &self.feed_forward_norms.before {
                Some(norm) => norm.forward(x)?,
                None => normed,
            }
        } else {
            drop(normed);
            self.feed_forward_norms.before(&halfway)?
        };
        let output = self.feed_forward.forward(&input)?;
        let output = self.feed_forward_norms.added(output, &halfway, self.residual_scale)?;
        match &self.convolution {
            Some(convolution) => convolution.forward(x, &output, offsets),
            None => Ok(output),
        }
    }
}

impl Encoder for Transformer {
    fn n_layers(&self) -> u32 {
        self.widths.len() as u32
    }

    fn width(&self, layer: u32) -> u32 {
        self.widths[layer as usize]
    }

    fn forward(&self, batch: &PackedBatch<'_>, visit: &mut LayerVisitor<'_>) -> Result<(), TchError> {
        let mut x = self.embedding.forward(batch.texts, &batch.ids)?;
        visit(0, &x)?;
        let angles = |rotary| Angles::new(rotary, batch.texts, &batch.positions, self.kind);
        let angles: Vec<Angles> = self.rotaries.iter().map(angles).collect::<Result<_, _>>()?;
        let context = AttentionContext {
            plan: &batch.attention,
            angles: &angles,
            biases: &self.biases,
            types: batch.types.as_ref(),
            sinusoids: OnceCell::new(),
        };
        for (layer, place) in (1..).zip(&self.order) {
            x = self.blocks[*place].forward(&x, &context, &batch.texts.offsets)?;
            if layer as usize == self.order.len() {
                x = applied(&self.final_norm, &x)?;
                if let Some(projection) = &self.projection_out {
                    x = projection.forward(&x)?;
                }
            }
            visit(layer, &x)?;
        }
        Ok(())
    }

    fn pooler(&self) -> Option<TrainedPooler<'_>> {
        self.pooler.as_deref().map(|pooler| pooler as _)
    }
}
