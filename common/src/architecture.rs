//! What a config.json promises: layers, widths, limits, the tensors that must exist. No weights, no libtorch.
//!
//! [`FAMILIES`] is the table of supported `model_type`s; each family has one file that reads its config and
//! says which tensors follow from it. A config value that the implementation does not cover is an error that
//! names the field and the value, never an approximation.

pub mod bert;
pub mod checkpoint;
mod fields;

use fields::Fields;

/// One supported `model_type`.
pub struct Family {
    /// The `model_type` of config.json.
    pub model_type: &'static str,
    read: fn(&Fields<'_>) -> Result<Architecture, ArchitectureError>,
}

/// Every supported model type, in the order in which they are listed.
pub const FAMILIES: &[Family] = &[Family { model_type: bert::MODEL_TYPE, read: bert::architecture }];

/// What follows from a config alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// The `model_type` of config.json.
    pub model_type: &'static str,
    /// Entries of the hidden states: blocks + 1.
    pub n_layers: u32,
    /// Width of a hidden state.
    pub hidden_size: u32,
    /// Rows of the token embedding; every token id must be below it.
    pub vocab_size: u32,
    /// The most tokens that the position scheme allows; none where it has no limit.
    pub position_limit: Option<u32>,
    /// Floating-point operations of one token outside attention.
    pub flop_linear: u64,
    /// Floating-point operations of one token per token of its text, in attention.
    pub flop_per_length: u64,
    /// The most numbers per token that are alive at once in a forward pass.
    pub activation_width: u64,
    /// Which tensors a checkpoint must hold.
    pub layout: Layout,
}

/// Which tensors make up an encoder, by the names of its own family, without the prefix of a task head.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// The token embedding: what stands before this name in a checkpoint is the prefix to strip.
    pub anchor: &'static str,
    /// Beginnings of names that belong to the encoder; all else is a head and ignored.
    pub owned: &'static [&'static str],
    /// Ends of names that carry no weights (buffers that old checkpoints stored).
    pub ignored: &'static [&'static str],
    /// What must be there.
    pub tensors: Vec<ExpectedTensor>,
    /// What must be there for the pooler, all or nothing.
    pub pooler: Vec<ExpectedTensor>,
}

/// A tensor that a config implies.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpectedTensor {
    /// The name in the family's own words.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl ExpectedTensor {
    fn new(name: impl Into<String>, shape: &[u32]) -> Self {
        Self { name: name.into(), shape: shape.iter().map(|side| *side as usize).collect() }
    }
}

/// The non-linearity between the two matrices of a feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x Φ(x), with the error function.
    Gelu,
    /// The approximation of gelu by a hyperbolic tangent.
    GeluTanh,
    /// max(x, 0).
    Relu,
    /// x sigmoid(x).
    Silu,
}

impl Activation {
    /// Names as they occur in config.json, in the order in which they are listed.
    const NAMES: &[(&str, Self)] = &[
        ("gelu", Self::Gelu),
        ("gelu_python", Self::Gelu),
        ("gelu_new", Self::GeluTanh),
        ("gelu_fast", Self::GeluTanh),
        ("gelu_pytorch_tanh", Self::GeluTanh),
        ("relu", Self::Relu),
        ("silu", Self::Silu),
        ("swish", Self::Silu),
    ];
}

/// Why a config.json is not one of a supported model.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ArchitectureError {
    /// Not JSON, or not an object.
    #[error("config.json is not a JSON object: {0}")]
    NotJson(String),
    /// The family is unknown.
    #[error("model_type {model_type:?} is not supported; supported: {supported}")]
    UnsupportedType {
        /// As found in the file; empty where the field is missing.
        model_type: String,
        /// All supported ones.
        supported: String,
    },
    /// A field has a value that no implementation covers, or lacks one.
    #[error("config.json: \"{field}\" is {found}; supported: {expected}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value, as JSON, shortened.
        found: String,
        /// What would do.
        expected: String,
    },
}

/// The names of all supported model types.
pub fn model_types() -> Vec<&'static str> {
    FAMILIES.iter().map(|family| family.model_type).collect()
}

/// The architecture that a config.json describes.
pub fn read(config_json: &[u8]) -> Result<Architecture, ArchitectureError> {
    let value = parse(config_json)?;
    let fields = Fields::new(&value)?;
    let model_type = fields.text_or("model_type", "")?;
    let family = FAMILIES.iter().find(|family| family.model_type == model_type);
    let family = family.ok_or_else(|| ArchitectureError::UnsupportedType {
        model_type: model_type.chars().take(80).collect(),
        supported: model_types().join(", "),
    })?;
    (family.read)(&fields)
}

fn parse(config_json: &[u8]) -> Result<serde_json::Value, ArchitectureError> {
    serde_json::from_slice(config_json).map_err(|error| ArchitectureError::NotJson(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsupported_types_are_refused_with_the_list() {
        let check = |config: &str, expected: &str| {
            let error = read(config.as_bytes()).expect_err(config).to_string();
            assert!(error.contains(expected), "{config}: {error}");
        };
        check(r#"{"model_type": "mamba"}"#, r#"model_type "mamba" is not supported; supported: bert"#);
        check("{}", r#"model_type "" is not supported"#);
        check(r#"{"model_type": 3}"#, r#""model_type" is 3"#);
        check("[1]", "not a JSON object");
        check("{", "not a JSON object");
    }
}
