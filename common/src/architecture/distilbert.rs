//! DistilBERT. Sanh et al. 2019: BERT's blocks under other names, without types and pooler.

use super::encoder::Encoder;
use super::fields::Fields;
use super::parts::{Block, Embedding, Parameter, PositionRule, Positions, Sublayer};
use super::{Architecture, ArchitectureError, BLOCKS_MAX, INNER_MAX, MAX_POSITIONS, ROWS_MAX, WIDTH_MAX};

const ANCHOR: &[&str] = &["embeddings.word_embeddings.weight"];
/// Fixed in the class.
const EPS: f64 = 1e-12;

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let name = |names: &[&'static str]| fields.spelling(names);
    let sizes = Encoder {
        vocab_size: fields.count_or("vocab_size", ROWS_MAX, 30522)?,
        hidden_size: fields.count_or(name(&["dim", "hidden_size"]), WIDTH_MAX, 768)?,
        num_hidden_layers: fields.count_or(name(&["n_layers", "num_hidden_layers"]), BLOCKS_MAX, 6)?,
        num_attention_heads: fields.count_or(name(&["n_heads", "num_attention_heads"]), WIDTH_MAX, 12)?,
        intermediate_size: fields.count_or("hidden_dim", INNER_MAX, 3072)?,
        hidden_act: fields.activation_or("activation", "gelu")?,
        max_position_embeddings: fields.count_or("max_position_embeddings", MAX_POSITIONS, 512)?,
        layer_norm_eps: EPS,
    };
    fields.divides("n_heads", sizes.num_attention_heads, "dim", sizes.hidden_size)?;
    let width = sizes.hidden_size;
    let table =
        Parameter::new("embeddings.position_embeddings.weight", &[sizes.max_position_embeddings, width]);
    let embedding = Embedding {
        // Sinusoidal positions are stored as a table, too.
        positions: Some(Positions { table, rule: PositionRule::Place { offset: 0 } }),
        norm: Some(sizes.norm("embeddings.LayerNorm")),
        ..Embedding::of_tokens(ANCHOR[0], sizes.vocab_size, width)
    };
    let mut found = Architecture::new(model_type, width, ANCHOR, embedding);
    found.naming.ignored = &[".position_ids"];
    found.position_limit = Some(sizes.max_position_embeddings);
    for block in 0..sizes.num_hidden_layers {
        let name = |part: &str| format!("transformer.layer.{block}.{part}");
        let maps = ["attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"];
        found.push(Block::new(
            Sublayer::post(sizes.attention(maps.map(name)), sizes.norm(name("sa_layer_norm"))),
            Sublayer::post(
                sizes.feed_forward(name("ffn.lin1"), name("ffn.lin2")),
                sizes.norm(name("output_layer_norm")),
            ),
        ));
    }
    Ok(found)
}
