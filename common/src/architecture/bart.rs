//! The encoder of BART. Lewis et al. 2020.

use super::encoder::Encoder;
use super::fields::Fields;
use super::parts::{Block, Embedding, Parameter, PositionRule, Positions, Sublayer};
use super::{Architecture, ArchitectureError, BLOCKS_MAX, INNER_MAX, MAX_POSITIONS, ROWS_MAX, WIDTH_MAX};

const ANCHORS: &[&str] = &["shared.weight", "encoder.embed_tokens.weight"];
/// Rows of the position embedding before the first position; fixed in the class.
const OFFSET: u32 = 2;
/// Fixed in the class.
const EPS: f64 = 1e-5;

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let hidden_act = fields.activation_or("activation_function", "gelu")?;
    let sizes = Encoder {
        vocab_size: fields.count_or("vocab_size", ROWS_MAX, 50265)?,
        hidden_size: fields.count_or("d_model", WIDTH_MAX, 1024)?,
        num_hidden_layers: fields.count_or("encoder_layers", BLOCKS_MAX, 12)?,
        num_attention_heads: fields.count_or("encoder_attention_heads", WIDTH_MAX, 16)?,
        intermediate_size: fields.count_or("encoder_ffn_dim", INNER_MAX, 4096)?,
        hidden_act,
        max_position_embeddings: fields.count_or("max_position_embeddings", MAX_POSITIONS, 1024)?,
        layer_norm_eps: EPS,
    };
    fields.divides("encoder_attention_heads", sizes.num_attention_heads, "d_model", sizes.hidden_size)?;
    let width = sizes.hidden_size;
    let rows = sizes.max_position_embeddings + OFFSET;
    let scaled = fields.flag_or("scale_embedding", false)?;
    let embedding = Embedding {
        scale: scaled.then(|| f64::from(width).sqrt()),
        positions: Some(Positions {
            table: Parameter::new("encoder.embed_positions.weight", &[rows, width]),
            rule: PositionRule::Place { offset: OFFSET },
        }),
        norm: Some(sizes.norm("encoder.layernorm_embedding")),
        ..Embedding::of_tokens(ANCHORS[0], sizes.vocab_size, width)
    };
    let mut found = Architecture::new(model_type, width, ANCHORS, embedding);
    found.position_limit = Some(sizes.max_position_embeddings);
    for block in 0..sizes.num_hidden_layers {
        let name = |part: &str| format!("encoder.layers.{block}.{part}");
        let maps = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"];
        found.push(Block::new(
            Sublayer::post(sizes.attention(maps.map(name)), sizes.norm(name("self_attn_layer_norm"))),
            Sublayer::post(
                sizes.feed_forward(name("fc1"), name("fc2")),
                sizes.norm(name("final_layer_norm")),
            ),
        ));
    }
    Ok(found)
}
