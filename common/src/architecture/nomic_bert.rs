//! BERT with rotary positions: Nomic BERT (Nussbaum et al. 2024), GTE (Zhang et al. 2024), Jina Embeddings v3 (Sturua
//! et al. 2024).

use serde_json::Value;

use super::encoder::Encoder;
use super::fields::Fields;
use super::parts::{
    Activation, Attention, Block, ConstantRow, DenseFeedForward, Embedding, FeedForward, FusedOrder, Inner,
    Linear, Parameter, Pooler, Projections, Sublayer,
};
use super::rotary::RotaryDefaults;
use super::{
    Architecture, ArchitectureError, BLOCKS_MAX, INNER_MAX, MAX_POSITIONS, ROWS_MAX, WIDTH_MAX, rotary,
};

const ANCHOR: &[&str] = &["embeddings.word_embeddings.weight"];

/// A gated feed-forward block; biases in norms alone.
pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let sizes = nomic_sizes(fields)?;
    let (width, inner) = (sizes.hidden_size, sizes.intermediate_size);
    let mut found = embedded(model_type, fields, &sizes, (2, "emb_ln", 1000.0))?;
    for block in 0..sizes.num_hidden_layers {
        let name = |part: &str| format!("encoder.layers.{block}.{part}");
        let attention = attention(&sizes, [name("attn.Wqkv"), name("attn.out_proj")], [false, false]);
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
    found.pooler = Some(pooler(width));
    Ok(found)
}

/// The sizes by their names in the Python library, or by those of GPT-2, which the files on the hub have.
fn nomic_sizes(fields: &Fields<'_>) -> Result<Encoder, ArchitectureError> {
    for (field, supported) in [
        ("prenorm", Value::from(false)),
        ("qkv_proj_bias", Value::from(false)),
        ("mlp_fc1_bias", Value::from(false)),
        ("mlp_fc2_bias", Value::from(false)),
        ("rotary_emb_interleaved", Value::from(false)),
        ("use_rms_norm", Value::from(false)),
        ("activation_function", Value::from("swiglu")),
    ] {
        fields.only(field, &supported)?;
    }
    fields.absent("rotary_scaling_factor")?;
    fields.absent("rotary_emb_scale_base")?;
    if fields.number_or("rotary_emb_fraction", 1.0)? != 1.0 {
        return Err(fields.refused("rotary_emb_fraction", "1"));
    }
    let count = |names: &[&'static str], max, default| fields.count_or(fields.spelling(names), max, default);
    let heads = fields.spelling(&["num_attention_heads", "n_head"]);
    let positions = count(&["max_position_embeddings", "n_positions"], MAX_POSITIONS, 2048)?;
    // Beyond the length of training, the code beside the files on the hub changes the angles.
    let trained = fields.count_or("max_trained_positions", MAX_POSITIONS, positions)?;
    let sizes = Encoder {
        vocab_size: fields.count_or("vocab_size", ROWS_MAX, 30528)?,
        hidden_size: count(&["hidden_size", "n_embd"], WIDTH_MAX, 768)?,
        num_hidden_layers: count(&["num_hidden_layers", "n_layer"], BLOCKS_MAX, 12)?,
        num_attention_heads: fields.count_or(heads, WIDTH_MAX, 12)?,
        intermediate_size: count(&["intermediate_size", "n_inner"], INNER_MAX, 3072)?,
        hidden_act: fields.activation_or("hidden_act", "silu")?,
        max_position_embeddings: positions.min(trained),
        layer_norm_eps: fields
            .epsilon_or(fields.spelling(&["layer_norm_eps", "layer_norm_epsilon"]), 1e-12)?,
    };
    fields.divides(heads, sizes.num_attention_heads, "hidden_size", sizes.hidden_size)?;
    Ok(sizes)
}

/// A gated feed-forward block, stored as one map; biases in attention and on the way back.
pub(super) fn gte(model_type: &'static str, fields: &Fields<'_>) -> Result<Architecture, ArchitectureError> {
    let defaults = Encoder { vocab_size: 250_048, max_position_embeddings: 8192, ..Encoder::BASE };
    let sizes = Encoder::read(fields, &defaults)?;
    let (width, inner) = (sizes.hidden_size, sizes.intermediate_size);
    let mut found = embedded(model_type, fields, &sizes, (1, "embeddings.LayerNorm", 160_000.0))?;
    for block in 0..sizes.num_hidden_layers {
        let name = |part: &str| format!("encoder.layer.{block}.{part}");
        let maps = [name("attention.qkv_proj"), name("attention.o_proj")];
        let feed_forward = FeedForward::Dense(DenseFeedForward {
            inner: Inner::GatedFused {
                linear: Linear::new(name("mlp.up_gate_proj"), width, 2 * inner, false),
                gate_first: false,
            },
            down: Linear::new(name("mlp.down_proj"), inner, width, true),
            activation: sizes.hidden_act,
        });
        found.push(Block::new(
            Sublayer::post(attention(&sizes, maps, [true, true]), sizes.norm(name("attn_ln"))),
            Sublayer::post(feed_forward, sizes.norm(name("mlp_ln"))),
        ));
    }
    Ok(found)
}

/// BERT's feed-forward block; adapters that the hub's own file has beside its weights are not read.
pub(super) fn jina(model_type: &'static str, fields: &Fields<'_>) -> Result<Architecture, ArchitectureError> {
    let defaults = Encoder {
        vocab_size: 250_002,
        hidden_size: 1024,
        num_hidden_layers: 24,
        num_attention_heads: 16,
        intermediate_size: 4096,
        max_position_embeddings: 8194,
        layer_norm_eps: 1e-5,
        ..Encoder::BASE
    };
    let sizes = Encoder::read(fields, &defaults)?;
    let mut found = embedded(model_type, fields, &sizes, (1, "emb_ln", 20_000.0))?;
    for block in 0..sizes.num_hidden_layers {
        let name = |part: &str| format!("encoder.layers.{block}.{part}");
        let maps = [name("mixer.Wqkv"), name("mixer.out_proj")];
        let feed_forward = sizes.feed_forward(name("mlp.fc1"), name("mlp.fc2"));
        found.push(Block::new(
            Sublayer::post(attention(&sizes, maps, [true, true]), sizes.norm(name("norm1"))),
            Sublayer::post(feed_forward, sizes.norm(name("norm2"))),
        ));
    }
    found.pooler = Some(pooler(sizes.hidden_size));
    Ok(found)
}

/// Tokens and type 0, normed, and the rotary positions of all blocks; what differs are the number of types and the
/// base of the angles where the file says nothing, and the name of the norm.
fn embedded(
    model_type: &'static str,
    fields: &Fields<'_>,
    sizes: &Encoder,
    (types, norm, theta): (u32, &str, f64),
) -> Result<Architecture, ArchitectureError> {
    let width = sizes.hidden_size;
    let mut embedding = Embedding {
        norm: Some(sizes.norm(norm)),
        ..Embedding::of_tokens(ANCHOR[0], sizes.vocab_size, width)
    };
    let types = fields.index_or("type_vocab_size", types)?;
    if types > ROWS_MAX {
        return Err(fields.refused("type_vocab_size", format!("a whole number up to {ROWS_MAX}")));
    }
    if types > 0 {
        let table = Parameter::new("embeddings.token_type_embeddings.weight", &[types, width]);
        embedding.constants.push(ConstantRow { table, row: 0 });
    }
    let mut found = Architecture::new(model_type, width, ANCHOR, embedding);
    found.naming.ignored = &[".inv_freq", ".position_ids"];
    found.position_limit = Some(sizes.max_position_embeddings);
    let defaults = RotaryDefaults::new(sizes.head_dim(), sizes.max_position_embeddings);
    found.rotaries.push(rotary::read(fields, &RotaryDefaults { theta, ..defaults })?);
    Ok(found)
}

/// Full attention from a fused map and an output map of these names, with or without biases.
fn attention(sizes: &Encoder, [qkv, out]: [String; 2], [bias_in, bias_out]: [bool; 2]) -> Attention {
    let width = sizes.hidden_size;
    let linear = Linear::new(qkv, width, 3 * width, bias_in);
    let projections = Projections::Fused { linear, order: FusedOrder::Concatenated };
    let out = Linear::new(out, width, width, bias_out);
    let attention = Attention::new(sizes.num_attention_heads, sizes.head_dim(), projections, out);
    Attention { rotary: Some(0), ..attention }
}

fn pooler(width: u32) -> Pooler {
    Pooler { dense: Linear::new("pooler.dense", width, width, true), activation: Activation::Tanh }
}

#[cfg(test)]
mod tests {
    use super::super::read;

    #[test]
    fn files_on_the_hub_have_the_names_of_gpt_2() {
        let config = r#"{"model_type": "nomic_bert", "n_embd": 64, "n_head": 4, "n_inner": 96, "n_layer": 3,
            "n_positions": 8192, "max_trained_positions": 2048, "layer_norm_epsilon": 1e-12, "vocab_size": 128,
            "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0, "rotary_scaling_factor": null, "prenorm": false,
            "activation_function": "swiglu", "qkv_proj_bias": false}"#;
        let found = read(config.as_bytes()).expect("supported");
        assert_eq!((found.hidden_size, found.n_layers(), found.position_limit), (64, 4, Some(2048)));
        let inner =
            found.layout().tensors.into_iter().find(|tensor| tensor.name.ends_with("0.mlp.fc11.weight"));
        assert_eq!(inner.expect("there").shape, [96, 64]);
        let biased = config.replace("\"qkv_proj_bias\": false", "\"qkv_proj_bias\": true");
        let error = read(biased.as_bytes()).expect_err("no implementation").to_string();
        assert!(error.contains("\"qkv_proj_bias\" is true"), "{error}");
    }
}
