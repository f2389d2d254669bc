//! Falcon. Almazrouei et al. 2023: three layouts of queries, keys and values; rotary positions or linear biases.

use serde_json::Value;

use super::fields::Fields;
use super::parts::{
    Alibi, Attention, Block, Embedding, FeedForward, FusedOrder, Linear, Mask, Norm, Projections, Scores,
    Sublayer,
};
use super::rotary::RotaryDefaults;
use super::{
    Architecture, ArchitectureError, BLOCKS_MAX, INNER_MAX, MAX_POSITIONS, ROWS_MAX, WIDTH_MAX, bloom, rotary,
};

const ANCHOR: &[&str] = &["word_embeddings.weight"];

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let name = |names: &[&'static str]| fields.spelling(names);
    let width = fields.count_or(name(&["hidden_size", "n_embed"]), WIDTH_MAX, 4544)?;
    let n_blocks = fields.count_or(name(&["num_hidden_layers", "n_layer"]), BLOCKS_MAX, 32)?;
    let heads = name(&["num_attention_heads", "n_head"]);
    let n_heads = fields.count_or(heads, 1 << 12, 71)?;
    fields.divides(heads, n_heads, "hidden_size", width)?;
    let head_dim = width / n_heads;
    let inner = fields.count_or("ffn_hidden_size", INNER_MAX, 4 * width)?;
    let eps = fields.epsilon_or("layer_norm_epsilon", 1e-5)?;
    let activation = fields.activation_or("activation", "gelu")?;
    let bias = fields.flag_or("bias", false)?;
    let newer = fields.flag_or("new_decoder_architecture", false)?;
    if newer {
        fields.only("parallel_attn", &Value::from(true))?;
    }
    let parallel = fields.flag_or("parallel_attn", true)?;
    let (n_kv_heads, order) = if newer {
        let field = name(&["num_kv_heads", "n_head_kv"]);
        let n_kv_heads = fields.count_or(field, n_heads, n_heads)?;
        fields.divides(field, n_kv_heads, heads, n_heads)?;
        (n_kv_heads, FusedOrder::PerKeyHead)
    } else if fields.flag_or("multi_query", true)? {
        (1, FusedOrder::Concatenated)
    } else {
        (n_heads, FusedOrder::PerKeyHead)
    };
    let default_norms = if newer { 2 } else { 1 };
    let two_norms = fields.count_or("num_ln_in_parallel_attn", 2, default_norms)? == 2;
    if two_norms && !newer && parallel {
        return Err(fields.refused("num_ln_in_parallel_attn", "1 without \"new_decoder_architecture\""));
    }
    let vocab_size = fields.count_or("vocab_size", ROWS_MAX, 65024)?;
    let max_positions = fields.count_or("max_position_embeddings", MAX_POSITIONS, 2048)?;
    let mut found =
        Architecture::new(model_type, width, ANCHOR, Embedding::of_tokens(ANCHOR[0], vocab_size, width));
    found.naming.ignored = &[".rotary_emb.inv_freq", ".rotary.inv_freq", ".maybe_rotary.inv_freq"];
    found.position_limit = Some(max_positions);
    found.final_norm = Some(Norm::layer("ln_f", width, eps));
    let (rotary, scores) = if fields.flag_or("alibi", false)? {
        // The Python library folds these biases into the mask: in bfloat16, and scaled like the products.
        let factor = 1.0 / f64::from(head_dim).sqrt();
        (None, Scores::Alibi(Alibi { slopes: bloom::slopes(n_heads), rounded: true, factor }))
    } else {
        let rotary = rotary::read(fields, &RotaryDefaults::new(head_dim, max_positions))?;
        (Some(found.rotary(&rotary)), Scores::Products)
    };
    for block in 0..n_blocks {
        let name = |part: &str| format!("h.{block}.{part}");
        let norm = |part: &str| Norm::layer(name(part), width, eps);
        let rows = (n_heads + 2 * n_kv_heads) * head_dim;
        let linear = Linear::new(name("self_attention.query_key_value"), width, rows, bias);
        let out = Linear::new(name("self_attention.dense"), width, width, bias);
        let attention = Attention {
            n_kv_heads,
            rotary,
            scores: scores.clone(),
            mask: Mask::CAUSAL,
            ..Attention::new(n_heads, head_dim, Projections::Fused { linear, order }, out)
        };
        let up = Linear::new(name("mlp.dense_h_to_4h"), width, inner, bias);
        let down = Linear::new(name("mlp.dense_4h_to_h"), inner, width, bias);
        let feed_forward = FeedForward::plain(up, down, activation);
        found.push(match (parallel, two_norms) {
            (false, _) => Block::new(
                Sublayer::pre(norm("input_layernorm"), attention),
                Sublayer::pre(norm("post_attention_layernorm"), feed_forward),
            ),
            (true, true) => Block::parallel(
                Sublayer::pre(norm("ln_attn"), attention),
                Sublayer::pre(norm("ln_mlp"), feed_forward),
            ),
            (true, false) => Block::parallel(
                Sublayer::pre(norm("input_layernorm"), attention),
                Sublayer::bare(feed_forward),
            ),
        });
    }
    Ok(found)
}
