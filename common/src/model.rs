//! What is asked of a model: pooling, dtype, layers; and which files a pinned model consists of.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::id::Digest;

/// How the token vectors of a text become one vector, per layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The mean over the tokens.
    Mean,
    /// The first token.
    Cls,
    /// The elementwise maximum over the tokens.
    Max,
    /// The last token.
    LastToken,
    /// The checkpoint's own trained pooler on the first token.
    Pooler,
}

impl Pooling {
    /// Every pooling, in the order in which they are listed.
    pub const ALL: [Self; 5] = [Self::Mean, Self::Cls, Self::Max, Self::LastToken, Self::Pooler];

    /// The name as it is written in grid files and object keys.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Cls => "cls",
            Self::Max => "max",
            Self::LastToken => "last_token",
            Self::Pooler => "pooler",
        }
    }

    /// The pooling of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|pooling| pooling.as_str() == text)
    }
}

impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The number format in which a forward pass computes; pooling always sums in float32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// IEEE single precision.
    Float32,
    /// IEEE half precision.
    Float16,
    /// The upper half of a float32.
    BFloat16,
}

impl Dtype {
    /// Every dtype, in the order in which they are listed.
    pub const ALL: [Self; 3] = [Self::Float32, Self::Float16, Self::BFloat16];

    /// The name as it is written in grid files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Float16 => "float16",
            Self::BFloat16 => "bfloat16",
        }
    }

    /// The dtype of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.as_str() == text)
    }

    /// Bytes of one number.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Float32 => 4,
            Self::Float16 | Self::BFloat16 => 2,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which entries of the hidden states are kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LayerChoice {
    /// All of them.
    All,
    /// These; negative counts from the end, -1 is the last.
    List(Vec<i64>),
    /// 0, k, 2k, … and the last.
    Every(u32),
}

/// Why a layer choice does not fit a model.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("layer {layer} does not exist: the model has layers 0 to {last} (or -{n_layers} to -1)")]
pub struct LayerError {
    layer: i64,
    last: u32,
    n_layers: u32,
}

impl LayerChoice {
    /// The chosen layers of a model with `n_layers` hidden states, ascending, each once.
    pub fn resolve(&self, n_layers: u32) -> Result<Vec<u32>, LayerError> {
        let last = n_layers.saturating_sub(1);
        let mut layers: Vec<u32> = match self {
            Self::All => (0..n_layers).collect(),
            Self::Every(step) => (0..n_layers).filter(|l| l % (*step).max(1) == 0 || *l == last).collect(),
            Self::List(list) => {
                let place = |layer: i64| {
                    let counted = if layer < 0 { layer + i64::from(n_layers) } else { layer };
                    u32::try_from(counted).ok().filter(|l| *l < n_layers).ok_or(LayerError {
                        layer,
                        last,
                        n_layers,
                    })
                };
                list.iter().copied().map(place).collect::<Result<_, _>>()?
            }
        };
        layers.sort_unstable();
        layers.dedup();
        Ok(layers)
    }
}

/// A file of known content.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PinnedFile {
    /// Name inside its folder, without `..`; or a path as the user typed it.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the content.
    pub sha256: Digest,
}

/// A model whose every file is known by digest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PinnedModel {
    /// As the user named it: a hub id or a path.
    pub id: String,
    /// The commit of the hub's repository, where it came from one.
    pub revision: Option<String>,
    /// The folder that held the files when they were digested: the first place to look, never trusted.
    pub folder: PathBuf,
    /// config.json, weights and tokenizer files, by name.
    pub files: Vec<PinnedFile>,
    /// What the config and the headers of the weights say.
    pub facts: ModelFacts,
}

impl PinnedModel {
    /// What a person calls it; see [`short_name`].
    pub fn name(&self) -> &str {
        short_name(&self.id)
    }
}

/// The last part of a model's id: the name without its owner, or of a path the last folder.
pub fn short_name(id: &str) -> &str {
    id.rsplit('/').find(|part| !matches!(*part, "" | "." | "..")).unwrap_or(id)
}

/// What is known of a model without loading its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// `model_type` of config.json.
    pub model_type: String,
    /// Entries of the hidden states: blocks + 1.
    pub n_layers: u32,
    /// Width of a hidden state.
    pub hidden_size: u32,
    /// Parameters of the encoder in the checkpoint, task heads left out.
    pub n_params: u64,
    /// Bytes of those parameters as stored.
    pub weight_bytes: u64,
    /// Floating-point operations of one token in a text of `length` tokens: `flop_linear + flop_per_length * length`.
    pub flop_linear: u64,
    /// The part of a token's cost that grows with the length of its text (attention).
    pub flop_per_length: u64,
    /// The most numbers per token that are alive at once in a forward pass; bounds a batch's memory.
    pub activation_width: u64,
    /// The most tokens that the position scheme and the tokenizer allow; 512 where neither says.
    pub max_length: u32,
    /// Whether the checkpoint holds a trained pooler.
    pub has_pooler: bool,
    /// The dtype in which most weights are stored.
    pub stored_dtype: String,
    /// What the tokenizer was made from.
    pub tokenizer: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names() {
        let check = |id: &str, expected: &str| assert_eq!(short_name(id), expected, "{id}");
        check("bert-base-uncased", "bert-base-uncased");
        check("BAAI/bge-small-en-v1.5", "bge-small-en-v1.5");
        check("/models/all-MiniLM-L6-v2/", "all-MiniLM-L6-v2");
        check("./tiny/.", "tiny");
        check("..", "..");
    }

    #[test]
    fn layer_choices() {
        let check = |choice: LayerChoice, expected: &[u32]| {
            assert_eq!(choice.resolve(7).as_deref(), Ok(expected), "{choice:?}");
        };
        check(LayerChoice::All, &[0, 1, 2, 3, 4, 5, 6]);
        check(LayerChoice::List(vec![-1, 0, 3, 0]), &[0, 3, 6]);
        check(LayerChoice::Every(2), &[0, 2, 4, 6]);
        check(LayerChoice::Every(4), &[0, 4, 6]);
        assert!(LayerChoice::List(vec![7]).resolve(7).is_err());
        assert!(LayerChoice::List(vec![-8]).resolve(7).is_err());
    }
}
