//! ModernBERT. Warner et al. 2024: pre-norm, rotary positions of two bases, every third block sees everything.

use super::decoder::masks;
use super::encoder::Encoder;
use super::fields::Fields;
use super::parts::{
    Attention, Block, DenseFeedForward, Embedding, FeedForward, FusedOrder, Inner, Linear, Mask, Norm,
    Projections, Sublayer,
};
use super::rotary::RotaryDefaults;
use super::{Architecture, ArchitectureError, MAX_POSITIONS, rotary};

const ANCHOR: &[&str] = &["embeddings.tok_embeddings.weight"];

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let defaults = Encoder {
        vocab_size: 50368,
        num_hidden_layers: 22,
        intermediate_size: 1152,
        max_position_embeddings: 8192,
        ..Encoder::BASE
    };
    let sizes = Encoder::read(fields, &defaults)?;
    let (width, inner) = (sizes.hidden_size, sizes.intermediate_size);
    let eps = fields.epsilon_or("norm_eps", 1e-5)?;
    let norm_bias = fields.flag_or("norm_bias", false)?;
    let bias = fields.flag_or("attention_bias", false)?;
    let mlp_bias = fields.flag_or("mlp_bias", false)?;
    let activation = fields.activation_or("hidden_activation", "gelu")?;
    let norm = |name: String| Norm::layer(name, width, eps).with_bias(norm_bias);
    let embedding = Embedding {
        norm: Some(norm("embeddings.norm".to_owned())),
        ..Embedding::of_tokens(ANCHOR[0], sizes.vocab_size, width)
    };
    let mut found = Architecture::new(model_type, width, ANCHOR, embedding);
    found.naming.ignored = &[".rotary_emb.inv_freq"];
    found.position_limit = Some(sizes.max_position_embeddings);
    found.final_norm = Some(norm("final_norm".to_owned()));
    let mut rotary = |layer_type: &str, theta_field: &str, theta: f64| {
        // Null means the base of the other kind of block, an absent field the default of the class.
        let theta = fields.positive_or(theta_field, theta)?;
        let defaults =
            RotaryDefaults { theta, ..RotaryDefaults::new(sizes.head_dim(), sizes.max_position_embeddings) };
        let found_rotary = match rotary::of_layer_type(fields, layer_type, &defaults)? {
            Some(rotary) => rotary,
            None => rotary::read(fields, &defaults)?,
        };
        Ok::<usize, ArchitectureError>(found.rotary(&found_rotary))
    };
    let full = rotary("full_attention", "global_rope_theta", 160_000.0)?;
    let local_default = if fields.says_null("local_rope_theta") {
        fields.positive_or("global_rope_theta", 160_000.0)?
    } else {
        10_000.0
    };
    let local = rotary("sliding_attention", "local_rope_theta", local_default)?;
    let every = fields.count_or("global_attn_every_n_layers", 1 << 16, 3)?;
    let window = fields.count_or("local_attention", MAX_POSITIONS, 128)?;
    let masks = masks(fields, sizes.num_hidden_layers, Mask::around(window / 2), Mask::FULL, |block| {
        !block.is_multiple_of(every)
    })?;
    for (block, (is_local, mask)) in masks.into_iter().enumerate() {
        let name = |part: &str| format!("layers.{block}.{part}");
        let linear = Linear::new(name("attn.Wqkv"), width, 3 * width, bias);
        let out = Linear::new(name("attn.Wo"), width, width, bias);
        let projections = Projections::Fused { linear, order: FusedOrder::Concatenated };
        let attention = Attention {
            rotary: Some(if is_local { local } else { full }),
            mask,
            ..Attention::new(sizes.num_attention_heads, sizes.head_dim(), projections, out)
        };
        let linear = Linear::new(name("mlp.Wi"), width, 2 * inner, mlp_bias);
        let feed_forward = FeedForward::Dense(DenseFeedForward {
            inner: Inner::GatedFused { linear, gate_first: true },
            down: Linear::new(name("mlp.Wo"), inner, width, mlp_bias),
            activation,
        });
        // The norm of the embedding serves as that of the first attention.
        let attention = if block == 0 {
            Sublayer::bare(attention)
        } else {
            Sublayer::pre(norm(name("attn_norm")), attention)
        };
        found.push(Block::new(attention, Sublayer::pre(norm(name("mlp_norm")), feed_forward)));
    }
    Ok(found)
}
