//! `lsa-worker serve`: a daemon that works for a coordinator.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use lsa_common::id::WorkerId;
use lsa_common::model::Dtype;
use lsa_common::reach::Coordinators;
use lsa_common::store::{Store, StoreError};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::condition::Condition;
use crate::device::{self, DeviceChoice, DeviceError};
use crate::http;
use crate::lease_loop::{WorkerConfig, WorkerError, work};
use crate::resources::MemoryArgs;
use crate::rpc::Introduction;

const EXAMPLES: &str = "\
Examples:
  lsa-worker serve --coordinator http://127.0.0.1:7300
  lsa-worker serve --coordinator http://one:7300,http://two:7300 --device cuda:1 --cache /scratch/lsa
  lsa-worker serve --store 's3://bucket/lsa?region=eu-central-1'";

/// The exit code of a process that was told twice to stop.
const INTERRUPTED: i32 = 130;

/// What `serve` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ServeArgs {
    /// The coordinator's address, for example http://host:7300; of several, separated by commas, the one that leads
    #[arg(
        long,
        env = "LSA_COORDINATOR",
        value_name = "URL",
        value_delimiter = ',',
        required_unless_present = "store"
    )]
    pub coordinator: Vec<String>,
    /// The bucket as it is reached from here; without --coordinator it also says who leads
    #[arg(long, env = "LSA_STORE", value_name = "URL")]
    pub store: Option<String>,
    /// Where to compute: auto, cpu, cuda:N
    #[arg(long, env = "LSA_DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// CPU threads; all cores by default. The results do not depend on it
    #[arg(long, env = "LSA_THREADS", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// What else comparisons may use of the machine
    #[command(flatten)]
    pub memory: MemoryArgs,
    /// A name of its own among the coordinator's workers; host and process id by default
    #[arg(long)]
    pub worker_id: Option<WorkerId>,
    /// Where files from the bucket are kept
    #[arg(long, env = "LSA_CACHE", value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Seconds from SIGTERM to the end; a unit that does not stop by itself is handed back before
    #[arg(long, default_value_t = 25, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub grace: u32,
    /// Where to listen for HTTP: /healthz, /readyz, /metrics
    #[arg(long, env = "LSA_LISTEN_HTTP", value_name = "ADDRESS")]
    pub listen_http: Option<SocketAddr>,
    /// End when standard input closes: the coordinator that started this worker is gone
    #[arg(long, hide = true)]
    pub embedded: bool,
}

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// `--store` does not name a bucket.
    #[error(transparent)]
    Bucket(StoreError),
    /// The HTTP address is taken or not allowed.
    #[error("cannot listen on {address}; choose another with --listen-http")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The worker gave up.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// Signals cannot be received.
    #[error("cannot listen for signals")]
    Signals(#[source] std::io::Error),
}

/// Works until SIGTERM, SIGINT or, embedded, the end of standard input.
pub async fn run(args: ServeArgs) -> Result<(), ServeError> {
    let store = args.store.as_deref().map(Store::open).transpose().map_err(ServeError::Bucket)?;
    let coordinators = match &store {
        Some(store) if args.coordinator.is_empty() => Coordinators::Bucket(store.clone()),
        _ => Coordinators::Addresses(args.coordinator),
    };
    let condition = Arc::new(Condition::default());
    if let Some(address) = args.listen_http {
        let failed = |source| ServeError::Listen { address, source };
        let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
        let condition = condition.clone();
        tokio::spawn(async move {
            if let Err(error) = http::serve(listener, condition).await {
                tracing::error!("the HTTP server failed: {error}");
            }
        });
    }
    let chosen = device::open(args.device)?;
    tracing::info!("device: {}", chosen.reason);
    if !args.embedded {
        eprintln!("device: {}", chosen.reason);
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = args.threads.map_or(cores, |threads| threads as usize);
    let worker = args.worker_id.unwrap_or_else(own_name);
    let introduction = Introduction {
        worker,
        device: chosen.reason,
        threads: u32::try_from(threads).unwrap_or(u32::MAX),
        memory_bytes: device::memory(chosen.device).map_or(u64::MAX, |memory| memory.total_bytes),
        numeric_profile: device::numeric_profile(chosen.device, Dtype::Float32),
    };
    let (stop, stopped) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let embedded = args.embedded;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = parent_gone(), if embedded => {}
        }
        // The loop may have ended already.
        let _ = stop.send(true);
        // Whoever asks twice does not want to wait.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(INTERRUPTED);
    });
    let config = WorkerConfig {
        coordinators,
        store,
        introduction,
        cache: args.cache.unwrap_or_else(lsa_common::config::worker_cache),
        device: chosen.device,
        threads,
        memory: args.memory,
        grace: Duration::from_secs(u64::from(args.grace)),
    };
    Ok(work(config, condition, stopped).await?)
}

async fn parent_gone() {
    let mut input = tokio::io::stdin();
    let mut byte = [0u8; 64];
    // Nothing is ever sent: an end or an error both mean that the parent is gone.
    while matches!(input.read(&mut byte).await, Ok(n) if n > 0) {}
}

/// Host and process id, in the letters that an id may have.
fn own_name() -> WorkerId {
    let host = hostname::get().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(100).collect();
    format!("{}-{}", if host.is_empty() { "worker" } else { &host }, std::process::id())
        .parse()
        .expect("letters, digits and '-' only")
}
