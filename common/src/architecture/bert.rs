//! BERT. Devlin et al. 2019: post-norm encoder, learned absolute positions, two-matrix feed-forward.

use serde_json::Value;

use super::fields::{Fields, refused};
use super::{Activation, Architecture, ArchitectureError, ExpectedTensor, Layout, parse};

/// The `model_type` of config.json.
pub const MODEL_TYPE: &str = "bert";

/// The fields of config.json that matter, named as there; defaults are those of the Python class.
#[derive(Clone, Debug, PartialEq)]
pub struct BertConfig {
    /// Rows of the token embedding.
    pub vocab_size: u32,
    /// Width of a hidden state.
    pub hidden_size: u32,
    /// Blocks.
    pub num_hidden_layers: u32,
    /// Heads of a block; divides `hidden_size`.
    pub num_attention_heads: u32,
    /// Width inside the feed-forward block.
    pub intermediate_size: u32,
    /// The activation inside the feed-forward block.
    pub hidden_act: Activation,
    /// Rows of the position embedding.
    pub max_position_embeddings: u32,
    /// Rows of the type embedding; a text of its own is of type 0.
    pub type_vocab_size: u32,
    /// Added to the variance in every layer norm.
    pub layer_norm_eps: f64,
}

impl BertConfig {
    /// Reads and checks a config.json of `model_type` bert.
    pub fn read(config_json: &[u8]) -> Result<Self, ArchitectureError> {
        Self::from_fields(&Fields::new(&parse(config_json)?)?)
    }

    fn from_fields(fields: &Fields<'_>) -> Result<Self, ArchitectureError> {
        // The bounds lie far above any BERT and keep all products below within 64 bits.
        const WIDTH_MAX: u32 = 1 << 16;
        const ROWS_MAX: u32 = 1 << 24;
        fields.only("position_embedding_type", &Value::from("absolute"))?;
        fields.only("is_decoder", &Value::from(false))?;
        fields.only("add_cross_attention", &Value::from(false))?;
        let config = Self {
            vocab_size: fields.count_or("vocab_size", ROWS_MAX, 30522)?,
            hidden_size: fields.count_or("hidden_size", WIDTH_MAX, 768)?,
            num_hidden_layers: fields.count_or("num_hidden_layers", 1024, 12)?,
            num_attention_heads: fields.count_or("num_attention_heads", WIDTH_MAX, 12)?,
            intermediate_size: fields.count_or("intermediate_size", 1 << 20, 3072)?,
            hidden_act: fields.activation_or("hidden_act", "gelu")?,
            max_position_embeddings: fields.count_or("max_position_embeddings", ROWS_MAX, 512)?,
            type_vocab_size: fields.count_or("type_vocab_size", ROWS_MAX, 2)?,
            layer_norm_eps: fields.epsilon_or("layer_norm_eps", 1e-12)?,
        };
        if !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            return Err(refused(
                "num_attention_heads",
                &Value::from(config.num_attention_heads),
                format!("a divisor of \"hidden_size\" {}", config.hidden_size),
            ));
        }
        Ok(config)
    }
}

pub(super) fn architecture(fields: &Fields<'_>) -> Result<Architecture, ArchitectureError> {
    let config = BertConfig::from_fields(fields)?;
    let (width, inner) = (u64::from(config.hidden_size), u64::from(config.intermediate_size));
    let blocks = u64::from(config.num_hidden_layers);
    Ok(Architecture {
        model_type: MODEL_TYPE,
        n_layers: config.num_hidden_layers + 1,
        hidden_size: config.hidden_size,
        vocab_size: config.vocab_size,
        position_limit: Some(config.max_position_embeddings),
        flop_linear: blocks * 2 * (4 * width * width + 2 * width * inner),
        flop_per_length: blocks * 4 * width,
        // Attention: the residual, queries with keys and values, heads' outputs twice; or the feed-forward block.
        activation_width: (6 * width).max(3 * width + inner),
        layout: layout(&config),
    })
}

fn layout(config: &BertConfig) -> Layout {
    let (width, inner) = (config.hidden_size, config.intermediate_size);
    let tensor = |name: String, shape: &[u32]| ExpectedTensor::new(name, shape);
    let embedding = |name: &str, rows: u32| tensor(format!("embeddings.{name}.weight"), &[rows, width]);
    let mut tensors = vec![
        embedding("word_embeddings", config.vocab_size),
        embedding("position_embeddings", config.max_position_embeddings),
        embedding("token_type_embeddings", config.type_vocab_size),
    ];
    let pair = |tensors: &mut Vec<ExpectedTensor>, name: String, weight: &[u32], bias: u32| {
        tensors.push(tensor(format!("{name}.weight"), weight));
        tensors.push(tensor(format!("{name}.bias"), &[bias]));
    };
    pair(&mut tensors, "embeddings.LayerNorm".into(), &[width], width);
    for block in 0..config.num_hidden_layers {
        let name = |part: &str| format!("encoder.layer.{block}.{part}");
        for part in ["query", "key", "value"] {
            pair(&mut tensors, name(&format!("attention.self.{part}")), &[width, width], width);
        }
        pair(&mut tensors, name("attention.output.dense"), &[width, width], width);
        pair(&mut tensors, name("attention.output.LayerNorm"), &[width], width);
        pair(&mut tensors, name("intermediate.dense"), &[inner, width], inner);
        pair(&mut tensors, name("output.dense"), &[width, inner], width);
        pair(&mut tensors, name("output.LayerNorm"), &[width], width);
    }
    let mut pooler = Vec::new();
    pair(&mut pooler, "pooler.dense".into(), &[width, width], width);
    Layout {
        anchor: "embeddings.word_embeddings.weight",
        owned: &["embeddings.", "encoder.", "pooler."],
        ignored: &[".position_ids", ".token_type_ids"],
        tensors,
        pooler,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"{"model_type": "bert", "hidden_size": 48, "num_hidden_layers": 3,
        "num_attention_heads": 4, "intermediate_size": 80, "vocab_size": 703, "max_position_embeddings": 67}"#;

    #[test]
    fn facts_follow_from_the_config() {
        let found = super::super::read(SMALL.as_bytes()).expect("supported");
        assert_eq!((found.n_layers, found.hidden_size, found.position_limit), (4, 48, Some(67)));
        assert_eq!(found.flop_linear, 3 * 2 * (4 * 48 * 48 + 2 * 48 * 80));
        assert_eq!(found.flop_per_length, 3 * 4 * 48);
        assert_eq!(found.layout.tensors.len(), 5 + 3 * 16);
    }

    #[test]
    fn values_without_an_implementation_are_refused_by_name() {
        let check = |field: &str, value: &str, expected: &str| {
            let mut config: Value = serde_json::from_str(SMALL).expect("json");
            config[field] = serde_json::from_str(value).expect("json");
            let error = super::super::read(config.to_string().as_bytes()).expect_err(value).to_string();
            assert!(
                error.contains(&format!("\"{field}\" is {value}")) && error.contains(expected),
                "{error}"
            );
        };
        check("hidden_act", r#""gelu_10""#, "gelu_new");
        check("position_embedding_type", r#""relative_key""#, "absolute");
        check("is_decoder", "true", "false");
        check("num_attention_heads", "5", "divisor of \"hidden_size\" 48");
        check("num_hidden_layers", "0", "from 1 to 1024");
        check("num_hidden_layers", "4000000000", "from 1 to 1024");
        check("hidden_size", "-3", "whole number");
        check("layer_norm_eps", "\"x\"", "number");
    }
}
