//! Finding the coordinator that leads: among addresses, or by what the bucket says.
//!
//! Coordinators that stand by answer as well; their gRPC health says that the work service is not offered. A name that
//! stands for several machines (a headless service of Kubernetes) is asked machine by machine.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::epoch;
use crate::failure::root_cause;
use crate::store::{Store, StoreError};

/// The service whose health says that a coordinator leads.
pub const LEADING_SERVICE: &str = "lsa.work.v1.Work";

const CONNECT_MAX: Duration = Duration::from_secs(5);
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How often a silent connection is asked whether it is alive, and how long it may take to answer.
pub const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);
/// A connection that does not answer for so long is given up.
pub const KEEP_ALIVE_MAX: Duration = Duration::from_secs(5);

/// Why no leading coordinator was found.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// Not an address.
    #[error("{url:?} is not a coordinator's address; use for example http://host:7300")]
    Address {
        /// As given.
        url: String,
    },
    /// Nobody who leads answers.
    #[error("cannot reach the coordinator at {}", tried(.0))]
    NoLeader(Vec<Tried>),
    /// The bucket says nothing of a leader.
    #[error("no coordinator has led in {url} yet; start one with `lsa-coordinator serve --store {url}`")]
    NeverLed {
        /// Which bucket.
        url: String,
    },
    /// The bucket says who leads, but not where.
    #[error(
        "the coordinator of epoch {epoch} has not said where it is reached; start it with --advertise URL"
    )]
    NoAddress {
        /// Its epoch.
        epoch: crate::id::Epoch,
    },
    /// The bucket cannot be asked.
    #[error("cannot read in the bucket who leads")]
    Store(#[from] StoreError),
}

/// An address that was asked, and what came of it.
#[derive(Debug)]
pub struct Tried {
    /// As asked.
    pub url: String,
    /// What it said.
    pub answer: String,
}

fn tried(tried: &[Tried]) -> String {
    let tried = tried.iter().map(|Tried { url, answer }| format!("{url} ({answer})"));
    tried.collect::<Vec<_>>().join(", ")
}

/// Where coordinators are.
#[derive(Clone, Debug)]
pub enum Coordinators {
    /// At these addresses, one or several.
    Addresses(Vec<String>),
    /// The newest leader has left its address in this bucket.
    Bucket(Store),
}

impl Coordinators {
    /// A connection to the one that leads.
    pub async fn leader(&self) -> Result<Channel, ReachError> {
        match self {
            Self::Addresses(urls) => among(urls).await,
            Self::Bucket(store) => {
                let newest = epoch::newest(store).await?;
                let epoch = newest.ok_or_else(|| ReachError::NeverLed { url: store.url().to_owned() })?;
                let address = epoch::record(store, epoch).await?.address;
                among(&[address.ok_or(ReachError::NoAddress { epoch })?]).await
            }
        }
    }
}

/// Whether that is the address of a coordinator, as far as it looks.
pub fn is_address(url: &str) -> bool {
    let uri = url.parse::<Uri>().ok();
    uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
}

/// A connection to the one that leads among the coordinators at these addresses.
async fn among(urls: &[String]) -> Result<Channel, ReachError> {
    let mut failed = Vec::new();
    let mut places = Vec::new();
    for url in urls {
        let address = || ReachError::Address { url: url.clone() };
        let uri: Uri = url.parse().map_err(|_| address())?;
        let endpoint = Endpoint::from_shared(url.clone()).ok().filter(|_| is_address(url));
        let endpoint = endpoint.ok_or_else(address)?;
        match places_of(url, &uri).await {
            Ok(found) if found.len() > 1 => places.extend(found),
            Ok(_) => places.push((url.clone(), endpoint)),
            Err(error) => failed.push(Tried { url: url.clone(), answer: error.to_string() }),
        }
    }
    let mut asked: FuturesUnordered<_> =
        places.into_iter().map(|(url, endpoint)| async move { (ask(endpoint).await, url) }).collect();
    while let Some((answer, url)) = asked.next().await {
        match answer {
            Ok(channel) => return Ok(channel),
            Err(answer) => failed.push(Tried { url, answer }),
        }
    }
    Err(ReachError::NoLeader(failed))
}

/// The machines that a name stands for. One that is reached over TLS is asked by its name, which its certificate names.
async fn places_of(url: &str, uri: &Uri) -> std::io::Result<Vec<(String, Endpoint)>> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    if uri.scheme_str() == Some("https") || host.parse::<std::net::IpAddr>().is_ok() {
        return Ok(Vec::new());
    }
    let found = tokio::net::lookup_host((host, uri.port_u16().unwrap_or(80))).await?;
    let place = |address: std::net::SocketAddr| {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a socket address");
        (format!("{url} at {address}"), endpoint)
    };
    Ok(found.map(place).collect())
}

/// A connection to that coordinator if it leads; else what it answers, for a person.
async fn ask(endpoint: Endpoint) -> Result<Channel, String> {
    let endpoint = endpoint
        .connect_timeout(CONNECT_MAX)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_MAX)
        .keep_alive_while_idle(true);
    let channel = endpoint.connect().await.map_err(|error| root_cause(&error))?;
    let request = HealthCheckRequest { service: LEADING_SERVICE.to_owned() };
    let mut health = HealthClient::new(channel.clone());
    match tokio::time::timeout(ANSWER_MAX, health.check(request)).await {
        Ok(Ok(answer)) if answer.get_ref().status == ServingStatus::Serving as i32 => Ok(channel),
        Ok(Ok(_)) => Err("stands by".to_owned()),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err("no answer".to_owned()),
    }
}
