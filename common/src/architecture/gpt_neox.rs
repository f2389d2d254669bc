//! GPT-NeoX and Pythia. Black et al. 2022: both halves on the input, each with a norm, or one after the other.

use super::decoder::{Decoder, Defaults};
use super::fields::Fields;
use super::parts::{
    Attention, Block, Embedding, FeedForward, FusedOrder, Linear, Mask, Norm, Projections, Sublayer,
};
use super::rotary::RotaryDefaults;
use super::{Architecture, ArchitectureError, llama, rotary};

const ANCHOR: &[&str] = &["embed_in.weight"];

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let defaults = Defaults {
        vocab_size: 50432,
        hidden_size: 6144,
        intermediate_size: 24576,
        num_hidden_layers: 44,
        num_attention_heads: 64,
        ..llama::DEFAULTS
    };
    let sizes = Decoder::read(fields, &defaults)?;
    let (width, inner) = (sizes.hidden_size, sizes.intermediate_size);
    let eps = fields.epsilon_or("layer_norm_eps", 1e-5)?;
    let activation = fields.activation_or("hidden_act", "gelu")?;
    let bias = fields.flag_or("attention_bias", true)?;
    let parallel = fields.flag_or("use_parallel_residual", true)?;
    let embedding = Embedding::of_tokens(ANCHOR[0], sizes.vocab_size, width);
    let mut found = Architecture::new(model_type, width, ANCHOR, embedding);
    found.naming.ignored = &[".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"];
    found.position_limit = Some(sizes.max_position_embeddings);
    found.final_norm = Some(Norm::layer("final_layer_norm", width, eps));
    let partial = RotaryDefaults { partial: 0.25, ..sizes.rotary() };
    let rotary = Some(found.rotary(&rotary::read(fields, &partial)?));
    for block in 0..sizes.num_hidden_layers {
        let name = |part: &str| format!("layers.{block}.{part}");
        let linear = Linear::new(name("attention.query_key_value"), width, 3 * width, bias);
        let out = Linear::new(name("attention.dense"), width, width, bias);
        let projections = Projections::Fused { linear, order: FusedOrder::PerKeyHead };
        let attention = Attention {
            rotary,
            mask: Mask::CAUSAL,
            ..Attention::new(sizes.num_attention_heads, sizes.head_dim, projections, out)
        };
        let up = Linear::new(name("mlp.dense_h_to_4h"), width, inner, true);
        let down = Linear::new(name("mlp.dense_4h_to_h"), inner, width, true);
        let new = if parallel { Block::parallel } else { Block::new };
        found.push(new(
            Sublayer::pre(sizes.layer_norm(block, "input_layernorm", eps), attention),
            Sublayer::pre(
                sizes.layer_norm(block, "post_attention_layernorm", eps),
                FeedForward::plain(up, down, activation),
            ),
        ));
    }
    Ok(found)
}
