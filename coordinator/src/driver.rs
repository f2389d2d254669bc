//! The one loop: await a message, fold it into the scheduler's state, perform the effects.
//!
//! The loop never waits for I/O. Effects run as tasks of their own, bounded in number, and their ends come back as
//! events; one slow put stalls nothing. This file and `leader` alone read a clock.

pub mod effects;
pub mod handle;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lsa_common::id::{AttemptId, JobId, UnitId, WorkerId};
use lsa_common::job::JobSpec;
use lsa_common::store::Store;
use lsa_common::time::Millis;
use lsa_common::unit::Unit;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::export::summary::ExperimentOutcome;
use crate::identity::{Identity, now_rfc3339};
use crate::output::Output;
use crate::plan::plan;
use crate::scheduler::event::{Departure, Effect, Event, JobSettings, MergeKeys};
use crate::scheduler::{self, ExperimentStatus, State};
use crate::store_clock::StoreClock;
use handle::{Handle, JobSnapshot, WorkerSnapshot};

/// Times and bounds of the driver.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long a lease lasts without a sign of life.
    pub lease_ttl_ms: u64,
    /// How often a worker tells how far it is.
    pub progress_interval_ms: u64,
    /// Commits and other small requests to the store that run at once. Most of their time is waiting for the store.
    pub commits_at_once: usize,
    /// Surveys, merges and exports that run at once. They hold matrices, listings and figures.
    pub merges_at_once: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { lease_ttl_ms: 60_000, progress_interval_ms: 10_000, commits_at_once: 64, merges_at_once: 16 }
    }
}

const TICK: Duration = Duration::from_millis(200);
const INBOX: usize = 1024;
const LOG_LINES_MAX: usize = 10_000;

/// What the coordinator says to a worker.
#[derive(Clone, Debug)]
pub enum ToWorker {
    /// Work.
    Lease {
        /// Which unit.
        unit: UnitId,
        /// Under which attempt.
        attempt: AttemptId,
        /// How many attempts so far.
        attempt_number: u32,
        /// What to do.
        payload: Box<Unit>,
    },
    /// Give an attempt up.
    Stop {
        /// Which unit.
        unit: UnitId,
        /// Which attempt.
        attempt: AttemptId,
    },
    /// Finish the unit at hand and leave.
    Drain,
    /// A report has been dealt with.
    Reported {
        /// Which unit.
        unit: UnitId,
        /// Which attempt.
        attempt: AttemptId,
    },
}

/// What a worker said of itself.
#[derive(Clone, Debug)]
pub struct WorkerInfo {
    /// For a person.
    pub device: String,
    /// CPU threads.
    pub threads: u32,
    /// What its units may use.
    pub memory_bytes: u64,
    /// What it computes with.
    pub numeric_profile: String,
}

/// What the loop is sent.
pub(crate) enum Message {
    Event(Event),
    Accept {
        job: JobId,
        run: u32,
        spec: Arc<JobSpec>,
        output: Output,
        reply: oneshot::Sender<Accepted>,
    },
    Attach {
        worker: WorkerId,
        info: WorkerInfo,
        held: Vec<(UnitId, AttemptId)>,
        outbox: Outbox,
        session: u64,
    },
    Detach {
        worker: WorkerId,
        session: u64,
    },
    JobWritten {
        job: JobId,
        error: Option<String>,
    },
    ExperimentWritten {
        job: JobId,
        experiment: usize,
        outcome: ExperimentOutcome,
    },
    Log {
        job: JobId,
        line: String,
    },
    Look(Box<dyn FnOnce(&Driver) + Send>),
}

pub(crate) type Outbox = mpsc::Sender<ToWorker>;

/// What became of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The job.
    pub job: JobId,
    /// Its run.
    pub run: u32,
    /// The job was running already.
    pub attached: bool,
}

struct WorkerEntry {
    info: WorkerInfo,
    outbox: Outbox,
    session: u64,
    connected: bool,
}

pub(crate) struct JobEntry {
    pub run: u32,
    pub spec: Arc<JobSpec>,
    pub output: Output,
    pub started: Millis,
    pub elapsed_ms: Option<u64>,
    pub log: VecDeque<String>,
    pub merged: BTreeMap<usize, MergeKeys>,
    pub outcomes: BTreeMap<usize, ExperimentOutcome>,
    pub error: Option<String>,
}

/// The state and all that performs its effects.
pub struct Driver {
    state: State,
    store: Store,
    clock: Arc<StoreClock>,
    identity: Identity,
    begun: Instant,
    jobs: BTreeMap<JobId, JobEntry>,
    workers: BTreeMap<WorkerId, WorkerEntry>,
    inbox: mpsc::Receiver<Message>,
    sender: mpsc::Sender<Message>,
    commit_permits: Arc<Semaphore>,
    merge_permits: Arc<Semaphore>,
}

impl Driver {
    /// A driver and the handle to talk to it. `seed` drives attempt ids; with `after_other_leader` nothing is lent
    /// for a whole lease, since an earlier leader's workers may be busy.
    #[expect(clippy::disallowed_methods, reason = "the driver is where time enters")]
    pub fn new(
        store: Store,
        identity: Identity,
        settings: Settings,
        seed: [u8; 32],
        after_other_leader: bool,
    ) -> (Self, Handle) {
        let (sender, inbox) = mpsc::channel(INBOX);
        let lend_after = if after_other_leader { Millis(settings.lease_ttl_ms) } else { Millis(0) };
        let driver = Self {
            state: State::new(scheduler::Settings { lease_ttl_ms: settings.lease_ttl_ms }, seed, lend_after),
            store: store.clone(),
            clock: Arc::default(),
            identity: identity.clone(),
            begun: Instant::now(),
            jobs: BTreeMap::new(),
            workers: BTreeMap::new(),
            inbox,
            sender: sender.clone(),
            commit_permits: Arc::new(Semaphore::new(settings.commits_at_once)),
            merge_permits: Arc::new(Semaphore::new(settings.merges_at_once)),
        };
        (driver, Handle { sender, store, identity, submitting: Arc::default() })
    }

    /// Runs until every handle is gone or the task is dropped.
    pub async fn run(mut self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(message) => self.take(message),
                    None => return,
                },
                _ = ticks.tick() => self.fold(Event::Tick),
            }
        }
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Event(event) => self.fold(event),
            Message::Accept { job, run, spec, output, reply } => {
                let accepted = self.accept(job, run, spec, output);
                // The client may have gone away; the job runs all the same.
                let _ = reply.send(accepted);
            }
            Message::Attach { worker, info, held, outbox, session } => {
                tracing::info!(%worker, device = info.device, held = held.len(), "worker joined");
                let event = Event::WorkerJoined {
                    worker: worker.clone(),
                    numeric_profile: info.numeric_profile.clone(),
                    memory_bytes: info.memory_bytes,
                    held,
                };
                self.workers.insert(worker, WorkerEntry { info, outbox, session, connected: true });
                self.fold(event);
            }
            Message::Detach { worker, session } => {
                // A worker that is back already has a newer session.
                let Some(entry) = self.workers.get_mut(&worker).filter(|entry| entry.session == session)
                else {
                    return;
                };
                entry.connected = false;
                tracing::info!(%worker, "worker disconnected");
                self.fold(Event::WorkerLeft { worker, departure: Departure::Disconnected });
            }
            Message::JobWritten { job, error } => {
                let now = self.now();
                if let Some(entry) = self.jobs.get_mut(&job) {
                    entry.elapsed_ms = Some(now.since(entry.started));
                    entry.error = error;
                }
            }
            Message::ExperimentWritten { job, experiment, outcome } => {
                self.log(&job, format!("{}: results written", outcome.name));
                if let Some(entry) = self.jobs.get_mut(&job) {
                    entry.outcomes.insert(experiment, outcome);
                }
            }
            Message::Log { job, line } => self.log(&job, line),
            Message::Look(look) => look(self),
        }
    }

    fn accept(&mut self, job: JobId, run: u32, spec: Arc<JobSpec>, output: Output) -> Accepted {
        if let Some(entry) = self.jobs.get(&job).filter(|entry| entry.elapsed_ms.is_none()) {
            return Accepted { job, run: entry.run, attached: true };
        }
        let settings = JobSettings {
            continue_on_error: spec.run.continue_on_error,
            max_attempts: spec.run.max_attempts,
            priority: spec.run.priority,
            some_unresolved: !spec.unresolved.is_empty(),
        };
        let plan = plan(&spec);
        let entry = JobEntry {
            run,
            spec,
            output,
            started: self.now(),
            elapsed_ms: None,
            log: VecDeque::new(),
            merged: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            error: None,
        };
        self.jobs.insert(job.clone(), entry);
        self.log(
            &job,
            format!("run {run}: {} experiments, {} works", plan.experiments.len(), plan.works.len()),
        );
        self.fold(Event::JobAccepted { job: job.clone(), plan, settings });
        Accepted { job, run, attached: false }
    }

    fn fold(&mut self, event: Event) {
        if !matches!(event, Event::Tick) {
            tracing::debug!(?event, "event");
        }
        if let Event::WorkerLeft { worker, departure: Departure::Exited { .. } } = &event {
            self.workers.remove(worker);
        }
        let now = self.now();
        for effect in self.state.apply(now, event) {
            tracing::debug!(?effect, "effect");
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Lend { worker, unit, payload, attempt, attempt_number } => {
                let what = payload.describe();
                for job in self.state.jobs_of(&unit) {
                    self.log(&job, format!("{what}: lent to {worker}, attempt {attempt_number}"));
                }
                self.send(&worker, ToWorker::Lease { unit, attempt, attempt_number, payload });
            }
            Effect::Stop { worker, unit, attempt } => self.send(&worker, ToWorker::Stop { unit, attempt }),
            Effect::Drain { worker } => self.send(&worker, ToWorker::Drain),
            Effect::Acknowledge { worker, unit, attempt } => {
                self.send(&worker, ToWorker::Reported { unit, attempt });
            }
            Effect::Survey { work, number, jobs, numeric_profile, rows_keys } => {
                let runs = self.runs(&jobs);
                let survey = effects::survey(self.context(), work, number, runs, numeric_profile, rows_keys);
                spawn(&self.merge_permits, survey);
            }
            Effect::Commit(commit) => spawn(&self.commit_permits, effects::commit(self.context(), commit)),
            Effect::RollUp(block) => spawn(&self.commit_permits, effects::roll_up(self.context(), block)),
            Effect::RecordFailure(failed) => {
                for job in &failed.jobs {
                    let line = format!(
                        "{}: attempt {} by {} failed ({}): {}",
                        failed.what,
                        failed.attempt_number,
                        failed.worker,
                        failed.failure_class,
                        failed.message
                    );
                    tracing::warn!(%job, "{line}");
                    self.log(job, line);
                }
                let runs = self.runs(&failed.jobs);
                spawn(&self.commit_permits, effects::record_failure(self.context(), runs, failed));
            }
            Effect::Merge { job, experiment, keys } => {
                let context = self.context();
                let Some(entry) = self.jobs.get_mut(&job) else { return };
                entry.merged.insert(experiment, keys.clone());
                let target = effects::Target::of(&job, entry);
                spawn(&self.merge_permits, effects::merge(context, target, experiment, keys));
            }
            Effect::EndJob { job, state } => {
                self.log(&job, format!("run ended: {state:?}").to_lowercase());
                let Some(entry) = self.jobs.get(&job) else { return };
                let view = self.state.job_view(&job);
                let experiments = self.state.experiments(&job);
                let elapsed_ms = self.now().since(entry.started);
                let end = effects::JobEnd::new(&job, entry, state, view, experiments, elapsed_ms);
                spawn(&self.merge_permits, effects::end_job(self.context(), end));
            }
        }
    }

    fn context(&self) -> effects::Context {
        effects::Context {
            store: self.store.clone(),
            clock: self.clock.clone(),
            identity: self.identity.clone(),
            sender: self.sender.clone(),
        }
    }

    fn send(&mut self, worker: &WorkerId, message: ToWorker) {
        let Some(entry) = self.workers.get_mut(worker) else { return };
        if let Err(refused) = entry.outbox.try_send(message) {
            // Its stream is gone or does not drain. Without an outbox it ends, so that the worker comes back, says what
            // it has and asks again; it would wait for ever for the lease that it was not sent.
            tracing::warn!(%worker, "cannot reach worker: {refused}");
            entry.outbox = mpsc::channel(1).0;
        }
    }

    fn runs(&self, jobs: &[JobId]) -> Vec<(JobId, u32)> {
        jobs.iter().filter_map(|job| self.jobs.get(job).map(|entry| (job.clone(), entry.run))).collect()
    }

    fn log(&mut self, job: &JobId, line: String) {
        let Some(entry) = self.jobs.get_mut(job) else { return };
        if entry.log.len() == LOG_LINES_MAX {
            entry.log.pop_front();
        }
        entry.log.push_back(format!("{} {line}", now_rfc3339()));
    }

    pub(crate) fn snapshot(&self, job: &JobId) -> Option<JobSnapshot> {
        let entry = self.jobs.get(job)?;
        let view = self.state.job_view(job)?;
        Some(JobSnapshot {
            job: job.clone(),
            run: entry.run,
            spec: entry.spec.clone(),
            view,
            elapsed_ms: entry.elapsed_ms.unwrap_or_else(|| self.now().since(entry.started)),
            written: entry.elapsed_ms.is_some(),
            error: entry.error.clone(),
        })
    }

    pub(crate) fn experiments(&self, job: &JobId) -> Vec<ExperimentStatus> {
        self.state.experiments(job)
    }

    pub(crate) fn merged(&self, job: &JobId) -> Vec<MergeKeys> {
        self.jobs.get(job).map(|entry| entry.merged.values().cloned().collect()).unwrap_or_default()
    }

    pub(crate) fn log_lines(&self, job: &JobId) -> Vec<String> {
        self.jobs.get(job).map(|entry| entry.log.iter().cloned().collect()).unwrap_or_default()
    }

    pub(crate) fn snapshots(&self) -> Vec<JobSnapshot> {
        self.jobs.keys().filter_map(|job| self.snapshot(job)).collect()
    }

    pub(crate) fn worker_snapshots(&self) -> Vec<WorkerSnapshot> {
        let leases: Vec<_> = self.jobs.keys().filter_map(|job| self.state.job_view(job)).collect();
        let doing = |worker: &WorkerId| {
            let mine = leases.iter().flat_map(|view| &view.leases).find(|lease| lease.worker == *worker);
            mine.map(|lease| lease.what.clone()).unwrap_or_default()
        };
        let snapshot = |(worker, entry): (&WorkerId, &WorkerEntry)| WorkerSnapshot {
            worker: worker.clone(),
            info: entry.info.clone(),
            doing: doing(worker),
            connected: entry.connected,
            draining: self.state.is_draining(worker),
        };
        self.workers.iter().map(snapshot).collect()
    }
}

fn spawn(permits: &Arc<Semaphore>, effect: impl Future<Output = ()> + Send + 'static) {
    let permits = permits.clone();
    tokio::spawn(async move {
        let _permit = permits.acquire_owned().await;
        effect.await;
    });
}
