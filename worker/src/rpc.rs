//! The client side of `work.proto`: one session with a coordinator. Wire types stop here.

use std::time::Duration;

use lsa_common::id::{AttemptId, Epoch, UnitId, WorkerId};
use lsa_common::report::Outcome;
use lsa_common::unit::Unit;
use lsa_common::wire::convert::{attempt_from_pb, outcome_to_pb};
use lsa_common::wire::work as pb;
use lsa_common::wire::work::work_client::WorkClient;
use lsa_common::wire::{MESSAGE_BYTES_MAX, PROTOCOL_VERSION, WireError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

/// Messages that may wait for the network.
const OUTBOX: usize = 64;

/// Why a session could not be had, or ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The coordinator refuses this worker, and would again.
    #[error("the coordinator refuses this worker: {0}")]
    Refused(String),
    /// The stream broke.
    #[error("the session ended: {0}")]
    Ended(String),
    /// The coordinator sent something that it may not.
    #[error("the coordinator sent a faulty message")]
    Faulty(#[from] WireError),
}

/// What a worker says of itself.
#[derive(Clone, Debug)]
pub struct Introduction {
    /// Its id.
    pub worker: WorkerId,
    /// Its device, for a person.
    pub device: String,
    /// CPU threads.
    pub threads: u32,
    /// What units may use.
    pub memory_bytes: u64,
    /// What it computes with.
    pub numeric_profile: String,
}

/// What the coordinator says first.
#[derive(Clone, Debug)]
pub struct Welcome {
    /// The epoch that it leads.
    pub epoch: Epoch,
    /// Where the bucket is.
    pub store_url: String,
    /// How often to tell how far one is.
    pub progress_interval: Duration,
}

/// What the coordinator says later.
#[derive(Clone, Debug)]
pub enum FromCoordinator {
    /// Work.
    Lease {
        /// Which unit.
        unit: UnitId,
        /// Under which attempt.
        attempt: AttemptId,
        /// What to do.
        payload: Box<Unit>,
    },
    /// Give an attempt up.
    Stop {
        /// Which unit.
        unit: UnitId,
        /// Which attempt.
        attempt: AttemptId,
    },
    /// Nothing more will be lent: finish the unit at hand and leave.
    Drain,
    /// A report has been dealt with.
    Reported {
        /// Which attempt.
        attempt: AttemptId,
    },
}

/// An open stream to a coordinator.
pub struct Session {
    epoch: Epoch,
    outbox: mpsc::Sender<pb::FromWorker>,
    incoming: Streaming<pb::ToWorker>,
}

impl Session {
    /// Registers and awaits the welcome.
    pub async fn open(
        channel: Channel,
        introduction: &Introduction,
        held: &[(UnitId, AttemptId)],
        epoch_seen: Epoch,
    ) -> Result<(Self, Welcome), SessionError> {
        let mut client = WorkClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let register = pb::from_worker::Message::Register(pb::Register {
            protocol_version: PROTOCOL_VERSION,
            worker_id: introduction.worker.to_string(),
            software_version: env!("CARGO_PKG_VERSION").to_owned(),
            device: introduction.device.clone(),
            threads: introduction.threads,
            memory_bytes: introduction.memory_bytes,
            numeric_profile: introduction.numeric_profile.clone(),
            held: held
                .iter()
                .map(|(unit, attempt)| pb::Held {
                    unit_id: unit.to_string(),
                    attempt_id: attempt.to_string(),
                })
                .collect(),
            epoch_seen: epoch_seen.0,
        });
        let closed = |_| SessionError::Ended("it was closed before it began".to_owned());
        outbox.send(pb::FromWorker { message: Some(register) }).await.map_err(closed)?;
        let answer = client.session(ReceiverStream::new(messages)).await.map_err(refusal)?;
        let mut incoming = answer.into_inner();
        let first = incoming.message().await.map_err(refusal)?.and_then(|message| message.message);
        let Some(pb::to_worker::Message::Welcome(welcome)) = first else {
            return Err(WireError::missing("welcome").into());
        };
        if welcome.protocol_version != PROTOCOL_VERSION {
            return Err(SessionError::Refused(format!(
                "it speaks protocol {}, this worker ({}) speaks {PROTOCOL_VERSION}",
                welcome.protocol_version,
                env!("CARGO_PKG_VERSION")
            )));
        }
        let epoch = Epoch(welcome.epoch);
        if epoch < epoch_seen {
            return Err(SessionError::Ended(format!("it leads epoch {epoch}, {epoch_seen} has been seen")));
        }
        let welcome = Welcome {
            epoch,
            store_url: welcome.store_url,
            progress_interval: Duration::from_millis(u64::from(welcome.progress_interval_ms.max(100))),
        };
        Ok((Self { epoch, outbox, incoming }, welcome))
    }

    /// The next message; messages of an older epoch are passed over.
    pub async fn next(&mut self) -> Result<FromCoordinator, SessionError> {
        loop {
            let message = self.incoming.message().await.map_err(refusal)?;
            let message =
                message.ok_or_else(|| SessionError::Ended("the coordinator closed it".to_owned()))?;
            let message = message.message.ok_or_else(|| WireError::missing("message"))?;
            if let Some(message) = from_pb(message, self.epoch)? {
                return Ok(message);
            }
        }
    }

    /// Says that there is room for one unit.
    pub async fn ask(&self) -> Result<(), SessionError> {
        self.send(pb::from_worker::Message::Ask(pb::Ask {})).await
    }

    /// Says that the worker is stopping, so that nothing more is lent to it.
    pub async fn draining(&self) -> Result<(), SessionError> {
        self.send(pb::from_worker::Message::Draining(pb::Draining {})).await
    }

    /// Says how far an attempt is.
    pub async fn progress(
        &self,
        unit: &UnitId,
        attempt: AttemptId,
        (done, total): (u64, u64),
    ) -> Result<(), SessionError> {
        self.send(pb::from_worker::Message::Progress(pb::Progress {
            epoch: self.epoch.0,
            unit_id: unit.to_string(),
            attempt_id: attempt.to_string(),
            done,
            total,
        }))
        .await
    }

    /// Says how an attempt ended.
    pub async fn report(
        &self,
        unit: &UnitId,
        attempt: AttemptId,
        elapsed_ms: u64,
        outcome: Outcome,
    ) -> Result<(), SessionError> {
        self.send(pb::from_worker::Message::Report(pb::Report {
            epoch: self.epoch.0,
            unit_id: unit.to_string(),
            attempt_id: attempt.to_string(),
            elapsed_ms,
            outcome: Some(outcome_to_pb(outcome)),
        }))
        .await
    }

    async fn send(&self, message: pb::from_worker::Message) -> Result<(), SessionError> {
        let closed = |_| SessionError::Ended("the coordinator closed it".to_owned());
        self.outbox.send(pb::FromWorker { message: Some(message) }).await.map_err(closed)
    }
}

fn from_pb(message: pb::to_worker::Message, epoch: Epoch) -> Result<Option<FromCoordinator>, WireError> {
    use pb::to_worker::Message as Pb;
    let current = |theirs: u64| Epoch(theirs) >= epoch;
    Ok(match message {
        Pb::Welcome(_) => return Err(WireError::invalid("welcome", "sent twice on one stream")),
        Pb::Lease(lease) if current(lease.epoch) => {
            let (unit, attempt) = attempt_from_pb(&lease.unit_id, &lease.attempt_id)?;
            let payload = serde_json::from_str(&lease.unit_json)
                .map_err(|e| WireError::invalid("lease.unit_json", e))?;
            Some(FromCoordinator::Lease { unit, attempt, payload })
        }
        Pb::Stop(stop) if current(stop.epoch) => {
            let (unit, attempt) = attempt_from_pb(&stop.unit_id, &stop.attempt_id)?;
            Some(FromCoordinator::Stop { unit, attempt })
        }
        Pb::Lease(_) | Pb::Stop(_) => None,
        Pb::Drain(_) => Some(FromCoordinator::Drain),
        Pb::Reported(reported) => {
            let (_, attempt) = attempt_from_pb(&reported.unit_id, &reported.attempt_id)?;
            Some(FromCoordinator::Reported { attempt })
        }
    })
}

fn refusal(status: Status) -> SessionError {
    match status.code() {
        Code::FailedPrecondition | Code::InvalidArgument | Code::Unauthenticated | Code::PermissionDenied => {
            SessionError::Refused(status.message().to_owned())
        }
        _ => SessionError::Ended(status.message().to_owned()),
    }
}
