//! The records of the mirror: which files a repository has, and under which content its small files are kept.
//!
//! Records are only ever created. A listing gets the next number when its branch has moved; a damaged one is passed by
//! the next number as well. The record of a small file never changes: the git object id says what its bytes are.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};

use super::MirrorError;
use crate::hub::{Listing, Repo};
use crate::id::Digest;
use crate::layout;
use crate::store::{Store, StoreError};

/// Records are small; so many are read at a time.
const READS: usize = 16;
/// How often a number that someone else took is tried again.
const TRIES: usize = 16;

/// What a repository held when it was mirrored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListingRecord {
    /// The repository under the name that was asked for.
    pub repo: Repo,
    /// The branch, tag or commit that was asked for.
    pub revision: String,
    /// All its files, also those that were not mirrored.
    pub listing: Listing,
    /// RFC 3339, UTC: for people, never compared.
    pub mirrored_at: String,
}

/// The content of a file of which the hub tells the git object id alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitRecord {
    /// Its SHA-256, under which the bytes are kept.
    pub sha256: Digest,
    /// Bytes.
    pub size: u64,
}

/// The newest listing of `repo` at `revision`, if there is one.
pub async fn newest(
    store: &Store,
    repo: &Repo,
    revision: &str,
) -> Result<Option<ListingRecord>, MirrorError> {
    match newest_number(store, repo, revision).await? {
        Some(number) => read(store, &layout::mirror_ref(repo, revision, number)).await.map(Some),
        None => Ok(None),
    }
}

/// Makes `record` the newest of its repository and revision; whether it was not so already.
pub async fn put(store: &Store, record: &ListingRecord) -> Result<bool, MirrorError> {
    let key = |number| layout::mirror_ref(&record.repo, &record.revision, number);
    for _ in 0..TRIES {
        let next = match newest_number(store, &record.repo, &record.revision).await? {
            None => 0,
            Some(number) => match read(store, &key(number)).await {
                Ok(known) if known.listing == record.listing => return Ok(false),
                Ok(_) | Err(MirrorError::Damaged { .. }) => number.saturating_add(1),
                Err(error) => return Err(error),
            },
        };
        if store.settle_json(&key(next), record).await?.is_mine {
            return Ok(true);
        }
    }
    Err(MirrorError::Contended { key: layout::mirror_refs(&record.repo, &record.revision) })
}

/// The newest listing of every repository and revision, in the order of their keys.
pub async fn all(store: &Store) -> Result<Vec<ListingRecord>, MirrorError> {
    let mut newest: BTreeMap<String, u32> = BTreeMap::new();
    for object in store.list(layout::MIRROR).await? {
        let Some((folder, name)) = object.key.rsplit_once('/') else { continue };
        let Some(number) = layout::parse_generation(name) else { continue };
        if folder == layout::MIRROR_GIT {
            continue;
        }
        let known = newest.entry(folder.to_owned()).or_insert(number);
        *known = number.max(*known);
    }
    let keys = newest.into_iter().map(|(folder, number)| format!("{folder}/{number}.json"));
    let reads = futures::stream::iter(keys).map(|key| async move { read(store, &key).await });
    reads.buffered(READS).try_collect().await
}

/// What the file of that git object id is, if it was mirrored.
pub async fn git(store: &Store, sha1: &str) -> Result<Option<GitRecord>, MirrorError> {
    let key = layout::mirror_git(sha1);
    let Some(json) = store.try_get(&key).await? else { return Ok(None) };
    let damaged = |error: serde_json::Error| MirrorError::Damaged { key, fault: error.to_string() };
    serde_json::from_slice(&json).map(Some).map_err(damaged)
}

/// Says what the file of that git object id is; whether it was not known already.
pub async fn put_git(store: &Store, sha1: &str, record: &GitRecord) -> Result<bool, MirrorError> {
    let key = layout::mirror_git(sha1);
    let (known, is_new) = match git(store, sha1).await? {
        Some(known) => (known, false),
        None => (store.settle_json(&key, record).await?.value, true),
    };
    if known == *record {
        return Ok(is_new);
    }
    let fault = format!("it names {}, the file is {}", known.sha256, record.sha256);
    Err(MirrorError::Damaged { key, fault })
}

/// All of them, by git object id.
pub async fn all_git(store: &Store) -> Result<BTreeMap<String, GitRecord>, MirrorError> {
    let listed = store.list(layout::MIRROR_GIT).await?;
    let ids = listed.into_iter().filter_map(|object| {
        object.key.rsplit('/').next()?.strip_suffix(".json").filter(|id| is_sha1(id)).map(str::to_owned)
    });
    let reads = futures::stream::iter(ids).map(|id| async move {
        let record = git(store, &id).await?;
        Ok::<_, MirrorError>(record.map(|record| (id, record)))
    });
    reads.buffered(READS).try_filter_map(|found| async { Ok(found) }).try_collect().await
}

/// 40 lower-case hex digits: a commit, or another git object.
pub(super) fn is_sha1(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

async fn newest_number(store: &Store, repo: &Repo, revision: &str) -> Result<Option<u32>, MirrorError> {
    let listed = store.list(&layout::mirror_refs(repo, revision)).await?;
    let number = |key: &str| key.rsplit('/').next().and_then(layout::parse_generation);
    Ok(listed.iter().filter_map(|object| number(&object.key)).max())
}

/// A listing that stands under the key of what it is about.
async fn read(store: &Store, key: &str) -> Result<ListingRecord, MirrorError> {
    let damaged = |fault: String| MirrorError::Damaged { key: key.to_owned(), fault };
    let mut record: ListingRecord = match store.get_json(key).await {
        Err(StoreError::Damaged { fault, .. }) => return Err(damaged(fault)),
        read => read?,
    };
    let folder = layout::mirror_refs(&record.repo, &record.revision);
    if key.rsplit_once('/').map(|(folder, _)| folder) != Some(folder.as_str()) {
        return Err(damaged(format!("it is about {} at {:?}", record.repo, record.revision)));
    }
    if !is_sha1(&record.listing.commit) {
        return Err(damaged(format!("it names the commit {:?}", record.listing.commit)));
    }
    record.listing.files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(record)
}
