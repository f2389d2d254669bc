//! GPT-J. Wang and Komatsuzaki 2021: two halves on one norm, rotary positions of neighbouring numbers.

use super::fields::Fields;
use super::parts::{
    Attention, Block, Embedding, FeedForward, Linear, Mask, Norm, Pairing, Projections, Sublayer,
};
use super::{
    Architecture, ArchitectureError, BLOCKS_MAX, INNER_MAX, MAX_POSITIONS, ROWS_MAX, WIDTH_MAX, rotary,
};

const ANCHOR: &[&str] = &["wte.weight"];
/// Fixed in the class.
const THETA: f64 = 10_000.0;

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let name = |names: &[&'static str]| fields.spelling(names);
    let width = fields.count_or(name(&["n_embd", "hidden_size"]), WIDTH_MAX, 4096)?;
    let n_heads = fields.count_or(name(&["n_head", "num_attention_heads"]), WIDTH_MAX, 16)?;
    fields.divides("n_head", n_heads, "n_embd", width)?;
    let head_dim = width / n_heads;
    let n_blocks = fields.count_or(name(&["n_layer", "num_hidden_layers"]), BLOCKS_MAX, 28)?;
    let n_positions =
        fields.count_or(name(&["n_positions", "max_position_embeddings"]), MAX_POSITIONS, 2048)?;
    let inner = fields.count_or("n_inner", INNER_MAX, 4 * width)?;
    // Null means the whole head.
    let default = if fields.says_null("rotary_dim") { head_dim } else { 64 };
    let rotary_dim = fields.count_or("rotary_dim", WIDTH_MAX, default)?;
    if rotary_dim > head_dim || !rotary_dim.is_multiple_of(2) {
        return Err(fields.refused("rotary_dim", format!("an even number up to {head_dim}, a head's width")));
    }
    let eps = fields.epsilon_or("layer_norm_epsilon", 1e-5)?;
    let activation = fields.activation_or("activation_function", "gelu_new")?;
    let vocab_size = fields.count_or("vocab_size", ROWS_MAX, 50400)?;
    let embedding = Embedding::of_tokens(ANCHOR[0], vocab_size, width);
    let mut found = Architecture::new(model_type, width, ANCHOR, embedding);
    found.naming.ignored = &[".attn.bias", ".attn.masked_bias", ".embed_positions"];
    found.position_limit = Some(n_positions);
    found.final_norm = Some(Norm::layer("ln_f", width, eps));
    let rotary = Some(found.rotary(&rotary::unscaled(rotary_dim, THETA, Pairing::Neighbours)));
    for block in 0..n_blocks {
        let name = |part: &str| format!("h.{block}.{part}");
        let linear = |part: &str| Linear::new(name(part), width, width, false);
        let projections = Projections::Separate(["attn.q_proj", "attn.k_proj", "attn.v_proj"].map(linear));
        let attention = Attention {
            rotary,
            mask: Mask::CAUSAL,
            ..Attention::new(n_heads, head_dim, projections, linear("attn.out_proj"))
        };
        let up = Linear::new(name("mlp.fc_in"), width, inner, true);
        let down = Linear::new(name("mlp.fc_out"), inner, width, true);
        found.push(Block::parallel(
            Sublayer::pre(Norm::layer(name("ln_1"), width, eps), attention),
            Sublayer::bare(FeedForward::plain(up, down, activation)),
        ));
    }
    Ok(found)
}
