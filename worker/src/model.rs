//! Encoders: tokens → hidden states of every layer.

pub mod block;
mod transformer;

use lsa_common::architecture::Architecture;
use tch::{Device, TchError, Tensor};

use crate::batch::Batch;
use crate::pooling::TrainedPooler;
use crate::weights::{Weights, WeightsError};
use block::attention_plan::AttentionPlan;
use transformer::Transformer;

/// Receives the hidden states [t, d] of each layer, index 0 first, as soon as they exist.
pub type LayerVisitor<'a> = dyn FnMut(u32, &Tensor) -> Result<(), TchError> + 'a;

/// Tokens → hidden states of every layer.
///
/// Texts lie end to end in a batch; a text sees itself alone. Tensors do not change after loading, and the
/// same batch gives the same bytes every time.
pub trait Encoder: Send {
    /// Entries of the hidden states: blocks + 1.
    fn n_layers(&self) -> u32;

    /// Width of that entry.
    fn width(&self, layer: u32) -> u32;

    /// Runs a batch; entry 0 is the embedding output, the last one has the final norm applied where there is one.
    fn forward(&self, batch: &PackedBatch<'_>, visit: &mut LayerVisitor<'_>) -> Result<(), TchError>;

    /// The checkpoint's trained pooler on first tokens [n, d] of any layer, where it has one.
    fn pooler(&self) -> Option<TrainedPooler<'_>>;
}

/// A batch on the device that computes it.
pub struct PackedBatch<'a> {
    /// The batch as it was made.
    pub texts: &'a Batch,
    /// Token ids, `[t]`, int64.
    pub ids: Tensor,
    /// The position of each token in its own text, `[t]`, int64.
    pub positions: Tensor,
    /// How attention goes over the texts.
    pub attention: AttentionPlan,
}

impl<'a> PackedBatch<'a> {
    /// Moves a batch to the device.
    pub fn new(texts: &'a Batch, device: Device) -> Result<Self, TchError> {
        Ok(Self {
            texts,
            ids: Tensor::f_from_slice(&texts.ids)?.f_to_device(device)?,
            positions: Tensor::f_from_slice(&texts.positions())?.f_to_device(device)?,
            attention: AttentionPlan::new(&texts.offsets, device)?,
        })
    }
}

/// Makes the encoder of an architecture from its weights.
pub fn load(architecture: &Architecture, weights: &mut Weights) -> Result<Box<dyn Encoder>, WeightsError> {
    Ok(Box::new(Transformer::load(architecture, weights)?))
}
