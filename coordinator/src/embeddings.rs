//! Embeddings as users get them: `.pt` files of `batch_size` rows in text order, made from the shards, never stored
//! twice.

use std::collections::BTreeMap;
use std::io::Cursor;

use bytes::Bytes;
use lsa_common::artifact::Rows;
use lsa_common::id::Digest;
use lsa_common::job::Experiment;
use lsa_common::model::Pooling;
use lsa_common::record::{ShardLayer, ShardRecord, StoredObject};
use lsa_common::shard_records;
use lsa_common::store::{Store, StoreError};
use tokio::sync::Mutex;

use crate::export::torch::{TensorWriter, embedding_path};

/// Why embeddings cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddingsError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A shard is not what its record says, or is not there.
    #[error("shard {shard} is damaged: {fault}; run the job again to have it made")]
    Damaged {
        /// Which shard.
        shard: u32,
        /// What is wrong.
        fault: String,
    },
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
    last: Mutex<Option<(String, Bytes)>>,
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
            shards: read_records(store, extraction_key, pooling).await?,
            last: Mutex::new(None),
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
            let (record, part) = self.part(shard, layer)?;
            let bytes = self.verified(shard, &part.object).await?;
            width = part.width;
            let rows = Rows::decode(&bytes, record.n_rows as usize, width as usize)
                .map_err(|e| damaged(shard, e.to_string()))?;
            let shard_first = shard * self.shard_rows;
            let shard_end = end.min(shard_first + record.n_rows);
            if shard_end <= row {
                return Err(damaged(shard, format!("row {row} is not in it")));
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

    /// Reads every object once and compares it with its record.
    pub async fn verify(&self) -> Result<(), EmbeddingsError> {
        for shard in 0..self.n_texts.div_ceil(self.shard_rows) {
            for layer in &self.layers {
                let (_, part) = self.part(shard, *layer)?;
                self.verified(shard, &part.object).await?;
            }
        }
        Ok(())
    }

    fn part(&self, shard: u32, layer: u32) -> Result<(&ShardRecord, &ShardLayer), EmbeddingsError> {
        let record = self.shards.get(&shard).ok_or_else(|| damaged(shard, "it has no record".to_owned()))?;
        let part = record.layers.iter().find(|part| part.layer == layer);
        let part = part.ok_or_else(|| damaged(shard, format!("its record lacks layer {layer}")))?;
        Ok((record, part))
    }

    /// An object's bytes. The last one is kept: the batches of a shard are asked for one after another.
    async fn verified(&self, shard: u32, object: &StoredObject) -> Result<Bytes, EmbeddingsError> {
        let mut last = self.last.lock().await;
        if let Some((key, bytes)) = last.as_ref()
            && *key == object.key
        {
            return Ok(bytes.clone());
        }
        let bytes = match self.store.get_verified(object).await {
            Err(StoreError::Damaged { fault, .. }) => return Err(damaged(shard, fault)),
            bytes => bytes?,
        };
        *last = Some((object.key.clone(), bytes.clone()));
        Ok(bytes)
    }
}

async fn read_records(
    store: &Store,
    key: Digest,
    pooling: Pooling,
) -> Result<BTreeMap<u32, ShardRecord>, EmbeddingsError> {
    let read = shard_records::read(store, key, pooling).await?;
    let sound = |(shard, record): (u32, Option<ShardRecord>)| {
        Ok((shard, record.ok_or_else(|| damaged(shard, "its record is damaged".to_owned()))?))
    };
    read.into_iter().map(sound).collect()
}

fn damaged(shard: u32, fault: String) -> EmbeddingsError {
    EmbeddingsError::Damaged { shard, fault }
}

/// Layer and batch of `embeddings/layer_<l>/batch_<j>.pt`.
fn parse_path(path: &str) -> Option<(u32, u32)> {
    let rest = path.strip_prefix("embeddings/layer_")?;
    let (layer, batch) = rest.split_once("/batch_")?;
    Some((layer.parse().ok()?, batch.strip_suffix(".pt")?.parse().ok()?))
}
