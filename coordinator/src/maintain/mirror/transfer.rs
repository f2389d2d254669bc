//! `mirror export` and `mirror import`: mirrored files and prepared texts from one bucket to another.
//!
//! The directory in between has the layout of a bucket, and is one. Data goes before the records that name it, and
//! every object is digested on its way: an interrupted transfer leaves nothing that is not what it says, and is simply
//! made again. What the directory's records say is not believed further than the keys of mirrored files and texts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lsa_common::hub::ContentId;
use lsa_common::id::Digest;
use lsa_common::layout;
use lsa_common::mirror::MirrorError;
use lsa_common::mirror::record::{self, GitRecord, ListingRecord};
use lsa_common::record::{StoredObject, TextsRecord};
use lsa_common::store::{Store, StoreError};
use serde::Serialize;

/// How much of an object is in memory at a time.
const PIECE_BYTES: u64 = 8 << 20;

/// What a transfer did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Files and parts of texts that were copied.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files and parts of texts that were there.
    pub skipped_objects: u64,
    /// Their bytes.
    pub skipped_bytes: u64,
    /// Records that were written.
    pub records: u64,
}

/// Why a transfer failed.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// Not a directory that can be imported.
    #[error("{} is no export: {reason}; name a directory that `mirror export` wrote", .directory.display())]
    NoExport {
        /// As typed.
        directory: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The directory holds something else.
    #[error("{} is not empty and no earlier export; name another directory", .0.display())]
    NotEmpty(PathBuf),
    /// There is nothing to copy.
    #[error("{0} holds neither mirrored files nor prepared texts; fill it with: lsa-coordinator mirror")]
    Nothing(String),
    /// The directory cannot be used.
    #[error("cannot use the directory {}", .directory.display())]
    Directory {
        /// As typed.
        directory: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An object is not what the record that names it says.
    #[error(
        "object {key:?} of {store} is damaged: {fault}; delete it and make it again, then repeat the transfer"
    )]
    Damaged {
        /// Where.
        store: String,
        /// Which object.
        key: String,
        /// What is wrong with it.
        fault: String,
    },
    /// A bucket failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The mirror's records cannot be used.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
}

impl TransferError {
    /// Whether the user can mend it before any work.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::NoExport { .. } | Self::NotEmpty(_) | Self::Nothing(_) | Self::Directory { .. } => true,
            Self::Damaged { .. } | Self::Store(_) | Self::Mirror(_) => false,
        }
    }
}

/// Copies everything mirrored in `store`, and all prepared texts, into `directory`, which is made where missing.
pub async fn export(store: &Store, directory: &Path) -> Result<Copied, TransferError> {
    let failed = |source| TransferError::Directory { directory: directory.to_owned(), source };
    let is_empty = match directory.read_dir() {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => return Err(failed(error)),
    };
    let content = Content::of(store).await?;
    let to = Store::open(&utf8(directory)?)?;
    if !is_empty && !to.is_prepared().await? {
        return Err(TransferError::NotEmpty(directory.to_owned()));
    }
    to.prepare().await?;
    content.copy(store, &to).await
}

/// Opens a directory that [`export`] wrote; writes nothing there.
pub async fn open_export(directory: &Path) -> Result<Store, TransferError> {
    let refused = |reason: String| TransferError::NoExport { directory: directory.to_owned(), reason };
    if !directory.is_dir() {
        return Err(refused("it is no directory".to_owned()));
    }
    let from = Store::open(&utf8(directory)?)?;
    match from.is_prepared().await {
        Ok(true) => Ok(from),
        Ok(false) => Err(refused(format!("it has no {}", layout::FORMAT))),
        Err(error @ (StoreError::Damaged { .. } | StoreError::Format { .. })) => {
            Err(refused(error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Takes what `from` holds into `store`. What `from` says of a branch is the newest from then on.
pub async fn import(from: &Store, store: &Store) -> Result<Copied, TransferError> {
    let content = Content::of(from).await?;
    store.prepare().await?;
    content.copy(from, store).await
}

fn utf8(directory: &Path) -> Result<String, TransferError> {
    let failed = || {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidFilename, "the name is not UTF-8");
        TransferError::Directory { directory: directory.to_owned(), source }
    };
    directory.to_str().map(str::to_owned).ok_or_else(failed)
}

/// What there is to copy.
struct Content {
    listings: Vec<ListingRecord>,
    git: BTreeMap<String, GitRecord>,
    /// The size of every file that is there.
    files: BTreeMap<Digest, u64>,
    texts: Vec<Digest>,
}

impl Content {
    async fn of(store: &Store) -> Result<Self, TransferError> {
        let listings = record::all(store).await?;
        let stored = sizes(store, layout::INPUTS).await?;
        let is_there = |sha256: &Digest| stored.contains_key(&layout::input(*sha256));
        let mut git = record::all_git(store).await?;
        git.retain(|_, record| is_there(&record.sha256));
        // A listing also names files that were never mirrored.
        let listed = listings.iter().flat_map(|record| &record.listing.files);
        let large = listed.filter_map(|file| match &file.content {
            ContentId::Sha256(sha256) => Some((*sha256, file.size)),
            ContentId::GitSha1(_) => None,
        });
        let small = git.values().map(|record| (record.sha256, record.size));
        let files: BTreeMap<Digest, u64> =
            large.chain(small).filter(|(sha256, _)| is_there(sha256)).collect();
        for (sha256, size) in &files {
            let key = layout::input(*sha256);
            let found = stored[&key];
            if found != *size {
                let fault = format!("it has {found} bytes instead of {size}");
                return Err(TransferError::Damaged { store: store.url().to_owned(), key, fault });
            }
        }
        let texts = store.folders(layout::TEXTS).await?;
        let texts: Vec<Digest> = texts.iter().filter_map(|name| name.parse().ok()).collect();
        if files.is_empty() && texts.is_empty() {
            return Err(TransferError::Nothing(store.url().to_owned()));
        }
        Ok(Self { listings, git, files, texts })
    }

    async fn copy(&self, from: &Store, to: &Store) -> Result<Copied, TransferError> {
        let there = sizes(to, layout::INPUTS).await?;
        let mut copied = Copied::default();
        for (sha256, size) in &self.files {
            let object = StoredObject { key: layout::input(*sha256), size: *size, sha256: *sha256 };
            copy_object(from, to, &object, there.get(&object.key), &mut copied).await?;
        }
        for texts_key in &self.texts {
            copy_texts(from, to, *texts_key, &mut copied).await?;
        }
        for (id, record) in &self.git {
            copied.records += u64::from(record::put_git(to, id, record).await?);
        }
        for listing in &self.listings {
            copied.records += u64::from(record::put(to, listing).await?);
        }
        Ok(copied)
    }
}

async fn sizes(store: &Store, folder: &str) -> Result<BTreeMap<String, u64>, StoreError> {
    Ok(store.list(folder).await?.into_iter().map(|object| (object.key, object.size)).collect())
}

/// Copies the newest record of prepared texts and the parts that it names, unless `to` has as new a one.
async fn copy_texts(
    from: &Store,
    to: &Store,
    texts_key: Digest,
    copied: &mut Copied,
) -> Result<(), TransferError> {
    let Some(generation) = newest_texts(from, texts_key).await? else { return Ok(()) };
    let key = layout::texts_commit(texts_key, generation);
    let json = from.get(&key).await?;
    let damaged =
        |fault: String| TransferError::Damaged { store: from.url().to_owned(), key: key.clone(), fault };
    let record: TextsRecord = serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
    if newest_texts(to, texts_key).await?.is_some_and(|there| there >= generation) {
        copied.skipped_objects += record.parts.len() as u64;
        copied.skipped_bytes += record.parts.iter().map(|part| part.size).sum::<u64>();
        return Ok(());
    }
    let folder = layout::texts(texts_key);
    let there = sizes(to, &folder).await?;
    for part in &record.parts {
        // A directory from elsewhere may not write where it likes.
        if part.key.rsplit_once('/').is_none_or(|(parent, _)| parent != folder) {
            return Err(damaged(format!("it names {:?}, which is not beside it", part.key)));
        }
        copy_object(from, to, part, there.get(&part.key), copied).await?;
    }
    copied.records += u64::from(to.settle(&key, json).await?.is_mine);
    Ok(())
}

async fn newest_texts(store: &Store, texts_key: Digest) -> Result<Option<u32>, StoreError> {
    let records = store.list(&layout::texts_commits(texts_key)).await?;
    let generation = |key: &str| key.rsplit('/').next().and_then(layout::parse_generation);
    Ok(records.iter().filter_map(|object| generation(&object.key)).max())
}

/// Copies an object, unless one of its size is there.
async fn copy_object(
    from: &Store,
    to: &Store,
    object: &StoredObject,
    there: Option<&u64>,
    copied: &mut Copied,
) -> Result<(), TransferError> {
    if there == Some(&object.size) {
        copied.skipped_objects += 1;
        copied.skipped_bytes += object.size;
        return Ok(());
    }
    let damaged = |fault: String| {
        let (store, key) = (from.url().to_owned(), object.key.clone());
        TransferError::Damaged { store, key, fault }
    };
    match from.size(&object.key).await? {
        Some(size) if size == object.size => {}
        Some(size) => return Err(damaged(format!("it has {size} bytes instead of {}", object.size))),
        None => return Err(damaged("it is missing".to_owned())),
    }
    tracing::info!(key = object.key, bytes = object.size, "copying");
    let mut upload = to.upload(&object.key).await?;
    while upload.size() < object.size {
        let size = PIECE_BYTES.min(object.size - upload.size());
        let written = match from.get_range(&object.key, upload.size(), size).await {
            Ok(piece) => upload.write(&piece).await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            abandon(upload, object).await;
            return Err(error.into());
        }
    }
    let found = upload.digest();
    if found != object.sha256 {
        abandon(upload, object).await;
        return Err(damaged(format!("its digest is {found}, expected {}", object.sha256)));
    }
    upload.finish().await?;
    copied.objects += 1;
    copied.bytes += object.size;
    Ok(())
}

async fn abandon(upload: lsa_common::store::Upload, object: &StoredObject) {
    if let Err(error) = upload.abandon().await {
        tracing::warn!(key = object.key, %error, "a broken upload could not be taken back");
    }
}
