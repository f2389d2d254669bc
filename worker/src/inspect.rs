//! `lsa-worker inspect`: what a model is and needs, from its files' headers alone.

use clap::Args;
use lsa_common::failure::FailureClass;
use lsa_common::model::{Dtype, PinnedModel, Pooling};
use lsa_common::model_source::{self, ModelSourceError};
use serde_json::json;

use crate::config::CommandError;

/// The tokens of a batch by which memory is estimated: 64 texts of 256.
const BATCH_TOKENS: u64 = 64 * 256;

/// What to inspect.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A folder, or a hub id in the local cache, with @revision if need be.
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Finds the model and prints what it is.
pub fn run(args: &InspectArgs) -> Result<(), CommandError> {
    let model = pin(&args.model)?;
    if args.json {
        println!("{:#}", as_json(&model));
    } else {
        print!("{}", as_text(&model));
    }
    Ok(())
}

/// The pinned model that the user named.
pub fn pin(name: &str) -> Result<PinnedModel, CommandError> {
    let (id, revision) = model_source::split_revision(name);
    model_source::find(id, revision).and_then(|folder| folder.pin()).map_err(source_error)
}

/// A model that is not what it should be is the user's fault, a disk that fails is not.
pub fn source_error(error: ModelSourceError) -> CommandError {
    match error.failure_class() {
        FailureClass::Reject => CommandError::usage(error),
        FailureClass::Retry | FailureClass::Fatal => CommandError::failed(error),
    }
}

/// Poolings that the checkpoint can serve.
fn poolings(model: &PinnedModel) -> Vec<&'static str> {
    let served = |pooling: &Pooling| *pooling != Pooling::Pooler || model.facts.has_pooler;
    Pooling::ALL.into_iter().filter(served).map(Pooling::as_str).collect()
}

/// Weights in the compute dtype, and the activations of one batch.
fn memory_bytes(model: &PinnedModel, dtype: Dtype) -> u64 {
    let numbers = model.facts.activation_width.saturating_mul(BATCH_TOKENS);
    model.facts.n_params.saturating_add(numbers).saturating_mul(dtype.bytes())
}

fn tokenizer_files(model: &PinnedModel) -> Vec<&str> {
    let other = |name: &str| name == model_source::CONFIG || model_source::is_weights(name);
    model.files.iter().map(|file| file.name.as_str()).filter(|name| !other(name)).collect()
}

fn as_json(model: &PinnedModel) -> serde_json::Value {
    let memory = Dtype::ALL.map(|dtype| (dtype.to_string(), json!(memory_bytes(model, dtype))));
    json!({
        "model": model.id,
        "revision": model.revision,
        "folder": model.folder,
        "model_type": model.facts.model_type,
        "layers": model.facts.n_layers,
        "hidden_size": model.facts.hidden_size,
        "parameters": model.facts.n_params,
        "weight_bytes": model.facts.weight_bytes,
        "stored_dtype": model.facts.stored_dtype,
        "max_length": model.facts.max_length,
        "poolings": poolings(model),
        "flop_per_token": {"linear": model.facts.flop_linear, "per_length": model.facts.flop_per_length},
        "memory_bytes": serde_json::Map::from_iter(memory),
        "memory_batch_tokens": BATCH_TOKENS,
        "tokenizer": tokenizer_files(model),
        "files": model.files,
    })
}

fn as_text(model: &PinnedModel) -> String {
    let facts = &model.facts;
    let memory = Dtype::ALL.map(|dtype| format!("{} ({dtype})", mib(memory_bytes(model, dtype))));
    let lines = [
        ("model", model.id.clone()),
        ("revision", model.revision.clone().unwrap_or_else(|| "none (a folder)".to_owned())),
        ("folder", model.folder.display().to_string()),
        ("architecture", facts.model_type.clone()),
        ("layers", format!("{} (embedding output and {} blocks)", facts.n_layers, facts.n_layers - 1)),
        ("hidden size", facts.hidden_size.to_string()),
        ("parameters", format!("{} ({} as {})", facts.n_params, mib(facts.weight_bytes), facts.stored_dtype)),
        ("poolings", poolings(model).join(", ")),
        ("max length", format!("{} tokens", facts.max_length)),
        ("tokenizer", tokenizer_files(model).join(", ")),
        ("memory", format!("{} with batches of {BATCH_TOKENS} tokens", memory.join(", "))),
        (
            "cost",
            format!(
                "{:.1} MFLOP per token, and {:.3} MFLOP per token and token of its text",
                facts.flop_linear as f64 / 1e6,
                facts.flop_per_length as f64 / 1e6
            ),
        ),
    ];
    lines.iter().map(|(name, value)| format!("{name:<13} {value}\n")).collect()
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
