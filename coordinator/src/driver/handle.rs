//! How the rest of the process talks to the driver's loop.

use std::sync::Arc;

use lsa_common::id::{JobId, WorkerId};
use lsa_common::job::{JobSpec, SpecError};
use lsa_common::layout;
use lsa_common::record::{PauseOrder, RunRequest};
use lsa_common::store::{Store, StoreError};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::{Accepted, Driver, Message, WorkerInfo};
use crate::identity::{Identity, now_rfc3339};
use crate::journal;
use crate::output::Output;
use crate::scheduler::ExperimentStatus;
use crate::scheduler::event::{Event, MergeKeys};
use crate::scheduler::view::JobView;

/// A clonable end of the driver's inbox.
#[derive(Clone)]
pub struct Handle {
    pub(crate) sender: mpsc::Sender<Message>,
    pub(crate) store: Store,
    pub(crate) identity: Identity,
    /// Submissions take turns.
    pub(crate) submitting: Arc<Mutex<()>>,
}

/// Why a job was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The spec is not one that resolving could have made.
    #[error("the job's spec is invalid")]
    Spec(#[from] SpecError),
    /// The bucket failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The coordinator is shutting down.
    #[error("the coordinator is shutting down; submit again when it is back")]
    Closed,
}

/// A job as it stands.
#[derive(Clone, Debug)]
pub struct JobSnapshot {
    /// Which.
    pub job: JobId,
    /// Its current run.
    pub run: u32,
    /// Its spec.
    pub spec: Arc<JobSpec>,
    /// What the scheduler knows of it.
    pub view: JobView,
    /// Since it was accepted, or how long it took.
    pub elapsed_ms: u64,
    /// It has ended and everything is written.
    pub written: bool,
    /// Why its results could not be written, if so.
    pub error: Option<String>,
}

/// A worker as it stands.
#[derive(Clone, Debug)]
pub struct WorkerSnapshot {
    /// Which.
    pub worker: WorkerId,
    /// What it said of itself.
    pub info: WorkerInfo,
    /// What it does, for a person; empty when idle.
    pub doing: String,
    /// Whether its stream is up.
    pub connected: bool,
    /// Whether it is lent nothing more.
    pub draining: bool,
}

impl Handle {
    /// Writes the spec and a new run of it, and has it run; attaches where the same job runs already.
    pub async fn submit(&self, spec: JobSpec, output: OutputFor) -> Result<Accepted, SubmitError> {
        spec.check()?;
        let job = spec.id();
        // Two that submit the same at once would begin two runs of it.
        let _turn = self.submitting.lock().await;
        if let Some(known) = self.job(&job).await
            && !known.written
        {
            return Ok(Accepted { job, run: known.run, attached: true });
        }
        // The same id means the same content of everything that changes results, so an earlier spec stands.
        self.store.settle_json(&layout::job_spec(&job), &spec).await?;
        let run = self.begin_run(&job, matches!(output, OutputFor::Directory(_))).await?;
        self.accept(job, run, spec, output).await
    }

    /// Goes on with a run that another coordinator began.
    pub async fn resume(&self, job: JobId, run: u32, spec: JobSpec) -> Result<Accepted, SubmitError> {
        spec.check()?;
        self.accept(job, run, spec, OutputFor::Bucket).await
    }

    async fn accept(
        &self,
        job: JobId,
        run: u32,
        spec: JobSpec,
        output: OutputFor,
    ) -> Result<Accepted, SubmitError> {
        let output = match output {
            OutputFor::Directory(directory) => Output::Directory(directory),
            OutputFor::Bucket => Output::Bucket {
                store: self.store.clone(),
                folder: layout::run_results(&job, run, self.identity.epoch),
            },
        };
        let (reply, accepted) = oneshot::channel();
        let message = Message::Accept { job, run, spec: Arc::new(spec), output, reply };
        self.sender.send(message).await.map_err(|_| SubmitError::Closed)?;
        accepted.await.map_err(|_| SubmitError::Closed)
    }

    async fn begin_run(&self, job: &JobId, embedded: bool) -> Result<u32, StoreError> {
        let runs = self.store.folders(&layout::job_runs(job)).await?;
        let mut run = runs.iter().filter_map(|run| run.parse::<u32>().ok()).max().map_or(1, |run| run + 1);
        let request = RunRequest {
            coordinator: self.identity.coordinator.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            embedded,
            at: now_rfc3339(),
        };
        loop {
            // Not one's own where another process began this run.
            if self.store.settle_json(&layout::run_request(job, run), &request).await?.is_mine {
                return Ok(run);
            }
            run += 1;
        }
    }

    /// A job that this process has accepted.
    pub async fn job(&self, job: &JobId) -> Option<JobSnapshot> {
        let job = job.clone();
        self.look(move |driver| driver.snapshot(&job)).await.flatten()
    }

    /// How the experiments of a job stand that this process has accepted, in the spec's order.
    pub async fn experiments(&self, job: &JobId) -> Vec<ExperimentStatus> {
        let job = job.clone();
        self.look(move |driver| driver.experiments(&job)).await.unwrap_or_default()
    }

    /// The keys of those that are merged.
    pub async fn merged(&self, job: &JobId) -> Vec<MergeKeys> {
        let job = job.clone();
        self.look(move |driver| driver.merged(&job)).await.unwrap_or_default()
    }

    /// What happened to a job that this process has accepted, line by line.
    pub async fn log_lines(&self, job: &JobId) -> Vec<String> {
        let job = job.clone();
        self.look(move |driver| driver.log_lines(&job)).await.unwrap_or_default()
    }

    /// Every job that this process has accepted.
    pub async fn jobs(&self) -> Vec<JobSnapshot> {
        self.look(Driver::snapshots).await.unwrap_or_default()
    }

    /// Every worker that has registered.
    pub async fn workers(&self) -> Vec<WorkerSnapshot> {
        self.look(Driver::worker_snapshots).await.unwrap_or_default()
    }

    /// Ends a job.
    pub async fn cancel(&self, job: &JobId) {
        self.event(Event::JobCancelled { job: job.clone() }).await;
    }

    /// Has nothing more of a run lent, or goes on with it; whoever leads later does the same.
    pub async fn pause(&self, job: &JobId, run: u32, paused: bool) -> Result<(), StoreError> {
        let order = PauseOrder { paused, coordinator: self.identity.coordinator.clone(), at: now_rfc3339() };
        journal::order(&self.store, job, run, &order).await?;
        self.take_order(job, paused).await;
        Ok(())
    }

    /// Does what an order says that stands in the bucket.
    pub async fn take_order(&self, job: &JobId, paused: bool) {
        let job = job.clone();
        self.event(if paused { Event::JobPaused { job } } else { Event::JobResumed { job } }).await;
    }

    /// Has a worker finish its unit and leave.
    pub async fn drain(&self, worker: &WorkerId) {
        self.event(Event::DrainRequested { worker: worker.clone() }).await;
    }

    /// Tells the scheduler something.
    pub async fn event(&self, event: Event) {
        // The loop is gone only when the process ends.
        let _ = self.sender.send(Message::Event(event)).await;
    }

    /// The bucket.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Who this process is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    async fn look<T: Send + 'static>(&self, look: impl FnOnce(&Driver) -> T + Send + 'static) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let look = Box::new(move |driver: &Driver| {
            let _ = reply.send(look(driver));
        });
        self.sender.send(Message::Look(look)).await.ok()?;
        answer.await.ok()
    }
}

/// Where a job's results are to go.
#[derive(Clone, Debug)]
pub enum OutputFor {
    /// A directory of this machine.
    Directory(std::path::PathBuf),
    /// The bucket, under the run.
    Bucket,
}
