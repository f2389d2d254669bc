//! Where the models and texts of a grid come from when it is resolved.
//!
//! Paths and `file:` names are this machine's, and objects in a bucket are fetched to it. What a hub has is asked of the
//! hub by whoever will run the job: here for `run` and `plan`, the coordinator for `submit`, so that a cluster asks once,
//! with its own token and its own mirror.

mod here;
mod there;

use lsa_common::config::coordinator_cache;
use lsa_common::dataset::files::FilesError;
use lsa_common::dataset::{
    DatasetError, DatasetName, HubName, LocalFiles, ObjectsError, ReadSettings, TextsPlan, TextsSpec,
    local_plan, objects_plan, survey,
};
use lsa_common::failure::FailureClass;
use lsa_common::model::PinnedModel;
use lsa_common::model_source::{self, ModelSourceError};
use lsa_common::store::StoreError;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::client::ClientError;
use crate::grid::ModelName;
use crate::prepared::PreparedError;

pub use here::{AskHub, Keep};
pub use there::AskCoordinator;

/// Which texts of a hub dataset are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextsRequest {
    /// The dataset.
    pub dataset: DatasetName,
    /// The split, where the user named one.
    pub split: Option<String>,
    /// Which texts of it.
    pub settings: ReadSettings,
}

/// Texts that were found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundTexts {
    /// Which they are. Where nothing was read there are at most so many.
    pub spec: TextsSpec,
    /// What a person should hear, one sentence each.
    pub warnings: Vec<String>,
}

/// Why a model or a dataset cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    // Each says itself which model, dataset or file it speaks of.
    /// The model cannot be used.
    #[error(transparent)]
    Model(#[from] ModelSourceError),
    /// The files of the dataset cannot be found.
    #[error("dataset {dataset} cannot be had")]
    Files {
        /// The dataset.
        dataset: String,
        /// Why.
        #[source]
        source: Box<FilesError>,
    },
    /// The files of the dataset cannot be read.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The texts cannot be put into the bucket.
    #[error(transparent)]
    Prepared(#[from] PreparedError),
    /// The bucket failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The coordinator says no.
    #[error(transparent)]
    Coordinator(#[from] ClientError),
    /// The objects cannot be had.
    #[error(transparent)]
    Objects(#[from] ObjectsError),
}

/// What a hub has.
pub trait Repositories {
    /// Where this machine waits for what it fetches itself.
    fn runtime(&self) -> &Handle;

    /// Pins a model.
    fn model(&self, name: &ModelName) -> Result<PinnedModel, SourceError>;

    /// Finds texts, and reads them unless nothing may be touched.
    fn texts(&self, dataset: &HubName, request: &TextsRequest) -> Result<FoundTexts, SourceError>;
}

/// Pins a model of this machine, or one of a hub.
pub fn model(repositories: &dyn Repositories, name: &ModelName) -> Result<PinnedModel, SourceError> {
    match model_source::local(&name.id, name.revision.as_deref())? {
        Some(folder) => Ok(folder.pin()?),
        None => repositories.model(name),
    }
}

/// Finds the texts of a dataset: local files and objects in a bucket are read here, hub datasets where the hub is asked.
pub fn texts(repositories: &dyn Repositories, request: &TextsRequest) -> Result<FoundTexts, SourceError> {
    match &request.dataset {
        DatasetName::File(name) => surveyed(local_plan(name, request.settings)?),
        DatasetName::Hub(name) => repositories.texts(name, request),
        DatasetName::Bucket(name) => {
            let cache = coordinator_cache();
            surveyed(objects_plan(name, request.settings, repositories.runtime(), &cache)?)
        }
    }
}

/// Reads files of this machine.
fn surveyed(plan: TextsPlan) -> Result<FoundTexts, SourceError> {
    let dedupe = plan.settings.dedupe;
    let survey = survey(plan, &LocalFiles::default())?;
    let mut warnings = survey.warnings;
    warnings.extend(duplicates(survey.tally.n_duplicates, dedupe));
    Ok(FoundTexts { spec: survey.spec, warnings })
}

/// What is said of texts that are equal to an earlier one.
fn duplicates(n_duplicates: u64, dropped: bool) -> Option<String> {
    let what = if dropped { "were left out" } else { "are kept; dedupe = true leaves them out" };
    (n_duplicates > 0).then(|| format!("{n_duplicates} texts are equal to an earlier one and {what}"))
}

impl SourceError {
    /// Whether the same question may be answered later.
    pub fn failure_class(&self) -> FailureClass {
        match self {
            Self::Model(error) => error.failure_class(),
            Self::Files { source, .. } => match &**source {
                FilesError::Hub(error) => error.failure_class(),
                _ => FailureClass::Reject,
            },
            Self::Objects(error) => error.failure_class(),
            Self::Dataset(error) => error.failure_class(),
            Self::Prepared(error) => error.failure_class(),
            Self::Store(error) => error.failure_class(),
            Self::Coordinator(_) => FailureClass::Retry,
        }
    }

    /// Whether a hub or a bucket wants to know who asks: a missing or insufficient token or key, terms that were not
    /// accepted.
    pub fn is_refused(&self) -> bool {
        match self {
            Self::Model(error) => error.is_refused(),
            Self::Files { source, .. } => source.is_refused(),
            Self::Dataset(DatasetError::Hub { source, .. }) => source.is_refused(),
            Self::Prepared(error) => error.is_refused(),
            Self::Objects(error) => error.is_refused(),
            Self::Coordinator(error) => error.is_refused(),
            Self::Dataset(_) | Self::Store(_) => false,
        }
    }
}
