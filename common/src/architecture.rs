//! What a config.json promises: the parts of a model, their widths, limits and tensors. No weights, no libtorch.
//!
//! [`FAMILIES`] is the table of supported `model_type`s. Each family has one short file that reads its config into
//! an [`Architecture`] made of the shared [`parts`]; the tensors that a checkpoint must hold ([`Layout`]), the cost
//! of a token and the encoder itself all follow from that one description. A config value that the implementation
//! does not cover is an error that names the field and the value, never an approximation.

pub mod checkpoint;
mod decoder;
mod encoder;
mod fields;
mod layout;
pub mod parts;
mod rotary;
mod size;

mod albert;
mod bart;
mod bert;
mod bloom;
mod cohere;
mod deberta;
mod distilbert;
mod eurobert;
mod falcon;
mod gemma;
mod gpt2;
mod gpt_bigcode;
mod gpt_neo;
mod gpt_neox;
mod gptj;
mod granite;
mod llama;
mod mistral;
mod modernbert;
mod mpnet;
mod mpt;
mod nemotron;
mod nomic_bert;
mod olmo;
mod opt;
mod phi;
mod qwen;
mod roformer;
mod smollm3;
mod stablelm;
mod starcoder2;
mod t5;
mod xlnet;

use fields::Fields;
pub use layout::Layout;
use parts::{Activation, Block, Embedding, Linear, Norm, Parameter, Pooler, RelativeBias, Rotary};

/// Bounds far above any model, which keep all sums and products below within 64 bits.
const WIDTH_MAX: u32 = 1 << 16;
const INNER_MAX: u32 = 1 << 20;
const ROWS_MAX: u32 = 1 << 24;
const BLOCKS_MAX: u32 = 1024;
const EXPERTS_MAX: u32 = 256;
const MAX_POSITIONS: u32 = 1 << 24;

/// One supported `model_type`.
pub struct Family {
    /// The `model_type` of config.json.
    pub model_type: &'static str,
    read: Reader,
}

type Reader = fn(&'static str, &Fields<'_>) -> Result<Architecture, ArchitectureError>;

const fn family(model_type: &'static str, read: Reader) -> Family {
    Family { model_type, read }
}

/// Every supported model type, relatives beside each other.
pub const FAMILIES: &[Family] = &[
    // Encoders: a norm after each half of a block, learned positions.
    family("bert", bert::architecture),
    family("roberta", bert::roberta),
    family("xlm-roberta", bert::roberta),
    family("camembert", bert::roberta),
    family("longformer", bert::longformer),
    family("big_bird", bert::big_bird),
    family("ernie", bert::ernie),
    family("electra", bert::electra),
    family("distilbert", distilbert::architecture),
    family("albert", albert::architecture),
    family("mpnet", mpnet::architecture),
    family("bart", bart::architecture),
    // Encoders with other positions.
    family("deberta", deberta::version_1),
    family("deberta-v2", deberta::version_2),
    family("xlnet", xlnet::architecture),
    family("roformer", roformer::architecture),
    family("nomic_bert", nomic_bert::architecture),
    family("gte", nomic_bert::gte),
    family("jina_embeddings_v3", nomic_bert::jina),
    family("modernbert", modernbert::architecture),
    family("eurobert", eurobert::architecture),
    family("t5", t5::shared_bias),
    family("mt5", t5::shared_bias),
    family("umt5", t5::bias_per_block),
    // Decoders with learned positions or linear biases.
    family("gpt2", gpt2::architecture),
    family("gpt_bigcode", gpt_bigcode::architecture),
    family("gpt_neo", gpt_neo::architecture),
    family("opt", opt::architecture),
    family("bloom", bloom::architecture),
    family("mpt", mpt::architecture),
    // Decoders with rotary positions.
    family("gptj", gptj::architecture),
    family("gpt_neox", gpt_neox::architecture),
    family("falcon", falcon::architecture),
    family("llama", llama::architecture),
    family("mistral", mistral::architecture),
    family("mixtral", mistral::mixture),
    family("qwen2", qwen::version_2),
    family("qwen3", qwen::version_3),
    family("gemma", gemma::version_1),
    family("gemma2", gemma::version_2),
    family("gemma3_text", gemma::version_3),
    family("phi", phi::architecture),
    family("phi3", phi::version_3),
    family("olmo", olmo::version_1),
    family("olmo2", olmo::version_2),
    family("stablelm", stablelm::architecture),
    family("starcoder2", starcoder2::architecture),
    family("smollm3", smollm3::architecture),
    family("granite", granite::architecture),
    family("nemotron", nemotron::architecture),
    family("cohere", cohere::architecture),
];

/// What follows from a config alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// The `model_type` of config.json.
    pub model_type: &'static str,
    /// Width of a hidden state.
    pub hidden_size: u32,
    /// The most tokens that the position scheme allows; none where it has no limit.
    pub position_limit: Option<u32>,
    /// How its tensors are found in a checkpoint.
    pub naming: Naming,
    /// Tokens → the input of block 0, which is entry 0 of the hidden states.
    pub embedding: Embedding,
    /// The blocks that have weights of their own.
    pub blocks: Vec<Block>,
    /// Which of them make entry 1, 2, … of the hidden states.
    pub order: Vec<usize>,
    /// The norm of the last block's output, which is part of the last entry.
    pub final_norm: Option<Norm>,
    /// A map of the last block's output, which is part of the last entry.
    pub projection_out: Option<Linear>,
    /// The checkpoint's pooler, if it has one.
    pub pooler: Option<Pooler>,
    /// Rotary positions that blocks refer to.
    pub rotaries: Vec<Rotary>,
    /// Biases by distance that blocks refer to.
    pub relative_biases: Vec<RelativeBias>,
}

/// How the tensors of an encoder are found in a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Naming {
    /// Names under which the token embedding may be stored: what stands before one of them in a checkpoint is the
    /// prefix to strip. The first is the family's own.
    pub anchors: &'static [&'static str],
    /// Ends of names that carry no weights (buffers that old checkpoints stored).
    pub ignored: &'static [&'static str],
}

impl Architecture {
    /// Blocks without anything before or after them but an embedding.
    fn new(
        model_type: &'static str,
        hidden_size: u32,
        anchor: &'static [&'static str],
        embedding: Embedding,
    ) -> Self {
        Self {
            model_type,
            hidden_size,
            position_limit: None,
            naming: Naming { anchors: anchor, ignored: &[] },
            embedding,
            blocks: Vec::new(),
            order: Vec::new(),
            final_norm: None,
            projection_out: None,
            pooler: None,
            rotaries: Vec::new(),
            relative_biases: Vec::new(),
        }
    }

    /// Adds a block, which makes the next entry of the hidden states.
    fn push(&mut self, block: Block) {
        self.order.push(self.blocks.len());
        self.blocks.push(block);
    }

    /// Entries of the hidden states: blocks + 1.
    pub fn n_layers(&self) -> u32 {
        self.order.len() as u32 + 1
    }

    /// Width of an entry of the hidden states.
    pub fn width(&self, layer: u32) -> u32 {
        match &self.projection_out {
            Some(linear) if layer + 1 == self.n_layers() => linear.width_out,
            Some(_) | None => self.hidden_size,
        }
    }

    /// Rows of the token embedding; every token id must be below it.
    pub fn vocab_size(&self) -> u32 {
        self.embedding.tokens.shape[0]
    }
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
        /// The field; one inside an object comes with the object's name.
        field: String,
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
    let value: serde_json::Value =
        serde_json::from_slice(config_json).map_err(|error| ArchitectureError::NotJson(error.to_string()))?;
    let fields = Fields::new(&value)?;
    let model_type = fields.text_or("model_type", "")?;
    let family = FAMILIES.iter().find(|family| family.model_type == model_type);
    let family = family.ok_or_else(|| ArchitectureError::UnsupportedType {
        model_type: model_type.chars().take(80).collect(),
        supported: model_types().join(", "),
    })?;
    // Weights in another form than numbers; what they stand for is not in the tensors alone.
    fields.absent("quantization_config")?;
    (family.read)(family.model_type, &fields)
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
        check(
            r#"{"model_type": "mamba"}"#,
            r#"model_type "mamba" is not supported; supported: bert, roberta"#,
        );
        check("{}", r#"model_type "" is not supported"#);
        check(r#"{"model_type": 3}"#, r#""model_type" is 3"#);
        check("[1]", "not a JSON object");
        check("{", "not a JSON object");
        check(r#"{"model_type": "bert", "quantization_config": {}}"#, "\"quantization_config\" is {}");
    }

    #[test]
    fn every_family_reads_a_config_of_defaults() {
        for family in FAMILIES {
            // Without positions of one kind or the other there is no DeBERTa; no other family has these fields.
            let relative = r#""relative_attention": true, "pos_att_type": "c2p|p2c""#;
            let config = format!(r#"{{"model_type": "{}", {relative}}}"#, family.model_type);
            let found = read(config.as_bytes()).unwrap_or_else(|error| panic!("{config}: {error}"));
            let layout = found.layout();
            assert_eq!(layout.tensors[0].name, found.naming.anchors[0], "{config}");
            let mut names: Vec<&str> = layout.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
            let n_names = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), n_names, "{config}: a tensor is listed twice");
            assert!(
                found.flop_linear() > 0 && found.activation_width() > 0 && found.n_layers() > 1,
                "{config}"
            );
        }
    }
}
