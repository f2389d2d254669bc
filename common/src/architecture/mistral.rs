//! Mistral (Jiang et al. 2023) and Mixtral (Jiang et al. 2024): Llama with a window, or with experts.

use super::decoder::{Decoder, Defaults};
use super::fields::Fields;
use super::parts::{Attention, DenseFeedForward, FeedForward, Inner, Linear, Mask};
use super::{Architecture, ArchitectureError, EXPERTS_MAX, MAX_POSITIONS, llama};

const DEFAULTS: Defaults = Defaults {
    intermediate_size: 14336,
    num_key_value_heads: Some(8),
    max_position_embeddings: 4096 * 32,
    ..llama::DEFAULTS
};

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let sizes = Decoder::read(fields, &DEFAULTS)?;
    // Null means none, an absent field the default of the class.
    let default = if fields.says_null("sliding_window") { None } else { Some(4096) };
    windowed(model_type, fields, &sizes, (1e-6, 10_000.0), default)
}

pub(super) fn mixture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let sizes = Decoder::read(fields, &DEFAULTS)?;
    let mut found = windowed(model_type, fields, &sizes, (1e-5, 1e6), None)?;
    let activation = fields.activation_or("hidden_act", "silu")?;
    let n_experts = fields.count_or("num_local_experts", EXPERTS_MAX, 8)?;
    let per_token = fields.count_or("num_experts_per_tok", n_experts, 2.min(n_experts))?;
    let (width, inner) = (sizes.hidden_size, sizes.intermediate_size);
    for (block, part) in found.blocks.iter_mut().enumerate() {
        let name = |part: &str| format!("layers.{block}.block_sparse_moe.{part}");
        let expert = |expert: u32| {
            let linear = |part: &str, width_in, width_out| {
                Linear::new(name(&format!("experts.{expert}.{part}")), width_in, width_out, false)
            };
            let (gate, up) = (linear("w1", width, inner), linear("w3", width, inner));
            DenseFeedForward {
                inner: Inner::Gated { gate, up },
                down: linear("w2", inner, width),
                activation,
            }
        };
        part.feed_forward.map = FeedForward::Experts {
            router: Linear::new(name("gate"), width, n_experts, false),
            experts: (0..n_experts).map(expert).collect(),
            per_token,
        };
    }
    Ok(found)
}

fn windowed(
    model_type: &'static str,
    fields: &Fields<'_>,
    sizes: &Decoder,
    defaults: (f64, f64),
    default: Option<u32>,
) -> Result<Architecture, ArchitectureError> {
    let window = fields.count_if_any("sliding_window", MAX_POSITIONS)?.or(default);
    let mask = window.map_or(Mask::CAUSAL, Mask::sliding);
    let adapt = |_, attention| Attention { mask, ..attention };
    llama::blocks_with_theta(model_type, fields, sizes, defaults, adapt, [false; 2])
}
