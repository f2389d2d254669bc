//! What clients ask: submit, look, pause, cancel, drain, fetch.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lsa_common::id::{Digest, JobId};
use lsa_common::job::JobSpec;
use lsa_common::layout;
use lsa_common::record::RunState;
use lsa_common::store::{StoreError, Upload};
use lsa_common::wire::WireError;
use lsa_common::wire::job as pb;
use lsa_common::wire::job::jobs_server::Jobs;
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use crate::chain;
use crate::driver::handle::{JobSnapshot, OutputFor, SubmitError, WorkerSnapshot};
use crate::embeddings::EmbeddingsError;
use crate::journal::{self, EndedJob, JournalError};
use crate::maintain::gc::{self, GcError, Promised, Wanted};
use crate::results::{Results, ResultsError};
use crate::rpc::desk::HubDesk;
use crate::scheduler::ExperimentStatus;
use crate::seat::Seat;

/// How often a watcher is told how far a job is.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);
/// Bytes of one chunk of a result file.
const CHUNK: usize = 1 << 20;
/// Bytes of a spec: some hundred thousand experiments.
const SPEC_BYTES_MAX: usize = 512 << 20;
/// Bytes of one input file; a model's weights are the largest.
const INPUT_BYTES_MAX: u64 = 64 << 30;

/// The service that clients speak to.
pub struct JobsService {
    seat: Seat,
    desk: HubDesk,
    /// The results fetched last: a client asks for one file after another.
    listed: Mutex<Option<(JobId, u32, Arc<Results>)>>,
    /// Inputs of which clients were told that the bucket has them.
    promised: Promised,
}

impl JobsService {
    /// Questions of clients, answered from the driver and the bucket.
    pub fn new(seat: Seat, desk: HubDesk) -> Self {
        Self { seat, desk, listed: Mutex::new(None), promised: Mutex::default() }
    }

    async fn known(&self, request: Request<pb::JobRequest>) -> Result<Known, Status> {
        let text = request.into_inner().job_id;
        self.find(&text).await
    }

    /// A job by its id, or by a beginning of it that fits no other.
    async fn find(&self, text: &str) -> Result<Known, Status> {
        if let Ok(job) = text.parse::<JobId>() {
            if let Some(live) = self.seat.handle()?.job(&job).await {
                return Ok(Known::Live(Box::new(live)));
            }
            if let Some(ended) =
                journal::ended(self.seat.handle()?.store(), &job).await.map_err(journal_status)?
            {
                return Ok(Known::Ended(Box::new(ended)));
            }
        }
        let ids = journal::job_ids(self.seat.handle()?.store()).await.map_err(|e| store_status(&e))?;
        let fitting: Vec<&JobId> = ids.iter().filter(|id| id.as_str().starts_with(text)).collect();
        match fitting[..] {
            [job] if !text.is_empty() && job.as_str() != text => Box::pin(self.find(job.as_str())).await,
            [] | [_] => {
                Err(Status::not_found(format!("there is no job {text:?}; `lsa-coordinator jobs` lists them")))
            }
            _ => Err(Status::not_found(format!(
                "{} jobs begin with {text:?}; give more of the id",
                fitting.len()
            ))),
        }
    }
}

/// Takes the chunks of one file, as many bytes as the first one announces at most.
async fn receive(
    upload: &mut Upload,
    first: pb::InputChunk,
    chunks: &mut Streaming<pb::InputChunk>,
) -> Result<(), Status> {
    let size = first.size;
    let mut next = Some(first);
    while let Some(chunk) = next {
        if upload.size() + chunk.data.len() as u64 > size {
            return Err(WireError::invalid("chunk.data", "more bytes than the first chunk said").into());
        }
        upload.write(&chunk.data).await.map_err(|e| store_status(&e))?;
        next = chunks.message().await?;
    }
    Ok(())
}

/// A whole spec. A large one takes seconds to read, which no other client should wait for.
async fn receive_spec(mut chunks: Streaming<pb::SpecChunk>) -> Result<JobSpec, Status> {
    let mut json = Vec::new();
    while let Some(chunk) = chunks.message().await? {
        if json.len() + chunk.data.len() > SPEC_BYTES_MAX {
            let fault = format!("it is longer than {SPEC_BYTES_MAX} bytes; split the grid");
            return Err(WireError::invalid("spec", fault).into());
        }
        json.extend_from_slice(&chunk.data);
    }
    let read = tokio::task::spawn_blocking(move || serde_json::from_slice(&json)).await;
    let spec = read.map_err(|_| Status::internal("reading the spec was interrupted"))?;
    spec.map_err(|e| WireError::invalid("spec", e).into())
}

enum Known {
    Live(Box<JobSnapshot>),
    Ended(Box<EndedJob>),
}

impl Known {
    /// Without the experiments of a job that runs.
    fn counts(&self) -> pb::JobStatus {
        match self {
            Self::Live(snapshot) => live_to_pb(snapshot, &[]),
            Self::Ended(ended) => ended_to_pb(ended),
        }
    }
}

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Jobs for JobsService {
    type WatchJobStream = Messages<pb::JobStatus>;
    type FetchResultStream = Messages<pb::ResultChunk>;

    async fn missing_inputs(
        &self,
        request: Request<pb::InputDigests>,
    ) -> Result<Response<pb::InputDigests>, Status> {
        let mut missing = Vec::new();
        for text in request.into_inner().sha256 {
            let digest: Digest = text.parse().map_err(|e| WireError::invalid("sha256", e))?;
            self.promised.lock().await.insert(digest);
            let size = self
                .seat
                .handle()?
                .store()
                .size(&layout::input(digest))
                .await
                .map_err(|e| store_status(&e))?;
            if size.is_none() {
                self.promised.lock().await.remove(&digest);
                missing.push(text);
            }
        }
        Ok(Response::new(pb::InputDigests { sha256: missing }))
    }

    async fn put_input(
        &self,
        request: Request<Streaming<pb::InputChunk>>,
    ) -> Result<Response<pb::PutInputReply>, Status> {
        let mut chunks = request.into_inner();
        let first = chunks.message().await?.ok_or_else(|| WireError::missing("chunk"))?;
        let digest: Digest = first.sha256.parse().map_err(|e| WireError::invalid("chunk.sha256", e))?;
        if first.size > INPUT_BYTES_MAX {
            let fault = format!("{} bytes, at most {INPUT_BYTES_MAX} are taken", first.size);
            return Err(WireError::invalid("chunk.size", fault).into());
        }
        let size = first.size;
        let mut upload =
            self.seat.handle()?.store().upload(&layout::input(digest)).await.map_err(|e| store_status(&e))?;
        match receive(&mut upload, first, &mut chunks).await {
            Ok(()) if upload.size() == size && upload.digest() == digest => {
                upload.finish().await.map_err(|e| store_status(&e))?;
                Ok(Response::new(pb::PutInputReply {}))
            }
            received => {
                let (bytes, found) = (upload.size(), upload.digest());
                upload.abandon().await.map_err(|e| store_status(&e))?;
                received?;
                let fault = format!("{bytes} bytes with digest {found}, announced were {size} with {digest}");
                Err(WireError::invalid("chunk.data", fault).into())
            }
        }
    }

    async fn pin_model(
        &self,
        request: Request<pb::PinModelRequest>,
    ) -> Result<Response<pb::PinModelReply>, Status> {
        self.desk.pin_model(request.into_inner()).await
    }

    async fn read_texts(
        &self,
        request: Request<pb::ReadTextsRequest>,
    ) -> Result<Response<pb::ReadTextsReply>, Status> {
        self.desk.read_texts(request.into_inner()).await
    }

    async fn submit(
        &self,
        request: Request<Streaming<pb::SpecChunk>>,
    ) -> Result<Response<pb::SubmitReply>, Status> {
        let spec = receive_spec(request.into_inner()).await?;
        let accepted =
            self.seat.leading()?.submit(spec, OutputFor::Bucket).await.map_err(|error| match &error {
                SubmitError::Spec(_) => Status::invalid_argument(chain(&error)),
                SubmitError::Store(_) | SubmitError::Closed => Status::unavailable(chain(&error)),
            })?;
        let reply = pb::SubmitReply {
            job_id: accepted.job.to_string(),
            run: accepted.run,
            attached: accepted.attached,
        };
        Ok(Response::new(reply))
    }

    async fn get_job(&self, request: Request<pb::JobRequest>) -> Result<Response<pb::JobStatus>, Status> {
        let known = self.known(request).await?;
        Ok(Response::new(self.status(&known).await?))
    }

    async fn watch_job(
        &self,
        request: Request<pb::JobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        let known = self.known(request).await?;
        let (sender, statuses) = mpsc::channel(4);
        let handle = self.seat.handle()?;
        tokio::spawn(async move {
            let mut live = match known {
                Known::Live(snapshot) => snapshot,
                Known::Ended(ended) => {
                    // Only a watcher that has gone away refuses.
                    let _ = sender.send(Ok(ended_to_pb(&ended))).await;
                    return;
                }
            };
            let mut ticks = tokio::time::interval(WATCH_INTERVAL);
            while !live.written {
                if sender.send(Ok(live_to_pb(&live, &[]))).await.is_err() {
                    return;
                }
                ticks.tick().await;
                let Some(snapshot) = handle.job(&live.job).await else { return };
                *live = snapshot;
            }
            let experiments = handle.experiments(&live.job).await;
            let _ = sender.send(Ok(live_to_pb(&live, &experiments))).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(statuses))))
    }

    async fn list_jobs(&self, _: Request<pb::ListJobsRequest>) -> Result<Response<pb::JobList>, Status> {
        let live = self.seat.handle()?.jobs().await;
        let mut jobs: Vec<pb::JobStatus> = live.iter().map(|job| live_to_pb(job, &[])).collect();
        let ids = journal::job_ids(self.seat.handle()?.store()).await.map_err(|e| store_status(&e))?;
        for id in ids.iter().filter(|id| live.iter().all(|job| job.job != **id)) {
            if let Some(ended) =
                journal::ended(self.seat.handle()?.store(), id).await.map_err(journal_status)?
            {
                jobs.push(pb::JobStatus { experiments: Vec::new(), ..ended_to_pb(&ended) });
            }
        }
        Ok(Response::new(pb::JobList { jobs }))
    }

    async fn list_workers(
        &self,
        _: Request<pb::ListWorkersRequest>,
    ) -> Result<Response<pb::WorkerList>, Status> {
        let workers = self.seat.handle()?.workers().await.into_iter().map(worker_to_pb);
        let epoch = self.seat.handle()?.identity().epoch.0;
        Ok(Response::new(pb::WorkerList { workers: workers.collect(), epoch }))
    }

    async fn cancel(&self, request: Request<pb::JobRequest>) -> Result<Response<pb::JobStatus>, Status> {
        match self.known(request).await? {
            Known::Live(snapshot) => {
                self.seat.leading()?.cancel(&snapshot.job).await;
                let snapshot = self.seat.handle()?.job(&snapshot.job).await.unwrap_or(*snapshot);
                Ok(Response::new(self.status(&Known::Live(Box::new(snapshot))).await?))
            }
            Known::Ended(ended) => Ok(Response::new(ended_to_pb(&ended))),
        }
    }

    async fn pause(&self, request: Request<pb::JobRequest>) -> Result<Response<pb::JobStatus>, Status> {
        self.order(request, true).await
    }

    async fn resume(&self, request: Request<pb::JobRequest>) -> Result<Response<pb::JobStatus>, Status> {
        self.order(request, false).await
    }

    async fn drain(&self, request: Request<pb::WorkerRequest>) -> Result<Response<pb::WorkerStatus>, Status> {
        let handle = self.seat.leading()?;
        let id = request.into_inner().worker_id;
        let known =
            |workers: Vec<WorkerSnapshot>| workers.into_iter().find(|worker| worker.worker.as_str() == id);
        let not_found =
            || Status::not_found(format!("there is no worker {id:?}; `lsa-coordinator workers` lists them"));
        let worker = known(handle.workers().await).ok_or_else(not_found)?;
        handle.drain(&worker.worker).await;
        let worker = known(handle.workers().await).ok_or_else(not_found)?;
        Ok(Response::new(worker_to_pb(worker)))
    }

    async fn gc(&self, request: Request<pb::GcRequest>) -> Result<Response<pb::GcReply>, Status> {
        let handle = self.seat.leading()?;
        let pb::GcRequest { unused_days, dry_run } = request.into_inner();
        if unused_days == Some(0) {
            return Err(WireError::invalid("unused_days", "at least one day").into());
        }
        let wanted = Wanted { unused_days, dry_run };
        let collected = gc::collect(handle.store(), handle.identity(), wanted, &self.promised).await;
        let status = |error: GcError| match &error {
            GcError::Store(_) | GcError::Deposed => Status::unavailable(chain(&error)),
            _ => Status::failed_precondition(chain(&error)),
        };
        Ok(Response::new(collected.map_err(status)?.to_pb()))
    }

    async fn logs(&self, request: Request<pb::JobRequest>) -> Result<Response<pb::LogLines>, Status> {
        let lines = match self.known(request).await? {
            Known::Live(snapshot) => self.seat.handle()?.log_lines(&snapshot.job).await,
            Known::Ended(ended) => journal::failures(self.seat.handle()?.store(), &ended.job, ended.run)
                .await
                .map_err(journal_status)?,
        };
        Ok(Response::new(pb::LogLines { lines }))
    }

    async fn list_results(
        &self,
        request: Request<pb::JobRequest>,
    ) -> Result<Response<pb::ResultList>, Status> {
        let results = self.results(self.known(request).await?).await?;
        let files = results.files().into_iter().map(|(path, size)| pb::ResultFile { path, size });
        Ok(Response::new(pb::ResultList { files: files.collect() }))
    }

    async fn fetch_result(
        &self,
        request: Request<pb::FetchRequest>,
    ) -> Result<Response<Self::FetchResultStream>, Status> {
        let request = request.into_inner();
        let results = match self.listed_before(&request.job_id).await {
            Some(results) => results,
            None => self.results(self.find(&request.job_id).await?).await?,
        };
        let bytes = results.read(&request.path).await.map_err(|e| results_status(&e))?;
        let pieces: Vec<Bytes> = (0..bytes.len().max(1))
            .step_by(CHUNK)
            .map(|start| bytes.slice(start.min(bytes.len())..(start + CHUNK).min(bytes.len())))
            .collect();
        let chunks = tokio_stream::iter(pieces).map(|data| Ok(pb::ResultChunk { data }));
        Ok(Response::new(Box::pin(chunks)))
    }
}

impl JobsService {
    /// Pauses a job or goes on with it.
    async fn order(
        &self,
        request: Request<pb::JobRequest>,
        paused: bool,
    ) -> Result<Response<pb::JobStatus>, Status> {
        let handle = self.seat.leading()?;
        match self.known(request).await? {
            Known::Live(snapshot) if snapshot.view.state == RunState::Running => {
                handle.pause(&snapshot.job, snapshot.run, paused).await.map_err(|e| store_status(&e))?;
                let snapshot = handle.job(&snapshot.job).await.unwrap_or(*snapshot);
                Ok(Response::new(self.status(&Known::Live(Box::new(snapshot))).await?))
            }
            known => {
                let job = known.counts().job_id;
                Err(Status::failed_precondition(format!(
                    "job {job} has ended; submit it again to run it again"
                )))
            }
        }
    }

    async fn status(&self, known: &Known) -> Result<pb::JobStatus, Status> {
        let Known::Live(snapshot) = known else { return Ok(known.counts()) };
        let experiments = self.seat.handle()?.experiments(&snapshot.job).await;
        Ok(live_to_pb(snapshot, &experiments))
    }

    /// The results of a job that were listed last: whoever fetches a hundred thousand files has each of them looked up
    /// where the first one was found.
    async fn listed_before(&self, job: &str) -> Option<Arc<Results>> {
        let listed = self.listed.lock().await;
        listed.as_ref().filter(|(known, _, _)| known.as_str() == job).map(|(_, _, results)| results.clone())
    }

    async fn results(&self, known: Known) -> Result<Arc<Results>, Status> {
        let (job, run, spec, over) = match known {
            Known::Live(snapshot) => {
                (snapshot.job.clone(), snapshot.run, (*snapshot.spec).clone(), snapshot.written)
            }
            Known::Ended(ended) => (ended.job, ended.run, ended.spec, true),
        };
        if !over {
            let fault =
                format!("job {job} is still running; `lsa-coordinator watch {job}` tells when it is done");
            return Err(Status::failed_precondition(fault));
        }
        let mut listed = self.listed.lock().await;
        if let Some((_, _, results)) = listed.as_ref().filter(|(known, of, _)| *known == job && *of == run) {
            return Ok(results.clone());
        }
        let results = Results::open(self.seat.handle()?.store(), &job, run, spec).await;
        let results = Arc::new(results.map_err(|e| Status::unavailable(chain(&e)))?);
        *listed = Some((job, run, results.clone()));
        Ok(results)
    }
}

fn worker_to_pb(worker: WorkerSnapshot) -> pb::WorkerStatus {
    pb::WorkerStatus {
        worker_id: worker.worker.to_string(),
        device: worker.info.device,
        threads: worker.info.threads,
        memory_bytes: worker.info.memory_bytes,
        numeric_profile: worker.info.numeric_profile,
        doing: worker.doing,
        connected: worker.connected,
        draining: worker.draining,
    }
}

fn results_status(error: &ResultsError) -> Status {
    match error {
        ResultsError::NoSuchFile(_) | ResultsError::Embeddings(EmbeddingsError::NoSuchFile(_)) => {
            Status::not_found(chain(error))
        }
        ResultsError::Store(_) | ResultsError::Embeddings(_) => Status::unavailable(chain(error)),
    }
}

fn store_status(error: &StoreError) -> Status {
    Status::unavailable(chain(error))
}

fn journal_status(error: JournalError) -> Status {
    Status::unavailable(chain(&error))
}

fn state_to_pb(state: RunState) -> pb::JobState {
    match state {
        RunState::Running => pb::JobState::Running,
        RunState::Done => pb::JobState::Done,
        RunState::Partial => pb::JobState::Partial,
        RunState::Failed => pb::JobState::Failed,
        RunState::Cancelled => pb::JobState::Cancelled,
    }
}

/// A job that this process has accepted, with as many of its experiments as are given.
fn live_to_pb(snapshot: &JobSnapshot, experiments: &[ExperimentStatus]) -> pb::JobStatus {
    let view = &snapshot.view;
    // A job whose results are still being written is not over for its owner.
    let state = if snapshot.written { view.state } else { RunState::Running };
    let state = if snapshot.error.is_some() { RunState::Failed } else { state };
    let experiment = |(experiment, status): (&lsa_common::job::Experiment, &ExperimentStatus)| {
        let (state, error) = match status {
            ExperimentStatus::Waiting => ("running", ""),
            ExperimentStatus::Merging => ("merging", ""),
            ExperimentStatus::Done => ("done", ""),
            ExperimentStatus::Failed(message) => ("failed", message.as_str()),
            ExperimentStatus::Cancelled => ("cancelled", ""),
        };
        pb::ExperimentStatus {
            name: experiment.name.clone(),
            state: state.to_owned(),
            error: error.to_owned(),
        }
    };
    pb::JobStatus {
        job_id: snapshot.job.to_string(),
        run: snapshot.run,
        name: snapshot.spec.name.clone(),
        state: state_to_pb(state).into(),
        waiting: snapshot.error.clone().or_else(|| view.waiting.clone()).unwrap_or_default(),
        units_total: view.units_total,
        units_done: view.units_done,
        units_run: view.units_run,
        fraction: view.fraction,
        experiments: snapshot.spec.experiments.iter().zip(experiments).map(experiment).collect(),
        leases: view
            .leases
            .iter()
            .map(|lease| pb::LeaseStatus {
                unit_id: lease.unit.to_string(),
                attempt_id: lease.attempt.to_string(),
                attempt_number: lease.attempt_number,
                worker_id: lease.worker.to_string(),
                what: lease.what.clone(),
                done: lease.progress.0,
                total: lease.progress.1,
            })
            .collect(),
        elapsed_ms: snapshot.elapsed_ms,
        paused: snapshot.view.paused,
        experiments_total: view.experiments_total as u64,
        experiments_done: view.experiments_done as u64,
    }
}

fn ended_to_pb(ended: &EndedJob) -> pb::JobStatus {
    let experiment = |(name, end): (&String, &lsa_common::record::ExperimentEnd)| pb::ExperimentStatus {
        name: name.clone(),
        state: end.state.clone(),
        error: end.error.clone().unwrap_or_default(),
    };
    let status = &ended.status;
    pb::JobStatus {
        job_id: ended.job.to_string(),
        run: ended.run,
        name: ended.spec.name.clone(),
        state: state_to_pb(status.state).into(),
        waiting: String::new(),
        units_total: status.units_total,
        units_done: status.units_total,
        units_run: status.units_run,
        fraction: if status.state == RunState::Done { 1.0 } else { 0.0 },
        experiments: status.experiments.iter().map(experiment).collect(),
        leases: Vec::new(),
        elapsed_ms: status.elapsed_ms,
        paused: false,
        experiments_total: status.experiments.len() as u64,
        experiments_done: status.experiments.values().filter(|end| end.state == "done").count() as u64,
    }
}
