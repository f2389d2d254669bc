//! Granite. IBM 2024: Llama with multipliers for embedding, attention and residuals.

use super::decoder::Decoder;
use super::fields::Fields;
use super::parts::Attention;
use super::{Architecture, ArchitectureError, llama};

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let sizes = Decoder::read(fields, &llama::DEFAULTS)?;
    let bias = fields.flag_or("attention_bias", false)?;
    let scale = fields.number_or("attention_multiplier", 1.0)?;
    let adapt = |_, attention| Attention { scale, ..attention };
    let mut found = llama::blocks(model_type, fields, &sizes, 1e-6, adapt, [bias, bias])?;
    found.embedding.scale = Some(fields.number_or("embedding_multiplier", 1.0)?);
    let residual_scale = fields.number_or("residual_multiplier", 1.0)?;
    for block in &mut found.blocks {
        block.residual_scale = residual_scale;
    }
    Ok(found)
}
