//! RoFormer. Su et al. 2021: BERT with rotary positions of neighbouring numbers.

use serde_json::Value;

use super::encoder::Encoder;
use super::fields::Fields;
use super::parts::{Linear, Pairing, PositionRule, ProjectionPlace};
use super::{Architecture, ArchitectureError, WIDTH_MAX, bert, rotary};

/// Fixed in the class.
const THETA: f64 = 10_000.0;

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    fields.only("rotary_value", &Value::from(false))?;
    fields.only("is_decoder", &Value::from(false))?;
    let defaults = Encoder { vocab_size: 50000, max_position_embeddings: 1536, ..Encoder::BASE };
    let sizes = Encoder::read(fields, &defaults)?;
    let width = fields.count_or("embedding_size", WIDTH_MAX, sizes.hidden_size)?;
    let mut embedding = bert::embedding(fields, &sizes, width, PositionRule::Place { offset: 0 })?;
    embedding.positions = None;
    if width != sizes.hidden_size {
        let projection = Linear::new("embeddings_project", width, sizes.hidden_size, true);
        embedding.projection = Some((projection, ProjectionPlace::AfterNorm));
    }
    let mut found = bert::assembled(model_type, &sizes, embedding);
    // Stored, but it follows from the width.
    found.naming.ignored = &[".embed_positions.weight", ".position_ids"];
    let rotary = found.rotary(&rotary::unscaled(sizes.head_dim(), THETA, Pairing::Neighbours));
    for block in &mut found.blocks {
        block.attention.map.rotary = Some(rotary);
    }
    Ok(found)
}
