//! The gRPC services: wire → event, await the answer, → wire. Wire types stop here.

pub mod desk;
pub mod jobs;
pub mod work;

use std::net::SocketAddr;

use lsa_common::wire::MESSAGE_BYTES_MAX;
use lsa_common::wire::job::jobs_server::JobsServer;
use lsa_common::wire::work::work_server::WorkServer;
use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use crate::driver::Settings;
use crate::driver::handle::Handle;
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

/// Serves until `stop` resolves.
pub async fn serve(
    listener: TcpListener,
    handle: Handle,
    settings: Settings,
    desk: HubDesk,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let work = WorkServer::new(work::WorkService::new(handle.clone(), settings))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let jobs = JobsServer::new(jobs::JobsService::new(handle, desk))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    // Leases and stops are small and urgent; the default would hold them back for 40 ms.
    let incoming =
        TcpListenerStream::new(listener).map(|stream| stream.and_then(|s| s.set_nodelay(true).map(|()| s)));
    Server::builder()
        .http2_keepalive_interval(Some(std::time::Duration::from_secs(20)))
        .add_service(work)
        .add_service(jobs)
        .serve_with_incoming_shutdown(incoming, stop)
        .await?;
    Ok(())
}
