//! StableLM. Bellagente et al. 2024: layer norms, rotary positions on a quarter of each head.

use super::decoder::{Decoder, Defaults};
use super::fields::Fields;
use super::parts::{Attention, Block, HeadNorm, HeadNormSpan, Norm, NormKind, Parameter, Sublayer};
use super::rotary::RotaryDefaults;
use super::{Architecture, ArchitectureError, llama, rotary};

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let defaults = Defaults {
        vocab_size: 50304,
        hidden_size: 2560,
        intermediate_size: 6912,
        num_key_value_heads: Some(32),
        max_position_embeddings: 4096,
        ..llama::DEFAULTS
    };
    let sizes = Decoder::read(fields, &defaults)?;
    let eps = fields.epsilon_or("layer_norm_eps", 1e-5)?;
    let activation = fields.activation_or("hidden_act", "silu")?;
    let bias = fields.flag_or("use_qkv_bias", false)?;
    let normed = fields.flag_or("qk_layernorm", false)?;
    let parallel = fields.flag_or("use_parallel_residual", false)?;
    let mut found = sizes.architecture(model_type);
    let partial = RotaryDefaults { partial: 0.25, ..sizes.rotary() };
    let rotary = Some(found.rotary(&rotary::read(fields, &partial)?));
    for block in 0..sizes.num_hidden_layers {
        // A norm for each head.
        let weights = |part: &str, n_heads: u32| {
            let name = |head| format!("layers.{block}.self_attn.{part}.norms.{head}.weight");
            (0..n_heads).map(|head| Parameter::new(name(head), &[sizes.head_dim])).collect()
        };
        let head_norm = normed.then(|| HeadNorm {
            kind: NormKind::Layer,
            eps,
            plus_one: false,
            span: HeadNormSpan::HeadWithOwnWeights,
            query: weights("q_layernorm", sizes.num_attention_heads),
            key: weights("k_layernorm", sizes.num_key_value_heads),
        });
        let attention = Attention { rotary, head_norm, ..sizes.attention(block, bias, false) };
        let attention = Sublayer::pre(sizes.layer_norm(block, "input_layernorm", eps), attention);
        let feed_forward = sizes.gated(block, activation, false);
        found.push(if parallel {
            Block::parallel(attention, Sublayer::bare(feed_forward))
        } else {
            let norm = sizes.layer_norm(block, "post_attention_layernorm", eps);
            Block::new(attention, Sublayer::pre(norm, feed_forward))
        });
    }
    found.final_norm = Some(Norm::layer("norm", sizes.hidden_size, eps));
    Ok(found)
}
