//! Texts of one dataset into the bucket, each with its origin.

use std::path::Path;

use lsa_common::dataset::{DatasetError, read_texts};
use lsa_common::failure::FailureClass;
use lsa_common::id::AttemptId;
use lsa_common::layout;
use lsa_common::report::Prepared;
use lsa_common::store::{Store, StoreError};
use lsa_common::texts::{PART_ROWS_MAX, Text, TextsError, TextsOrigin, encode_part};
use lsa_common::unit::PrepareUnit;
use tokio::runtime::Handle;

/// Why texts could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The file cannot be read as the spec says.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A part cannot be encoded.
    #[error(transparent)]
    Texts(#[from] TextsError),
    /// The bucket failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The coordinator wants no more of it.
    #[error("stopped")]
    Stopped,
}

impl PrepareError {
    /// What the failure means for an attempt.
    pub fn failure_class(&self) -> FailureClass {
        match self {
            Self::Dataset(_) | Self::Texts(_) => FailureClass::Reject,
            Self::Store(error) => error.failure_class(),
            Self::Stopped => FailureClass::Retry,
        }
    }
}

/// Reads the file at `path` once and writes its texts as parts of at most [`PART_ROWS_MAX`] rows.
pub fn prepare(
    runtime: &Handle,
    store: &Store,
    unit: &PrepareUnit,
    path: &Path,
    attempt: AttemptId,
    go_on: &dyn Fn(u64) -> bool,
) -> Result<Prepared, PrepareError> {
    let origin = TextsOrigin { sha256: unit.texts.file.sha256, column: unit.texts.column.clone() };
    let mut reader = read_texts(&unit.texts, path)?;
    let mut parts = Vec::new();
    let mut n_texts = 0u64;
    loop {
        let part: Vec<Text> = reader.by_ref().take(PART_ROWS_MAX).collect::<Result<_, _>>()?;
        if part.is_empty() {
            break;
        }
        n_texts += part.len() as u64;
        let key = layout::texts_part(unit.texts_key, parts.len(), attempt);
        parts.push(runtime.block_on(store.put(&key, encode_part(&part, &origin)?))?);
        if !go_on(n_texts) {
            return Err(PrepareError::Stopped);
        }
    }
    let tally = reader.tally();
    Ok(Prepared {
        parts,
        n_texts,
        n_blank: tally.n_blank,
        n_bad: tally.n_bad,
        n_duplicates: tally.n_duplicates,
    })
}
