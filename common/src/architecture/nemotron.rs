//! Nemotron. Parmar et al. 2024: layer norms that scale by 1 + weight, squared relu.

use super::decoder::{Decoder, Defaults};
use super::fields::Fields;
use super::parts::{Attention, Block, Norm, Sublayer};
use super::rotary::RotaryDefaults;
use super::{Architecture, ArchitectureError, llama, rotary};

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let defaults = Defaults {
        vocab_size: 256_000,
        hidden_size: 6144,
        intermediate_size: 24576,
        num_attention_heads: 48,
        max_position_embeddings: 4096,
        ..llama::DEFAULTS
    };
    let sizes = Decoder::read(fields, &defaults)?;
    let eps = fields.epsilon_or("norm_eps", 1e-5)?;
    let activation = fields.activation_or("hidden_act", "relu2")?;
    let bias = fields.flag_or("attention_bias", false)?;
    let mlp_bias = fields.flag_or("mlp_bias", false)?;
    let mut found = sizes.architecture(model_type);
    let partial = RotaryDefaults { partial: 0.5, ..sizes.rotary() };
    let rotary = Some(found.rotary(&rotary::read(fields, &partial)?));
    for block in 0..sizes.num_hidden_layers {
        let norm = |part: &str| sizes.layer_norm(block, part, eps).plus_one();
        let attention = Attention { rotary, ..sizes.attention(block, bias, bias) };
        found.push(Block::new(
            Sublayer::pre(norm("input_layernorm"), attention),
            Sublayer::pre(
                norm("post_attention_layernorm"),
                sizes.plain(block, ["up_proj", "down_proj"], activation, mlp_bias),
            ),
        ));
    }
    found.final_norm = Some(Norm::layer("norm", sizes.hidden_size, eps).plus_one());
    Ok(found)
}
