//! A hub asked by the coordinator that will run the job.

use lsa_common::dataset::HubName;
use lsa_common::mirror::MirrorMode;
use lsa_common::model::PinnedModel;
use lsa_common::wire::job as pb;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;

use super::{FoundTexts, Repositories, SourceError, TextsRequest};
use crate::client::{Client, ClientError, CoordinatorArgs};
use crate::grid::ModelName;

/// A coordinator that asks the hub. Calls block, and wait for the answer on `runtime`.
pub struct AskCoordinator {
    /// The coordinator; nobody is asked before a hub is needed.
    pub coordinator: CoordinatorArgs,
    /// How it uses its mirror.
    pub mirror: MirrorMode,
    /// To wait for the answer.
    pub runtime: Handle,
}

impl Repositories for AskCoordinator {
    fn runtime(&self) -> &Handle {
        &self.runtime
    }

    fn model(&self, name: &ModelName) -> Result<PinnedModel, SourceError> {
        let request = pb::PinModelRequest {
            id: name.id.clone(),
            revision: name.revision.clone().unwrap_or_default(),
            mirror: self.mirror.to_string(),
        };
        let reply = self.ask(async |client: &mut Client| client.pin_model(request).await)?;
        answer(&reply.model_json)
    }

    fn texts(&self, _: &HubName, request: &TextsRequest) -> Result<FoundTexts, SourceError> {
        let request = pb::ReadTextsRequest {
            request_json: serde_json::to_string(request).expect("plain data with string keys"),
            mirror: self.mirror.to_string(),
        };
        let reply = self.ask(async |client: &mut Client| client.read_texts(request).await)?;
        answer(&reply.texts_json)
    }
}

impl AskCoordinator {
    fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&mut Client) -> Result<tonic::Response<T>, tonic::Status>,
    ) -> Result<T, ClientError> {
        self.runtime.block_on(async {
            let mut client = self.coordinator.connect().await?;
            Ok(question(&mut client).await?.into_inner())
        })
    }
}

fn answer<T: DeserializeOwned>(json: &str) -> Result<T, SourceError> {
    Ok(serde_json::from_str(json).map_err(|error| ClientError::Answer(error.to_string()))?)
}
