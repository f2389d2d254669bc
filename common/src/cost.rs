//! Estimates of time and memory, made from a spec alone: what plans print and what schedulers match with workers.

mod trial;

use crate::job::ExtractionSettings;
use crate::model::ModelFacts;

pub use trial::{
    EXACT_ROWS_MAX, LANCZOS_STEPS_MAX, SPARE_BYTES_MAX, TrialPlan, cka_keeps_rows, trial_flop,
    trial_memory_bytes, trial_memory_min_bytes, trial_plan, trial_scratch_bytes,
};

/// Floating-point operations of one token in a text of `length` tokens.
pub fn token_flop(facts: &ModelFacts, length: u32) -> u64 {
    facts.flop_linear.saturating_add(facts.flop_per_length.saturating_mul(u64::from(length)))
}

/// Rows of a shard: the largest power of two from 32 to 2048 whose texts, all of full length, cost at most 10 TFLOP;
/// some minutes on a CPU core, and few enough objects on a GPU.
pub fn shard_rows(facts: &ModelFacts, max_length: u32) -> u32 {
    const SHARD_FLOP: u64 = 10_000_000_000_000;
    let text_flop = token_flop(facts, max_length).saturating_mul(u64::from(max_length)).max(1);
    let rows = (SHARD_FLOP / text_flop).clamp(32, 2048);
    1 << rows.ilog2()
}

/// Bytes that an extract unit needs: weights, the activations of one batch, the rows of a shard.
pub fn extract_memory_bytes(facts: &ModelFacts, settings: &ExtractionSettings, n_poolings: usize) -> u64 {
    let number = settings.dtype.bytes();
    let weights = facts.n_params.saturating_mul(number);
    let tokens = settings.token_budget().max(u64::from(settings.max_length));
    let activations = tokens.saturating_mul(facts.activation_width).saturating_mul(number);
    let row_bytes = u64::from(facts.hidden_size) * 4 * settings.layers.len() as u64 * n_poolings as u64;
    weights
        .saturating_add(activations)
        .saturating_add(row_bytes.saturating_mul(u64::from(settings.shard_rows)))
}
