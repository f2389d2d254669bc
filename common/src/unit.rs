//! The units of work: what one worker does under one lease.
//!
//! A unit says all that its bytes depend on; nothing of it depends on the worker or the attempt.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::dataset::TextsSpec;
use crate::id::Digest;
use crate::job::{ExtractionSettings, SimilaritySettings};
use crate::model::{PinnedModel, Pooling};

/// A piece of work lent to one worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Unit {
    /// Texts of one dataset into the bucket.
    Prepare(PrepareUnit),
    /// A model's files from their hub into the bucket.
    Mirror(Box<MirrorUnit>),
    /// A row range through a model.
    Extract(Box<ExtractUnit>),
    /// Some Monte Carlo trials.
    Compare(CompareUnit),
}

/// Texts of one dataset into the bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrepareUnit {
    /// Where the texts go.
    pub texts_key: Digest,
    /// Which texts.
    pub texts: TextsSpec,
}

/// A model's files from their hub into the bucket, so that the hub is asked once for all workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MirrorUnit {
    /// Whose files; its revision is a commit of the hub.
    pub model: PinnedModel,
}

/// A row range of prepared texts through a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExtractUnit {
    /// Where the rows go, profile included.
    pub extraction_key: Digest,
    /// The texts read.
    pub texts_key: Digest,
    /// The model.
    pub model: PinnedModel,
    /// How.
    pub settings: ExtractionSettings,
    /// The poolings still missing.
    pub poolings: Vec<Pooling>,
    /// The shard's number; its first row is `shard * settings.shard_rows`.
    pub shard: u32,
    /// Rows of this shard; only the last one has fewer than `settings.shard_rows`.
    pub n_rows: u32,
}

/// Some Monte Carlo trials of one comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompareUnit {
    /// Where the matrices go, profile included.
    pub comparison_key: Digest,
    /// The models whose layers are compared: the matrices have the layers of all of them, side after side.
    pub sides: Vec<CompareSide>,
    /// Which pooling of their rows.
    pub pooling: Pooling,
    /// Texts extracted; the rows that trials draw from.
    pub n_texts: u32,
    /// Metrics, sample size, seed.
    pub settings: SimilaritySettings,
    /// The trials asked for.
    pub trials: Vec<u32>,
}

/// The rows of one model in a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompareSide {
    /// Where they are.
    pub extraction_key: Digest,
    /// Shards of the extraction.
    pub n_shards: u32,
    /// Hidden states compared, ascending.
    pub layers: Vec<u32>,
    /// Width of a hidden state.
    pub hidden_size: u32,
}

impl ExtractUnit {
    /// The texts of the shard, counted from 0.
    pub fn rows(&self) -> Range<usize> {
        let first = self.shard as usize * self.settings.shard_rows as usize;
        first..first + self.n_rows as usize
    }
}

impl CompareUnit {
    /// Layers of all sides.
    pub fn n_layers(&self) -> usize {
        self.sides.iter().map(|side| side.layers.len()).sum()
    }
}

impl Unit {
    /// What the unit does, for a person.
    pub fn describe(&self) -> String {
        match self {
            Self::Prepare(unit) => format!("prepare {}", unit.texts.plan.dataset),
            Self::Mirror(unit) => format!("mirror {}", unit.model.name()),
            Self::Extract(unit) => {
                let poolings: Vec<_> = unit.poolings.iter().map(|pooling| pooling.as_str()).collect();
                format!("extract {} · {} · shard {}", unit.model.name(), poolings.join(" "), unit.shard)
            }
            Self::Compare(unit) => {
                let trials: Vec<_> = unit.trials.iter().map(u32::to_string).collect();
                format!("compare {} layers · {} · trial {}", unit.n_layers(), unit.pooling, trials.join(" "))
            }
        }
    }
}
