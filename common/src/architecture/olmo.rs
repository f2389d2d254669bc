//! OLMo (Groeneveld et al. 2024), whose norms have no weights, and OLMo 2 (2025), with norms of each half's output.

use super::decoder::{Decoder, Defaults};
use super::fields::Fields;
use super::parts::{Attention, Block, HeadNorm, HeadNormSpan, Norm, NormKind, Parameter, Sublayer};
use super::{Architecture, ArchitectureError, llama, rotary};

/// Fixed in the class.
const EPS: f64 = 1e-5;

pub(super) fn version_1(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let sizes = Decoder::read(fields, &Defaults { vocab_size: 50304, ..llama::DEFAULTS })?;
    let activation = fields.activation_or("hidden_act", "silu")?;
    let bias = fields.flag_or("attention_bias", false)?;
    let clip = fields.number_if_any("clip_qkv")?;
    if clip.is_some_and(|clip| clip <= 0.0) {
        return Err(fields.refused("clip_qkv", "a number above 0, or null"));
    }
    let mut found = sizes.architecture(model_type);
    let rotary = Some(found.rotary(&rotary::read(fields, &sizes.rotary())?));
    for block in 0..sizes.num_hidden_layers {
        let norm = || sizes.layer_norm(block, "", EPS).without_weight();
        let attention = Attention { rotary, clip, ..sizes.attention(block, bias, bias) };
        found.push(Block::new(
            Sublayer::pre(norm(), attention),
            Sublayer::pre(norm(), sizes.gated(block, activation, false)),
        ));
    }
    found.final_norm = Some(Norm::layer("", sizes.hidden_size, EPS).without_weight());
    Ok(found)
}

pub(super) fn version_2(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let sizes = Decoder::read(fields, &Defaults { vocab_size: 50304, ..llama::DEFAULTS })?;
    let eps = fields.epsilon_or("rms_norm_eps", 1e-5)?;
    let activation = fields.activation_or("hidden_act", "silu")?;
    let bias = fields.flag_or("attention_bias", false)?;
    let mut found = sizes.architecture(model_type);
    let rotary = Some(found.rotary(&rotary::read(fields, &sizes.rotary())?));
    for block in 0..sizes.num_hidden_layers {
        let weight = |part: &str, n_heads: u32| {
            let name = format!("layers.{block}.self_attn.{part}.weight");
            vec![Parameter::new(name, &[n_heads * sizes.head_dim])]
        };
        let head_norm = HeadNorm {
            kind: NormKind::Rms,
            eps,
            plus_one: false,
            span: HeadNormSpan::AllHeads,
            query: weight("q_norm", sizes.num_attention_heads),
            key: weight("k_norm", sizes.num_key_value_heads),
        };
        let attention =
            Attention { rotary, head_norm: Some(head_norm), ..sizes.attention(block, bias, bias) };
        found.push(Block::new(
            Sublayer::inside(attention, sizes.rms(block, "post_attention_layernorm", eps)),
            Sublayer::inside(
                sizes.gated(block, activation, false),
                sizes.rms(block, "post_feedforward_layernorm", eps),
            ),
        ));
    }
    found.final_norm = Some(Norm::rms("norm", sizes.hidden_size, eps));
    Ok(found)
}
