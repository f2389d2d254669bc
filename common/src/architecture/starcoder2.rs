//! StarCoder2. Lozhkov et al. 2024: layer norms, biases throughout, two maps in the feed-forward block.

use super::decoder::{Decoder, Defaults};
use super::fields::Fields;
use super::parts::{Attention, Block, Mask, Norm, Sublayer};
use super::{Architecture, ArchitectureError, MAX_POSITIONS, llama, rotary};

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let defaults = Defaults {
        vocab_size: 49152,
        hidden_size: 3072,
        intermediate_size: 12288,
        num_hidden_layers: 30,
        num_attention_heads: 24,
        num_key_value_heads: Some(2),
        max_position_embeddings: 4096,
        ..llama::DEFAULTS
    };
    let sizes = Decoder::read(fields, &defaults)?;
    let eps = fields.epsilon_or("norm_epsilon", 1e-5)?;
    let activation = fields.activation_or("hidden_act", "gelu_pytorch_tanh")?;
    let bias = fields.flag_or("use_bias", true)?;
    let window = fields.count_if_any("sliding_window", MAX_POSITIONS)?;
    let mut found = sizes.architecture(model_type);
    let rotary = Some(found.rotary(&rotary::read(fields, &sizes.rotary())?));
    for block in 0..sizes.num_hidden_layers {
        let mask = window.map_or(Mask::CAUSAL, Mask::sliding);
        let attention = Attention { rotary, mask, ..sizes.attention(block, bias, bias) };
        found.push(Block::new(
            Sublayer::pre(sizes.layer_norm(block, "input_layernorm", eps), attention),
            Sublayer::pre(
                sizes.layer_norm(block, "post_attention_layernorm", eps),
                sizes.plain(block, ["c_fc", "c_proj"], activation, bias),
            ),
        ));
    }
    found.final_norm = Some(Norm::layer("norm", sizes.hidden_size, eps));
    Ok(found)
}
