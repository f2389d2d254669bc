//! `serve`: lead, take up what was left unfinished, serve gRPC and HTTP until told to stop.

use std::net::SocketAddr;
use std::sync::Arc;

use clap::Args;
use lsa_common::config;
use lsa_common::hub::{HfHub, HubError, HubSettings};
use lsa_common::store::{Store, StoreError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::driver::handle::{Handle, SubmitError};
use crate::driver::{Driver, Settings};
use crate::journal::{self, JournalError, UnfinishedRun};
use crate::leader;
use crate::rpc::desk::HubDesk;
use crate::{chain, http, rpc};

const EXAMPLES: &str = "\
Examples:
  For workers and clients of this machine:
    lsa-coordinator serve --store ./bucket --listen-http 127.0.0.1:7301
    lsa-worker serve --coordinator http://127.0.0.1:7300
    lsa-coordinator submit grid.toml --watch --output-dir results

  For those of a network where everybody is trusted, with the bucket in a folder that all of them mount:
    lsa-coordinator serve --store /shared/lsa --listen 0.0.0.0:7300 --insecure";

/// What `serve` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ServeArgs {
    /// The bucket: a directory, or a file:// URL. All workers must reach it under the same path
    #[arg(long, env = "LSA_STORE", value_name = "PATH_OR_URL")]
    pub store: String,
    /// Where to listen for workers and clients
    #[arg(long, env = "LSA_LISTEN", default_value = "127.0.0.1:7300", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Where to listen for HTTP: /healthz, /readyz, /metrics
    #[arg(long, env = "LSA_LISTEN_HTTP", value_name = "ADDRESS")]
    pub listen_http: Option<SocketAddr>,
    /// Listen beyond this machine although nobody is asked who they are
    #[arg(long)]
    pub insecure: bool,
    /// Seconds without a sign of life after which a worker's unit is lent again
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub lease_ttl: u32,
}

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// An address that anybody could reach.
    #[error(
        "{flag} {address} can be reached from other machines and nobody is asked who they are; listen on 127.0.0.1, or \
         say --insecure on a network where everybody is trusted"
    )]
    Insecure {
        /// Which flag names it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// `--store` does not name a bucket.
    #[error(transparent)]
    Bucket(StoreError),
    /// The settings of the hub are wrong.
    #[error(transparent)]
    Hub(HubError),
    /// The bucket cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The services cannot be offered.
    #[error(transparent)]
    Serve(#[from] rpc::ServeError),
    /// Unfinished jobs cannot be read.
    #[error("cannot read the jobs in the bucket")]
    Journal(#[from] JournalError),
    /// An unfinished job cannot be taken up.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// Signals cannot be received.
    #[error("cannot listen for signals")]
    Signals(#[source] std::io::Error),
    /// Another coordinator leads now.
    #[error("a coordinator of epoch {0} has taken over")]
    Deposed(lsa_common::id::Epoch),
}

impl DaemonError {
    /// Whether the command line is at fault.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Insecure { .. } | Self::Bucket(_) | Self::Hub(_))
    }
}

/// Goes on with every run that can be read; one that cannot must not keep the others waiting.
async fn resume_unfinished(store: &Store, handle: &Handle) -> Result<(), DaemonError> {
    for job in journal::job_ids(store).await? {
        let unfinished = match journal::unfinished(store, &job).await {
            Ok(unfinished) => unfinished,
            Err(JournalError::Store(error @ StoreError::Damaged { .. })) => {
                eprintln!("cannot go on with job {job}: {}", chain(&error));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let Some(UnfinishedRun { job, run, spec }) = unfinished else { continue };
        eprintln!("going on with job {job} (run {run})");
        match handle.resume(job.clone(), run, spec).await {
            Ok(_) => {}
            Err(error @ SubmitError::Spec(_)) => {
                eprintln!("cannot go on with job {job}: {}", chain(&error));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Serves until SIGTERM or SIGINT.
pub async fn serve(args: &ServeArgs) -> Result<(), DaemonError> {
    for (flag, address) in [("--listen", Some(args.listen)), ("--listen-http", args.listen_http)] {
        match address {
            Some(address) if !address.ip().is_loopback() && !args.insecure => {
                return Err(DaemonError::Insecure { flag, address });
            }
            Some(_) | None => {}
        }
    }
    let hub = HubSettings::from_environment().and_then(HfHub::new).map_err(DaemonError::Hub)?;
    let store = Store::open(&args.store).map_err(DaemonError::Bucket)?;
    store.prepare().await?;
    let waiting = |epoch| eprintln!("waiting: the coordinator of epoch {epoch} leads");
    let mut leadership = leader::acquire(&store, crate::random_id(), waiting).await?;
    let identity = leadership.identity.clone();
    let lease_ttl_ms = u64::from(args.lease_ttl) * 1000;
    let settings = Settings {
        lease_ttl_ms,
        progress_interval_ms: (lease_ttl_ms / 6).clamp(200, 10_000),
        ..Settings::default()
    };
    let after_crash = leadership.after_crash;
    let (driver, handle) =
        Driver::new(store.clone(), identity.clone(), settings, crate::random_seed(), after_crash);
    tokio::spawn(driver.run());
    // Reading many jobs takes a while, in which a leader must not fall silent.
    tokio::select! {
        epoch = leadership.keep() => return Err(DaemonError::Deposed(epoch)),
        resumed = resume_unfinished(&store, &handle) => resumed?,
    }

    let listener = rpc::listen(args.listen).await?;
    let address = listener.local_addr().map_err(DaemonError::Signals)?;
    if let Some(address) = args.listen_http {
        let http_listener = rpc::listen(address).await?;
        let handle = handle.clone();
        tokio::spawn(async move {
            if let Err(error) = http::serve(http_listener, handle).await {
                tracing::error!("the HTTP server failed: {error}");
            }
        });
    }
    eprintln!("leading epoch {} · listening on {address} · bucket {}", identity.epoch, store.url());

    let (stop, mut stopped) = watch::channel(false);
    let until_stopped = async move {
        // An error means that this function has returned.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let desk = HubDesk::new(handle.clone(), Some(Arc::new(hub)), config::coordinator_cache());
    let mut server = tokio::spawn(rpc::serve(listener, handle, settings, desk, until_stopped));
    let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Signals)?;
    let end = tokio::select! {
        epoch = leadership.keep() => Err(DaemonError::Deposed(epoch)),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        served = &mut server => match served {
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(())) | Err(_) => Ok(()),
        },
    };
    // Streams of workers never end by themselves, so the server is not awaited.
    let _ = stop.send(true);
    if end.is_ok()
        && let Err(error) = leadership.resign().await
    {
        tracing::warn!("cannot say that this coordinator ended: {}", chain(&error));
    }
    end
}
