//! What is known of a model without loading its weights.

use std::collections::BTreeMap;

use crate::architecture::Architecture;
use crate::architecture::checkpoint::Checkpoint;
use crate::checkpoint::StoredTensor;
use crate::exported_graph::ExportedGraph;
use crate::model::ModelFacts;
use crate::tokenize::Tokenizer;

/// The most tokens of a text where neither tokenizer nor position scheme names a limit.
const MAX_LENGTH_DEFAULT: u32 = 512;

pub(super) fn native(
    architecture: &Architecture,
    checkpoint: &Checkpoint,
    tokenizer: &Tokenizer,
) -> ModelFacts {
    let mut bytes_by_dtype: BTreeMap<String, u64> = BTreeMap::new();
    for tensor in checkpoint.tensors.values() {
        let bytes = tensor.n_numbers().saturating_mul(tensor.dtype.bitsize() as u64) / 8;
        *bytes_by_dtype.entry(dtype_name(tensor.dtype)).or_default() += bytes;
    }
    let stored_dtype = bytes_by_dtype.iter().max_by_key(|(_, bytes)| **bytes);
    ModelFacts {
        model_type: architecture.model_type.to_owned(),
        n_layers: architecture.n_layers(),
        hidden_size: architecture.hidden_size,
        n_params: checkpoint.tensors.values().map(StoredTensor::n_numbers).sum(),
        weight_bytes: bytes_by_dtype.values().sum(),
        flop_linear: architecture.flop_linear(),
        flop_per_length: architecture.flop_per_length(),
        activation_width: architecture.activation_width(),
        max_length: max_length(tokenizer, architecture.position_limit),
        has_pooler: checkpoint.has_pooler,
        stored_dtype: stored_dtype.map(|(name, _)| name.clone()).unwrap_or_default(),
        tokenizer: tokenizer.kind().to_string(),
    }
}

/// A graph does not say what it costs: each parameter is taken to be used once by each token.
pub(super) fn exported(graph: &ExportedGraph, file_bytes: u64, tokenizer: &Tokenizer) -> ModelFacts {
    let widest = graph.widths.iter().copied().max().unwrap_or(0);
    ModelFacts {
        model_type: graph.model_type.clone(),
        n_layers: graph.widths.len() as u32,
        hidden_size: widest,
        n_params: graph.n_params,
        weight_bytes: file_bytes,
        flop_linear: graph.n_params.saturating_mul(2),
        flop_per_length: 0,
        // All layers are there at once, and what a block needs.
        activation_width: graph.widths.iter().map(|width| u64::from(*width)).sum::<u64>()
            + 8 * u64::from(widest),
        max_length: max_length(tokenizer, graph.max_length),
        has_pooler: false,
        stored_dtype: graph.dtype.to_string(),
        tokenizer: tokenizer.kind().to_string(),
    }
}

fn max_length(tokenizer: &Tokenizer, position_limit: Option<u32>) -> u32 {
    let limits = [tokenizer.model_max_length(), position_limit];
    limits.into_iter().flatten().min().unwrap_or(MAX_LENGTH_DEFAULT)
}

/// The name of a number format as people write it.
fn dtype_name(dtype: safetensors::Dtype) -> String {
    match dtype {
        safetensors::Dtype::F16 => "float16".to_owned(),
        safetensors::Dtype::BF16 => "bfloat16".to_owned(),
        safetensors::Dtype::F32 => "float32".to_owned(),
        safetensors::Dtype::F64 => "float64".to_owned(),
        other => other.to_string(),
    }
}
