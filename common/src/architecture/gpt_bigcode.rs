//! GPT-BigCode. Ben Allal et al. 2023: GPT-2 with one head of keys and values.

use serde_json::Value;

use super::fields::Fields;
use super::gpt2::Gpt2;
use super::parts::{Attention, FusedOrder, Linear, Mask, Projections};
use super::{Architecture, ArchitectureError};

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    fields.only("add_cross_attention", &Value::from(false))?;
    let sizes = Gpt2::read(fields, "gelu_pytorch_tanh")?;
    let scaled = fields.flag_or("scale_attn_weights", true)?;
    let multi_query = fields.flag_or("multi_query", true)?;
    let mut found = sizes.architecture(model_type);
    let width = sizes.n_embd;
    let head_dim = width / sizes.n_head;
    for block in 0..sizes.n_layer {
        let name = |part: &str| format!("h.{block}.{part}");
        // With one head of keys its rows come last; otherwise each head's query, key and value stand together.
        let (kv_heads, order) =
            if multi_query { (1, FusedOrder::Concatenated) } else { (sizes.n_head, FusedOrder::PerKeyHead) };
        let linear = Linear::new(name("attn.c_attn"), width, width + 2 * kv_heads * head_dim, true);
        let out = Linear::new(name("attn.c_proj"), width, width, true);
        let projections = Projections::Fused { linear, order };
        let mut attention = Attention {
            n_kv_heads: kv_heads,
            mask: Mask::CAUSAL,
            ..Attention::new(sizes.n_head, head_dim, projections, out)
        };
        if !scaled {
            attention.scale = 1.0;
        }
        found.push(sizes.block(block, attention, |linear| linear));
    }
    Ok(found)
}
