//! SmolLM3. Bakouch et al. 2025: Llama in which some blocks have no positions.

use super::decoder::{Decoder, Defaults, masks};
use super::fields::Fields;
use super::parts::{Attention, Mask};
use super::{Architecture, ArchitectureError, MAX_POSITIONS, llama};

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let defaults = Defaults {
        vocab_size: 128_256,
        hidden_size: 2048,
        num_hidden_layers: 36,
        num_attention_heads: 16,
        num_key_value_heads: Some(4),
        max_position_embeddings: 32768,
        ..llama::DEFAULTS
    };
    let sizes = Decoder::read(fields, &defaults)?;
    let n_blocks = sizes.num_hidden_layers;
    let bias = fields.flag_or("attention_bias", false)?;
    let interval = fields.count_or("no_rope_layer_interval", 1 << 16, 4)?;
    let with_positions: Vec<bool> = if fields.has("no_rope_layers") {
        fields.numbers("no_rope_layers")?.into_iter().map(|flag| flag != 0.0).collect()
    } else {
        (1..=n_blocks).map(|place| !place.is_multiple_of(interval)).collect()
    };
    if with_positions.len() != n_blocks as usize {
        let expected = format!("as many as \"num_hidden_layers\" {n_blocks}");
        return Err(fields.refused("no_rope_layers", expected));
    }
    let window = if fields.flag_or("use_sliding_window", false)? {
        fields.count_if_any("sliding_window", MAX_POSITIONS)?
    } else {
        None
    };
    let sliding = window.map_or(Mask::CAUSAL, Mask::sliding);
    let masks = masks(fields, n_blocks, sliding, Mask::CAUSAL, |block| !with_positions[block as usize])?;
    let adapt = |block: u32, attention: Attention| Attention {
        rotary: attention.rotary.filter(|_| with_positions[block as usize]),
        mask: masks[block as usize].1,
        ..attention
    };
    llama::blocks_with_theta(model_type, fields, &sizes, (1e-6, 2_000_000.0), adapt, [bias, bias])
}
