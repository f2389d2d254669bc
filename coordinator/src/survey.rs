//! What the bucket holds of a work already, and the binding of a work to a numeric profile.
//!
//! Listings tell which records there are and whether the objects that they name exist with the right size. Digests
//! are checked by whoever reads an object; damage found then makes the item work to do again.

use std::collections::{BTreeMap, HashMap};

use lsa_common::id::{Digest, JobId};
use lsa_common::key::{comparison_key, extraction_key};
use lsa_common::layout;
use lsa_common::model::{PinnedModel, Pooling};
use lsa_common::record::{ProfileBinding, ShardRecord, StoredObject, TextsRecord};
use lsa_common::shard_records::{self, Listing, Newest, loose_blocks};
use lsa_common::store::{Listed, Store, StoreError};

use crate::identity::Identity;
use crate::plan::{Comparison, Extraction, What, Work};
use crate::scheduler::event::{Block, Found, Item, Survey};

/// Binds the work to a profile (an earlier binding wins) and lists what is there of it.
///
/// `runs` are the runs that want the work; `rows_keys` are those of the extractions that a comparison reads,
/// in its order. Also tells which blocks of shard records are worth rolling up.
pub async fn survey(
    store: &Store,
    identity: &Identity,
    work: &Work,
    runs: &[(JobId, u32)],
    numeric_profile: &str,
    rows_keys: &[Digest],
) -> Result<(Survey, Vec<Block>), StoreError> {
    let (numeric_profile, key) = match &work.what {
        What::Prepare { texts_key, .. } => (String::new(), Some(*texts_key)),
        What::Mirror { files_key, .. } => (String::new(), Some(*files_key)),
        What::Extract(extraction) => {
            let profile = bind(store, identity, runs, extraction.base_key, numeric_profile).await?;
            let key = extraction_key(extraction.base_key, &profile);
            (profile, Some(key))
        }
        What::Compare(comparison) => {
            let profile = bind(store, identity, runs, comparison.base_key, numeric_profile).await?;
            let key = comparison_key(comparison.base_key, rows_keys, &profile);
            (profile, Some(key))
        }
    };
    let (found, blocks) = find(store, work, key).await?;
    Ok((Survey { numeric_profile, key, found }, blocks))
}

/// Lists what is there of a work under `key`; binds nothing.
pub async fn look(store: &Store, work: &Work, key: Option<Digest>) -> Result<Survey, StoreError> {
    let (found, _) = find(store, work, key).await?;
    Ok(Survey { numeric_profile: String::new(), key, found })
}

async fn find(
    store: &Store,
    work: &Work,
    key: Option<Digest>,
) -> Result<(FoundItems, Vec<Block>), StoreError> {
    let found = match (&work.what, key) {
        (What::Prepare { .. }, Some(key)) => texts(store, key).await?,
        (What::Mirror { model, .. }, Some(_)) => files(store, model).await?,
        (What::Extract(extraction), Some(key)) => return shards(store, key, extraction).await,
        (What::Compare(comparison), Some(key)) => trials(store, key, comparison).await?,
        (_, None) => BTreeMap::new(),
    };
    Ok((found, Vec::new()))
}

/// The profile to which each of the runs binds the base key: the first one that any of them was bound to.
async fn bind(
    store: &Store,
    identity: &Identity,
    runs: &[(JobId, u32)],
    base_key: Digest,
    numeric_profile: &str,
) -> Result<String, StoreError> {
    let mut bound = numeric_profile.to_owned();
    for (job, run) in runs {
        let key = layout::run_profile(job, *run, base_key);
        let binding =
            ProfileBinding { numeric_profile: bound.clone(), coordinator: identity.coordinator.clone() };
        // An earlier coordinator of this run may have bound it.
        bound = store.settle_json(&key, &binding).await?.value.numeric_profile;
    }
    Ok(bound)
}

type FoundItems = BTreeMap<(u32, Item), Found>;

/// The record of prepared texts, if there is one.
pub async fn texts(store: &Store, texts_key: Digest) -> Result<FoundItems, StoreError> {
    let listed = store.list(&layout::texts_commits(texts_key)).await?;
    let name = |object: &Listed| object.key.rsplit('/').next().and_then(layout::parse_generation);
    let Some(generation) = listed.iter().filter_map(name).max() else { return Ok(BTreeMap::new()) };
    let record: Option<TextsRecord> = readable(store, &layout::texts_commit(texts_key, generation)).await?;
    let mut intact = record.is_some();
    for part in record.iter().flat_map(|record| &record.parts) {
        intact &= store.size(&part.key).await? == Some(part.size);
    }
    Ok(BTreeMap::from([((0, Item::Texts), Found { generation, intact })]))
}

/// Whether the bucket has the files of a model. A file lies under its digest, so that no record has to vouch for it.
async fn files(store: &Store, model: &PinnedModel) -> Result<FoundItems, StoreError> {
    for file in &model.files {
        if store.size(&layout::input(file.sha256)).await? != Some(file.size) {
            return Ok(BTreeMap::new());
        }
    }
    Ok(BTreeMap::from([((0, Item::Files), Found { generation: 0, intact: true })]))
}

async fn shards(
    store: &Store,
    key: Digest,
    extraction: &Extraction,
) -> Result<(FoundItems, Vec<Block>), StoreError> {
    let mut found = BTreeMap::new();
    let mut blocks = Vec::new();
    for pooling in &extraction.poolings {
        let listed = store.list(&layout::embeddings(key, *pooling)).await?;
        let sizes: HashMap<&str, u64> =
            listed.iter().map(|object| (object.key.as_str(), object.size)).collect();
        let is_there = |object: &StoredObject| sizes.get(object.key.as_str()) == Some(&object.size);
        let intact = |record: &ShardRecord| record.layers.iter().all(|layer| is_there(&layer.object));
        let listing = Listing::of(listed.iter().map(|object| object.key.as_str()));
        let newest = listing.read(store, key, *pooling, intact).await?;
        let block = |generations| Block { extraction_key: key, pooling: *pooling, generations };
        blocks.extend(loose_blocks(&newest, extraction.n_shards()).into_iter().map(block));
        for (shard, Newest { generation, kept, .. }) in newest {
            let state = Found { generation, intact: kept == Some(true) };
            found.insert((shard, Item::Rows(*pooling)), state);
        }
    }
    Ok((found, blocks))
}

async fn trials(store: &Store, key: Digest, comparison: &Comparison) -> Result<FoundItems, StoreError> {
    let listed = store.list(&layout::trials(key)).await?;
    let newest = layout::newest_records(listed.iter().map(|object| object.key.as_str()));
    let wanted = newest.into_iter().filter(|(trial, _)| *trial < comparison.settings.trials.at_most());
    Ok(wanted
        .map(|(trial, generation)| ((trial, Item::Trial(trial)), Found { generation, intact: true }))
        .collect())
}

/// A record, or nothing where it cannot be read as one: the next generation replaces it.
async fn readable<T: serde::de::DeserializeOwned>(store: &Store, key: &str) -> Result<Option<T>, StoreError> {
    match store.get_json(key).await {
        Ok(record) => Ok(Some(record)),
        Err(StoreError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The highest trial generation of a comparison, by trial; for those who read the matrices.
pub async fn trial_generations(store: &Store, key: Digest) -> Result<BTreeMap<u32, u32>, StoreError> {
    let listed = store.list(&layout::trials(key)).await?;
    Ok(layout::newest_records(listed.iter().map(|object| object.key.as_str())))
}

/// The newest shard records of one extraction and pooling, by shard.
pub async fn sound_shard_records(
    store: &Store,
    key: Digest,
    pooling: Pooling,
) -> Result<BTreeMap<u32, ShardRecord>, StoreError> {
    let read = shard_records::read(store, key, pooling).await?;
    let sound = |(shard, record): (u32, Option<ShardRecord>)| match record {
        Some(record) => Ok((shard, record)),
        None => {
            let fault = format!("the record of shard {shard} is none");
            Err(StoreError::Damaged { key: layout::embeddings_commits(key, pooling), fault })
        }
    };
    read.into_iter().map(sound).collect()
}
