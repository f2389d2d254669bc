//! What outlives a coordinator: the jobs in the bucket, read back by listing.

use lsa_common::id::{Epoch, JobId};
use lsa_common::job::JobSpec;
use lsa_common::layout;
use lsa_common::record::{FailureRecord, PauseOrder, RunRequest, RunStatus};
use lsa_common::store::{Store, StoreError};

/// Why a job could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The bucket failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A job whose last run has ended.
#[derive(Clone, Debug)]
pub struct EndedJob {
    /// Which.
    pub job: JobId,
    /// Its last run.
    pub run: u32,
    /// Its spec.
    pub spec: JobSpec,
    /// How it ended.
    pub status: RunStatus,
}

/// A run that has begun and not ended.
#[derive(Clone, Debug)]
pub struct UnfinishedRun {
    /// Of which job.
    pub job: JobId,
    /// Its number.
    pub run: u32,
    /// What to do.
    pub spec: JobSpec,
    /// Nothing more of it is to be lent for now.
    pub paused: bool,
}

/// Every job in the bucket.
pub async fn job_ids(store: &Store) -> Result<Vec<JobId>, StoreError> {
    let folders = store.folders(layout::JOBS).await?;
    Ok(folders.iter().filter_map(|folder| folder.parse().ok()).collect())
}

/// The last run of a job, if it has ended.
pub async fn ended(store: &Store, job: &JobId) -> Result<Option<EndedJob>, JournalError> {
    let Some(run) = last_run(store, job).await? else { return Ok(None) };
    let Some(status) = run_status(store, job, run).await? else { return Ok(None) };
    let spec = store.get_json(&layout::job_spec(job)).await?;
    Ok(Some(EndedJob { job: job.clone(), run, spec, status }))
}

/// The last run of a job, and whether it has ended.
pub async fn last_run_ended(store: &Store, job: &JobId) -> Result<Option<(u32, bool)>, StoreError> {
    let Some(run) = last_run(store, job).await? else { return Ok(None) };
    Ok(Some((run, run_status(store, job, run).await?.is_some())))
}

/// The last run of a job, if a daemon began it and nobody ended it. Runs of embedded mode belong to their own process.
pub async fn unfinished(store: &Store, job: &JobId) -> Result<Option<UnfinishedRun>, JournalError> {
    let Some(run) = last_run(store, job).await? else { return Ok(None) };
    if run_status(store, job, run).await?.is_some() {
        return Ok(None);
    }
    let request: RunRequest = store.get_json(&layout::run_request(job, run)).await?;
    if request.embedded {
        return Ok(None);
    }
    let spec = store.get_json(&layout::job_spec(job)).await?;
    let paused = match last_order(store, job, run).await? {
        Some(number) => store.get_json::<PauseOrder>(&layout::pause_order(job, run, number)).await?.paused,
        None => false,
    };
    Ok(Some(UnfinishedRun { job: job.clone(), run, spec, paused }))
}

/// Notes that a run is to be paused, or to go on, for whoever leads later.
pub async fn order(store: &Store, job: &JobId, run: u32, order: &PauseOrder) -> Result<(), StoreError> {
    let mut number = last_order(store, job, run).await?.map_or(0, |number| number + 1);
    while !store.settle_json(&layout::pause_order(job, run, number), order).await?.is_mine {
        number += 1;
    }
    Ok(())
}

async fn last_order(store: &Store, job: &JobId, run: u32) -> Result<Option<u32>, StoreError> {
    let orders = store.list(&layout::pause_orders(job, run)).await?;
    let number = |key: &str| layout::parse_generation(key.rsplit('/').next()?);
    Ok(orders.iter().filter_map(|order| number(&order.key)).max())
}

/// The failures that a run has kept, oldest first, a line each.
pub async fn failures(store: &Store, job: &JobId, run: u32) -> Result<Vec<String>, JournalError> {
    let mut records: Vec<FailureRecord> = Vec::new();
    for object in store.list(&layout::run_failures(job, run)).await? {
        records.push(store.get_json(&object.key).await?);
    }
    records.sort_by(|a, b| a.at.cmp(&b.at));
    let line = |record: FailureRecord| {
        format!(
            "{} {}: attempt {} by {} failed ({}): {}",
            record.at,
            record.what,
            record.attempt_number,
            record.worker,
            record.failure_class,
            record.message
        )
    };
    Ok(records.into_iter().map(line).collect())
}

/// The epochs that have written results of a run; the highest counts.
pub async fn result_epochs(store: &Store, job: &JobId, run: u32) -> Result<Vec<Epoch>, StoreError> {
    let folders = store.folders(&format!("{}/results", layout::job_run(job, run))).await?;
    let mut epochs: Vec<Epoch> = folders.iter().filter_map(|name| name.parse().ok()).map(Epoch).collect();
    epochs.sort_unstable();
    Ok(epochs)
}

async fn last_run(store: &Store, job: &JobId) -> Result<Option<u32>, StoreError> {
    let runs = store.folders(&layout::job_runs(job)).await?;
    Ok(runs.iter().filter_map(|run| run.parse().ok()).max())
}

async fn run_status(store: &Store, job: &JobId, run: u32) -> Result<Option<RunStatus>, StoreError> {
    let folder = format!("{}/status", layout::job_run(job, run));
    let listed = store.list(&folder).await?;
    let epoch = |key: &str| key.rsplit('/').next()?.strip_suffix(".json")?.parse::<u64>().ok();
    let Some(newest) = listed.iter().filter_map(|object| epoch(&object.key)).max() else { return Ok(None) };
    store.get_json(&layout::run_status(job, run, Epoch(newest))).await.map(Some)
}
