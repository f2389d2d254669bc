//! `lsa-worker inspect`: what a model is and needs, from its files' headers alone.

use clap::Args;
use lsa_common::failure::FailureClass;
use lsa_common::hub::{HfHub, HubSettings};
use lsa_common::model::{Dtype, PinnedModel, Pooling};
use lsa_common::model_source::{self, Description, Fetch, ModelFolder, ModelSourceError};
use lsa_common::tokenize::TokenizerFiles;
use serde_json::json;

use crate::config::CommandError;

/// The tokens of a batch by which memory is estimated: 64 texts of 256.
const BATCH_TOKENS: u64 = 64 * 256;

/// What to inspect.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A folder, or a hub id, with @revision if need be; of a hub the weights are not fetched
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Finds the model and prints what it is.
pub fn run(args: &InspectArgs) -> Result<(), CommandError> {
    let model = pin(&args.model, Fetch::Headers)?;
    let folder = ModelFolder { id: model.id.clone(), revision: None, folder: model.folder.clone() };
    let description = folder.describe().map_err(source_error)?;
    let layers = layers(&description);
    if args.json {
        println!("{:#}", as_json(&model, &layers));
    } else {
        print!("{}", as_text(&model, &layers));
    }
    Ok(())
}

/// An entry of the hidden states.
struct Layer {
    name: String,
    width: u32,
    /// Whether the final norm is part of it.
    final_norm: bool,
}

fn layers(description: &Description) -> Vec<Layer> {
    let widths = description.widths();
    let normed = match description {
        Description::Native(architecture) => architecture.final_norm.is_some(),
        // A graph does not say; what it gives is what the Python library gives.
        Description::Exported(_) => false,
    };
    let layer = |(place, width): (usize, &u32)| Layer {
        name: if place == 0 { "embed".to_owned() } else { format!("block.{place}") },
        width: *width,
        final_norm: normed && place + 1 == widths.len(),
    };
    widths.iter().enumerate().map(layer).collect()
}

/// The pinned model that the user named: a folder, or a hub id, of which as much is fetched as is asked for.
pub fn pin(name: &str, fetch: Fetch) -> Result<PinnedModel, CommandError> {
    let (id, revision) = model_source::split_revision(name);
    if let Some(folder) = model_source::local(id, revision).map_err(source_error)? {
        return folder.pin().map_err(source_error);
    }
    let hub = HubSettings::from_environment().and_then(HfHub::new);
    let hub = hub.map_err(|source| {
        source_error(ModelSourceError::Hub { id: id.to_owned(), source: Box::new(source) })
    })?;
    model_source::pin_from_hub(id, revision, &hub, fetch).map_err(source_error)
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
    let of_tokenizer = |name: &&str| TokenizerFiles::knows(name) && *name != model_source::CONFIG;
    model.files.iter().map(|file| file.name.as_str()).filter(of_tokenizer).collect()
}

fn as_json(model: &PinnedModel, layers: &[Layer]) -> serde_json::Value {
    let memory = Dtype::ALL.map(|dtype| (dtype.to_string(), json!(memory_bytes(model, dtype))));
    json!({
        "model": model.id,
        "revision": model.revision,
        "folder": model.folder,
        "model_type": model.facts.model_type,
        "layers": model.facts.n_layers,
        "layer_names": layers.iter().map(|layer| layer.name.as_str()).collect::<Vec<_>>(),
        "layer_widths": layers.iter().map(|layer| layer.width).collect::<Vec<_>>(),
        "final_norm": layers.iter().any(|layer| layer.final_norm),
        "hidden_size": model.facts.hidden_size,
        "parameters": model.facts.n_params,
        "weight_bytes": model.facts.weight_bytes,
        "stored_dtype": model.facts.stored_dtype,
        "max_length": model.facts.max_length,
        "poolings": poolings(model),
        "flop_per_token": {"linear": model.facts.flop_linear, "per_length": model.facts.flop_per_length},
        "memory_bytes": serde_json::Map::from_iter(memory),
        "memory_batch_tokens": BATCH_TOKENS,
        "tokenizer": model.facts.tokenizer,
        "tokenizer_files": tokenizer_files(model),
        "files": model.files,
    })
}

fn as_text(model: &PinnedModel, layers: &[Layer]) -> String {
    let facts = &model.facts;
    let memory = Dtype::ALL.map(|dtype| format!("{} ({dtype})", mib(memory_bytes(model, dtype))));
    let lines = [
        ("model", model.id.clone()),
        ("revision", model.revision.clone().unwrap_or_else(|| "none (a folder)".to_owned())),
        ("folder", model.folder.display().to_string()),
        ("architecture", facts.model_type.clone()),
        ("layers", layers_line(layers)),
        ("hidden size", widths_line(layers)),
        ("parameters", format!("{} ({} as {})", facts.n_params, mib(facts.weight_bytes), facts.stored_dtype)),
        ("poolings", poolings(model).join(", ")),
        ("max length", format!("{} tokens", facts.max_length)),
        ("tokenizer", format!("{} ({})", facts.tokenizer, tokenizer_files(model).join(", "))),
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

fn layers_line(layers: &[Layer]) -> String {
    let last = layers.last().map_or("", |layer| layer.name.as_str());
    let norm = if layers.iter().any(|layer| layer.final_norm) { " with the final norm" } else { "" };
    format!("{}: embed, block.1 to {last}{norm}", layers.len())
}

/// One width, or which layers have another.
fn widths_line(layers: &[Layer]) -> String {
    let first = layers.first().map_or(0, |layer| layer.width);
    let others = layers.iter().filter(|layer| layer.width != first);
    let others: Vec<String> = others.map(|layer| format!("{} in {}", layer.width, layer.name)).collect();
    if others.is_empty() { first.to_string() } else { format!("{first}, {}", others.join(", ")) }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
