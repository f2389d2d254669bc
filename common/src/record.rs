//! Records: the small objects whose existence commits a unit.
//!
//! A record names the data objects with sizes and digests; readers verify them. The coordinator alone writes records,
//! create-only. Each carries its writer, so that *already exists* can be told from one's own first try.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dataset::Columns;
use crate::id::{AttemptId, Digest, Epoch, WorkerId};

/// An object of known content in the bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredObject {
    /// Its key.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the content.
    pub sha256: Digest,
}

/// Who made the data, and which coordinator committed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// The coordinator process: a random id of its own making.
    pub coordinator: String,
    /// The epoch it led in; 0 in embedded mode.
    pub epoch: Epoch,
    /// The attempt whose objects are committed.
    pub attempt: AttemptId,
    /// Attempts of this unit so far, this one included; from 1.
    pub attempt_number: u32,
    /// The worker that made the data.
    pub worker: WorkerId,
    /// The numeric profile it computed with.
    pub numeric_profile: String,
    /// When it was committed, RFC 3339, UTC.
    pub committed_at: String,
    /// How long the worker took, in milliseconds.
    pub elapsed_ms: u64,
}

/// That texts are prepared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextsRecord {
    /// Who.
    pub writer: Writer,
    /// Parts in the order of their rows.
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

/// That one shard of an extraction is there, for one pooling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardRecord {
    /// Who.
    pub writer: Writer,
    /// The shard's number.
    pub shard: u32,
    /// Rows of every object.
    pub n_rows: u32,
    /// One object per layer kept, ascending.
    pub layers: Vec<ShardLayer>,
    /// What happened on the way.
    pub notes: ExtractNotes,
}

/// The rows of one layer of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardLayer {
    /// The entry of the hidden states.
    pub layer: u32,
    /// Numbers per row.
    pub width: u32,
    /// float32 [rows, width].
    pub object: StoredObject,
}

/// What an extraction met on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtractNotes {
    /// Tokens of all rows.
    pub n_tokens: u64,
    /// Texts cut to the maximum length.
    pub n_truncated: u64,
    /// Rows of the texts that have no token and were left out (`empty_texts = "skip"`), ascending.
    pub rows_without_tokens: Vec<u32>,
    /// Per layer, rows that were not finite in half precision and were redone in float32.
    pub rows_redone: BTreeMap<u32, u64>,
    /// A batch did not fit the device and was split, so the bytes may differ from an unsplit run's.
    pub split: bool,
}

/// What stands beside the matrices of a trial, in the same object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialRecord {
    /// Who.
    pub writer: Writer,
    /// The trial's number, from 0.
    pub trial: u32,
}

/// The profile that the first lease bound a base key to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileBinding {
    /// The numeric profile.
    pub numeric_profile: String,
    /// The coordinator that bound it.
    pub coordinator: String,
}

/// That somebody wants a run to be paused, or to go on; the highest number of a run counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseOrder {
    /// Paused, or to go on.
    pub paused: bool,
    /// The coordinator that was told.
    pub coordinator: String,
    /// When, by its clock: for people.
    pub at: String,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureRecord {
    /// What the unit was to do, for a person.
    pub what: String,
    /// The worker.
    pub worker: WorkerId,
    /// Attempts so far, this one included.
    pub attempt_number: u32,
    /// `retry`, `reject` or `fatal`.
    pub failure_class: crate::failure::FailureClass,
    /// The whole chain of causes.
    pub message: String,
    /// RFC 3339, UTC.
    pub at: String,
}

/// That a run was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRequest {
    /// The coordinator that accepted it.
    pub coordinator: String,
    /// Its software version.
    pub version: String,
    /// Run in embedded mode: no daemon takes it up.
    pub embedded: bool,
    /// RFC 3339, UTC.
    pub at: String,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStatus {
    /// `done`, `partial`, `failed` or `cancelled`.
    pub state: RunState,
    /// Experiments by name.
    pub experiments: BTreeMap<String, ExperimentEnd>,
    /// Units done by this run.
    pub units_run: u64,
    /// Units needed in all.
    pub units_total: u64,
    /// How long the run took, in milliseconds.
    pub elapsed_ms: u64,
}

/// How a run ended, or that it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Not ended.
    Running,
    /// Every experiment is done.
    Done,
    /// Some experiments failed, the others are done.
    Partial,
    /// Stopped at a failure, or every experiment failed.
    Failed,
    /// By a user.
    Cancelled,
}

/// How an experiment ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExperimentEnd {
    /// `done`, `failed` or `cancelled`.
    pub state: String,
    /// Why, where it failed.
    pub error: Option<String>,
}
