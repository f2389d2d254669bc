//! What clients have this coordinator ask of a hub, for the jobs that it will run.

use std::path::PathBuf;
use std::sync::Arc;

use lsa_common::checkpoint::is_weight_file;
use lsa_common::dataset::DatasetName;
use lsa_common::failure::FailureClass;
use lsa_common::hub::{Hub, HubFile, Repo, RepoKind};
use lsa_common::mirror::{MirrorMode, MirroredHub};
use lsa_common::model::PinnedModel;
use lsa_common::model_source::{Fetch, ModelSourceError};
use lsa_common::wire::WireError;
use lsa_common::wire::job as pb;
use serde::Serialize;
use tokio::sync::Semaphore;
use tonic::{Response, Status};

use crate::chain;
use crate::grid::ModelName;
use crate::seat::Seat;
use crate::sources::{AskHub, Keep, Repositories as _, SourceError, TextsRequest};

/// Models looked at at once; only headers are read of them.
const MODELS_AT_ONCE: usize = 8;

/// Answers questions about what a hub has.
pub struct HubDesk {
    seat: Seat,
    hub: Option<Arc<dyn Hub>>,
    cache: PathBuf,
    models: Semaphore,
    /// Texts are read one dataset after the other: who asks for the same ones finds them read.
    texts: Semaphore,
}

impl HubDesk {
    /// Asks `hub`, or the mirror alone where there is none; `cache` is for what is read of it.
    pub fn new(seat: Seat, hub: Option<Arc<dyn Hub>>, cache: PathBuf) -> Self {
        let (models, texts) = (Semaphore::new(MODELS_AT_ONCE), Semaphore::new(1));
        Self { seat, hub, cache, models, texts }
    }

    /// Pins a model.
    pub async fn pin_model(
        &self,
        request: pb::PinModelRequest,
    ) -> Result<Response<pb::PinModelReply>, Status> {
        let mirror = mirror_mode(&request.mirror)?;
        let revision = Some(request.revision).filter(|revision| !revision.is_empty());
        let name = ModelName { id: request.id, revision };
        let pin = move |ask: &AskHub, mirrored: &MirroredHub| {
            let model = ask.model(&name)?;
            // With `only` everything is there.
            if mirror == MirrorMode::Auto {
                keep_small_files(mirrored, &model)?;
            }
            Ok(model)
        };
        let model_json = self.ask(&self.models, mirror, pin).await?;
        Ok(Response::new(pb::PinModelReply { model_json }))
    }

    /// Finds texts and puts them into the bucket.
    pub async fn read_texts(
        &self,
        request: pb::ReadTextsRequest,
    ) -> Result<Response<pb::ReadTextsReply>, Status> {
        let mirror = mirror_mode(&request.mirror)?;
        let request: TextsRequest =
            serde_json::from_str(&request.request_json).map_err(|e| WireError::invalid("request_json", e))?;
        let DatasetName::Hub(name) = request.dataset.clone() else {
            return Err(WireError::invalid("request_json", "names no dataset of a hub").into());
        };
        let read = move |ask: &AskHub, _: &MirroredHub| ask.texts(&name, &request);
        let texts_json = self.ask(&self.texts, mirror, read).await?;
        Ok(Response::new(pb::ReadTextsReply { texts_json }))
    }

    async fn ask<T: Serialize + Send + 'static>(
        &self,
        turns: &Semaphore,
        mirror: MirrorMode,
        question: impl FnOnce(&AskHub, &MirroredHub) -> Result<T, SourceError> + Send + 'static,
    ) -> Result<String, Status> {
        let _turn =
            turns.acquire().await.map_err(|_| Status::unavailable("the coordinator is shutting down"))?;
        let runtime = tokio::runtime::Handle::current();
        let handle = self.seat.leading()?;
        let (store, identity) = (handle.store().clone(), handle.identity().clone());
        let hub =
            MirroredHub::new(mirror, store.clone(), runtime.clone(), self.hub.clone(), self.cache.clone());
        let hub = Arc::new(hub);
        let keep = Keep::In { open: Arc::new(move || Ok(store.clone())), identity };
        let ask = AskHub { hub: hub.clone(), fetch: Fetch::Headers, keep, runtime };
        let asked = tokio::task::spawn_blocking(move || question(&ask, &hub)).await;
        let answer = asked.map_err(|_| Status::internal("the question could not be worked on"))?;
        let answer = answer.map_err(|error| status(&error))?;
        Ok(serde_json::to_string(&answer).expect("plain data with string keys"))
    }
}

/// Puts what was fetched to pin a model into the bucket: config and tokenizer. A worker adds the weights.
fn keep_small_files(mirror: &MirroredHub, model: &PinnedModel) -> Result<(), SourceError> {
    let failed = |source| ModelSourceError::Hub { id: model.id.clone(), source: Box::new(source) };
    let repo = Repo { kind: RepoKind::Model, id: model.id.clone() };
    let commit = model.revision.as_deref().unwrap_or("main");
    let listing = mirror.list(&repo, commit).map_err(failed)?;
    let is_small = |file: &&HubFile| {
        model.files.iter().any(|pinned| pinned.name == file.path && !is_weight_file(&pinned.name))
    };
    let small: Vec<HubFile> = listing.files.iter().filter(is_small).cloned().collect();
    mirror.add_as(&repo, &listing, commit, &small, &|_, _, _| {}).map_err(|error| failed(error.into()))?;
    Ok(())
}

fn mirror_mode(text: &str) -> Result<MirrorMode, WireError> {
    text.parse().map_err(|e| WireError::invalid("mirror", e))
}

fn status(error: &SourceError) -> Status {
    let message = chain(error);
    match error.failure_class() {
        _ if error.is_refused() => Status::permission_denied(message),
        FailureClass::Retry => Status::unavailable(message),
        FailureClass::Reject | FailureClass::Fatal => Status::invalid_argument(message),
    }
}
