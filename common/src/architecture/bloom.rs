//! BLOOM. Scao et al. 2022: linear biases by distance, a norm after the embedding.

use serde_json::Value;

use super::fields::Fields;
use super::parts::{
    Activation, Alibi, Attention, Block, Embedding, FeedForward, FusedOrder, Linear, Mask, Norm, Projections,
    Scores, Sublayer,
};
use super::{Architecture, ArchitectureError, BLOCKS_MAX, ROWS_MAX, WIDTH_MAX};

const ANCHOR: &[&str] = &["word_embeddings.weight"];

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    fields.only("apply_residual_connection_post_layernorm", &Value::from(false))?;
    let name = |names: &[&'static str]| fields.spelling(names);
    let width = fields.count_or(name(&["hidden_size", "n_embed"]), WIDTH_MAX, 64)?;
    let n_blocks = fields.count_or(name(&["n_layer", "num_hidden_layers"]), BLOCKS_MAX, 2)?;
    let n_heads = fields.count_or(name(&["n_head", "num_attention_heads"]), 1 << 12, 8)?;
    fields.divides("n_head", n_heads, "hidden_size", width)?;
    let eps = fields.epsilon_or("layer_norm_epsilon", 1e-5)?;
    let vocab_size = fields.count_or("vocab_size", ROWS_MAX, 250_880)?;
    let embedding = Embedding {
        norm: Some(Norm::layer("word_embeddings_layernorm", width, eps)),
        ..Embedding::of_tokens(ANCHOR[0], vocab_size, width)
    };
    let mut found = Architecture::new(model_type, width, ANCHOR, embedding);
    found.naming.ignored = &[".attn.bias", ".masked_bias"];
    found.final_norm = Some(Norm::layer("ln_f", width, eps));
    let alibi = Alibi { slopes: slopes(n_heads), rounded: false, factor: 1.0 };
    for block in 0..n_blocks {
        let name = |part: &str| format!("h.{block}.{part}");
        let linear = Linear::new(name("self_attention.query_key_value"), width, 3 * width, true);
        let projections = Projections::Fused { linear, order: FusedOrder::PerKeyHead };
        let out = Linear::new(name("self_attention.dense"), width, width, true);
        let attention = Attention {
            scores: Scores::Alibi(alibi.clone()),
            mask: Mask::CAUSAL,
            ..Attention::new(n_heads, width / n_heads, projections, out)
        };
        let up = Linear::new(name("mlp.dense_h_to_4h"), width, 4 * width, true);
        let down = Linear::new(name("mlp.dense_4h_to_h"), 4 * width, width, true);
        let feed_forward = FeedForward::plain(up, down, Activation::GeluTanh);
        found.push(Block::new(
            Sublayer::pre(Norm::layer(name("input_layernorm"), width, eps), attention),
            Sublayer::pre(Norm::layer(name("post_attention_layernorm"), width, eps), feed_forward),
        ));
    }
    Ok(found)
}

/// Slopes for any number of heads: a geometric series for the next lower power of two, the rest between them.
pub(super) fn slopes(n_heads: u32) -> Vec<f32> {
    let power = 1u32 << n_heads.ilog2();
    let series = |base: f64, exponents: &mut dyn Iterator<Item = u32>| -> Vec<f32> {
        // Base and powers are float32 in the Python library.
        let base = f64::from(base as f32);
        exponents.map(|exponent| base.powi(exponent as i32) as f32).collect()
    };
    let base = |heads: u32| 2f64.powf(-(2f64.powf(-(f64::from(heads).log2() - 3.0))));
    let mut slopes = series(base(power), &mut (1..=power));
    let rest = (n_heads - power).min(power);
    slopes.extend(series(base(2 * power), &mut (0..rest).map(|place| 2 * place + 1)));
    slopes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_of_eight_heads_are_halves() {
        assert_eq!(slopes(8), [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625]);
    }

    #[test]
    fn heads_beyond_a_power_of_two_come_between() {
        assert_eq!(slopes(3), [0.0625, 0.00390625, 0.25]);
    }
}
