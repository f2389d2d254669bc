//! A model as an exported graph: what `hidden_states.json` says of the TorchScript file beside it.
//!
//! The way out for architectures that are not native: `deploy/export/` makes both files in the user's own Python.
//! The graph takes token ids and a mask, both int64 [n, t] and padded on the right, and gives the hidden states of
//! every layer, [n, t, width] each.

use serde::Deserialize;

use crate::model::Dtype;

/// The description.
pub const DESCRIPTION: &str = "hidden_states.json";
/// The graph.
pub const GRAPH: &str = "hidden_states.pt";
/// The version of the description that is read.
const FORMAT: u32 = 1;
/// Bounds far above any model.
const LAYERS_MAX: usize = 1025;
const WIDTH_MAX: u32 = 1 << 16;
const ROWS_MAX: u32 = 1 << 24;

/// What is known of a graph without loading it.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportedGraph {
    /// The `model_type` of the model that was exported.
    pub model_type: String,
    /// Width of each entry of the hidden states.
    pub widths: Vec<u32>,
    /// Token ids lie below this.
    pub vocab_size: u32,
    /// The most tokens of a text, if there is a limit.
    pub max_length: Option<u32>,
    /// The dtype in which the graph computes; it is part of the graph.
    pub dtype: Dtype,
    /// The kind of device that the graph was traced on, `cpu` or `cuda`; it is part of the graph.
    pub device: String,
    /// The id that fills texts up.
    pub pad_id: u32,
    /// Whether a text keeps its states beside longer ones; if not, texts of one length alone share a batch.
    pub padding: bool,
    /// Parameters of the model.
    pub n_params: u64,
}

/// Why a description cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ExportedGraphError {
    /// Not JSON, or without the fields that it needs.
    #[error("{DESCRIPTION} is malformed; export the model again")]
    Malformed(#[from] serde_json::Error),
    /// Written by another version of the export script.
    #[error("{DESCRIPTION} has format {0}, and this version reads {FORMAT}; export the model again")]
    Format(u32),
    /// A value that cannot be.
    #[error("{DESCRIPTION}: {0}; export the model again")]
    Value(String),
}

#[derive(Deserialize)]
struct Description {
    format: u32,
    model_type: String,
    layers: usize,
    widths: Vec<u32>,
    vocab_size: u32,
    max_length: Option<u32>,
    dtype: String,
    device: String,
    pad_id: u32,
    padding: bool,
    parameters: u64,
}

impl ExportedGraph {
    /// Reads and checks a description.
    pub fn read(json: &[u8]) -> Result<Self, ExportedGraphError> {
        let read: Description = serde_json::from_slice(json)?;
        if read.format != FORMAT {
            return Err(ExportedGraphError::Format(read.format));
        }
        let value = |what: String| Err(ExportedGraphError::Value(what));
        if read.layers != read.widths.len() || !(2..=LAYERS_MAX).contains(&read.layers) {
            return value(format!("{} layers and {} widths", read.layers, read.widths.len()));
        }
        if let Some(width) = read.widths.iter().find(|width| !(1..=WIDTH_MAX).contains(*width)) {
            return value(format!("a layer of width {width}"));
        }
        if !(1..=ROWS_MAX).contains(&read.vocab_size) || read.pad_id >= read.vocab_size {
            return value(format!("\"pad_id\" {} of \"vocab_size\" {}", read.pad_id, read.vocab_size));
        }
        if read.max_length == Some(0) {
            return value("\"max_length\" is 0".to_owned());
        }
        let Some(dtype) = Dtype::parse(&read.dtype) else {
            return value(format!("\"dtype\" is {:?}", read.dtype));
        };
        let device = read.device.split(':').next().unwrap_or_default();
        if !["cpu", "cuda"].contains(&device) {
            return value(format!("\"device\" is {:?}, expected cpu or cuda", read.device));
        }
        Ok(Self {
            model_type: read.model_type,
            widths: read.widths,
            vocab_size: read.vocab_size,
            max_length: read.max_length,
            dtype,
            device: device.to_owned(),
            pad_id: read.pad_id,
            padding: read.padding,
            n_params: read.parameters,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sound() -> serde_json::Value {
        json!({"format": 1, "model_type": "convbert", "layers": 3, "widths": [8, 8, 8], "vocab_size": 100,
            "max_length": 64, "dtype": "float32", "device": "cpu", "pad_id": 0, "padding": true, "parameters": 1000})
    }

    #[test]
    fn descriptions_are_checked() {
        let graph = ExportedGraph::read(sound().to_string().as_bytes()).expect("sound");
        assert_eq!(
            (graph.widths.as_slice(), graph.max_length, graph.dtype),
            (&[8, 8, 8][..], Some(64), Dtype::Float32)
        );
        let check = |field: &str, value: serde_json::Value, expected: &str| {
            let mut json = sound();
            json[field] = value;
            let error = ExportedGraph::read(json.to_string().as_bytes()).expect_err(field).to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("format", json!(2), "format 2");
        check("layers", json!(4), "4 layers and 3 widths");
        check("widths", json!([8, 0, 8]), "a layer of width 0");
        check("pad_id", json!(100), "\"pad_id\" 100 of \"vocab_size\" 100");
        check("max_length", json!(0), "\"max_length\" is 0");
        check("dtype", json!("int8"), "\"dtype\" is \"int8\"");
        check("device", json!("mps"), "\"device\" is \"mps\"");
        check("parameters", json!(null), "malformed");
    }
}
