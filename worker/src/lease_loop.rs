//! Lease, run, report: a worker's life with a coordinator.
//!
//! A dropped stream does not end an attempt: the worker goes on computing, reconnects and says what it holds. A report
//! is kept until the coordinator says that it has dealt with it. SIGTERM, or the end of standard input in embedded
//! mode, stops the attempt after its current batch and hands the unit back; one that does not stop in time is handed back
//! all the same.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lsa_common::failure::FailureClass;
use lsa_common::id::{AttemptId, Epoch, UnitId};
use lsa_common::reach::{Coordinators, ReachError};
use lsa_common::report::{Failure, Outcome};
use lsa_common::store::{Store, StoreError};
use lsa_common::unit::Unit;
use tch::Device;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::condition::Condition;
use crate::resources::MemoryArgs;
use crate::rpc::{FromCoordinator, Introduction, Session, SessionError};
use crate::run::{Progress, Runner};

/// The longest wait between two tries to reach the coordinator.
const RECONNECT_MAX: Duration = Duration::from_secs(5);
const RECONNECT_FIRST: Duration = Duration::from_millis(200);
/// How long handing a unit back may take.
const HAND_BACK_MAX: Duration = Duration::from_secs(5);
/// How long a unit waits for a bucket in trouble before its attempt fails; meanwhile its lease is renewed.
const STORE_PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Why a worker gave up.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The coordinator does not want it.
    #[error(transparent)]
    Session(SessionError),
    /// There is no coordinator to be looked for.
    #[error(transparent)]
    Reach(ReachError),
    /// The bucket that the coordinator named cannot be used from here.
    #[error("the coordinator's bucket cannot be used by this worker")]
    Store(#[from] StoreError),
    /// The device is lost.
    #[error("this worker cannot go on: {0}")]
    Fatal(String),
    /// The computing thread is gone.
    #[error("the computing thread ended")]
    Thread,
}

/// What a worker needs to know.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Where coordinators are.
    pub coordinators: Coordinators,
    /// The bucket as it is reached from here; where nothing is said, as the coordinator calls it.
    pub store: Option<Store>,
    /// Who this is.
    pub introduction: Introduction,
    /// Where files from the bucket are kept.
    pub cache: PathBuf,
    /// Where to compute.
    pub device: Device,
    /// CPU threads.
    pub threads: usize,
    /// What else comparisons may use of the machine.
    pub memory: MemoryArgs,
    /// How long it may take to stop.
    pub grace: Duration,
}

/// Works until `stop` turns true; what it does is told to `condition`.
pub async fn work(
    config: WorkerConfig,
    condition: Arc<Condition>,
    stop: watch::Receiver<bool>,
) -> Result<(), WorkerError> {
    let (reports, finished) = mpsc::channel(1);
    let grace = Grace::new(config.grace, stop);
    let mut worker = Worker {
        config,
        condition,
        grace,
        reports,
        finished,
        running: None,
        unacknowledged: Vec::new(),
        epoch: Epoch(0),
        computing: None,
        store_url: String::new(),
        is_drained: false,
    };
    let mut grace = worker.grace.clone();
    tokio::select! {
        ended = worker.work() => ended,
        () = grace.over() => {
            // Nobody took the unit back; its lease runs out.
            tracing::warn!("stopped before everything was handed back");
            Ok(())
        }
    }
}

struct Worker {
    config: WorkerConfig,
    condition: Arc<Condition>,
    grace: Grace,
    reports: mpsc::Sender<Finished>,
    finished: mpsc::Receiver<Finished>,
    running: Option<Running>,
    unacknowledged: Vec<Finished>,
    epoch: Epoch,
    computing: Option<std::sync::mpsc::Sender<Task>>,
    store_url: String,
    /// The coordinator wants this worker to leave after the unit at hand.
    is_drained: bool,
}

struct Running {
    unit: UnitId,
    attempt: AttemptId,
    progress: Arc<Progress>,
    begun: Instant,
}

struct Task {
    unit: UnitId,
    attempt: AttemptId,
    payload: Box<Unit>,
    progress: Arc<Progress>,
}

#[derive(Clone)]
struct Finished {
    unit: UnitId,
    attempt: AttemptId,
    elapsed_ms: u64,
    outcome: Outcome,
}

enum Ended {
    /// Another session may be had; why this one was not, or ended.
    Session(String),
    Worker(WorkerError),
}

impl From<SessionError> for Ended {
    fn from(error: SessionError) -> Self {
        Self::Session(crate::chain(&error))
    }
}

impl From<WorkerError> for Ended {
    fn from(error: WorkerError) -> Self {
        Self::Worker(error)
    }
}

impl Worker {
    /// Goes from session to session, until it has stopped.
    async fn work(&mut self) -> Result<(), WorkerError> {
        let mut wait = RECONNECT_FIRST;
        loop {
            if self.grace.has_begun() {
                self.stop_running();
                if self.has_nothing() {
                    return Ok(());
                }
            }
            let mut grace = self.grace.clone();
            let holds = !self.has_nothing();
            let opened = tokio::select! {
                opened = self.open() => opened,
                () = grace.begun(), if !holds => return Ok(()),
            };
            match opened {
                Ok((session, progress_interval)) => {
                    wait = RECONNECT_FIRST;
                    self.condition.connected(Some(self.epoch));
                    let ended = self.serve(session, progress_interval).await;
                    self.condition.connected(None);
                    match ended {
                        Ok(()) => return Ok(()),
                        Err(Ended::Worker(error)) => return Err(error),
                        Err(Ended::Session(why)) => tracing::warn!("{why}; reconnecting"),
                    }
                }
                Err(Ended::Worker(error)) => return Err(error),
                Err(Ended::Session(why)) => tracing::info!("{why}; trying again"),
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(RECONNECT_MAX),
                () = grace.begun(), if !holds => return Ok(()),
            }
        }
    }

    fn has_nothing(&self) -> bool {
        self.running.is_none() && self.unacknowledged.is_empty()
    }

    /// Whether no coordinator will be found by trying again. A worker that has met one waits for it whatever happens.
    fn is_hopeless(&self, error: &ReachError) -> bool {
        match error {
            ReachError::Address { .. } => true,
            ReachError::Store(error) => self.epoch == Epoch(0) && !error.may_pass(),
            ReachError::NoLeader(_) | ReachError::NeverLed { .. } | ReachError::NoAddress { .. } => false,
        }
    }

    async fn open(&mut self) -> Result<(Session, Duration), Ended> {
        let config = &self.config;
        let channel = config.coordinators.leader().await.map_err(|error| match self.is_hopeless(&error) {
            true => Ended::Worker(WorkerError::Reach(error)),
            false => Ended::Session(crate::chain(&error)),
        })?;
        let running = self.running.iter().map(|running| (running.unit.clone(), running.attempt));
        let waiting = self.unacknowledged.iter().map(|report| (report.unit.clone(), report.attempt));
        let held: Vec<_> = running.chain(waiting).collect();
        let opened = Session::open(channel, &config.introduction, &held, self.epoch).await;
        let (session, welcome) = opened.map_err(|error| match error {
            SessionError::Refused(_) => Ended::Worker(WorkerError::Session(error)),
            error => error.into(),
        })?;
        self.epoch = welcome.epoch;
        if self.computing.is_none() || self.store_url != welcome.store_url {
            let store = match &config.store {
                Some(store) => store.clone(),
                None => Store::open(&welcome.store_url).map_err(WorkerError::Store)?,
            };
            let store = store.patient(STORE_PATIENCE);
            self.computing = Some(start_computing(&self.config, store, self.reports.clone()));
            self.store_url = welcome.store_url;
        }
        Ok((session, welcome.progress_interval))
    }

    /// Serves one session until it breaks, or until the worker has stopped.
    async fn serve(&mut self, mut session: Session, progress_interval: Duration) -> Result<(), Ended> {
        for report in self.unacknowledged.clone() {
            session.report(&report.unit, report.attempt, report.elapsed_ms, report.outcome).await?;
        }
        let mut stopping = false;
        if self.running.is_none() && !self.grace.has_begun() && !self.is_drained {
            session.ask().await?;
        }
        let mut ticks = tokio::time::interval(progress_interval);
        let mut handing_back = self.grace.clone();
        loop {
            if (stopping || self.is_drained) && self.has_nothing() {
                return Ok(());
            }
            tokio::select! {
                message = session.next() => self.take(message?, stopping)?,
                Some(report) = self.finished.recv() => {
                    let fatal = fatal_message(&report.outcome);
                    self.tell(&session, report).await?;
                    if let Some(message) = fatal {
                        return Err(WorkerError::Fatal(message).into());
                    }
                    if !stopping && !self.is_drained {
                        session.ask().await?;
                    }
                }
                _ = ticks.tick() => {
                    if let Some(running) = &self.running {
                        session.progress(&running.unit, running.attempt, running.progress.get()).await?;
                    }
                }
                () = self.grace.begun(), if !stopping => {
                    stopping = true;
                    session.draining().await?;
                    self.stop_running();
                }
                () = handing_back.nearly_over(), if stopping && self.running.is_some() => {
                    // It computes, or waits for the bucket, too long: it ends with the process.
                    if let Some(Running { unit, attempt, begun, .. }) = self.running.take() {
                        let elapsed_ms = elapsed_ms(begun);
                        self.tell(&session, Finished { unit, attempt, elapsed_ms, outcome: Outcome::HandedBack })
                            .await?;
                    }
                }
            }
        }
    }

    async fn tell(&mut self, session: &Session, report: Finished) -> Result<(), SessionError> {
        self.running = None;
        self.condition.finished(&report.outcome);
        self.unacknowledged.push(report.clone());
        session.report(&report.unit, report.attempt, report.elapsed_ms, report.outcome).await
    }

    fn take(&mut self, message: FromCoordinator, stopping: bool) -> Result<(), WorkerError> {
        match message {
            FromCoordinator::Lease { unit, attempt, payload } => {
                if self.running.is_some() {
                    // Not asked for; the lease runs out by itself.
                    tracing::warn!(%unit, "a lease came while another unit runs");
                    return Ok(());
                }
                tracing::info!(%unit, %attempt, "{}", payload.describe());
                let progress = Arc::new(Progress::default());
                if stopping {
                    progress.stop();
                }
                let running = Running {
                    unit: unit.clone(),
                    attempt,
                    progress: progress.clone(),
                    begun: Instant::now(),
                };
                self.running = Some(running);
                self.condition.began();
                let computing = self.computing.as_ref().ok_or(WorkerError::Thread)?;
                computing.send(Task { unit, attempt, payload, progress }).map_err(|_| WorkerError::Thread)?;
            }
            FromCoordinator::Stop { attempt, .. } => {
                if let Some(running) = self.running.as_ref().filter(|running| running.attempt == attempt) {
                    running.progress.stop();
                }
                self.unacknowledged.retain(|report| report.attempt != attempt);
            }
            FromCoordinator::Drain => {
                tracing::info!("draining: the coordinator lends nothing more");
                self.is_drained = true;
            }
            FromCoordinator::Reported { attempt } => {
                self.unacknowledged.retain(|report| report.attempt != attempt);
            }
        }
        Ok(())
    }

    fn stop_running(&self) {
        if let Some(running) = &self.running {
            running.progress.stop();
        }
    }
}

/// The one thread that computes: models stay with it, and libtorch's grad mode is a thread's own.
fn start_computing(
    config: &WorkerConfig,
    store: Store,
    reports: mpsc::Sender<Finished>,
) -> std::sync::mpsc::Sender<Task> {
    let (sender, tasks) = std::sync::mpsc::channel::<Task>();
    let runtime = Handle::current();
    let config = config.clone();
    std::thread::spawn(move || {
        let mut runner =
            Runner::new(runtime, store, config.cache, config.device, config.threads, config.memory);
        for task in tasks {
            let span = tracing::info_span!("attempt", unit_id = %task.unit, attempt_id = %task.attempt);
            let _entered = span.enter();
            let begun = Instant::now();
            let outcome = runner.attempt(&task.payload, task.attempt, &task.progress);
            let elapsed_ms = elapsed_ms(begun);
            let report = Finished { unit: task.unit, attempt: task.attempt, elapsed_ms, outcome };
            if reports.blocking_send(report).is_err() {
                return;
            }
        }
    });
    sender
}

fn fatal_message(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Failed(Failure { failure_class: FailureClass::Fatal, message, .. }) => Some(message.clone()),
        _ => None,
    }
}

fn elapsed_ms(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The time that a worker has from the order to stop to its end.
#[derive(Clone)]
struct Grace {
    stop: watch::Receiver<bool>,
    whole: Duration,
    begun: Option<Instant>,
}

impl Grace {
    fn new(whole: Duration, stop: watch::Receiver<bool>) -> Self {
        Self { stop, whole, begun: None }
    }

    fn has_begun(&self) -> bool {
        *self.stop.borrow()
    }

    /// The order to stop.
    async fn begun(&mut self) {
        // An error means that nobody can ask any more.
        if self.stop.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
        self.begun.get_or_insert_with(Instant::now);
    }

    /// Time to hand back what does not stop by itself: as much is left as the coordinator may take to answer.
    async fn nearly_over(&mut self) {
        self.pass(self.whole.saturating_sub(HAND_BACK_MAX).max(self.whole / 2)).await;
    }

    async fn over(&mut self) {
        self.pass(self.whole).await;
    }

    async fn pass(&mut self, part: Duration) {
        self.begun().await;
        let begun = self.begun.unwrap_or_else(Instant::now);
        tokio::time::sleep_until((begun + part).into()).await;
    }
}
