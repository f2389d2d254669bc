//! `lsa-worker verify-model`: every layer and pooling against stored hidden states.
//!
//! The stored file holds token ids, so that texts and tokenizers play no part: what is compared is the model alone,
//! given what the file says that the other implementation was given.

mod golden;

use std::path::PathBuf;

use clap::Args;
use lsa_common::model::{Dtype, Pooling};
use lsa_common::model_source::Fetch;
use serde_json::json;

use crate::config::CommandError;
use crate::device::{self, DeviceChoice};
use crate::extract::{ExtractError, ExtractRequest, Extractor, Pooled};
use crate::inspect;
use golden::Golden;

/// Texts in a batch, at most, if all of them had the maximal length.
const BATCH_SIZE_DEFAULT: u32 = 16;
/// Models of more blocks add up more rounding.
const DEEP_BLOCKS: u32 = 24;

const EXAMPLES: &str = "\
Examples:
  lsa-worker verify-model ./all-MiniLM-L6-v2 --golden minilm.safetensors
  lsa-worker verify-model ./my-model --golden golden.safetensors --dtype bfloat16 --tolerance 3e-2 --json

The file holds `input_ids.0`, `input_ids.1`, … (int64 [tokens]), `token_type_ids.0`, … where the model was given any,
and for each pooling an array [layers, texts, width] named after it, or arrays `{pooling}.layer{l}` [texts, width];
docs/models.md says how to make one.";

/// What to verify, and against what.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct VerifyModelArgs {
    /// A folder, or a hub id, with @revision if need be.
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// The safetensors file of stored results.
    #[arg(long, value_name = "FILE")]
    pub golden: PathBuf,
    /// The number format to compute in: float32, float16 or bfloat16.
    #[arg(long, value_name = "D", default_value_t = Dtype::Float32.to_string())]
    pub dtype: String,
    /// auto, cpu or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: String,
    /// The token budget of a batch, in texts of the maximal length.
    #[arg(long, value_name = "N", default_value_t = BATCH_SIZE_DEFAULT)]
    pub batch_size: u32,
    /// The largest relative Frobenius error of a layer [default: 2e-5 in float32, 1e-4 beyond 24 blocks, 2e-2 in half].
    #[arg(long, value_name = "X")]
    pub tolerance: Option<f64>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// How far one layer in one pooling is from what is stored.
struct LayerError {
    pooling: Pooling,
    layer: u32,
    /// The largest difference of two numbers.
    max_abs: f64,
    /// Frobenius norm of the difference over that of what is stored.
    relative: f64,
    /// The lowest cosine of a row with the stored one.
    cosine: f64,
}

/// Compares a model with stored results; beyond the tolerance it fails.
pub fn run(args: &VerifyModelArgs) -> Result<(), CommandError> {
    let dtype = Dtype::parse(&args.dtype).ok_or_else(|| {
        let known = Dtype::ALL.map(Dtype::as_str).join(", ");
        CommandError::usage(format!("--dtype: {:?} is unknown; known: {known}", args.dtype))
    })?;
    let device: DeviceChoice = args.device.parse().map_err(CommandError::usage)?;
    let golden = Golden::read(&args.golden).map_err(CommandError::usage)?;
    let model = inspect::pin(&args.model, Fetch::Weights)?;
    let device = device::open(device).map_err(CommandError::usage)?;
    let extractor = Extractor::load(&model, &model.folder, dtype, device.device);
    let extractor = extractor.map_err(CommandError::failed)?;
    golden.check(&extractor).map_err(CommandError::usage)?;
    let what = ExtractRequest {
        max_length: model.facts.max_length,
        token_budget: u64::from(args.batch_size) * u64::from(model.facts.max_length),
        layers: (0..extractor.n_layers()).collect(),
        poolings: golden.poolings(),
        skip_empty: true,
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let pooled =
        extractor.extract_tokens(golden.tokens(), &what, threads, &|_| true).map_err(
            |error| match error {
                error @ (ExtractError::NoPooler(_)
                | ExtractError::UnknownToken { .. }
                | ExtractError::TooLong { .. }) => CommandError::usage(error),
                error => CommandError::failed(error),
            },
        )?;
    let errors = compared(&pooled, &golden);
    let tolerance = args.tolerance.unwrap_or_else(|| tolerance(dtype, extractor.n_layers() - 1));
    // Counted this way round, a NaN is beyond every tolerance.
    let n_beyond = errors.len() - errors.iter().filter(|error| error.relative <= tolerance).count();
    if args.json {
        println!("{:#}", as_json(&args.model, &model.facts.model_type, dtype, tolerance, &errors));
    } else {
        print!("{}", as_text(&errors, tolerance));
    }
    match n_beyond {
        0 => Ok(()),
        n => Err(CommandError::failed(format!(
            "{n} of {} layers and poolings are beyond the tolerance {tolerance:e}",
            errors.len()
        ))),
    }
}

fn tolerance(dtype: Dtype, n_blocks: u32) -> f64 {
    match dtype {
        Dtype::Float32 if n_blocks > DEEP_BLOCKS => 1e-4,
        Dtype::Float32 => 2e-5,
        Dtype::Float16 | Dtype::BFloat16 => 2e-2,
    }
}

fn compared(pooled: &Pooled, golden: &Golden) -> Vec<LayerError> {
    let mut errors = Vec::new();
    for (pooling, layers) in &pooled.rows {
        for (layer, found) in pooled.layers.iter().zip(layers) {
            let width = layer.width as usize;
            let stored = golden.rows(*pooling, layer.layer);
            // Texts without tokens have no rows.
            let kept =
                pooled.kept.iter().map(|row| &stored[*row as usize * width..(*row as usize + 1) * width]);
            errors.push(layer_error(*pooling, layer.layer, found.chunks_exact(width).zip(kept)));
        }
    }
    errors
}

fn layer_error<'a>(
    pooling: Pooling,
    layer: u32,
    rows: impl Iterator<Item = (&'a [f32], &'a [f32])>,
) -> LayerError {
    let (mut difference, mut norm, mut max_abs, mut cosine) = (0.0, 0.0, 0f64, 1f64);
    for (found, stored) in rows {
        let (mut products, mut found_norm, mut stored_norm) = (0.0, 0.0, 0.0);
        for (a, b) in found.iter().zip(stored).map(|(a, b)| (f64::from(*a), f64::from(*b))) {
            difference += (a - b) * (a - b);
            // `max` would hide a NaN.
            max_abs = if max_abs.is_nan() || (a - b).abs() <= max_abs { max_abs } else { (a - b).abs() };
            products += a * b;
            found_norm += a * a;
            stored_norm += b * b;
        }
        norm += stored_norm;
        cosine = cosine.min(products / (found_norm * stored_norm).sqrt());
    }
    LayerError { pooling, layer, max_abs, relative: f64::sqrt(difference / norm), cosine }
}

fn as_text(errors: &[LayerError], tolerance: f64) -> String {
    let mut text =
        format!("{:<11} {:>5}  {:>9}  {:>9}  {:>12}\n", "pooling", "layer", "max abs", "relative", "cosine");
    for error in errors {
        let LayerError { pooling, layer, max_abs, relative, cosine } = error;
        let mark = if *relative <= tolerance { "" } else { "  beyond the tolerance" };
        text += &format!(
            "{:<11} {layer:>5}  {max_abs:>9.2e}  {relative:>9.2e}  {cosine:>12.9}{mark}\n",
            pooling.as_str()
        );
    }
    let worst = errors.iter().map(|error| error.relative).fold(0.0, f64::max);
    text + &format!("largest relative error {worst:.2e}, tolerance {tolerance:e}\n")
}

fn as_json(
    model: &str,
    model_type: &str,
    dtype: Dtype,
    tolerance: f64,
    errors: &[LayerError],
) -> serde_json::Value {
    let layers: Vec<serde_json::Value> = errors
        .iter()
        .map(|error| {
            json!({
                "pooling": error.pooling.as_str(),
                "layer": error.layer,
                "max_abs": error.max_abs,
                "relative": error.relative,
                "cosine": error.cosine,
            })
        })
        .collect();
    json!({
        "model": model,
        "model_type": model_type,
        "dtype": dtype.as_str(),
        "tolerance": tolerance,
        "passed": errors.iter().all(|error| error.relative <= tolerance),
        "layers": layers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(found: &[f32], stored: &[f32]) -> LayerError {
        layer_error(Pooling::Mean, 0, found.chunks_exact(2).zip(stored.chunks_exact(2)))
    }

    #[test]
    fn errors_of_a_layer() {
        let same = error_of(&[3., 4., 0., 1.], &[3., 4., 0., 1.]);
        assert_eq!((same.max_abs, same.relative, same.cosine), (0.0, 0.0, 1.0));
        let other = error_of(&[3., 4., 1., 0.], &[3., 4., 0., 1.]);
        assert_eq!((other.max_abs, other.cosine), (1.0, 0.0));
        assert_eq!(other.relative, f64::sqrt(2.0 / 26.0));
    }

    #[test]
    fn a_value_that_is_not_finite_is_never_within_a_tolerance() {
        let broken = error_of(&[f32::NAN, 4.], &[3., 4.]);
        assert!(broken.relative.is_nan() && broken.max_abs.is_nan());
    }
}
