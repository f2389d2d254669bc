//! Encoders, and the table from `model_type` to the one that computes it.

pub mod bert;
pub mod block;

use lsa_common::architecture::Architecture;
use tch::{Device, TchError, Tensor};

use crate::batch::Batch;
use crate::pooling::TrainedPooler;
use crate::weights::{Weights, WeightsError};
use block::attention::AttentionPlan;

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
    fn forward(&self, batch: &PackedBatch, visit: &mut LayerVisitor<'_>) -> Result<(), TchError>;

    /// The checkpoint's trained pooler on first tokens [n, d] of any layer, where it has one.
    fn pooler(&self) -> Option<TrainedPooler<'_>>;
}

/// A batch on the device that computes it.
pub struct PackedBatch {
    /// Token ids, `[t]`, int64.
    pub ids: Tensor,
    /// The position of each token in its own text, `[t]`, int64.
    pub positions: Tensor,
    /// How attention goes over the texts.
    pub attention: AttentionPlan,
}

impl PackedBatch {
    /// Moves a batch to the device.
    pub fn new(batch: &Batch, device: Device) -> Result<Self, TchError> {
        Ok(Self {
            ids: Tensor::f_from_slice(&batch.ids)?.f_to_device(device)?,
            positions: Tensor::f_from_slice(&batch.positions())?.f_to_device(device)?,
            attention: AttentionPlan::new(&batch.offsets, device)?,
        })
    }
}

type Loader = fn(&[u8], &mut Weights) -> Result<Box<dyn Encoder>, LoadError>;

/// Every model type that can be computed.
const LOADERS: &[(&str, Loader)] = &[(lsa_common::architecture::bert::MODEL_TYPE, bert::load)];

/// Why an encoder could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no loader for the type.
    #[error("model_type {0:?} has no loader in this worker; use a worker of the same version")]
    NoLoader(String),
    /// The config has no implementation.
    #[error("the config cannot be used")]
    Config(#[from] lsa_common::architecture::ArchitectureError),
    /// The weights could not be loaded.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

impl From<TchError> for LoadError {
    fn from(error: TchError) -> Self {
        Self::Weights(error.into())
    }
}

/// Makes the encoder of an architecture from its weights.
pub fn load(
    architecture: &Architecture,
    config_json: &[u8],
    weights: &mut Weights,
) -> Result<Box<dyn Encoder>, LoadError> {
    let loader = LOADERS.iter().find(|(model_type, _)| *model_type == architecture.model_type);
    let (_, loader) = loader.ok_or_else(|| LoadError::NoLoader(architecture.model_type.to_owned()))?;
    loader(config_json, weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_architecture_has_a_loader_and_the_other_way_round() {
        let loaders: Vec<&str> = LOADERS.iter().map(|(model_type, _)| *model_type).collect();
        assert_eq!(loaders, lsa_common::architecture::model_types());
    }
}
