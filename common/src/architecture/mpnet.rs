//! MPNet. Song et al. 2020: learned positions and, shared by all blocks, a bias by distance.

use super::encoder::Encoder;
use super::fields::Fields;
use super::parts::{
    Activation, Attention, Block, Embedding, Linear, Parameter, Pooler, PositionRule, Positions,
    RelativeBias, Scores, Sublayer,
};
use super::{Architecture, ArchitectureError};

const ANCHOR: &[&str] = &["embeddings.word_embeddings.weight"];
/// Fixed in the class, whatever the id of the padding token.
const PADDING_IDX: u32 = 1;
/// The largest distance with a bucket of its own; fixed in the class.
const MAX_DISTANCE: u32 = 128;

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let sizes = Encoder::read(fields, &Encoder { vocab_size: 30527, ..Encoder::BASE })?;
    let width = sizes.hidden_size;
    let rows = sizes.max_position_embeddings;
    let limit = rows.checked_sub(PADDING_IDX + 1).filter(|limit| *limit > 0);
    let limit = limit.ok_or_else(|| fields.refused("max_position_embeddings", "3 or more"))?;
    let embedding = Embedding {
        positions: Some(Positions {
            table: Parameter::new("embeddings.position_embeddings.weight", &[rows, width]),
            rule: PositionRule::CountUnlessPadding { padding_idx: PADDING_IDX },
        }),
        norm: Some(sizes.norm("embeddings.LayerNorm")),
        ..Embedding::of_tokens(ANCHOR[0], sizes.vocab_size, width)
    };
    let mut found = Architecture::new(model_type, width, ANCHOR, embedding);
    found.naming.ignored = &[".position_ids"];
    found.position_limit = Some(limit);
    let n_buckets = fields.count_or("relative_attention_num_buckets", 1 << 16, 32)?;
    if n_buckets < 4 || !n_buckets.is_multiple_of(2) {
        return Err(fields.refused("relative_attention_num_buckets", "an even number from 4"));
    }
    let table =
        Parameter::new("encoder.relative_attention_bias.weight", &[n_buckets, sizes.num_attention_heads]);
    found.relative_biases.push(RelativeBias { table, n_buckets, max_distance: MAX_DISTANCE });
    for block in 0..sizes.num_hidden_layers {
        let name = |part: &str| format!("encoder.layer.{block}.{part}");
        let maps = ["attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o"];
        let attention = Attention { scores: Scores::RelativeBias(0), ..sizes.attention(maps.map(name)) };
        found.push(Block::new(
            Sublayer::post(attention, sizes.norm(name("attention.LayerNorm"))),
            Sublayer::post(
                sizes.feed_forward(name("intermediate.dense"), name("output.dense")),
                sizes.norm(name("output.LayerNorm")),
            ),
        ));
    }
    let dense = Linear::new("pooler.dense", width, width, true);
    found.pooler = Some(Pooler { dense, activation: Activation::Tanh });
    Ok(found)
}
