//! Qwen2 (Yang et al. 2024) and Qwen3 (Yang et al. 2025): Llama with biases of queries, keys and values, or with
//! norms of each head's queries and keys.

use super::decoder::{Decoder, Defaults, masks};
use super::fields::Fields;
use super::parts::{Attention, Mask};
use super::{Architecture, ArchitectureError, MAX_POSITIONS, llama};

const DEFAULTS: Defaults = Defaults {
    vocab_size: 151_936,
    intermediate_size: 22016,
    num_key_value_heads: Some(32),
    max_position_embeddings: 32768,
    ..llama::DEFAULTS
};

pub(super) fn version_2(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let sizes = Decoder::read(fields, &DEFAULTS)?;
    let masks = windows(fields, &sizes)?;
    let adapt = |block: u32, attention| Attention { mask: masks[block as usize], ..attention };
    llama::blocks(model_type, fields, &sizes, 1e-6, adapt, [true, false])
}

pub(super) fn version_3(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let sizes = Decoder::read(fields, &Defaults { head_dim: Some(128), ..DEFAULTS })?;
    let masks = windows(fields, &sizes)?;
    let eps = fields.epsilon_or("rms_norm_eps", 1e-6)?;
    let bias = fields.flag_or("attention_bias", false)?;
    let adapt = |block: u32, attention| Attention {
        mask: masks[block as usize],
        head_norm: Some(sizes.head_norm(block, eps)),
        ..attention
    };
    llama::blocks(model_type, fields, &sizes, 1e-6, adapt, [bias, bias])
}

/// A window from block `max_window_layers` on, if it is used at all.
fn windows(fields: &Fields<'_>, sizes: &Decoder) -> Result<Vec<Mask>, ArchitectureError> {
    let window = if fields.flag_or("use_sliding_window", false)? && !fields.says_null("sliding_window") {
        Some(fields.count_or("sliding_window", MAX_POSITIONS, 4096)?)
    } else {
        None
    };
    let from = fields.index_or("max_window_layers", 28)?;
    let sliding = window.map_or(Mask::CAUSAL, Mask::sliding);
    let masks = masks(fields, sizes.num_hidden_layers, sliding, Mask::CAUSAL, |block| block >= from)?;
    Ok(masks.into_iter().map(|(_, mask)| mask).collect())
}
