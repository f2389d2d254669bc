//! Extractions of models that do not exist, for benchmarks of what surrounds them.

use std::path::PathBuf;

use lsa_common::id::Digest;
use lsa_common::job::ExtractionSettings;
use lsa_common::key::digest_of;
use lsa_common::model::{Dtype, ModelFacts, PinnedFile, PinnedModel, Pooling};
use lsa_coordinator::plan::Extraction;

/// Rows of a shard.
pub const SHARD_ROWS: u32 = 32;
/// Blocks of a model.
pub const LAYERS: u32 = 12;

/// The base key of extraction `number`.
pub fn base_key(number: u64) -> Digest {
    digest_of("bench rows", &number)
}

/// Extraction `number`.
pub fn extraction(
    number: u64,
    texts_key: Digest,
    n_texts: u32,
    layers: Vec<u32>,
    poolings: Vec<Pooling>,
) -> Extraction {
    Extraction {
        base_key: base_key(number),
        texts_key,
        n_texts,
        model: model(number),
        settings: ExtractionSettings {
            max_length: 128,
            batch_size: 32,
            dtype: Dtype::Float32,
            layers,
            shard_rows: SHARD_ROWS,
            skip_empty: false,
        },
        poolings,
    }
}

fn model(number: u64) -> PinnedModel {
    let file = |name: &str| PinnedFile { name: name.to_owned(), size: 1, sha256: Digest([0; 32]) };
    PinnedModel {
        id: format!("bench/model-{number}"),
        revision: Some("c0ffee".to_owned()),
        folder: PathBuf::new(),
        files: ["config.json", "tokenizer.json", "model.safetensors"].map(file).into(),
        facts: ModelFacts {
            model_type: "bert".to_owned(),
            n_layers: LAYERS,
            hidden_size: 768,
            n_params: 1,
            weight_bytes: 1,
            flop_linear: 1,
            flop_per_length: 1,
            activation_width: 1,
            max_length: 512,
            has_pooler: false,
            stored_dtype: "float32".to_owned(),
            tokenizer: "none".into(),
        },
    }
}
