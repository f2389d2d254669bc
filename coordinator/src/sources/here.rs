//! A hub asked from this process.

use std::sync::Arc;

use lsa_common::dataset::{HubFiles, HubName, TextsPlan, TextsSpec, files};
use lsa_common::hub::Hub;
use lsa_common::model::PinnedModel;
use lsa_common::model_source::{Fetch, pin_from_hub};
use lsa_common::store::{Store, StoreError};
use tokio::runtime::Handle;

use super::{FoundTexts, Repositories, SourceError, TextsRequest, duplicates};
use crate::grid::ModelName;
use crate::identity::Identity;
use crate::prepared;

/// Opens a bucket, and makes it if need be.
pub type OpenStore = dyn Fn() -> Result<Store, StoreError> + Send + Sync;

/// What becomes of texts that are read.
#[derive(Clone)]
pub enum Keep {
    /// They go into the bucket.
    In {
        /// Gives the bucket, which is not touched before there are texts for it.
        open: Arc<OpenStore>,
        /// Who writes their record.
        identity: Identity,
    },
    /// Nothing is read; what the bucket has already, if there is one, is known.
    Nothing(Option<Store>),
}

/// A hub asked from this process. Calls block, and wait for the bucket on `runtime`.
pub struct AskHub {
    /// The hub, or what stands before it.
    pub hub: Arc<dyn Hub>,
    /// How much of a model is fetched.
    pub fetch: Fetch,
    /// What becomes of texts.
    pub keep: Keep,
    /// To wait for the bucket.
    pub runtime: Handle,
}

impl Repositories for AskHub {
    fn runtime(&self) -> &Handle {
        &self.runtime
    }

    fn model(&self, name: &ModelName) -> Result<PinnedModel, SourceError> {
        Ok(pin_from_hub(&name.id, name.revision.as_deref(), &*self.hub, self.fetch)?)
    }

    fn texts(&self, dataset: &HubName, request: &TextsRequest) -> Result<FoundTexts, SourceError> {
        let split = request.split.as_deref();
        let found =
            files::resolve(dataset, split.unwrap_or(files::SPLIT_DEFAULT), split.is_some(), &*self.hub)
                .map_err(|source| SourceError::Files {
                    dataset: dataset.to_string(),
                    source: Box::new(source),
                })?;
        let plan = TextsPlan::new(dataset.to_string(), found.files, request.settings);
        let mut warnings = found.warnings;
        let record = match &self.keep {
            Keep::In { open, identity } => {
                let files = HubFiles::new(&*self.hub);
                Some(prepared::find_or_make(&self.runtime, &open()?, identity, &plan, &files)?)
            }
            Keep::Nothing(Some(store)) => self.runtime.block_on(prepared::find(store, &plan))?,
            Keep::Nothing(None) => None,
        };
        let Some(record) = record else {
            let n_texts = request.settings.num_samples;
            warnings.push(format!("{dataset} has not been read yet; it gives at most {n_texts} texts"));
            return Ok(FoundTexts { spec: TextsSpec { plan, n_texts }, warnings });
        };
        warnings.extend(record.warnings);
        warnings.extend(duplicates(record.n_duplicates, request.settings.dedupe));
        let n_texts = u32::try_from(record.n_texts).unwrap_or(u32::MAX);
        Ok(FoundTexts { spec: TextsSpec { plan, n_texts }, warnings })
    }
}
