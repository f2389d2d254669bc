//! Gemma (Gemma Team 2024), Gemma 2 (2024) and the text part of Gemma 3 (2025): norms that scale by 1 + weight, an
//! embedding times √d; from the second on a norm on both sides of each half, and windows.

use serde_json::Value;

use super::decoder::{Decoder, Defaults, masks};
use super::fields::Fields;
use super::parts::{Activation, Attention, Block, HeadNorm, Mask, Norm, Pairing, Scores, Sublayer};
use super::{Architecture, ArchitectureError, MAX_POSITIONS, rotary};

/// Only the third version has it.
const BIDIRECTIONAL: &str = "use_bidirectional_attention";

const DEFAULTS: Defaults = Defaults {
    vocab_size: 256_000,
    hidden_size: 3072,
    intermediate_size: 24576,
    num_hidden_layers: 28,
    num_attention_heads: 16,
    num_key_value_heads: Some(16),
    head_dim: Some(256),
    max_position_embeddings: 8192,
};

const DEFAULTS_2: Defaults = Defaults {
    hidden_size: 2304,
    intermediate_size: 9216,
    num_hidden_layers: 26,
    num_attention_heads: 8,
    num_key_value_heads: Some(4),
    ..DEFAULTS
};

pub(super) fn version_1(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let sizes = Decoder::read(fields, &DEFAULTS)?;
    let eps = fields.epsilon_or("rms_norm_eps", 1e-6)?;
    let bias = fields.flag_or("attention_bias", false)?;
    let activation = activation(fields)?;
    fields.only(BIDIRECTIONAL, &Value::from(false))?;
    let mut found = scaled(&sizes, model_type, eps);
    let rotary = Some(found.rotary(&rotary::read(fields, &sizes.rotary())?));
    for block in 0..sizes.num_hidden_layers {
        let attention = Attention { rotary, ..sizes.attention(block, bias, bias) };
        found.push(Block::new(
            Sublayer::pre(sizes.rms(block, "input_layernorm", eps).plus_one(), attention),
            Sublayer::pre(
                sizes.rms(block, "post_attention_layernorm", eps).plus_one(),
                sizes.gated(block, activation, false),
            ),
        ));
    }
    Ok(found)
}

pub(super) fn version_2(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    fields.only(BIDIRECTIONAL, &Value::from(false))?;
    let sizes = Decoder::read(fields, &DEFAULTS_2)?;
    let eps = fields.epsilon_or("rms_norm_eps", 1e-6)?;
    let mut found = scaled(&sizes, model_type, eps);
    let rotary = found.rotary(&rotary::read(fields, &sizes.rotary())?);
    let cap = if fields.says_null("attn_logit_softcapping") {
        None
    } else {
        Some(fields.positive_or("attn_logit_softcapping", 50.0)?)
    };
    let masks = window_masks(fields, &sizes, 2)?;
    let adapt = |block: u32, attention| Attention {
        rotary: Some(rotary),
        mask: masks[block as usize].1,
        scores: cap.map_or(Scores::Products, Scores::SoftCap),
        ..attention
    };
    sandwiches(&mut found, fields, &sizes, eps, adapt)?;
    Ok(found)
}

pub(super) fn version_3(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let defaults = Defaults { vocab_size: 262_208, max_position_embeddings: 131_072, ..DEFAULTS_2 };
    let sizes = Decoder::read(fields, &defaults)?;
    let eps = fields.epsilon_or("rms_norm_eps", 1e-6)?;
    let cap = fields.number_if_any("attn_logit_softcapping")?;
    if cap.is_some_and(|cap| cap <= 0.0) {
        return Err(fields.refused("attn_logit_softcapping", "a number above 0, or null"));
    }
    let mut found = scaled(&sizes, model_type, eps);
    // Blocks with a window have angles of their own.
    let global = super::rotary::RotaryDefaults { theta: 1e6, ..sizes.rotary() };
    let full = match rotary::of_layer_type(fields, "full_attention", &global)? {
        Some(rotary) => rotary,
        None => rotary::read(fields, &global)?,
    };
    let sliding = match rotary::of_layer_type(fields, "sliding_attention", &sizes.rotary())? {
        Some(rotary) => rotary,
        None => {
            let theta = fields.positive_or("rope_local_base_freq", 10_000.0)?;
            rotary::unscaled(sizes.head_dim, theta, Pairing::Halves)
        }
    };
    let (full, sliding) = (found.rotary(&full), found.rotary(&sliding));
    let pattern = fields.count_or("sliding_window_pattern", 1 << 16, 6)?;
    let masks = window_masks(fields, &sizes, pattern)?;
    let adapt = |block: u32, attention| {
        let (is_sliding, mask) = masks[block as usize];
        let head_norm = HeadNorm { plus_one: true, ..sizes.head_norm(block, eps) };
        Attention {
            rotary: Some(if is_sliding { sliding } else { full }),
            mask,
            head_norm: Some(head_norm),
            scores: cap.map_or(Scores::Products, Scores::SoftCap),
            ..attention
        }
    };
    sandwiches(&mut found, fields, &sizes, eps, adapt)?;
    Ok(found)
}

/// Every `pattern`th block sees everything, the others a window.
fn window_masks(
    fields: &Fields<'_>,
    sizes: &Decoder,
    pattern: u32,
) -> Result<Vec<(bool, Mask)>, ArchitectureError> {
    let window = fields.count_or("sliding_window", MAX_POSITIONS, 4096)?;
    let (sliding, full) = if fields.flag_or(BIDIRECTIONAL, false)? {
        // Half the window in each direction, itself included.
        (Mask::around(window / 2), Mask::FULL)
    } else {
        (Mask::sliding(window), Mask::CAUSAL)
    };
    masks(fields, sizes.num_hidden_layers, sliding, full, |block| !(block + 1).is_multiple_of(pattern))
}

/// Older files say "gelu" in `hidden_act` and mean the approximation.
fn activation(fields: &Fields<'_>) -> Result<Activation, ArchitectureError> {
    const APPROXIMATION: &str = "gelu_pytorch_tanh";
    if fields.has("hidden_activation") {
        return fields.activation_or("hidden_activation", APPROXIMATION);
    }
    match fields.activation_or("hidden_act", APPROXIMATION)? {
        Activation::Gelu => Ok(Activation::GeluTanh),
        other => Ok(other),
    }
}

fn scaled(sizes: &Decoder, model_type: &'static str, eps: f64) -> Architecture {
    let mut found = sizes.architecture(model_type);
    found.embedding.scale = Some(f64::from(sizes.hidden_size).sqrt());
    found.final_norm = Some(Norm::rms("norm", sizes.hidden_size, eps).plus_one());
    found
}

fn sandwiches(
    found: &mut Architecture,
    fields: &Fields<'_>,
    sizes: &Decoder,
    eps: f64,
    adapt: impl Fn(u32, Attention) -> Attention,
) -> Result<(), ArchitectureError> {
    let activation = fields.activation_or("hidden_activation", "gelu_pytorch_tanh")?;
    let bias = fields.flag_or("attention_bias", false)?;
    let scale = 1.0 / fields.positive_or("query_pre_attn_scalar", 256.0)?.sqrt();
    for block in 0..sizes.num_hidden_layers {
        let norm = |part: &str| sizes.rms(block, part, eps).plus_one();
        let attention = Attention { scale, ..adapt(block, sizes.attention(block, bias, bias)) };
        found.push(Block::new(
            Sublayer::sandwich(norm("input_layernorm"), attention, norm("post_attention_layernorm")),
            Sublayer::sandwich(
                norm("pre_feedforward_layernorm"),
                sizes.gated(block, activation, false),
                norm("post_feedforward_layernorm"),
            ),
        ));
    }
    Ok(())
}
