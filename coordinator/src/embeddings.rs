//! Embeddings as users get them: `.pt` files of `batch_size` rows in text order, made from the shards, never stored
//! twice.

use std::collections::BTreeMap;
use std::io::Cursor;

use lsa_common::artifact::{ArtifactError, Rows};
use lsa_common::id::Digest;
use lsa_common::job::Experiment;
use lsa_common::model::Pooling;
use lsa_common::record::ShardRecord;
use lsa_common::store::{Store, StoreError};

use crate::export::torch::{TensorWriter, embedding_path};
use crate::survey;

/// Why embeddings cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddingsError {
    /// The store failed, or an object is damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A shard is not what its record says.
    #[error("shard {shard} of layer {layer}")]
    Shard {
        /// Which shard.
        shard: u32,
        /// At which layer.
        layer: u32,
        /// What is wrong.
        #[source]
        source: ArtifactError,
    },
    /// A shard has no record.
    #[error("shard {0} is not there; run the job again to have it made")]
    Missing(u32),
    /// There is no such batch.
    #[error("there is no {0:?} among the embeddings")]
    NoSuchFile(String),
    /// Encoding failed.
    #[error("cannot write a tensor")]
    Tensor(#[from] std::io::Error),
}

/// The embeddings of one experiment.
pub struct Embeddings {
    store: Store,
    layers: Vec<u32>,
    batch_size: u32,
    n_texts: u32,
    shard_rows: u32,
    shards: BTreeMap<u32, ShardRecord>,
}

impl Embeddings {
    /// Reads the records of an experiment's embeddings.
    pub async fn open(
        store: &Store,
        experiment: &Experiment,
        n_texts: u32,
        extraction_key: Digest,
    ) -> Result<Self, EmbeddingsError> {
        let pooling: Pooling = experiment.pooling;
        Ok(Self {
            store: store.clone(),
            layers: experiment.extraction.layers.clone(),
            batch_size: experiment.extraction.batch_size,
            n_texts,
            shard_rows: experiment.extraction.shard_rows,
            shards: survey::shard_records(store, extraction_key, pooling).await?,
        })
    }

    /// The files' paths in an experiment's directory, layer by layer in text order.
    pub fn paths(&self) -> Vec<String> {
        let batches = u64::from(self.n_texts.div_ceil(self.batch_size));
        let of_layer =
            |layer: &u32| (0..batches).map(|batch| embedding_path(*layer, batch)).collect::<Vec<_>>();
        self.layers.iter().flat_map(of_layer).collect()
    }

    /// The bytes of the file at `path`.
    pub async fn file(&self, path: &str) -> Result<Vec<u8>, EmbeddingsError> {
        let unknown = || EmbeddingsError::NoSuchFile(path.to_owned());
        let (layer, batch) = parse_path(path).ok_or_else(unknown)?;
        if !self.layers.contains(&layer)
            || u64::from(batch) * u64::from(self.batch_size) >= u64::from(self.n_texts)
        {
            return Err(unknown());
        }
        let first = batch * self.batch_size;
        let end = first.saturating_add(self.batch_size).min(self.n_texts);
        let mut values = Vec::new();
        let mut width = 0;
        let mut row = first;
        while row < end {
            let shard = row / self.shard_rows;
            let record = self.shards.get(&shard).ok_or(EmbeddingsError::Missing(shard))?;
            let part = record.layers.iter().find(|part| part.layer == layer);
            let part = part.ok_or(EmbeddingsError::Missing(shard))?;
            let bytes = self.store.get_verified(&part.object).await?;
            width = part.width;
            let rows = Rows::decode(&bytes, record.n_rows as usize, width as usize)
                .map_err(|source| EmbeddingsError::Shard { shard, layer, source })?;
            let shard_first = shard * self.shard_rows;
            let shard_end = end.min(shard_first + record.n_rows);
            if shard_end <= row {
                return Err(EmbeddingsError::Missing(shard));
            }
            for row in row..shard_end {
                rows.append((row - shard_first) as usize, &mut values);
            }
            row = shard_end;
        }
        let folder = format!("batch_{batch}");
        let shape = [u64::from(end - first), u64::from(width)];
        let mut tensor = TensorWriter::begin(Cursor::new(Vec::new()), &folder, shape)?;
        tensor.write(&values)?;
        Ok(tensor.finish()?.into_inner())
    }
}

/// Layer and batch of `embeddings/layer_<l>/batch_<j>.pt`.
fn parse_path(path: &str) -> Option<(u32, u32)> {
    let rest = path.strip_prefix("embeddings/layer_")?;
    let (layer, batch) = rest.split_once("/batch_")?;
    Some((layer.parse().ok()?, batch.strip_suffix(".pt")?.parse().ok()?))
}
