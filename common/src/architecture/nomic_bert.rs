//! Nomic BERT. Nussbaum et al. 2024: BERT with rotary positions and a gated feed-forward block.

use serde_json::Value;

use super::encoder::Encoder;
use super::fields::Fields;
use super::parts::{
    Activation, Attention, Block, ConstantRow, Embedding, FeedForward, FusedOrder, Linear, Parameter, Pooler,
    Projections, Sublayer,
};
use super::rotary::RotaryDefaults;
use super::{Architecture, ArchitectureError, ROWS_MAX, rotary};

const ANCHOR: &[&str] = &["embeddings.word_embeddings.weight"];

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    fields.only("prenorm", &Value::from(false))?;
    let defaults = Encoder {
        vocab_size: 30528,
        hidden_act: Activation::Silu,
        max_position_embeddings: 2048,
        ..Encoder::BASE
    };
    let sizes = Encoder::read(fields, &defaults)?;
    let width = sizes.hidden_size;
    let types = fields.count_or("type_vocab_size", ROWS_MAX, 2)?;
    let table = Parameter::new("embeddings.token_type_embeddings.weight", &[types, width]);
    let embedding = Embedding {
        constants: vec![ConstantRow { table, row: 0 }],
        norm: Some(sizes.norm("emb_ln")),
        ..Embedding::of_tokens(ANCHOR[0], sizes.vocab_size, width)
    };
    let mut found = Architecture::new(model_type, width, ANCHOR, embedding);
    found.naming.ignored = &[".inv_freq"];
    found.position_limit = Some(sizes.max_position_embeddings);
    let defaults = RotaryDefaults::new(sizes.head_dim(), sizes.max_position_embeddings);
    let rotary = Some(found.rotary(&rotary::read(fields, &RotaryDefaults { theta: 1000.0, ..defaults })?));
    for block in 0..sizes.num_hidden_layers {
        let name = |part: &str| format!("encoder.layers.{block}.{part}");
        let linear = Linear::new(name("attn.Wqkv"), width, 3 * width, false);
        let out = Linear::new(name("attn.out_proj"), width, width, false);
        let projections = Projections::Fused { linear, order: FusedOrder::Concatenated };
        let attention = Attention {
            rotary,
            ..Attention::new(sizes.num_attention_heads, sizes.head_dim(), projections, out)
        };
        let inner = sizes.intermediate_size;
        let feed_forward = FeedForward::gated(
            Linear::new(name("mlp.fc12"), width, inner, false),
            Linear::new(name("mlp.fc11"), width, inner, false),
            Linear::new(name("mlp.fc2"), inner, width, false),
            sizes.hidden_act,
        );
        found.push(Block::new(
            Sublayer::post(attention, sizes.norm(name("norm1"))),
            Sublayer::post(feed_forward, sizes.norm(name("norm2"))),
        ));
    }
    let dense = Linear::new("pooler.dense", width, width, true);
    found.pooler = Some(Pooler { dense, activation: Activation::Tanh });
    Ok(found)
}
