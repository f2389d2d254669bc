//! A finished run's files as a client fetches them: those in the bucket, and embeddings made on the way out.

use std::collections::BTreeMap;

use bytes::Bytes;
use lsa_common::id::JobId;
use lsa_common::job::{JobSpec, is_plain_name};
use lsa_common::layout;
use lsa_common::store::{Store, StoreError};

use crate::embeddings::{Embeddings, EmbeddingsError};
use crate::journal;
use crate::metadata::Metadata;

/// Why results cannot be listed or read.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// The bucket failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Embeddings cannot be made.
    #[error(transparent)]
    Embeddings(#[from] EmbeddingsError),
    /// There is no such file.
    #[error("there is no result {0:?}")]
    NoSuchFile(String),
}

/// The result files of one run.
pub struct Results {
    store: Store,
    folder: String,
    files: BTreeMap<String, u64>,
    embeddings: BTreeMap<String, Embeddings>,
}

impl Results {
    /// Lists what the newest epoch has written of a run.
    pub async fn open(store: &Store, job: &JobId, run: u32, spec: JobSpec) -> Result<Self, ResultsError> {
        let epochs = journal::result_epochs(store, job, run).await?;
        let epoch = epochs.last().copied().unwrap_or_default();
        let folder = layout::run_results(job, run, epoch);
        let prefix = format!("{folder}/");
        let named = |key: &str| key.strip_prefix(&prefix).map(str::to_owned);
        let listed = store.list(&folder).await?;
        let files = listed.iter().filter_map(|object| Some((named(&object.key)?, object.size))).collect();
        let mut results = Self { store: store.clone(), folder, files, embeddings: BTreeMap::new() };
        for experiment in spec.experiments.iter().filter(|experiment| experiment.save_embeddings) {
            let own = if spec.run.single { String::new() } else { format!("{}/", experiment.name) };
            let metadata = format!("{own}metadata.json");
            if !results.files.contains_key(&metadata) {
                continue;
            }
            let bytes = store.get(&format!("{}/{metadata}", results.folder)).await?;
            let (metadata, _) = Metadata::read_lenient(&bytes);
            let key = metadata.digests.get("extraction_key").and_then(|key| key.parse().ok());
            let Some(key) = key else { continue };
            let n_texts = spec.texts[experiment.texts].n_texts;
            results.embeddings.insert(own, Embeddings::open(store, experiment, n_texts, key).await?);
        }
        Ok(results)
    }

    /// Path and size of every file; 0 for those that are made when they are read.
    pub fn files(&self) -> Vec<(String, u64)> {
        let made = |(own, embeddings): (&String, &Embeddings)| {
            embeddings.paths().into_iter().map(|path| (format!("{own}{path}"), 0)).collect::<Vec<_>>()
        };
        let stored = self.files.iter().map(|(path, size)| (path.clone(), *size));
        stored.chain(self.embeddings.iter().flat_map(made)).collect()
    }

    /// The bytes of one file.
    pub async fn read(&self, path: &str) -> Result<Bytes, ResultsError> {
        if self.files.contains_key(path) && is_plain_name(path) {
            return Ok(self.store.get(&format!("{}/{path}", self.folder)).await?);
        }
        for (own, embeddings) in &self.embeddings {
            if let Some(inside) = path.strip_prefix(own.as_str())
                && inside.starts_with("embeddings/")
            {
                return Ok(embeddings.file(inside).await?.into());
            }
        }
        Err(ResultsError::NoSuchFile(path.to_owned()))
    }
}
