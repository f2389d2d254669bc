//! `--store-limit`: removes the least recently used finished extractions until the bucket fits.
//!
//! Records go before the objects that they name, so that an interrupted eviction leaves unused bytes, never a record
//! of something that is gone. An extraction counts as used when its objects were written and whenever a run bound it.

use std::collections::{BTreeMap, BTreeSet};

use lsa_common::id::Digest;
use lsa_common::key::extraction_key;
use lsa_common::layout;
use lsa_common::record::ProfileBinding;
use lsa_common::store::{Listed, Store, StoreError};

/// What an eviction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Extractions removed.
    pub extractions: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of the bucket afterwards.
    pub left_bytes: u64,
}

/// Removes extractions outside `keep` until all objects have at most `limit_bytes`, or none is left to remove.
pub async fn evict(store: &Store, limit_bytes: u64, keep: &BTreeSet<Digest>) -> Result<Evicted, StoreError> {
    let folders = ["inputs", "models", "texts", "embeddings", "trials", layout::JOBS];
    let mut total = 0;
    for folder in folders {
        total += store.list(folder).await?.iter().map(|object| object.size).sum::<u64>();
    }
    let mut evicted = Evicted { left_bytes: total, ..Evicted::default() };
    if total <= limit_bytes {
        return Ok(evicted);
    }
    let mut extractions: BTreeMap<String, (i64, Vec<Listed>)> = BTreeMap::new();
    for object in store.list("embeddings").await? {
        let Some(key) = object.key.split('/').nth(1) else { continue };
        let entry = extractions.entry(key.to_owned()).or_default();
        entry.0 = entry.0.max(object.modified_s);
        entry.1.push(object);
    }
    for (key, used_s) in bindings(store).await? {
        if let Some(entry) = extractions.get_mut(&key.to_string()) {
            entry.0 = entry.0.max(used_s);
        }
    }
    let kept: BTreeSet<String> = keep.iter().map(Digest::to_string).collect();
    let mut oldest: Vec<_> = extractions.into_iter().filter(|(key, _)| !kept.contains(key)).collect();
    oldest.sort_by_key(|(key, (used_s, _))| (*used_s, key.clone()));
    for (_, (_, objects)) in oldest {
        if evicted.left_bytes <= limit_bytes {
            break;
        }
        let (records, data): (Vec<_>, Vec<_>) =
            objects.iter().partition(|object| object.key.contains("/commits/"));
        for object in records.into_iter().chain(data) {
            store.delete(&object.key).await?;
            evicted.bytes += object.size;
            evicted.left_bytes -= object.size.min(evicted.left_bytes);
        }
        evicted.extractions += 1;
    }
    Ok(evicted)
}

/// When each extraction was bound last.
async fn bindings(store: &Store) -> Result<Vec<(Digest, i64)>, StoreError> {
    let mut used = Vec::new();
    for object in store.list(layout::JOBS).await? {
        if !object.key.contains("/profiles/") {
            continue;
        }
        let base = object.key.rsplit('/').next().and_then(|name| name.strip_suffix(".json")?.parse().ok());
        let Some(base) = base else { continue };
        let binding: ProfileBinding = store.get_json(&object.key).await?;
        used.push((extraction_key(base, &binding.numeric_profile), object.modified_s));
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_least_recently_used_goes_first_and_what_is_kept_stays() {
        let store = Store::memory();
        let keys: Vec<Digest> = (0u8..3).map(|i| Digest::of(&[i])).collect();
        for key in &keys {
            let name = format!("embeddings/{key}/mean/layer_0/rows_0.a.safetensors");
            store.put(&name, vec![0; 100].into()).await.expect("a store in memory");
            let record = format!("embeddings/{key}/mean/commits/0.0.json");
            store.put(&record, vec![0; 10].into()).await.expect("a store in memory");
        }
        let keep = BTreeSet::from([keys[0]]);
        let evicted = evict(&store, 240, &keep).await.expect("a store in memory");
        assert_eq!((evicted.extractions, evicted.bytes, evicted.left_bytes), (1, 110, 220));
        let evicted = evict(&store, 0, &keep).await.expect("a store in memory");
        assert_eq!(evicted.left_bytes, 110);
        assert_eq!(store.list(&format!("embeddings/{}", keys[0])).await.expect("a list").len(), 2);
    }
}
