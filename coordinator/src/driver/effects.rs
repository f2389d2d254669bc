//! What the driver does outside its loop: each a task that ends by sending a message back.

use std::collections::BTreeMap;
use std::sync::Arc;

use lsa_common::id::{Digest, JobId};
use lsa_common::job::JobSpec;
use lsa_common::layout;
use lsa_common::record::{ExperimentEnd, FailureRecord, RunState, RunStatus};
use lsa_common::report::Damaged;
use lsa_common::shard_records;
use lsa_common::store::{Store, StoreError};
use tokio::sync::mpsc;

use super::{JobEntry, Message};
use crate::across::AcrossResult;
use crate::across::group::groups;
use crate::chain;
use crate::commit::commit as commit_report;
use crate::embeddings::{Embeddings, EmbeddingsError};
use crate::export::parquet::{LayerMetricTable, SimilarityTable};
use crate::export::summary::{ExperimentOutcome, ExperimentState, grid_search_summary};
use crate::export::{self};
use crate::identity::{Identity, now_rfc3339};
use crate::output::{Output, OutputError};
use crate::plan::Work;
use crate::result::{self, ResultError};
use crate::scheduler::ExperimentStatus;
use crate::scheduler::event::{Block, Commit, Event, FailedAttempt, MergeEnd, MergeKeys};
use crate::scheduler::view::JobView;
use crate::store_clock::StoreClock;
use crate::survey as bucket;

/// Why something was not written: another coordinator may lead, or will soon.
const NOT_LEADING: &str = "this coordinator cannot say that it leads";

/// What every task needs.
pub(crate) struct Context {
    pub store: Store,
    pub clock: Arc<StoreClock>,
    pub identity: Identity,
    pub sender: mpsc::Sender<Message>,
}

impl Context {
    async fn tell(&self, message: Message) {
        // The loop is gone only when the process ends.
        let _ = self.sender.send(message).await;
    }
}

pub(crate) async fn survey(
    context: Context,
    work: Arc<Work>,
    number: u64,
    runs: Vec<(JobId, u32)>,
    numeric_profile: String,
    rows_keys: Vec<Digest>,
) {
    if !context.identity.leads() {
        let message = NOT_LEADING.to_owned();
        context.tell(Message::Event(Event::SurveyFailed { work: work.id, number, message })).await;
        return;
    }
    let surveyed =
        bucket::survey(&context.store, &context.identity, &work, &runs, &numeric_profile, &rows_keys).await;
    match surveyed {
        Ok((survey, blocks)) => {
            context.tell(Message::Event(Event::Surveyed { work: work.id, number, survey })).await;
            for block in blocks {
                roll_up_block(&context, &block).await;
            }
        }
        Err(error) => {
            let message = chain(&error);
            tracing::warn!("cannot look through the bucket: {message}");
            context.tell(Message::Event(Event::SurveyFailed { work: work.id, number, message })).await;
        }
    }
}

pub(crate) async fn commit(context: Context, commit: Arc<Commit>) {
    let end = commit_report(&context.store, &context.clock, &context.identity, &commit).await;
    let (unit, attempt) = (commit.report.unit.clone(), commit.report.attempt);
    context.tell(Message::Event(Event::Committed { unit, attempt, end })).await;
}

pub(crate) async fn roll_up(context: Context, block: Block) {
    roll_up_block(&context, &block).await;
}

/// Nobody waits for it: what is not rolled up is read one by one, and rolled up at the next survey.
async fn roll_up_block(context: &Context, block: &Block) {
    let Context { store, identity, .. } = context;
    if !identity.leads() {
        return;
    }
    let Block { extraction_key, pooling, generations } = block;
    let writer = (identity.coordinator.as_str(), identity.epoch);
    if let Err(error) = shard_records::roll_up(store, writer, *extraction_key, *pooling, generations).await {
        tracing::warn!("cannot roll up records of {extraction_key}: {}", chain(&error));
    }
}

pub(crate) async fn record_failure(context: Context, runs: Vec<(JobId, u32)>, failed: Box<FailedAttempt>) {
    let record = FailureRecord {
        what: failed.what,
        worker: failed.worker,
        attempt_number: failed.attempt_number,
        failure_class: failed.failure_class,
        message: failed.message,
        at: now_rfc3339(),
    };
    for (job, run) in runs.into_iter().filter(|_| context.identity.leads()) {
        let key = layout::run_failure(&job, run, &failed.unit, failed.attempt);
        if let Err(error) = context.store.settle_json(&key, &record).await {
            tracing::warn!(%job, "cannot keep a failure: {}", chain(&error));
        }
    }
}

/// Where an experiment's results go.
pub(crate) struct Target {
    job: JobId,
    spec: Arc<JobSpec>,
    output: Output,
}

impl Target {
    pub fn of(job: &JobId, entry: &JobEntry) -> Self {
        Self { job: job.clone(), spec: entry.spec.clone(), output: entry.output.clone() }
    }

    /// One experiment given by flags writes into the directory itself.
    fn folder(&self, name: &str) -> String {
        if self.spec.run.single { String::new() } else { format!("{name}/") }
    }
}

pub(crate) async fn merge(context: Context, target: Target, experiment: usize, keys: MergeKeys) {
    if !context.identity.leads() {
        let end = MergeEnd::Trouble(NOT_LEADING.to_owned());
        context.tell(Message::Event(Event::Merged { job: target.job, experiment, end })).await;
        return;
    }
    let end = match write_experiment(&context, &target, experiment, &keys).await {
        Ok(outcome) => {
            let job = target.job.clone();
            context.tell(Message::ExperimentWritten { job, experiment, outcome }).await;
            MergeEnd::Written
        }
        Err(WriteError::Result(ResultError::Damaged { trial, fault })) => {
            let line = format!("trial {trial} is damaged ({fault}); it is computed again");
            context.tell(Message::Log { job: target.job.clone(), line }).await;
            MergeEnd::Damaged { trial }
        }
        Err(WriteError::Result(ResultError::TooFew { trials })) => {
            let name = &target.spec.experiments[experiment].name;
            let line = format!(
                "{name}: after {} trials the confidence intervals are wider than asked for; going on to {trials}",
                keys.n_trials
            );
            context.tell(Message::Log { job: target.job.clone(), line }).await;
            MergeEnd::TooFew { trials }
        }
        Err(WriteError::Embeddings(EmbeddingsError::Damaged { shard, fault })) => {
            let line = format!("shard {shard} is damaged ({fault}); it is made again");
            context.tell(Message::Log { job: target.job.clone(), line }).await;
            let pooling = target.spec.experiments[experiment].pooling;
            MergeEnd::DamagedSource(Damaged::Shard { extraction_key: keys.extraction_key, pooling, shard })
        }
        Err(error) if error.may_pass() => MergeEnd::Trouble(chain(&error)),
        Err(error) => MergeEnd::Failed(chain(&error)),
    };
    context.tell(Message::Event(Event::Merged { job: target.job, experiment, end })).await;
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Result(#[from] ResultError),
    #[error(transparent)]
    Export(#[from] export::ExportError),
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error(transparent)]
    Embeddings(#[from] EmbeddingsError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot write a table of all results")]
    Table(#[from] export::parquet::TableError),
    #[error("drawing stopped")]
    Stopped(#[from] tokio::task::JoinError),
}

impl WriteError {
    /// Whether the store failed in a way that another try may not meet.
    fn may_pass(&self) -> bool {
        let store = match self {
            Self::Store(error)
            | Self::Result(ResultError::Store(error))
            | Self::Embeddings(EmbeddingsError::Store(error))
            | Self::Output(OutputError::Store(error)) => error,
            _ => return false,
        };
        matches!(store, StoreError::Request { .. })
    }
}

async fn write_experiment(
    context: &Context,
    target: &Target,
    number: usize,
    keys: &MergeKeys,
) -> Result<ExperimentOutcome, WriteError> {
    let experiment = &target.spec.experiments[number];
    let result = result::load(&context.store, &target.job, &target.spec, number, keys).await?;
    let outcome = ExperimentOutcome::done(&result, &experiment.name);
    let files = tokio::task::spawn_blocking(move || export::experiment_files(&result)).await??;
    let folder = target.folder(&experiment.name);
    // metadata.json last: where it is, everything that it describes is.
    let (last, first): (Vec<_>, Vec<_>) = files.into_iter().partition(|(path, _)| path == "metadata.json");
    for (path, bytes) in first {
        target.output.write(&format!("{folder}{path}"), bytes).await?;
    }
    if experiment.save_embeddings {
        let n_texts = target.spec.texts[experiment.texts].n_texts;
        let embeddings = Embeddings::open(&context.store, experiment, n_texts, keys.extraction_key).await?;
        match target.output {
            Output::Directory(_) => {
                for path in embeddings.paths() {
                    let bytes = embeddings.file(&path).await?;
                    target.output.write(&format!("{folder}{path}"), bytes).await?;
                }
            }
            // In the bucket they are kept once, as shards; `fetch` makes the files, and can make nothing again.
            Output::Bucket { .. } => embeddings.verify().await?,
        }
    }
    for (path, bytes) in last {
        target.output.write(&format!("{folder}{path}"), bytes).await?;
    }
    Ok(outcome)
}

/// Writes the files of a comparison across models, the summary last.
async fn write_across(target: &Target, result: AcrossResult) -> Result<(), WriteError> {
    let folder = format!("across/{}", result.name);
    let files = tokio::task::spawn_blocking(move || export::across::files(&result)).await??;
    for (path, bytes) in files {
        target.output.write(&format!("{folder}/{path}"), bytes).await?;
    }
    Ok(())
}

/// A job whose experiments have all ended.
pub(crate) struct JobEnd {
    target: Target,
    run: u32,
    state: RunState,
    view: Option<JobView>,
    experiments: Vec<ExperimentStatus>,
    elapsed_ms: u64,
    merged: BTreeMap<usize, MergeKeys>,
    outcomes: BTreeMap<usize, ExperimentOutcome>,
    log: Vec<String>,
}

impl JobEnd {
    pub fn new(
        job: &JobId,
        entry: &JobEntry,
        state: RunState,
        view: Option<JobView>,
        experiments: Vec<ExperimentStatus>,
        elapsed_ms: u64,
    ) -> Self {
        Self {
            target: Target::of(job, entry),
            run: entry.run,
            state,
            view,
            experiments,
            elapsed_ms,
            merged: entry.merged.clone(),
            outcomes: entry.outcomes.clone(),
            log: entry.log.iter().cloned().collect(),
        }
    }

    fn statuses(&self) -> Vec<(ExperimentState, Option<String>)> {
        let status = |status: &ExperimentStatus| match status {
            ExperimentStatus::Done => (ExperimentState::Done, None),
            ExperimentStatus::Failed(message) => (ExperimentState::Failed, Some(message.clone())),
            ExperimentStatus::Waiting | ExperimentStatus::Merging | ExperimentStatus::Cancelled => {
                (ExperimentState::Cancelled, None)
            }
        };
        self.experiments.iter().map(status).collect()
    }
}

/// Writes what concerns the whole job, and how it ended.
pub(crate) async fn end_job(context: Context, end: JobEnd) {
    let written = write_job(&context, &end).await;
    let error = written.err().map(|error| {
        let message = chain(&error);
        tracing::error!(job = %end.target.job, "cannot write the job's results: {message}");
        message
    });
    context.tell(Message::JobWritten { job: end.target.job, error }).await;
}

async fn write_job(context: &Context, end: &JobEnd) -> Result<(), WriteError> {
    let target = &end.target;
    let spec = &target.spec;
    let mut outcomes = Vec::new();
    let mut ends = BTreeMap::new();
    for (number, (state, error)) in end.statuses().into_iter().enumerate() {
        let Some(experiment) = spec.experiments.get(number) else { continue };
        ends.insert(
            experiment.name.clone(),
            ExperimentEnd {
                state: serde_json::to_value(state)
                    .ok()
                    .and_then(|v| v.as_str().map(str::to_owned))
                    .unwrap_or_default(),
                error: error.clone(),
            },
        );
        outcomes.push(match end.outcomes.get(&number) {
            Some(outcome) => outcome.clone(),
            None => ExperimentOutcome::unfinished(&experiment.name, state, error),
        });
    }

    for unresolved in &spec.unresolved {
        let (state, error) = (ExperimentState::Failed, Some(unresolved.error.clone()));
        ends.insert(
            unresolved.name.clone(),
            ExperimentEnd { state: "failed".to_owned(), error: error.clone() },
        );
        outcomes.push(ExperimentOutcome::unfinished(&unresolved.name, state, error));
    }

    if end.state != RunState::Cancelled {
        let mut table = SimilarityTable::begin(Vec::new())?;
        let mut layers = LayerMetricTable::begin(Vec::new())?;
        for number in end.outcomes.keys() {
            let Some(keys) = end.merged.get(number) else { continue };
            let result = result::load(&context.store, &target.job, spec, *number, keys).await?;
            table.add(&result)?;
            layers.add(&result)?;
        }
        for group in groups(spec, &end.merged) {
            let keys = &end.merged[&group.experiments[0]];
            let result = result::load_across(&context.store, spec, &group, keys).await?;
            table.add_across(&result)?;
            write_across(target, result).await?;
        }
        target.output.write("similarities.parquet", table.finish()?).await?;
        if !layers.is_empty() {
            target.output.write("layer_metrics.parquet", layers.finish()?).await?;
        }
        if !spec.run.single {
            let summary = grid_search_summary(target.job.as_str(), &outcomes);
            target.output.write("grid_search_summary.json", summary.into_bytes()).await?;
        }
    }
    if let Output::Directory(_) = target.output {
        let time = chrono::Utc::now().format("%Y%m%dT%H%M%SZ");
        let mut log = end.log.join("\n");
        log.push('\n');
        let folders: Vec<String> = match spec.run.single {
            true => vec![String::new()],
            false => end.outcomes.values().map(|outcome| format!("{}/", outcome.name)).collect(),
        };
        for folder in folders {
            target.output.write(&format!("{folder}pipeline_{time}.log"), log.clone().into_bytes()).await?;
        }
    }
    let view = end.view.as_ref();
    let status = RunStatus {
        state: end.state,
        experiments: ends,
        units_run: view.map_or(0, |view| view.units_run),
        units_total: view.map_or(0, |view| view.units_total),
        elapsed_ms: end.elapsed_ms,
    };
    let key = layout::run_status(&target.job, end.run, context.identity.epoch);
    context.store.settle_json(&key, &status).await?;
    Ok(())
}
