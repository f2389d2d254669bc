//! Commands that talk to a running coordinator: one file per command group. No bucket credentials are needed.

pub mod fetch;
pub mod show;
pub mod submit;

use clap::Args;
use lsa_common::reach::{Coordinators, ReachError};
use lsa_common::wire::MESSAGE_BYTES_MAX;
use lsa_common::wire::job::jobs_client::JobsClient;
use tonic::transport::Channel;

/// Which coordinator to talk to.
#[derive(Args, Clone, Debug)]
pub struct CoordinatorArgs {
    /// The coordinator's address; of several, separated by commas, the one that leads
    #[arg(
        long,
        env = "LSA_COORDINATOR",
        default_value = "http://127.0.0.1:7300",
        value_name = "URL",
        value_delimiter = ','
    )]
    pub coordinator: Vec<String>,
}

/// A job, by its id or a beginning of it.
#[derive(Args, Clone, Debug)]
pub struct JobArgs {
    /// The job's id, or enough of its beginning
    pub job: String,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
    /// Which coordinator
    #[command(flatten)]
    pub coordinator: CoordinatorArgs,
}

/// A connected client.
pub type Client = JobsClient<Channel>;

/// Why a question to the coordinator failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not an address.
    #[error(transparent)]
    Address(ReachError),
    /// Nobody who leads answers.
    #[error("{0}; start one with `lsa-coordinator serve`, or name it with --coordinator")]
    Reach(ReachError),
    /// The coordinator says no.
    #[error("the coordinator answers: {message}")]
    Refused {
        /// What kind of no.
        code: tonic::Code,
        /// Why, and how to mend it.
        message: String,
    },
    /// A file of this machine.
    #[error("cannot use {path:?}")]
    File {
        /// Which file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is nothing to fetch.
    #[error("job {job} has no results: it is {state}; `lsa-coordinator status {job}` says more")]
    NoResults {
        /// Which job.
        job: String,
        /// How it stands.
        state: &'static str,
    },
    /// An answer that this version does not understand.
    #[error(
        "the coordinator's answer makes no sense here ({0}); use matching versions of client and coordinator"
    )]
    Answer(String),
    /// A result has a name that would leave the output directory.
    #[error("the coordinator offers a result named {0:?}, which would leave the output directory")]
    ResultName(String),
}

impl ClientError {
    /// Whether the user asked for something that is not there or makes no sense.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Address(_) => true,
            Self::Refused { code, .. } => {
                matches!(code, tonic::Code::NotFound | tonic::Code::InvalidArgument)
            }
            Self::Answer(_)
            | Self::Reach(_)
            | Self::File { .. }
            | Self::NoResults { .. }
            | Self::ResultName(_) => false,
        }
    }
}

impl ClientError {
    /// Whether somebody wants to know who asks.
    pub fn is_refused(&self) -> bool {
        let Self::Refused { code, .. } = self else { return false };
        matches!(code, tonic::Code::PermissionDenied | tonic::Code::Unauthenticated)
    }
}

impl From<tonic::Status> for ClientError {
    fn from(status: tonic::Status) -> Self {
        Self::Refused { code: status.code(), message: status.message().to_owned() }
    }
}

impl CoordinatorArgs {
    /// Connects to the one that leads.
    pub async fn connect(&self) -> Result<Client, ClientError> {
        let channel = Coordinators::Addresses(self.coordinator.clone()).leader().await;
        let channel = channel.map_err(|error| match error {
            ReachError::Address { .. } => ClientError::Address(error),
            error => ClientError::Reach(error),
        })?;
        Ok(JobsClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }
}
