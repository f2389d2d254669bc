//! The gRPC services: wire → event, await the answer, → wire. Wire types stop here.

pub mod desk;
pub mod jobs;
pub mod work;

use std::net::SocketAddr;

use lsa_common::reach::{KEEP_ALIVE_EVERY, KEEP_ALIVE_MAX, LEADING_SERVICE};
use lsa_common::wire::MESSAGE_BYTES_MAX;
use lsa_common::wire::job::jobs_server::JobsServer;
use lsa_common::wire::work::work_server::WorkServer;
use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::driver::Settings;
use crate::seat::{NotLeading, Seat, Standing};
use desk::HubDesk;

/// Why the services could not be offered.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken or not allowed.
    #[error("cannot listen on {address}; choose another with --listen")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The server ended by itself.
    #[error("the gRPC server failed")]
    Server(#[from] tonic::transport::Error),
}

/// Takes the address; port 0 lets the system choose one.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })
}

impl From<NotLeading> for Status {
    fn from(not_leading: NotLeading) -> Self {
        Self::unavailable(not_leading.to_string())
    }
}

/// Serves until `stop` resolves; answers while this process leads.
pub async fn serve(
    listener: TcpListener,
    seat: Seat,
    settings: Settings,
    desk: HubDesk,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let work = WorkServer::new(work::WorkService::new(seat.clone(), settings))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let jobs = JobsServer::new(jobs::JobsService::new(seat.clone(), desk))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let (reporter, health) = tonic_health::server::health_reporter();
    tokio::spawn(tell_health(reporter, seat));
    // Leases and stops are small and urgent; the default would hold them back for 40 ms.
    let incoming =
        TcpListenerStream::new(listener).map(|stream| stream.and_then(|s| s.set_nodelay(true).map(|()| s)));
    Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_MAX))
        .add_service(health)
        .add_service(work)
        .add_service(jobs)
        .serve_with_incoming_shutdown(incoming, stop)
        .await?;
    Ok(())
}

/// The process is healthy as such, leading or not; the work service is where it leads.
async fn tell_health(reporter: HealthReporter, mut seat: Seat) {
    loop {
        let status = match seat.standing() {
            Standing::Leading(_) => ServingStatus::Serving,
            Standing::By(_) => ServingStatus::NotServing,
        };
        reporter.set_service_status(LEADING_SERVICE, status).await;
        if !seat.changed().await {
            return;
        }
    }
}
