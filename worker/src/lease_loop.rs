//! Lease, run, report: a worker's life with a coordinator.
//!
//! A dropped stream does not end an attempt: the worker goes on computing, reconnects and says what it holds. A report
//! is kept until the coordinator says that it has dealt with it. SIGTERM, or the end of standard input in embedded
//! mode, stops the attempt after its current batch and hands the unit back.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lsa_common::failure::FailureClass;
use lsa_common::id::{AttemptId, Epoch, UnitId};
use lsa_common::report::{Failure, Outcome};
use lsa_common::store::{Store, StoreError};
use lsa_common::unit::Unit;
use tch::Device;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::resources::MemoryArgs;
use crate::rpc::{FromCoordinator, Introduction, Session, SessionError};
use crate::run::{Progress, Runner};

/// The longest wait between two tries to reach the coordinator.
const RECONNECT_MAX: Duration = Duration::from_secs(5);
const RECONNECT_FIRST: Duration = Duration::from_millis(200);

/// Why a worker gave up.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The coordinator does not want it, or cannot be named.
    #[error(transparent)]
    Session(SessionError),
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
    /// The coordinator's address.
    pub coordinator: String,
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
}

/// Works until `stop` turns true.
pub async fn work(config: WorkerConfig, stop: watch::Receiver<bool>) -> Result<(), WorkerError> {
    let (reports, finished) = mpsc::channel(1);
    let mut worker = Worker {
        config,
        stop,
        reports,
        finished,
        running: None,
        unacknowledged: Vec::new(),
        epoch: Epoch(0),
        computing: None,
        store_url: String::new(),
    };
    let mut wait = RECONNECT_FIRST;
    loop {
        let mut stop = worker.stop.clone();
        let opened = tokio::select! {
            opened = worker.open() => opened,
            () = stopped(&mut stop) => return Ok(()),
        };
        match opened {
            Ok((session, progress_interval)) => {
                wait = RECONNECT_FIRST;
                match worker.serve(session, progress_interval).await {
                    Ok(()) => return Ok(()),
                    Err(Ended::Session(error)) => tracing::warn!("{}; reconnecting", crate::chain(&error)),
                    Err(Ended::Worker(error)) => return Err(error),
                }
            }
            Err(Ended::Session(error @ (SessionError::Refused(_) | SessionError::Address { .. }))) => {
                return Err(WorkerError::Session(error));
            }
            Err(Ended::Session(error)) => tracing::info!("{}; trying again", crate::chain(&error)),
            Err(Ended::Worker(error)) => return Err(error),
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(RECONNECT_MAX),
            () = stopped(&mut stop) => {
                // Nobody is there to take the unit back; its lease runs out.
                worker.stop_running();
                return Ok(());
            }
        }
    }
}

struct Worker {
    config: WorkerConfig,
    stop: watch::Receiver<bool>,
    reports: mpsc::Sender<Finished>,
    finished: mpsc::Receiver<Finished>,
    running: Option<Running>,
    unacknowledged: Vec<Finished>,
    epoch: Epoch,
    computing: Option<std::sync::mpsc::Sender<Task>>,
    store_url: String,
}

struct Running {
    unit: UnitId,
    attempt: AttemptId,
    progress: Arc<Progress>,
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
    Session(SessionError),
    Worker(WorkerError),
}

impl From<SessionError> for Ended {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

impl From<WorkerError> for Ended {
    fn from(error: WorkerError) -> Self {
        Self::Worker(error)
    }
}

impl Worker {
    async fn open(&mut self) -> Result<(Session, Duration), Ended> {
        let running = self.running.iter().map(|running| (running.unit.clone(), running.attempt));
        let waiting = self.unacknowledged.iter().map(|report| (report.unit.clone(), report.attempt));
        let held: Vec<_> = running.chain(waiting).collect();
        let config = &self.config;
        let (session, welcome) =
            Session::open(&config.coordinator, &config.introduction, &held, self.epoch).await?;
        self.epoch = welcome.epoch;
        if self.computing.is_none() || self.store_url != welcome.store_url {
            let store = Store::open(&welcome.store_url).map_err(WorkerError::Store)?;
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
        let mut stopping = *self.stop.borrow();
        if self.running.is_none() && !stopping {
            session.ask().await?;
        }
        let mut ticks = tokio::time::interval(progress_interval);
        loop {
            if stopping && self.running.is_none() && self.unacknowledged.is_empty() {
                return Ok(());
            }
            tokio::select! {
                message = session.next() => self.take(message?, stopping)?,
                Some(report) = self.finished.recv() => {
                    self.running = None;
                    let fatal = fatal_message(&report.outcome);
                    self.unacknowledged.push(report.clone());
                    session.report(&report.unit, report.attempt, report.elapsed_ms, report.outcome).await?;
                    if let Some(message) = fatal {
                        return Err(WorkerError::Fatal(message).into());
                    }
                    if !stopping {
                        session.ask().await?;
                    }
                }
                _ = ticks.tick() => {
                    if let Some(running) = &self.running {
                        session.progress(&running.unit, running.attempt, running.progress.get()).await?;
                    }
                }
                () = stopped(&mut self.stop), if !stopping => {
                    stopping = true;
                    self.stop_running();
                }
            }
        }
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
                self.running = Some(Running { unit: unit.clone(), attempt, progress: progress.clone() });
                let computing = self.computing.as_ref().ok_or(WorkerError::Thread)?;
                computing.send(Task { unit, attempt, payload, progress }).map_err(|_| WorkerError::Thread)?;
            }
            FromCoordinator::Stop { attempt, .. } => {
                if let Some(running) = self.running.as_ref().filter(|running| running.attempt == attempt) {
                    running.progress.stop();
                }
                self.unacknowledged.retain(|report| report.attempt != attempt);
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
            let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
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

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody can ask any more; then only the session's end stops this worker.
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
