//! XLNet. Yang et al. 2019: attention that compares contents with sinusoids of their distance and with segments.
//!
//! One pass over a text: memories of earlier passes and the second stream of the pre-training play no part.

use serde_json::Value;

use super::fields::Fields;
use super::parts::{
    Attention, Block, Embedding, FeedForward, Linear, Norm, Parameter, Projections, Scores, Sinusoidal,
    Sublayer,
};
use super::{Architecture, ArchitectureError, BLOCKS_MAX, INNER_MAX, MAX_POSITIONS, ROWS_MAX, WIDTH_MAX};

const ANCHOR: &[&str] = &["word_embedding.weight"];

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let name = |names: &[&'static str]| fields.spelling(names);
    let vocab_size = fields.count_or(name(&["vocab_size", "n_token"]), ROWS_MAX, 32000)?;
    let width_field = name(&["d_model", "hidden_size"]);
    let width = fields.count_or(width_field, WIDTH_MAX, 1024)?;
    let heads_field = name(&["n_head", "num_attention_heads"]);
    let n_heads = fields.count_or(heads_field, WIDTH_MAX, 16)?;
    let n_blocks = fields.count_or(name(&["n_layer", "num_hidden_layers"]), BLOCKS_MAX, 24)?;
    let inner = fields.count_or("d_inner", INNER_MAX, 4096)?;
    fields.divides(heads_field, n_heads, width_field, width)?;
    // Half of a position are sines, half cosines.
    if !width.is_multiple_of(2) {
        return Err(fields.refused(width_field, "an even number"));
    }
    let head_dim = width / n_heads;
    fields.only("d_head", &Value::from(head_dim))?;
    fields.only("attn_type", &Value::from("bi"))?;
    // Half of the texts of a batch would count distances backwards, so that a text alone would have none.
    fields.only("bi_data", &Value::from(false))?;
    let activation = fields.activation_or("ff_activation", "gelu")?;
    let eps = fields.epsilon_or("layer_norm_eps", 1e-12)?;
    // -1 stands for none.
    let max_distance = match fields.number_or("clamp_len", -1.0)? {
        length if length > 0.0 => Some(fields.count("clamp_len", MAX_POSITIONS)?),
        _ => None,
    };

    let embedding = Embedding::of_tokens(ANCHOR[0], vocab_size, width);
    let mut found = Architecture::new(model_type, width, ANCHOR, embedding);
    for block in 0..n_blocks {
        let name = |part: &str| format!("layer.{block}.{part}");
        let map = |part: &str| Linear::new(name(part), width, width, false).by_heads(n_heads);
        let [query, key, value, of_distance] =
            ["q", "k", "v", "r"].map(|part| map(&format!("rel_attn.{part}")).transposed());
        let of_heads = |part: &str| Parameter::new(name(part), &[n_heads, head_dim]);
        let scores = Sinusoidal {
            key: of_distance,
            content_bias: of_heads("rel_attn.r_w_bias"),
            distance_bias: of_heads("rel_attn.r_r_bias"),
            segment_bias: of_heads("rel_attn.r_s_bias"),
            segments: Parameter::new(name("rel_attn.seg_embed"), &[2, n_heads, head_dim]),
            max_distance,
        };
        let projections = Projections::Separate([query, key, value]);
        let attention = Attention {
            scores: Scores::Sinusoidal(Box::new(scores)),
            ..Attention::new(n_heads, head_dim, projections, map("rel_attn.o"))
        };
        let up = Linear::new(name("ff.layer_1"), width, inner, true);
        let down = Linear::new(name("ff.layer_2"), inner, width, true);
        let norm = |part: &str| Norm::layer(name(part), width, eps);
        found.push(Block::new(
            Sublayer::post(attention, norm("rel_attn.layer_norm")),
            Sublayer::post(FeedForward::plain(up, down, activation), norm("ff.layer_norm")),
        ));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    const SMALL: &str = r#"{"model_type": "xlnet", "d_model": 30, "n_layer": 2, "n_head": 5, "d_head": 6,
        "d_inner": 44, "vocab_size": 301, "clamp_len": -1, "mem_len": 40, "reuse_len": 7, "same_length": true}"#;

    #[test]
    fn maps_of_attention_are_stored_by_heads() {
        let found = read(SMALL.as_bytes()).expect("supported");
        assert_eq!((found.n_layers(), found.hidden_size, found.position_limit), (3, 30, None));
        let layout = found.layout();
        assert_eq!(layout.tensors.len(), 1 + 2 * 17);
        let shape = |name: &str| {
            let tensor = layout.tensors.iter().find(|tensor| tensor.name == format!("layer.1.{name}"));
            tensor.unwrap_or_else(|| panic!("{name} is not listed")).shape.clone()
        };
        for map in ["q", "k", "v", "r", "o"] {
            assert_eq!(shape(&format!("rel_attn.{map}")), [30, 5, 6], "{map}");
        }
        assert_eq!(shape("rel_attn.r_s_bias"), [5, 6]);
        assert_eq!(shape("rel_attn.seg_embed"), [2, 5, 6]);
        assert_eq!(shape("ff.layer_1.weight"), [44, 30]);
    }

    #[test]
    fn values_without_an_implementation_are_refused_by_name() {
        let check = |field: &str, value: &str, expected: &str| {
            let mut config: Value = serde_json::from_str(SMALL).expect("json");
            config[field] = serde_json::from_str(value).expect("json");
            let error = read(config.to_string().as_bytes()).expect_err(value).to_string();
            assert!(
                error.contains(&format!("\"{field}\" is {value}")) && error.contains(expected),
                "{error}"
            );
        };
        check("attn_type", r#""uni""#, "\"bi\"");
        check("bi_data", "true", "false");
        check("d_head", "7", "6");
        check("d_model", "25", "an even number");
        check("n_head", "4", "divisor of \"d_model\" 30");
        check("clamp_len", "2.5", "whole number");
        check("ff_activation", r#""gelu_10""#, "gelu_new");
    }
}
