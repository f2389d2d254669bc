//! OPT. Zhang et al. 2022: learned positions with two rows in front; the 350 M model has post-norm and an embedding
//! narrower than its blocks, so its last hidden state is narrower, too.

use serde_json::Value;

use super::fields::Fields;
use super::parts::{
    Attention, Block, Embedding, FeedForward, Linear, Mask, Norm, Parameter, PositionRule, Positions,
    ProjectionPlace, Projections, Sublayer,
};
use super::{Architecture, ArchitectureError, BLOCKS_MAX, INNER_MAX, MAX_POSITIONS, ROWS_MAX, WIDTH_MAX};

const ANCHOR: &[&str] = &["embed_tokens.weight"];
/// Rows of the position embedding before the first position; fixed in the class.
const OFFSET: u32 = 2;
/// Fixed in the class.
const EPS: f64 = 1e-5;

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    fields.only("layer_norm_elementwise_affine", &Value::from(true))?;
    let width = fields.count_or("hidden_size", WIDTH_MAX, 768)?;
    let n_blocks = fields.count_or("num_hidden_layers", BLOCKS_MAX, 12)?;
    let n_heads = fields.count_or("num_attention_heads", WIDTH_MAX, 12)?;
    fields.divides("num_attention_heads", n_heads, "hidden_size", width)?;
    let inner = fields.count_or("ffn_dim", INNER_MAX, 3072)?;
    let n_positions = fields.count_or("max_position_embeddings", MAX_POSITIONS, 2048)?;
    let embedded = fields.count_or("word_embed_proj_dim", WIDTH_MAX, width)?;
    let norm_before = fields.flag_or("do_layer_norm_before", true)?;
    let without_final_norm = fields.flag_or("_remove_final_layer_norm", false)?;
    let activation = fields.activation_or("activation_function", "relu")?;
    let bias = fields.flag_or("enable_bias", true)?;
    let mut embedding = Embedding {
        positions: Some(Positions {
            table: Parameter::new("embed_positions.weight", &[n_positions + OFFSET, width]),
            rule: PositionRule::Place { offset: OFFSET },
        }),
        ..Embedding::of_tokens(ANCHOR[0], fields.count_or("vocab_size", ROWS_MAX, 50272)?, embedded)
    };
    if embedded != width {
        let projection = Linear::new("project_in", embedded, width, false);
        embedding.projection = Some((projection, ProjectionPlace::Tokens));
    }
    let mut found = Architecture::new(model_type, width, ANCHOR, embedding);
    found.position_limit = Some(n_positions);
    let norm = |name: String| Norm::layer(name, width, EPS);
    for block in 0..n_blocks {
        let name = |part: &str| format!("layers.{block}.{part}");
        let linear = |part: &str| Linear::new(name(part), width, width, bias);
        let projections = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].map(linear);
        let out = linear("self_attn.out_proj");
        let attention = Attention {
            mask: Mask::CAUSAL,
            ..Attention::new(n_heads, width / n_heads, Projections::Separate(projections), out)
        };
        let up = Linear::new(name("fc1"), width, inner, bias);
        let down = Linear::new(name("fc2"), inner, width, bias);
        let feed_forward = FeedForward::plain(up, down, activation);
        let norms = (norm(name("self_attn_layer_norm")), norm(name("final_layer_norm")));
        found.push(if norm_before {
            Block::new(Sublayer::pre(norms.0, attention), Sublayer::pre(norms.1, feed_forward))
        } else {
            Block::new(Sublayer::post(attention, norms.0), Sublayer::post(feed_forward, norms.1))
        });
    }
    if norm_before && !without_final_norm {
        found.final_norm = Some(norm("final_layer_norm".to_owned()));
    }
    if embedded != width {
        found.projection_out = Some(Linear::new("project_out", width, embedded, false));
    }
    Ok(found)
}
