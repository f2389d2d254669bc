//! What a worker says of an attempt.

use crate::dataset::Columns;
use crate::failure::FailureClass;
use crate::id::Digest;
use crate::model::Pooling;
use crate::record::{ExtractNotes, ShardLayer, StoredObject};
use crate::trial_matrices::TrialMatrices;

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Texts are in the bucket.
    Prepared(Prepared),
    /// The files of a model are in the bucket.
    Mirrored,
    /// A shard is in the bucket.
    Extracted(Extracted),
    /// The matrices of the trials asked for.
    Compared(Vec<(u32, TrialMatrices)>),
    /// It failed.
    Failed(Failure),
    /// The worker leaves; the attempt is not charged.
    HandedBack,
}

/// Texts that were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// In the order of their rows.
    pub parts: Vec<StoredObject>,
    /// Texts in all parts.
    pub n_texts: u64,
    /// Whitespace-only lines that were skipped.
    pub n_blank: u64,
    /// Unreadable rows that were skipped.
    pub n_bad: u64,
    /// Texts equal to an earlier one: dropped with `dedupe`, else only counted.
    pub n_duplicates: u64,
    /// The columns read of each file of the plan; none for `.txt`, and where nothing of a file was read.
    pub columns: Vec<Option<Columns>>,
    /// What a person should hear, one sentence each.
    pub warnings: Vec<String>,
}

/// Rows that were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extracted {
    /// Per pooling one object per layer, ascending.
    pub poolings: Vec<(Pooling, Vec<ShardLayer>)>,
    /// What happened on the way.
    pub notes: ExtractNotes,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What to do about it.
    pub failure_class: FailureClass,
    /// The whole chain of causes.
    pub message: String,
    /// The stored thing that has to be made again, where that is the cause.
    pub damaged: Option<Damaged>,
    /// The attempt panicked: a defect, once two different workers met it.
    pub panicked: bool,
}

/// A committed unit whose stored bytes are not what its record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damaged {
    /// Prepared texts.
    Texts(Digest),
    /// A shard of an extraction, of one pooling.
    Shard {
        /// Under which key.
        extraction_key: Digest,
        /// Which pooling.
        pooling: Pooling,
        /// Which shard.
        shard: u32,
    },
}
