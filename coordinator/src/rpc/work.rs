//! A worker's session: its messages become events, leases and stops go back.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};

use lsa_common::id::{AttemptId, UnitId, WorkerId};
use lsa_common::wire::convert::{attempt_from_pb, outcome_from_pb};
use lsa_common::wire::work as pb;
use lsa_common::wire::work::work_server::Work;
use lsa_common::wire::{PROTOCOL_VERSION, WireError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use crate::driver::handle::Handle;
use crate::driver::{Message, Settings, ToWorker, WorkerInfo};
use crate::scheduler::event::{Event, Reported};
use crate::seat::Seat;

/// Messages that may wait for one worker; more means that it does not read.
const OUTBOX: usize = 64;

/// The service that workers speak to.
pub struct WorkService {
    seat: Seat,
    settings: Settings,
    sessions: AtomicU64,
}

impl WorkService {
    /// Sessions of workers, forwarded to the driver.
    pub fn new(seat: Seat, settings: Settings) -> Self {
        Self { seat, settings, sessions: AtomicU64::new(1) }
    }
}

type Replies = Pin<Box<dyn Stream<Item = Result<pb::ToWorker, Status>> + Send>>;

#[tonic::async_trait]
impl Work for WorkService {
    type SessionStream = Replies;

    async fn session(
        &self,
        request: Request<Streaming<pb::FromWorker>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let handle = self.seat.leading()?;
        let mut incoming = request.into_inner();
        let first = incoming.message().await?.and_then(|message| message.message);
        let Some(pb::from_worker::Message::Register(register)) = first else {
            return Err(WireError::missing("register").into());
        };
        let Registration { worker, info, held } = register_from_pb(register, handle.identity().epoch.0)?;
        let session = self.sessions.fetch_add(1, Ordering::Relaxed);
        let (outbox, replies) = mpsc::channel(OUTBOX);
        let attach = Message::Attach { worker: worker.clone(), info, held, outbox, session };
        let closed = |_| Status::unavailable("the coordinator is shutting down");
        handle.sender.send(attach).await.map_err(closed)?;

        let epoch = handle.identity().epoch.0;
        let welcome = pb::Welcome {
            protocol_version: PROTOCOL_VERSION,
            epoch,
            store_url: handle.store().url().to_owned(),
            lease_ttl_ms: u32::try_from(self.settings.lease_ttl_ms).unwrap_or(u32::MAX),
            progress_interval_ms: u32::try_from(self.settings.progress_interval_ms).unwrap_or(u32::MAX),
        };
        let welcome = pb::ToWorker { message: Some(pb::to_worker::Message::Welcome(welcome)) };
        tokio::spawn(async move {
            if let Err(status) = listen(&handle, &worker, &mut incoming).await {
                tracing::info!(%worker, "session ended: {}", status.message());
            }
            let _ = handle.sender.send(Message::Detach { worker, session }).await;
        });
        let replies = ReceiverStream::new(replies).map(move |message| Ok(to_worker_pb(message, epoch)));
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(welcome)).chain(replies))))
    }
}

async fn listen(
    handle: &Handle,
    worker: &WorkerId,
    incoming: &mut Streaming<pb::FromWorker>,
) -> Result<(), Status> {
    loop {
        let message = tokio::select! {
            message = incoming.message() => message?,
            // Nobody listens once this process has stopped leading.
            () = handle.sender.closed() => return Ok(()),
        };
        let Some(message) = message else { return Ok(()) };
        let message = message.message.ok_or_else(|| WireError::missing("message"))?;
        handle.event(event_from_pb(worker, message)?).await;
    }
}

struct Registration {
    worker: WorkerId,
    info: WorkerInfo,
    held: Vec<(UnitId, AttemptId)>,
}

fn register_from_pb(register: pb::Register, epoch: u64) -> Result<Registration, Status> {
    if register.protocol_version != PROTOCOL_VERSION {
        return Err(Status::failed_precondition(format!(
            "worker {} ({}) speaks protocol {}, this coordinator ({}) speaks {PROTOCOL_VERSION}; \
             use matching versions",
            register.worker_id,
            register.software_version,
            register.protocol_version,
            env!("CARGO_PKG_VERSION"),
        )));
    }
    if register.epoch_seen > epoch {
        return Err(Status::unavailable(format!(
            "the worker has seen epoch {}, this coordinator leads epoch {epoch}: it has been replaced",
            register.epoch_seen
        )));
    }
    let worker = register.worker_id.parse().map_err(|e| WireError::invalid("register.worker_id", e))?;
    let held = register.held.iter().map(|held| attempt_from_pb(&held.unit_id, &held.attempt_id));
    let held = held.collect::<Result<_, _>>()?;
    let info = WorkerInfo {
        device: register.device,
        threads: register.threads,
        memory_bytes: register.memory_bytes,
        numeric_profile: register.numeric_profile,
    };
    if info.numeric_profile.is_empty() {
        return Err(WireError::missing("register.numeric_profile").into());
    }
    Ok(Registration { worker, info, held })
}

fn event_from_pb(worker: &WorkerId, message: pb::from_worker::Message) -> Result<Event, WireError> {
    use pb::from_worker::Message as Pb;
    let worker = worker.clone();
    Ok(match message {
        Pb::Register(_) => return Err(WireError::invalid("register", "sent twice on one stream")),
        Pb::Draining(_) => Event::WorkerDraining { worker },
        Pb::Ask(_) => Event::WorkerAsked { worker },
        Pb::Progress(progress) => {
            let (unit, attempt) = attempt_from_pb(&progress.unit_id, &progress.attempt_id)?;
            Event::Progressed { worker, unit, attempt, done: progress.done, total: progress.total }
        }
        Pb::Report(report) => {
            let (unit, attempt) = attempt_from_pb(&report.unit_id, &report.attempt_id)?;
            let outcome = report.outcome.ok_or_else(|| WireError::missing("report.outcome"))?;
            let outcome = outcome_from_pb(outcome)?;
            Event::Reported(Box::new(Reported {
                worker,
                unit,
                attempt,
                elapsed_ms: report.elapsed_ms,
                outcome,
            }))
        }
    })
}

fn to_worker_pb(message: ToWorker, epoch: u64) -> pb::ToWorker {
    use pb::to_worker::Message as Pb;
    let message = match message {
        ToWorker::Lease { unit, attempt, attempt_number, payload } => Pb::Lease(pb::Lease {
            epoch,
            unit_id: unit.to_string(),
            attempt_id: attempt.to_string(),
            attempt_number,
            unit_json: serde_json::to_string(&payload).expect("units are plain data with string keys"),
        }),
        ToWorker::Stop { unit, attempt } => {
            Pb::Stop(pb::Stop { epoch, unit_id: unit.to_string(), attempt_id: attempt.to_string() })
        }
        ToWorker::Drain => Pb::Drain(pb::Drain {}),
        ToWorker::Reported { unit, attempt } => {
            Pb::Reported(pb::Reported { unit_id: unit.to_string(), attempt_id: attempt.to_string() })
        }
    };
    pb::ToWorker { message: Some(message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(protocol_version: u32, epoch_seen: u64) -> pb::Register {
        pb::Register {
            protocol_version,
            worker_id: "w1".to_owned(),
            software_version: "9.8.7".to_owned(),
            numeric_profile: "cpu".to_owned(),
            epoch_seen,
            ..pb::Register::default()
        }
    }

    #[test]
    fn a_worker_of_another_protocol_is_refused_by_both_versions() {
        let refused = register_from_pb(register(PROTOCOL_VERSION + 1, 0), 1).err().expect("another protocol");
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        for word in ["9.8.7", &(PROTOCOL_VERSION + 1).to_string(), env!("CARGO_PKG_VERSION")] {
            assert!(refused.message().contains(word), "{word} in {}", refused.message());
        }
    }

    #[test]
    fn a_leader_of_an_older_epoch_sends_workers_elsewhere() {
        assert!(register_from_pb(register(PROTOCOL_VERSION, 3), 3).is_ok());
        let refused = register_from_pb(register(PROTOCOL_VERSION, 4), 3).err().expect("a stale leader");
        assert_eq!(refused.code(), tonic::Code::Unavailable, "the worker looks for the one that leads");
    }
}
