//! ALBERT. Lan et al. 2020: groups of blocks share weights, the embedding has a width of its own.

use serde_json::Value;

use super::encoder::Encoder;
use super::fields::Fields;
use super::parts::{Activation, Block, Linear, Pooler, PositionRule, ProjectionPlace, Sublayer};
use super::{Architecture, ArchitectureError, BLOCKS_MAX, WIDTH_MAX, bert};

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    fields.only("position_embedding_type", &Value::from("absolute"))?;
    let defaults = Encoder {
        vocab_size: 30000,
        hidden_size: 4096,
        num_attention_heads: 64,
        intermediate_size: 16384,
        hidden_act: Activation::GeluTanh,
        ..Encoder::BASE
    };
    let sizes = Encoder::read(fields, &defaults)?;
    let width = fields.count_or("embedding_size", WIDTH_MAX, 128)?;
    let n_groups = fields.count_or("num_hidden_groups", BLOCKS_MAX, 1)?;
    let inner = fields.count_or("inner_group_num", 16, 1)?;
    if n_groups > sizes.num_hidden_layers {
        let most = format!("a whole number from 1 to \"num_hidden_layers\" {}", sizes.num_hidden_layers);
        return Err(fields.refused("num_hidden_groups", most));
    }
    let mut embedding = bert::embedding(fields, &sizes, width, PositionRule::Place { offset: 0 })?;
    let projection = Linear::new("encoder.embedding_hidden_mapping_in", width, sizes.hidden_size, true);
    embedding.projection = Some((projection, ProjectionPlace::AfterNorm));
    let none = Encoder { num_hidden_layers: 0, ..sizes };
    let mut found = bert::assembled(model_type, &none, embedding);
    for group in 0..n_groups {
        for layer in 0..inner {
            let prefix = format!("encoder.albert_layer_groups.{group}.albert_layers.{layer}");
            let name = |part: &str| format!("{prefix}.{part}");
            let maps = ["attention.query", "attention.key", "attention.value", "attention.dense"];
            found.blocks.push(Block::new(
                Sublayer::post(none.attention(maps.map(name)), none.norm(name("attention.LayerNorm"))),
                Sublayer::post(
                    none.feed_forward(name("ffn"), name("ffn_output")),
                    none.norm(name("full_layer_layer_norm")),
                ),
            ));
        }
    }
    // In floating point, as the Python library has it.
    let layers_per_group = f64::from(sizes.num_hidden_layers) / f64::from(n_groups);
    for layer in 0..sizes.num_hidden_layers {
        let group = ((f64::from(layer) / layers_per_group) as u32).min(n_groups - 1) as usize;
        found.order.extend((0..inner as usize).map(|place| group * inner as usize + place));
    }
    let dense = Linear::new("pooler", sizes.hidden_size, sizes.hidden_size, true);
    found.pooler = Some(Pooler { dense, activation: Activation::Tanh });
    Ok(found)
}
