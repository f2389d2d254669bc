//! Cohere Command R. 2024: two halves on one norm, rotary positions of neighbouring numbers.

use super::decoder::{Decoder, Defaults};
use super::fields::Fields;
use super::parts::{Attention, Block, HeadNorm, HeadNormSpan, Norm, NormKind, Pairing, Parameter, Sublayer};
use super::rotary::RotaryDefaults;
use super::{Architecture, ArchitectureError, llama, rotary};

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let defaults = Defaults {
        vocab_size: 256_000,
        hidden_size: 8192,
        intermediate_size: 22528,
        num_hidden_layers: 40,
        num_attention_heads: 64,
        max_position_embeddings: 8192,
        ..llama::DEFAULTS
    };
    let sizes = Decoder::read(fields, &defaults)?;
    let eps = fields.epsilon_or("layer_norm_eps", 1e-5)?;
    let activation = fields.activation_or("hidden_act", "silu")?;
    let bias = fields.flag_or("attention_bias", false)?;
    let normed = fields.flag_or("use_qk_norm", false)?;
    let mut found = sizes.architecture(model_type);
    let neighbours = RotaryDefaults { theta: 500_000.0, pairing: Pairing::Neighbours, ..sizes.rotary() };
    let rotary = Some(found.rotary(&rotary::read(fields, &neighbours)?));
    for block in 0..sizes.num_hidden_layers {
        let weight = |part: &str, n_heads: u32| {
            let name = format!("layers.{block}.self_attn.{part}.weight");
            vec![Parameter::new(name, &[n_heads, sizes.head_dim])]
        };
        let head_norm = normed.then(|| HeadNorm {
            kind: NormKind::Layer,
            eps,
            plus_one: false,
            span: HeadNormSpan::HeadWithOwnWeights,
            query: weight("q_norm", sizes.num_attention_heads),
            key: weight("k_norm", sizes.num_key_value_heads),
        });
        let attention = Attention { rotary, head_norm, ..sizes.attention(block, bias, bias) };
        found.push(Block::parallel(
            Sublayer::pre(sizes.layer_norm(block, "input_layernorm", eps).without_bias(), attention),
            Sublayer::bare(sizes.gated(block, activation, false)),
        ));
    }
    found.final_norm = Some(Norm::layer("norm", sizes.hidden_size, eps).without_bias());
    Ok(found)
}
