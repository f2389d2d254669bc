//! MPT. MosaicML 2023: linear biases by distance, no biases in maps or norms.

use serde_json::Value;

use super::fields::Fields;
use super::parts::{
    Activation, Alibi, Attention, Block, Embedding, FeedForward, FusedOrder, Linear, Mask, Norm, Projections,
    Scores, Sublayer,
};
use super::{Architecture, ArchitectureError, BLOCKS_MAX, ROWS_MAX, WIDTH_MAX};

const ANCHOR: &[&str] = &["wte.weight"];

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    fields.only("expansion_ratio", &Value::from(4))?;
    fields.only("no_bias", &Value::from(true))?;
    let width = fields.count_or("d_model", WIDTH_MAX, 2048)?;
    let n_heads = fields.count_or("n_heads", 1 << 12, 16)?;
    fields.divides("n_heads", n_heads, "d_model", width)?;
    let n_blocks = fields.count_or("n_layers", BLOCKS_MAX, 24)?;
    let eps = fields.epsilon_or("layer_norm_epsilon", 1e-5)?;
    let head_dim = width / n_heads;
    let (mut scale, mut clip, mut bias_max) = (1.0 / f64::from(head_dim).sqrt(), None, 8.0);
    if let Some(attention) = fields.object("attn_config")? {
        for (field, supported) in [
            ("attn_type", Value::from("multihead_attention")),
            ("alibi", Value::from(true)),
            ("qk_ln", Value::from(false)),
            ("prefix_lm", Value::from(false)),
            ("attn_uses_sequence_id", Value::from(false)),
        ] {
            attention.only(field, &supported)?;
        }
        scale = attention.number_or("softmax_scale", scale)?;
        // Zero stands for none.
        clip = attention.number_if_any("clip_qkv")?.filter(|clip| *clip != 0.0);
        bias_max = attention.positive_or("alibi_bias_max", bias_max)?;
    }
    let vocab_size = fields.count_or("vocab_size", ROWS_MAX, 50368)?;
    let mut found =
        Architecture::new(model_type, width, ANCHOR, Embedding::of_tokens(ANCHOR[0], vocab_size, width));
    let norm = |name: String| Norm::layer(name, width, eps).without_bias();
    found.final_norm = Some(norm("norm_f".to_owned()));
    let scores = Scores::Alibi(Alibi { slopes: slopes(n_heads, bias_max), rounded: false, factor: 1.0 });
    for block in 0..n_blocks {
        let name = |part: &str| format!("blocks.{block}.{part}");
        let linear = Linear::new(name("attn.Wqkv"), width, 3 * width, false);
        let out = Linear::new(name("attn.out_proj"), width, width, false);
        let projections = Projections::Fused { linear, order: FusedOrder::Concatenated };
        let attention = Attention {
            scale,
            clip,
            scores: scores.clone(),
            mask: Mask::CAUSAL,
            ..Attention::new(n_heads, head_dim, projections, out)
        };
        let up = Linear::new(name("ffn.up_proj"), width, 4 * width, false);
        let down = Linear::new(name("ffn.down_proj"), 4 * width, width, false);
        found.push(Block::new(
            Sublayer::pre(norm(name("norm_1")), attention),
            Sublayer::pre(norm(name("norm_2")), FeedForward::plain(up, down, Activation::Gelu)),
        ));
    }
    Ok(found)
}

/// Slopes as MPT has them: from the next higher power of two, every other one first.
fn slopes(n_heads: u32, bias_max: f64) -> Vec<f32> {
    let power = n_heads.next_power_of_two();
    let slope = |place: u32| 1.0 / 2f32.powf(place as f32 * (bias_max / f64::from(power)) as f32);
    let all: Vec<f32> = (1..=power).map(slope).collect();
    if power == n_heads {
        return all;
    }
    let every_other = |first: usize| all[first..].iter().step_by(2).copied();
    every_other(1).chain(every_other(0)).take(n_heads as usize).collect()
}
