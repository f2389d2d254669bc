//! Texts of hub datasets, put into the bucket while a grid is resolved: how many there are is known once they are read.
//!
//! What a prepare unit would do is done here once, under the same key and the same commit rule, so that the job finds it
//! done, and so does every other job with the same texts.

use std::time::Instant;

use lsa_common::dataset::{DatasetError, FileOpener, TextsPlan, TextsSpec};
use lsa_common::failure::FailureClass;
use lsa_common::id::AttemptId;
use lsa_common::key::texts_key;
use lsa_common::layout;
use lsa_common::prepare::{PrepareError, prepare};
use lsa_common::record::TextsRecord;
use lsa_common::report::Outcome;
use lsa_common::store::{Store, StoreError};
use lsa_common::unit::{PrepareUnit, Unit};
use tokio::runtime::Handle;

use crate::commit::commit;
use crate::identity::Identity;
use crate::scheduler::event::{Commit, CommitEnd, Found, Item, Reported};
use crate::store_clock::StoreClock;
use crate::survey;

/// Why texts are not in the bucket.
#[derive(Debug, thiserror::Error)]
pub enum PreparedError {
    /// They cannot be read or written.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The bucket failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There are none.
    #[error("dataset {dataset} holds no texts ({n_blank} blank and {n_bad} unusable rows were skipped)")]
    NoTexts {
        /// The dataset.
        dataset: String,
        /// Texts of white space only.
        n_blank: u64,
        /// Unusable rows.
        n_bad: u64,
    },
    /// The record was not made.
    #[error("the texts of {dataset} were not recorded: {reason}")]
    Commit {
        /// The dataset.
        dataset: String,
        /// Why.
        reason: String,
    },
}

impl PreparedError {
    /// Whether the rights of whoever asks the hub do not suffice.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Prepare(PrepareError::Dataset(DatasetError::Hub { source, .. })) if source.is_refused())
    }

    /// What the failure means for whoever asked.
    pub fn failure_class(&self) -> FailureClass {
        match self {
            Self::Prepare(error) => error.failure_class(),
            Self::Store(error) => error.failure_class(),
            Self::NoTexts { .. } => FailureClass::Reject,
            Self::Commit { .. } => FailureClass::Retry,
        }
    }
}

/// The record of a plan's texts, where the bucket has them, whole.
pub async fn find(store: &Store, plan: &TextsPlan) -> Result<Option<TextsRecord>, StoreError> {
    let key = texts_key(plan);
    match newest(store, plan).await? {
        Some(Found { generation, intact: true }) => {
            store.get_json(&layout::texts_commit(key, generation)).await.map(Some)
        }
        Some(Found { intact: false, .. }) | None => Ok(None),
    }
}

async fn newest(store: &Store, plan: &TextsPlan) -> Result<Option<Found>, StoreError> {
    let found = survey::texts(store, texts_key(plan)).await?;
    Ok(found.get(&(0, Item::Texts)).copied())
}

/// The record of a plan's texts, which are read and written unless they are there. Blocks: `runtime` waits for the bucket.
#[expect(clippy::disallowed_methods, reason = "the record says how long it took")]
pub fn find_or_make(
    runtime: &Handle,
    store: &Store,
    identity: &Identity,
    plan: &TextsPlan,
    files: &dyn FileOpener,
) -> Result<TextsRecord, PreparedError> {
    if let Some(record) = runtime.block_on(find(store, plan))? {
        return Ok(record);
    }
    let key = texts_key(plan);
    let generation = runtime.block_on(newest(store, plan))?.map_or(0, |found| found.generation + 1);
    let started = Instant::now();
    let attempt = AttemptId(u128::from_be_bytes(crate::random_seed()[..16].try_into().expect("16 bytes")));
    let prepared = prepare(runtime, store, key, plan, None, files, attempt, &|_| true)?;
    let dataset = || plan.dataset.clone();
    let n_texts = u32::try_from(prepared.n_texts).expect("at most num_samples");
    if n_texts == 0 {
        let (n_blank, n_bad) = (prepared.n_blank, prepared.n_bad);
        return Err(PreparedError::NoTexts { dataset: dataset(), n_blank, n_bad });
    }
    let report = Reported {
        worker: "coordinator".parse().expect("letters only"),
        unit: format!("prepare-{key}-0-{}", key.short()).parse().expect("letters, digits and '-'"),
        attempt,
        elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        outcome: Outcome::Prepared(prepared),
    };
    let texts = TextsSpec { plan: plan.clone(), n_texts };
    let end = runtime.block_on(commit(
        store,
        &StoreClock::default(),
        identity,
        &Commit {
            payload: Unit::Prepare(PrepareUnit { texts_key: key, texts }),
            generations: [(Item::Texts, generation)].into(),
            attempt_number: 1,
            numeric_profile: String::new(),
            report,
        },
    ));
    match end {
        CommitEnd::Recorded => {}
        CommitEnd::Refused(reason) | CommitEnd::StoreTrouble(reason) => {
            return Err(PreparedError::Commit { dataset: dataset(), reason });
        }
    }
    // Another process may have been first; its record counts.
    let record = runtime.block_on(find(store, plan))?;
    let reason = "its objects went missing at once".to_owned();
    record.ok_or_else(|| PreparedError::Commit { dataset: dataset(), reason })
}
