//! EuroBERT. Boizard et al. 2025: Llama's blocks without a causal mask.

use super::decoder::{Decoder, Defaults};
use super::fields::Fields;
use super::parts::{Attention, Mask};
use super::{Architecture, ArchitectureError, llama};

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let defaults = Defaults {
        vocab_size: 128_256,
        hidden_size: 768,
        intermediate_size: 3072,
        num_hidden_layers: 12,
        num_attention_heads: 12,
        max_position_embeddings: 8192,
        ..llama::DEFAULTS
    };
    let sizes = Decoder::read(fields, &defaults)?;
    let bias = fields.flag_or("attention_bias", false)?;
    let adapt = |_, attention| Attention { mask: Mask::FULL, ..attention };
    llama::blocks(model_type, fields, &sizes, 1e-5, adapt, [bias, bias])
}
