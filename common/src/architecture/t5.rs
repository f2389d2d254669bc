//! The encoders of T5 (Raffel et al. 2020), mT5 and UMT5: pre-norm without biases, positions as a learned bias.

use super::fields::Fields;
use super::parts::{
    Activation, Attention, Block, Embedding, FeedForward, Linear, Norm, Parameter, Projections, RelativeBias,
    Scores, Sublayer,
};
use super::{Architecture, ArchitectureError, BLOCKS_MAX, INNER_MAX, ROWS_MAX, WIDTH_MAX};

/// Encoder and decoder share the token embedding; some files store it under the encoder's name alone.
const ANCHORS: &[&str] = &["shared.weight", "encoder.embed_tokens.weight"];

/// T5 and mT5: the bias of block 0 serves all blocks.
pub(super) fn shared_bias(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    encoder(model_type, fields, 1)
}

/// UMT5: a bias for each block.
pub(super) fn bias_per_block(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let n_blocks = fields.count_or("num_layers", BLOCKS_MAX, 8)?;
    encoder(model_type, fields, n_blocks)
}

struct Defaults {
    vocab_size: u32,
    d_ff: u32,
    num_layers: u32,
    num_heads: u32,
    feed_forward_proj: &'static str,
}

fn defaults(model_type: &str) -> Defaults {
    match model_type {
        "t5" => {
            let feed_forward_proj = "relu";
            Defaults { vocab_size: 32128, d_ff: 2048, num_layers: 6, num_heads: 8, feed_forward_proj }
        }
        // mT5 and UMT5.
        _ => {
            let feed_forward_proj = "gated-gelu";
            Defaults { vocab_size: 250_112, d_ff: 1024, num_layers: 8, num_heads: 6, feed_forward_proj }
        }
    }
}

fn encoder(
    model_type: &'static str,
    fields: &Fields<'_>,
    n_biases: u32,
) -> Result<Architecture, ArchitectureError> {
    let defaults = defaults(model_type);
    let width = fields.count_or("d_model", WIDTH_MAX, 512)?;
    let head_dim = fields.count_or("d_kv", 1 << 12, 64)?;
    let inner = fields.count_or("d_ff", INNER_MAX, defaults.d_ff)?;
    let n_blocks = fields.count_or("num_layers", BLOCKS_MAX, defaults.num_layers)?;
    let n_heads = fields.count_or("num_heads", 1 << 12, defaults.num_heads)?;
    let eps = fields.epsilon_or("layer_norm_epsilon", 1e-6)?;
    let (gated, activation) = feed_forward_kind(fields, defaults.feed_forward_proj)?;
    let vocab_size = fields.count_or("vocab_size", ROWS_MAX, defaults.vocab_size)?;
    let embedding = Embedding::of_tokens(ANCHORS[0], vocab_size, width);
    let mut found = Architecture::new(model_type, width, ANCHORS, embedding);
    let n_buckets = fields.count_or("relative_attention_num_buckets", 1 << 16, 32)?;
    let max_distance = fields.count_or("relative_attention_max_distance", 1 << 24, 128)?;
    if n_buckets < 4 || !n_buckets.is_multiple_of(2) || max_distance <= n_buckets / 4 {
        let expected = "an even number from 4, less than four times \"relative_attention_max_distance\"";
        return Err(fields.refused("relative_attention_num_buckets", expected));
    }
    for block in 0..n_biases {
        let name = format!("encoder.block.{block}.layer.0.SelfAttention.relative_attention_bias.weight");
        let table = Parameter::new(name, &[n_buckets, n_heads]);
        found.relative_biases.push(RelativeBias { table, n_buckets, max_distance });
    }
    let linear = |name: String, width_in, width_out| Linear::new(name, width_in, width_out, false);
    for block in 0..n_blocks {
        let name = |part: &str| format!("encoder.block.{block}.layer.{part}");
        let projections = ["q", "k", "v"]
            .map(|part| linear(name(&format!("0.SelfAttention.{part}")), width, n_heads * head_dim));
        let out = linear(name("0.SelfAttention.o"), n_heads * head_dim, width);
        let bias = (block as usize).min(found.relative_biases.len() - 1);
        let attention = Attention {
            // The scale is in the initial weights.
            scale: 1.0,
            scores: Scores::RelativeBias(bias),
            ..Attention::new(n_heads, head_dim, Projections::Separate(projections), out)
        };
        let map = |part: &str, width_in, width_out| {
            linear(name(&format!("1.DenseReluDense.{part}")), width_in, width_out)
        };
        let feed_forward = if gated {
            let (gate, up) = (map("wi_0", width, inner), map("wi_1", width, inner));
            FeedForward::gated(gate, up, map("wo", inner, width), activation)
        } else {
            FeedForward::plain(map("wi", width, inner), map("wo", inner, width), activation)
        };
        found.push(Block::new(
            Sublayer::pre(Norm::rms(name("0.layer_norm"), width, eps), attention),
            Sublayer::pre(Norm::rms(name("1.layer_norm"), width, eps), feed_forward),
        ));
    }
    found.final_norm = Some(Norm::rms("encoder.final_layer_norm", width, eps));
    Ok(found)
}

/// `relu`, or `gated-` before the name of an activation.
fn feed_forward_kind(
    fields: &Fields<'_>,
    default: &'static str,
) -> Result<(bool, Activation), ArchitectureError> {
    const FIELD: &str = "feed_forward_proj";
    let kind = fields.text_or(FIELD, default)?;
    let (gated, name) = kind.strip_prefix("gated-").map_or((false, kind), |name| (true, name));
    // What the first version calls gated gelu is its approximation.
    let name = if gated && name == "gelu" { "gelu_new" } else { name };
    let known = Activation::NAMES.iter().find(|(known, _)| *known == name);
    let activation = known.map(|(_, activation)| *activation);
    let activation = activation
        .ok_or_else(|| fields.refused(FIELD, "relu, gated-gelu, gated-silu, or another activation"))?;
    Ok((gated, activation))
}
