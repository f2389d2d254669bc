//! `run`: coordinator, workers and bucket on this machine, for one job.
//!
//! The coordinator is this process; workers are child processes in process groups of their own, so that Ctrl-C reaches
//! this process alone, which then lets them finish their batch. They end when their standard input closes, however
//! this process ends.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use lsa_common::id::{Digest, Epoch, WorkerId};
use lsa_common::job::JobSpec;
use lsa_common::store::{Store, StoreError};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::driver::handle::{Handle, JobSnapshot, OutputFor, SubmitError};
use crate::driver::{Driver, Settings};
use crate::identity::Identity;
use crate::progress::Progress;
use crate::rpc::desk::HubDesk;
use crate::rpc::{self, ServeError};
use crate::scheduler::ExperimentStatus;
use crate::scheduler::event::{Departure, Event};
use crate::seat::Seat;

/// Respawns of one device's worker before `run` gives up.
const RESPAWNS_MAX: u32 = 10;
/// How long workers may take to finish their batch after Ctrl-C.
const GRACE: Duration = Duration::from_secs(8);
/// The exit code of a worker that was asked for something that it cannot do.
const WORKER_USAGE: i32 = 2;
/// How often progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What `run` needs to know.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    /// What to run.
    pub spec: JobSpec,
    /// Where results go.
    pub output_dir: PathBuf,
    /// The bucket.
    pub store: Store,
    /// Workers per device, a device being a GPU or the CPU.
    pub workers: u32,
    /// CPU threads of a worker; the cores, shared out, where none is named.
    pub threads: Option<u32>,
    /// As `lsa-worker serve --device` takes it.
    pub device: String,
    /// Passed on to workers.
    pub log: String,
}

/// How a run ended.
#[derive(Debug)]
pub enum LocalEnd {
    /// The job ended by itself.
    Ended(Box<LocalResult>),
    /// Ctrl-C; the job can be resumed.
    Interrupted,
}

/// A job that ended by itself.
#[derive(Debug)]
pub struct LocalResult {
    /// How.
    pub snapshot: JobSnapshot,
    /// How its experiments ended, in the spec's order.
    pub experiments: Vec<ExperimentStatus>,
    /// The extractions that it used.
    pub extractions: BTreeSet<Digest>,
}

/// Why a run could not go on.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The worker binary is not where it should be.
    #[error(
        "lsa-worker is neither beside this program ({beside:?}) nor named by LSA_WORKER; build it with `cargo build \
         --release -p lsa-worker`"
    )]
    NoWorkerBinary {
        /// Where it was looked for.
        beside: PathBuf,
    },
    /// A worker could not be started.
    #[error("cannot start {program:?}")]
    Spawn {
        /// Which program.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A worker ends again and again.
    #[error(
        "the worker of {device} ended {RESPAWNS_MAX} times, last with {status}; its last words stand above"
    )]
    WorkerEnds {
        /// Which device.
        device: String,
        /// How it ended last.
        status: ExitStatus,
    },
    /// A worker refuses its command line: another try would end the same way.
    #[error("--device {device}: the worker cannot use it, for the reason that it gives above")]
    WorkerRefuses {
        /// Which device.
        device: String,
    },
    /// The job was not taken.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The bucket cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The services cannot be offered.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Signals cannot be received.
    #[error("cannot listen for Ctrl-C")]
    Signals(#[source] std::io::Error),
    /// Results could not be written.
    #[error("{0}")]
    Output(String),
    /// The loop is gone.
    #[error("the scheduler ended unexpectedly")]
    Lost,
}

impl LocalError {
    /// Whether the command line is at fault.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::WorkerRefuses { .. })
    }
}

/// Runs one job to its end, or until Ctrl-C.
#[expect(clippy::disallowed_methods, reason = "workers get a grace period in wall-clock time")]
pub async fn run(config: LocalConfig, progress: &mut Progress) -> Result<LocalEnd, LocalError> {
    let program = worker_binary()?;
    config.store.prepare().await?;
    let identity = Identity::new(crate::random_id(), Epoch(0));
    let settings = Settings { progress_interval_ms: 500, ..Settings::default() };
    let (driver, handle) = Driver::new(config.store.clone(), identity, settings, crate::random_seed(), false);
    tokio::spawn(driver.run());

    let listener = rpc::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    let address = listener.local_addr().map_err(LocalError::Signals)?;
    let (stop, stopped) = watch::channel(false);
    let until_stopped = wait_for(stopped.clone());
    // The grid is resolved: nobody asks anything of a hub here.
    let desk = HubDesk::new(Seat::taken(handle.clone()), None, lsa_common::config::coordinator_cache());
    tokio::spawn(rpc::serve(listener, Seat::taken(handle.clone()), settings, desk, until_stopped));

    let accepted =
        handle.submit(config.spec.clone(), OutputFor::Directory(config.output_dir.clone())).await?;
    let (failures, mut failed) = mpsc::channel(1);
    let mut keepers = JoinSet::new();
    for place in places(&config) {
        let keeper = Keeper {
            program: program.clone(),
            url: format!("http://{address}"),
            place,
            log: config.log.clone(),
            handle: handle.clone(),
            stopped: stopped.clone(),
        };
        let failures = failures.clone();
        keepers.spawn(async move {
            if let Err(error) = keeper.keep().await {
                // The first failure ends the run; later ones say the same.
                let _ = failures.try_send(error);
            }
        });
    }

    let mut interrupts = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
        .map_err(LocalError::Signals)?;
    let mut terminations = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(LocalError::Signals)?;
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let mut devices = BTreeSet::new();
    let end = loop {
        tokio::select! {
            _ = looks.tick() => {
                let mut snapshot = handle.job(&accepted.job).await.ok_or(LocalError::Lost)?;
                let workers = handle.workers().await;
                for worker in &workers {
                    if devices.insert(worker.info.device.clone()) {
                        progress.say(&format!("device: {}", worker.info.device));
                    }
                }
                if !workers.iter().any(|worker| worker.connected) {
                    // What the scheduler advises, to start one, is being done.
                    snapshot.view.waiting = None;
                }
                progress.show(&snapshot);
                if snapshot.written {
                    let experiments = handle.experiments(&accepted.job).await;
                    let merged = handle.merged(&accepted.job).await;
                    let extractions = merged.iter().map(|keys| keys.extraction_key).collect();
                    break Ok(LocalEnd::Ended(Box::new(LocalResult { snapshot, experiments, extractions })));
                }
            }
            Some(error) = failed.recv() => break Err(error),
            _ = interrupts.recv() => break Ok(LocalEnd::Interrupted),
            _ = terminations.recv() => break Ok(LocalEnd::Interrupted),
        }
    };
    progress.end();
    if matches!(end, Ok(LocalEnd::Interrupted)) {
        progress.say("stopping after the current batch; Ctrl-C again stops at once");
    }
    // Closing standard input tells the workers to stop; the receivers are gone if they have.
    let _ = stop.send(true);
    // A keeper that panicked has nothing left to stop.
    let finish = async { while keepers.join_next().await.is_some() {} };
    tokio::select! {
        () = finish => {}
        () = tokio::time::sleep(GRACE) => {}
        _ = interrupts.recv() => {}
    }
    // Workers that are left are killed here: when the process ends, nobody may be in time to do it.
    keepers.shutdown().await;
    match end {
        Ok(LocalEnd::Ended(result)) => match &result.snapshot.error {
            Some(error) => Err(LocalError::Output(error.clone())),
            None => Ok(LocalEnd::Ended(result)),
        },
        end => end,
    }
}

async fn wait_for(mut stopped: watch::Receiver<bool>) {
    // An error means that the run is over as well.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// A device and its share of the machine.
#[derive(Clone, Debug)]
struct Place {
    number: usize,
    device: String,
    threads: u32,
    /// Workers on this machine, this one included.
    n_workers: usize,
}

/// With `auto`, every GPU or else the CPU; each with as many workers as asked for, which share the cores.
fn places(config: &LocalConfig) -> Vec<Place> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let devices: Vec<String> = match gpu_count() {
        n @ 2.. if config.device == "auto" => (0..n).map(|gpu| format!("cuda:{gpu}")).collect(),
        _ => vec![config.device.clone()],
    };
    let per_device = config.workers.max(1) as usize;
    let n_workers = devices.len() * per_device;
    let share = u32::try_from((cores / n_workers).max(1)).unwrap_or(u32::MAX);
    let threads = config.threads.unwrap_or(share);
    let device = |number: usize| devices[number / per_device].clone();
    (0..n_workers).map(|number| Place { number, device: device(number), threads, n_workers }).collect()
}

fn gpu_count() -> usize {
    std::fs::read_dir("/proc/driver/nvidia/gpus").map_or(0, |entries| entries.filter_map(Result::ok).count())
}

/// `LSA_WORKER`, or the program beside this one.
fn worker_binary() -> Result<PathBuf, LocalError> {
    if let Some(named) = std::env::var_os("LSA_WORKER") {
        return Ok(PathBuf::from(named));
    }
    let own = std::env::current_exe().unwrap_or_default();
    let beside = own.parent().unwrap_or(Path::new(".")).join("lsa-worker");
    if beside.is_file() { Ok(beside) } else { Err(LocalError::NoWorkerBinary { beside }) }
}

/// Keeps one worker running.
struct Keeper {
    program: PathBuf,
    url: String,
    place: Place,
    log: String,
    handle: Handle,
    stopped: watch::Receiver<bool>,
}

impl Keeper {
    #[expect(
        clippy::disallowed_methods,
        reason = "a worker that ends again and again is respawned at a slower pace"
    )]
    async fn keep(self) -> Result<(), LocalError> {
        let mut respawns = 0;
        loop {
            let worker: WorkerId =
                format!("local-{}-{respawns}", self.place.number).parse().expect("letters, digits and '-'");
            let mut child = self.spawn(&worker)?;
            // Held apart: waiting for a child closes the input that is still in it.
            let input = child.stdin.take();
            let mut stopped = self.stopped.clone();
            let status = tokio::select! {
                status = child.wait() => status,
                () = wait_for(stopped.clone()) => {
                    drop(input);
                    let status = child.wait().await;
                    return status.map(drop).map_err(|source| self.failed(source));
                }
            };
            let status = status.map_err(|source| self.failed(source))?;
            if *stopped.borrow_and_update() {
                return Ok(());
            }
            if status.code() == Some(WORKER_USAGE) {
                return Err(LocalError::WorkerRefuses { device: self.place.device.clone() });
            }
            let departure = Departure::Exited { faulted: is_fault(status) };
            self.handle.event(Event::WorkerLeft { worker: worker.clone(), departure }).await;
            tracing::warn!(%worker, "worker ended with {status}");
            respawns += 1;
            if respawns > RESPAWNS_MAX {
                return Err(LocalError::WorkerEnds { device: self.place.device.clone(), status });
            }
            let pause = Duration::from_millis(100 << respawns.min(6));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
            }
        }
    }

    fn spawn(&self, worker: &WorkerId) -> Result<Child, LocalError> {
        Command::new(&self.program)
            .args(["serve", "--embedded", "--coordinator", &self.url])
            .args(["--device", &self.place.device, "--threads", &self.place.threads.to_string()])
            .args(["--memory-shares", &self.place.n_workers.to_string()])
            .args(["--worker-id", worker.as_str(), "--log", &self.log])
            // Settings of daemons on this machine are not this worker's.
            .env_remove("LSA_STORE")
            .env_remove("LSA_LISTEN_HTTP")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| self.failed(source))
    }

    fn failed(&self, source: std::io::Error) -> LocalError {
        LocalError::Spawn { program: self.program.clone(), source }
    }
}

/// Whether a process died of itself: a panic or a fault signal, not a kill from outside.
fn is_fault(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt as _;
    const PANIC: i32 = 101;
    let faults =
        [nix::libc::SIGSEGV, nix::libc::SIGABRT, nix::libc::SIGBUS, nix::libc::SIGILL, nix::libc::SIGFPE];
    status.code() == Some(PANIC) || status.signal().is_some_and(|signal| faults.contains(&signal))
}
