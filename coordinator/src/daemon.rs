//! `serve`: stand by until nobody else leads, then lead: take up what was left unfinished and answer, until told to stop
//! or until another coordinator has taken over; then stand by again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use lsa_common::config;
use lsa_common::hub::{HfHub, HubError, HubSettings};
use lsa_common::reach;
use lsa_common::store::{Store, StoreError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::driver::handle::{Handle, SubmitError};
use crate::driver::{Driver, Settings};
use crate::journal::{self, JournalError, UnfinishedRun};
use crate::leader::{self, Candidate, Leadership};
use crate::rpc::desk::HubDesk;
use crate::seat::{Leader, Seat, Standing};
use crate::{chain, http, rpc};

const EXAMPLES: &str = "\
Examples:
  For workers and clients of this machine:
    lsa-coordinator serve --store ./bucket --listen-http 127.0.0.1:7301
    lsa-worker serve --coordinator http://127.0.0.1:7300
    lsa-coordinator submit grid.toml --watch --output-dir results

  For those of a network where everybody is trusted; a second one on another machine stands by:
    lsa-coordinator serve --store 's3://bucket/lsa?region=eu-central-1' --listen 0.0.0.0:7300 --insecure
    lsa-worker serve --store 's3://bucket/lsa?region=eu-central-1'";

/// What `serve` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ServeArgs {
    /// The bucket: s3://, gs://, az://, file:// or a directory. All workers must reach it
    #[arg(long, env = "LSA_STORE", value_name = "URL")]
    pub store: String,
    /// Where to listen for workers and clients
    #[arg(long, env = "LSA_LISTEN", default_value = "127.0.0.1:7300", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Where workers reach this coordinator, left in the bucket for those that are given --store; by default the
    /// address listened on, under this machine's name if that is every address
    #[arg(long, env = "LSA_ADVERTISE", value_name = "URL")]
    pub advertise: Option<String>,
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
    /// `--advertise` is not an address.
    #[error("--advertise {0:?} is not a coordinator's address; use for example http://host:7300")]
    Advertise(String),
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
    /// Signals cannot be received.
    #[error("cannot listen for signals")]
    Signals(#[source] std::io::Error),
}

impl DaemonError {
    /// Whether the command line is at fault.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Insecure { .. } | Self::Advertise(_) | Self::Bucket(_) | Self::Hub(_))
    }
}

/// Why this process could not lead for now.
#[derive(Debug, thiserror::Error)]
enum LeadError {
    #[error("cannot read the jobs in the bucket")]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

/// Goes on with every run that can be read; one that cannot must not keep the others waiting.
async fn resume_unfinished(store: &Store, handle: &Handle) -> Result<(), LeadError> {
    for job in journal::job_ids(store).await? {
        let unfinished = match journal::unfinished(store, &job).await {
            Ok(unfinished) => unfinished,
            Err(JournalError::Store(error @ StoreError::Damaged { .. })) => {
                eprintln!("cannot go on with job {job}: {}", chain(&error));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let Some(UnfinishedRun { job, run, spec, paused }) = unfinished else { continue };
        eprintln!("going on with job {job} (run {run})");
        match handle.resume(job.clone(), run, spec).await {
            Ok(_) if paused => handle.take_order(&job, true).await,
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
    if let Some(url) = args.advertise.as_ref().filter(|url| !reach::is_address(url)) {
        return Err(DaemonError::Advertise(url.clone()));
    }
    let hub = HubSettings::from_environment().and_then(HfHub::new).map_err(DaemonError::Hub)?;
    let store = Store::open(&args.store).map_err(DaemonError::Bucket)?;
    store.prepare().await?;

    let listener = rpc::listen(args.listen).await?;
    let address = listener.local_addr().map_err(DaemonError::Signals)?;
    let (standing, seat) = Seat::vacant();
    if let Some(address) = args.listen_http {
        let http_listener = rpc::listen(address).await?;
        let seat = seat.clone();
        tokio::spawn(async move {
            if let Err(error) = http::serve(http_listener, seat).await {
                tracing::error!("the HTTP server failed: {error}");
            }
        });
    }
    let lease_ttl_ms = u64::from(args.lease_ttl) * 1000;
    let settings = Settings {
        lease_ttl_ms,
        progress_interval_ms: (lease_ttl_ms / 6).clamp(200, 10_000),
        ..Settings::default()
    };
    let desk = HubDesk::new(seat.clone(), Some(Arc::new(hub)), config::coordinator_cache());
    let (stop, mut stopped) = watch::channel(false);
    let until_stopped = async move {
        // An error means that this function has returned.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let mut server = tokio::spawn(rpc::serve(listener, seat, settings, desk, until_stopped));
    let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Signals)?;

    let advertised = args.advertise.clone().unwrap_or_else(|| advertised(address));
    let candidate = Candidate { coordinator: crate::random_id(), address: Some(advertised) };
    let mut coordinator = Coordinator { store, candidate, settings, address, standing, leadership: None };
    let end = tokio::select! {
        never = coordinator.lead_whenever_possible() => match never {},
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        served = &mut server => match served {
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(())) | Err(_) => Ok(()),
        },
    };
    // Streams of workers never end by themselves, so the server is not awaited.
    let _ = stop.send(true);
    if let Some(mut leadership) = coordinator.leadership
        && let Err(error) = leadership.resign().await
    {
        tracing::warn!("cannot say that this coordinator ended: {}", chain(&error));
    }
    end
}

/// Where others reach what listens on `address`, as well as this machine knows.
fn advertised(address: SocketAddr) -> String {
    if !address.ip().is_unspecified() {
        return format!("http://{address}");
    }
    let name = hostname::get().map(|name| name.to_string_lossy().into_owned());
    format!("http://{}:{}", name.unwrap_or_else(|_| "localhost".to_owned()), address.port())
}

/// How long to wait before trying again to lead, after a bucket in trouble.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(2);

struct Coordinator {
    store: Store,
    candidate: Candidate,
    settings: Settings,
    address: SocketAddr,
    standing: watch::Sender<Standing>,
    /// While it leads.
    leadership: Option<Leadership>,
}

/// A task that ends with its owner.
struct Owned(JoinHandle<()>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Coordinator {
    #[expect(clippy::disallowed_methods, reason = "a bucket in trouble is given some time")]
    async fn lead_whenever_possible(&mut self) -> std::convert::Infallible {
        loop {
            let standing = self.standing.clone();
            let address = self.address;
            let waiting = move |leader: Leader| {
                let where_to = leader.address.as_deref().map(|url| format!(" at {url}")).unwrap_or_default();
                eprintln!(
                    "standing by on {address} · the coordinator of epoch {}{where_to} leads",
                    leader.epoch
                );
                standing.send_replace(Standing::By(Some(leader)));
            };
            let led = match leader::acquire(&self.store, &self.candidate, waiting).await {
                Ok(leadership) => self.lead(leadership).await,
                Err(error) => Err(error.into()),
            };
            if let Err(error) = led {
                eprintln!("cannot lead: {}; trying again", chain(&error));
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
            }
        }
    }

    /// Leads until another coordinator does.
    async fn lead(&mut self, leadership: Leadership) -> Result<(), LeadError> {
        let identity = leadership.identity.clone();
        let after_crash = leadership.after_crash;
        let leadership = self.leadership.insert(leadership);
        let seed = crate::random_seed();
        let (driver, handle) =
            Driver::new(self.store.clone(), identity.clone(), self.settings, seed, after_crash);
        // Its end closes every worker's session, so that they look for whoever leads then.
        let _driver = Owned(tokio::spawn(driver.run()));
        // Reading many jobs takes a while, in which a leader must not fall silent.
        let deposed = tokio::select! {
            deposed = leadership.keep() => deposed,
            resumed = resume_unfinished(&self.store, &handle) => {
                if let Err(error) = resumed {
                    // Whoever leads next may do better, and need not wait.
                    leadership.resign().await?;
                    self.leadership = None;
                    return Err(error);
                }
                self.standing.send_replace(Standing::Leading(handle));
                let (epoch, url) = (identity.epoch, self.store.url());
                eprintln!("leading epoch {epoch} · listening on {} · bucket {url}", self.address);
                leadership.keep().await
            }
        };
        self.leadership = None;
        self.standing.send_replace(Standing::By(None));
        eprintln!("epoch {} is over: {deposed}", identity.epoch);
        Ok(())
    }
}
