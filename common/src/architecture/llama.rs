//! Llama. Touvron et al. 2023: pre-norm by the root mean square, rotary positions, a gated feed-forward block.

use super::decoder::{Decoder, Defaults};
use super::fields::Fields;
use super::parts::{Attention, Block, Norm, Sublayer};
use super::rotary::RotaryDefaults;
use super::{Architecture, ArchitectureError, rotary};

pub(super) const DEFAULTS: Defaults = Defaults {
    vocab_size: 32000,
    hidden_size: 4096,
    intermediate_size: 11008,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: None,
    head_dim: None,
    max_position_embeddings: 2048,
};

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let sizes = Decoder::read(fields, &DEFAULTS)?;
    let bias = fields.flag_or("attention_bias", false)?;
    blocks(model_type, fields, &sizes, 1e-6, |_, attention| attention, [bias, bias])
}

/// Pre-norm blocks with rotary positions; `adapt` changes the attention of a block.
pub(super) fn blocks(
    model_type: &'static str,
    fields: &Fields<'_>,
    sizes: &Decoder,
    eps: f64,
    adapt: impl Fn(u32, Attention) -> Attention,
    biases: [bool; 2],
) -> Result<Architecture, ArchitectureError> {
    blocks_with_theta(model_type, fields, sizes, (eps, 10_000.0), adapt, biases)
}

/// As [`blocks`], with the class's defaults of `rms_norm_eps` and `rope_theta`.
pub(super) fn blocks_with_theta(
    model_type: &'static str,
    fields: &Fields<'_>,
    sizes: &Decoder,
    (eps, theta): (f64, f64),
    adapt: impl Fn(u32, Attention) -> Attention,
    [bias_in, bias_out]: [bool; 2],
) -> Result<Architecture, ArchitectureError> {
    let eps = fields.epsilon_or("rms_norm_eps", eps)?;
    let activation = fields.activation_or("hidden_act", "silu")?;
    let bias = fields.flag_or("mlp_bias", false)?;
    let mut found = sizes.architecture(model_type);
    let rotary = Some(found.rotary(&rotary::read(fields, &RotaryDefaults { theta, ..sizes.rotary() })?));
    for block in 0..sizes.num_hidden_layers {
        let attention = Attention { rotary, ..sizes.attention(block, bias_in, bias_out) };
        found.push(Block::new(
            Sublayer::pre(sizes.rms(block, "input_layernorm", eps), adapt(block, attention)),
            Sublayer::pre(
                sizes.rms(block, "post_attention_layernorm", eps),
                sizes.gated(block, activation, bias),
            ),
        ));
    }
    found.final_norm = Some(Norm::rms("norm", sizes.hidden_size, eps));
    Ok(found)
}
