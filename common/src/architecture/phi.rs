//! Phi (Li et al. 2023), two halves on one norm, and Phi-3 (Abdin et al. 2024), Llama with fused maps.

use serde_json::Value;

use super::decoder::{Decoder, Defaults};
use super::fields::Fields;
use super::parts::{
    Attention, Block, DenseFeedForward, FeedForward, FusedOrder, Inner, Linear, Mask, Norm, Projections,
    Sublayer,
};
use super::rotary::RotaryDefaults;
use super::{Architecture, ArchitectureError, MAX_POSITIONS, llama, rotary};

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    fields.only("qk_layernorm", &Value::from(false))?;
    let defaults = Defaults {
        vocab_size: 51200,
        hidden_size: 2048,
        intermediate_size: 8192,
        num_hidden_layers: 24,
        ..llama::DEFAULTS
    };
    let sizes = Decoder::read(fields, &defaults)?;
    let eps = fields.epsilon_or("layer_norm_eps", 1e-5)?;
    let activation = fields.activation_or("hidden_act", "gelu_new")?;
    let mut found = sizes.architecture(model_type);
    let partial = RotaryDefaults { partial: 0.5, ..sizes.rotary() };
    let rotary = Some(found.rotary(&rotary::read(fields, &partial)?));
    for block in 0..sizes.num_hidden_layers {
        let attention = Attention { rotary, ..sizes.attention_named(block, "dense", true, true) };
        found.push(Block::parallel(
            Sublayer::pre(sizes.layer_norm(block, "input_layernorm", eps), attention),
            Sublayer::bare(sizes.plain(block, ["fc1", "fc2"], activation, true)),
        ));
    }
    found.final_norm = Some(Norm::layer("final_layernorm", sizes.hidden_size, eps));
    Ok(found)
}

pub(super) fn version_3(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let defaults = Defaults {
        vocab_size: 32064,
        hidden_size: 3072,
        intermediate_size: 8192,
        max_position_embeddings: 4096,
        ..llama::DEFAULTS
    };
    let sizes = Decoder::read(fields, &defaults)?;
    let eps = fields.epsilon_or("rms_norm_eps", 1e-5)?;
    let activation = fields.activation_or("hidden_act", "silu")?;
    let window = fields.count_if_any("sliding_window", MAX_POSITIONS)?;
    let mut found = sizes.architecture(model_type);
    let defaults = RotaryDefaults { original_positions: Some(4096), ..sizes.rotary() };
    let rotary = Some(found.rotary(&rotary::read(fields, &defaults)?));
    let (width, inner) = (sizes.hidden_size, sizes.intermediate_size);
    for block in 0..sizes.num_hidden_layers {
        let rows = (sizes.num_attention_heads + 2 * sizes.num_key_value_heads) * sizes.head_dim;
        let name = |part: &str| format!("layers.{block}.{part}");
        let linear = Linear::new(name("self_attn.qkv_proj"), width, rows, false);
        let projections = Projections::Fused { linear, order: FusedOrder::Concatenated };
        let out = sizes.out(block, "o_proj", false);
        let attention = Attention {
            n_kv_heads: sizes.num_key_value_heads,
            rotary,
            mask: window.map_or(Mask::CAUSAL, Mask::sliding),
            ..Attention::new(sizes.num_attention_heads, sizes.head_dim, projections, out)
        };
        let linear = Linear::new(name("mlp.gate_up_proj"), width, 2 * inner, false);
        let feed_forward = FeedForward::Dense(DenseFeedForward {
            inner: Inner::GatedFused { linear, gate_first: true },
            down: Linear::new(name("mlp.down_proj"), inner, width, false),
            activation,
        });
        found.push(Block::new(
            Sublayer::pre(sizes.rms(block, "input_layernorm", eps), attention),
            Sublayer::pre(sizes.rms(block, "post_attention_layernorm", eps), feed_forward),
        ));
    }
    found.final_norm = Some(Norm::rms("norm", width, eps));
    Ok(found)
}
