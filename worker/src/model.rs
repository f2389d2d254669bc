//! Encoders: tokens → hidden states of every layer.

pub mod block;
mod exported;
mod transformer;

use lsa_common::model::Dtype;
use lsa_common::model_source::{Description, OpenModel};
use tch::{Device, Kind, TchError, Tensor};

use crate::batch::Batch;
use crate::pooling::TrainedPooler;
use crate::weights::{Weights, WeightsError};
use block::attention_plan::AttentionPlan;
use exported::Exported;
pub use exported::ExportedError;
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
    /// The type of each token, `[t]`, int64; none where all are of type 0.
    pub types: Option<Tensor>,
    /// The position of each token in its own text, `[t]`, int64.
    pub positions: Tensor,
    /// How attention goes over the texts.
    pub attention: AttentionPlan,
}

impl<'a> PackedBatch<'a> {
    /// Moves a batch to the device.
    pub fn new(texts: &'a Batch, device: Device) -> Result<Self, TchError> {
        let on_device = |numbers: &[i64]| Tensor::f_from_slice(numbers)?.f_to_device(device);
        Ok(Self {
            texts,
            ids: on_device(&texts.ids)?,
            types: texts.types.as_deref().map(on_device).transpose()?,
            positions: on_device(&texts.positions())?,
            attention: AttentionPlan::new(&texts.offsets, device)?,
        })
    }
}

/// Why an encoder could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The weights could not be loaded.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The exported graph could not be loaded.
    #[error(transparent)]
    Exported(#[from] ExportedError),
}

/// Makes the encoder of a model from its open files.
pub fn load(files: &OpenModel, dtype: Dtype, device: Device) -> Result<Box<dyn Encoder>, LoadError> {
    let _guard = tch::no_grad_guard();
    match (&files.description, &files.weights[..]) {
        (Description::Native(architecture), weights) => {
            let mut weights = Weights::open(weights, &architecture.layout(), kind(dtype), device)?;
            Ok(Box::new(Transformer::load(architecture, &mut weights)?))
        }
        (Description::Exported(graph), [file, ..]) => {
            Ok(Box::new(Exported::load(graph, &file.file, dtype, device)?))
        }
        (Description::Exported(_), []) => Err(ExportedError::Missing.into()),
    }
}

/// The kind of tensor that holds a dtype.
fn kind(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::Float32 => Kind::Float,
        Dtype::Float16 => Kind::Half,
        Dtype::BFloat16 => Kind::BFloat16,
    }
}
