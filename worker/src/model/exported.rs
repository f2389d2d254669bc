//! An encoder that is a TorchScript graph; see [`lsa_common::exported_graph`].
//!
//! A graph sees padded texts and computes all layers at once, so it needs more memory and time than a native
//! encoder. It cannot look ahead of its mask, and what stands at pads is dropped.

use std::fs::File;
use std::io::BufReader;

use lsa_common::exported_graph::ExportedGraph;
use lsa_common::model::Dtype;
use tch::{CModule, Device, IValue, TchError, Tensor};

use super::{Encoder, LayerVisitor, PackedBatch};
use crate::batch::Batch;
use crate::pooling::TrainedPooler;

/// Why a graph could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ExportedError {
    /// A dtype other than the one that is part of the graph.
    #[error(
        "the graph computes in {graph}, not in {asked}; ask for {graph}, or export the model with --dtype {asked}"
    )]
    Dtype {
        /// The graph's.
        graph: Dtype,
        /// As asked for.
        asked: Dtype,
    },
    /// A device other than the one that is part of the graph.
    #[error("the graph was exported for {graph}, not for {asked}; export it on the device that shall run it")]
    Device {
        /// The graph's.
        graph: String,
        /// Where it was to run.
        asked: String,
    },
    /// No file to load.
    #[error("there is no graph beside its description; export the model again")]
    Missing,
    /// libtorch does not take the file.
    #[error("the graph cannot be loaded: {}", crate::device::first_line(&.0.to_string()))]
    Torch(#[from] TchError),
}

/// A graph and what is known of it.
pub struct Exported {
    module: CModule,
    graph: ExportedGraph,
}

impl Exported {
    /// Loads a graph from an open file.
    pub fn load(
        graph: &ExportedGraph,
        file: &File,
        dtype: Dtype,
        device: Device,
    ) -> Result<Self, ExportedError> {
        if dtype != graph.dtype {
            return Err(ExportedError::Dtype { graph: graph.dtype, asked: dtype });
        }
        let kind = if device.is_cuda() { "cuda" } else { "cpu" };
        if kind != graph.device {
            return Err(ExportedError::Device { graph: graph.device.clone(), asked: kind.to_owned() });
        }
        let mut module = CModule::load_data_on_device(&mut BufReader::new(file), device)?;
        module.f_set_eval()?;
        Ok(Self { module, graph: graph.clone() })
    }
}

impl Exported {
    /// The hidden states of some texts of a batch, packed, [t, width] for each layer.
    fn of_texts(&self, batch: &PackedBatch<'_>, first: usize, end: usize) -> Result<Vec<Tensor>, TchError> {
        let device = batch.ids.device();
        let padded = Padded::new(batch.texts, first, end, i64::from(self.graph.pad_id));
        let shape = [padded.n_texts, padded.longest];
        let on_device = |values: &[i64]| Tensor::f_from_slice(values)?.f_view(shape)?.f_to_device(device);
        let inputs = [IValue::Tensor(on_device(&padded.ids)?), IValue::Tensor(on_device(&padded.mask)?)];
        let IValue::Tuple(layers) = self.module.forward_is(&inputs)? else {
            return Err(TchError::Torch(
                "the graph does not give a tuple; export the model again".to_owned(),
            ));
        };
        if layers.len() != self.graph.widths.len() {
            let (found, expected) = (layers.len(), self.graph.widths.len());
            return Err(TchError::Torch(format!(
                "the graph gives {found} layers, its description {expected}"
            )));
        }
        let tokens = Tensor::f_from_slice(&padded.tokens)?.f_to_device(device)?;
        let packed = |(layer, hidden): (u32, IValue)| {
            let expected = [shape[0], shape[1], i64::from(self.width(layer))];
            match hidden {
                IValue::Tensor(hidden) if hidden.size() == expected => {
                    hidden.f_flatten(0, 1)?.f_index_select(0, &tokens)
                }
                IValue::Tensor(hidden) => {
                    let message =
                        format!("layer {layer} of the graph is {:?}, not {expected:?}", hidden.size());
                    Err(TchError::Torch(message))
                }
                _ => Err(TchError::Torch(format!("layer {layer} of the graph is no tensor"))),
            }
        };
        (0u32..).zip(layers).map(packed).collect()
    }
}

impl Encoder for Exported {
    fn n_layers(&self) -> u32 {
        self.graph.widths.len() as u32
    }

    fn width(&self, layer: u32) -> u32 {
        self.graph.widths[layer as usize]
    }

    fn forward(&self, batch: &PackedBatch<'_>, visit: &mut LayerVisitor<'_>) -> Result<(), TchError> {
        // The first runs of a graph are otherwise watched and the later ones compiled, which changes their bytes.
        tch::jit::f_set_graph_executor_optimize(false)?;
        let groups: Vec<(usize, usize)> = match self.graph.padding {
            true => vec![(0, batch.texts.offsets.len() - 1)],
            false => runs_of_equal_length(&batch.texts.offsets),
        };
        let outputs = groups.iter().map(|(first, end)| self.of_texts(batch, *first, *end));
        let outputs: Vec<Vec<Tensor>> = outputs.collect::<Result<_, _>>()?;
        for layer in 0..self.n_layers() {
            let of_groups: Vec<&Tensor> = outputs.iter().map(|layers| &layers[layer as usize]).collect();
            visit(layer, &Tensor::f_cat(&of_groups, 0)?)?;
        }
        Ok(())
    }

    fn pooler(&self) -> Option<TrainedPooler<'_>> {
        None
    }
}

/// Ranges of texts that follow each other and are equally long.
fn runs_of_equal_length(offsets: &[i64]) -> Vec<(usize, usize)> {
    let lengths: Vec<i64> = offsets.windows(2).map(|ends| ends[1] - ends[0]).collect();
    let mut end = 0;
    let run = |run: &[i64]| {
        end += run.len();
        (end - run.len(), end)
    };
    lengths.chunk_by(|a, b| a == b).map(run).collect()
}

/// Some texts of a batch, filled up on the right.
struct Padded {
    n_texts: i64,
    longest: i64,
    /// Row-major, [n_texts, longest].
    ids: Vec<i64>,
    /// 1 for a token, 0 for a pad.
    mask: Vec<i64>,
    /// Where the tokens stand, in their order in the batch.
    tokens: Vec<i64>,
}

impl Padded {
    fn new(batch: &Batch, first: usize, end: usize, pad_id: i64) -> Self {
        let offsets = &batch.offsets[first..=end];
        let longest = offsets.windows(2).map(|ends| ends[1] - ends[0]).max().unwrap_or(0);
        let (mut ids, mut mask, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
        for (text, ends) in (0i64..).zip(offsets.windows(2)) {
            let length = ends[1] - ends[0];
            ids.extend_from_slice(&batch.ids[ends[0] as usize..ends[1] as usize]);
            ids.extend((length..longest).map(|_| pad_id));
            mask.extend((0..longest).map(|place| i64::from(place < length)));
            tokens.extend((0..length).map(|place| text * longest + place));
        }
        Self { n_texts: (end - first) as i64, longest, ids, mask, tokens }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_filled_up_on_the_right() {
        let batch = Batch::pack([&[9][..], &[5, 6, 7], &[8]]);
        let padded = Padded::new(&batch, 1, 3, 1);
        assert_eq!((padded.n_texts, padded.longest), (2, 3));
        assert_eq!(padded.ids, [5, 6, 7, 8, 1, 1]);
        assert_eq!(padded.mask, [1, 1, 1, 1, 0, 0]);
        assert_eq!(padded.tokens, [0, 1, 2, 3]);
    }

    #[test]
    fn texts_of_one_length_go_together() {
        assert_eq!(runs_of_equal_length(&[0, 2, 4, 7, 9]), [(0, 2), (2, 3), (3, 4)]);
        assert!(runs_of_equal_length(&[0]).is_empty());
    }
}
