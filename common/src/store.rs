//! The bucket: put once, read, list. Everything that outlives a process goes through here.
//!
//! Only create-only puts are relied upon. Data objects carry an attempt id in their names, so a plain put never meets
//! another writer's object; records are made with [`Store::create`], and whoever is told that one is there already
//! reads it back before concluding anything.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::buffered::BufWriter;
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutOptions, local::LocalFileSystem, memory::InMemory, path,
};
use serde::{Serialize, de::DeserializeOwned};
use sha2::Digest as _;
use tokio::io::AsyncWriteExt as _;

use crate::artifact::STORE_FORMAT;
use crate::failure::FailureClass;
use crate::id::Digest;
use crate::layout;
use crate::record::StoredObject;

/// What went wrong with the bucket.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A kind of store that this version cannot use.
    #[error("store {url:?} is not available yet; use a local directory (a path or file:///path)")]
    Unsupported {
        /// As given.
        url: String,
    },
    /// The directory cannot be made or opened.
    #[error("cannot open store {path:?}; name a directory that you may write to")]
    Open {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The store breaks the promise that everything rests on.
    #[error(
        "store {url:?} lets two writers create one object ({evidence}); results could be lost, so it is refused"
    )]
    NotCreateOnly {
        /// Which store.
        url: String,
        /// What was seen.
        evidence: String,
    },
    /// A request failed.
    #[error("store: cannot {deed} {key:?}")]
    Request {
        /// read, write, list, delete.
        deed: &'static str,
        /// Which object.
        key: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// A committed object is missing or is not what its record says.
    #[error("object {key:?} is damaged: {fault}")]
    Damaged {
        /// Which object.
        key: String,
        /// What is wrong with it.
        fault: String,
    },
    /// A newer version wrote this bucket.
    #[error(
        "the bucket has format {found}, this version reads {STORE_FORMAT}; use a matching version or another bucket"
    )]
    Format {
        /// What `format.json` says.
        found: u32,
    },
}

impl StoreError {
    /// What the failure means for an attempt.
    pub fn failure_class(&self) -> FailureClass {
        match self {
            Self::Request { .. } | Self::Damaged { .. } => FailureClass::Retry,
            Self::Unsupported { .. }
            | Self::Open { .. }
            | Self::NotCreateOnly { .. }
            | Self::Format { .. } => FailureClass::Fatal,
        }
    }
}

/// Whether a create-only put made the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// By this call, as far as the store says.
    Here,
    /// There is one already; read it back to learn whose.
    Already,
}

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// When it was written, in seconds since 1970 by the store's clock.
    pub modified_s: i64,
}

/// A bucket.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    url: String,
    folder: Option<PathBuf>,
}

#[derive(Serialize, serde::Deserialize)]
struct Format {
    format: u32,
}

impl Store {
    /// Opens the bucket at `place`: a directory path or a `file://` URL; the directory is made where missing.
    pub fn open(place: &str) -> Result<Self, StoreError> {
        let path = match place.split_once("://") {
            None => PathBuf::from(place),
            Some(("file", path)) => PathBuf::from(path),
            Some(_) => return Err(StoreError::Unsupported { url: place.to_owned() }),
        };
        let open = |path: &Path| {
            std::fs::create_dir_all(path)?;
            path.canonicalize()
        };
        let folder = open(&path).map_err(|source| StoreError::Open { path: path.clone(), source })?;
        let local = LocalFileSystem::new_with_prefix(&folder)
            .map_err(|source| StoreError::Open { path, source: source.into() })?
            .with_fsync(true);
        let url = format!("file://{}", folder.display());
        Ok(Self { objects: Arc::new(local), url, folder: Some(folder) })
    }

    /// Opens the bucket at `place` if there is one; makes nothing.
    pub fn open_existing(place: &str) -> Result<Option<Self>, StoreError> {
        let path = place.strip_prefix("file://").unwrap_or(place);
        if !path.contains("://") && !Path::new(path).is_dir() {
            return Ok(None);
        }
        Self::open(place).map(Some)
    }

    /// A bucket that lives as long as the process, for tests.
    pub fn memory() -> Self {
        Self { objects: Arc::new(InMemory::new()), url: "memory://".to_owned(), folder: None }
    }

    /// The address, without credentials.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The directory, where the bucket is one.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Writes `format.json` or checks the one that is there, and refuses a store that lets two writers win.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        let format = serde_json::to_vec(&Format { format: STORE_FORMAT }).expect("a number serialises");
        if self.create(layout::FORMAT, format.into()).await? == Created::Already {
            self.is_prepared().await?;
        }
        self.probe().await
    }

    /// Whether `format.json` is there; a format that this version does not read is an error. Writes nothing.
    pub async fn is_prepared(&self) -> Result<bool, StoreError> {
        let Some(json) = self.try_get(layout::FORMAT).await? else { return Ok(false) };
        let damaged = |e: serde_json::Error| StoreError::Damaged {
            key: layout::FORMAT.to_owned(),
            fault: e.to_string(),
        };
        let found: Format = serde_json::from_slice(&json).map_err(damaged)?;
        match found.format {
            STORE_FORMAT => Ok(true),
            found => Err(StoreError::Format { found }),
        }
    }

    /// Races creates on a few fresh keys: exactly one may win each, also when the creates come one after the other.
    async fn probe(&self) -> Result<(), StoreError> {
        const KEYS: usize = 2;
        const RACERS: usize = 16;
        let nonce =
            Digest::of(format!("{:?} {}", std::time::SystemTime::now(), std::process::id()).as_bytes());
        for number in 0..KEYS {
            let key = format!("probe/{}-{number}", nonce.short());
            let racers = (0..RACERS).map(|racer| self.create(&key, Bytes::from(racer.to_string())));
            let mut created = futures::future::try_join_all(racers).await?;
            created.push(self.create(&key, Bytes::from_static(b"late")).await?);
            self.delete(&key).await?;
            let winners = created.iter().filter(|created| **created == Created::Here).count();
            if winners != 1 {
                let evidence = format!("{winners} of {} creates of one key succeeded", RACERS + 1);
                return Err(StoreError::NotCreateOnly { url: self.url.clone(), evidence });
            }
        }
        Ok(())
    }

    /// The content of an object.
    pub async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let failed = |source| StoreError::Request { deed: "read", key: key.to_owned(), source };
        let answer = self.objects.get(&self.path(key)?).await.map_err(failed)?;
        answer.bytes().await.map_err(failed)
    }

    /// Bytes `from` to `from + size` of an object, which has as many.
    pub async fn get_range(&self, key: &str, from: u64, size: u64) -> Result<Bytes, StoreError> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        let failed = |source| StoreError::Request { deed: "read", key: key.to_owned(), source };
        let end = from.saturating_add(size);
        let bytes = self.objects.get_range(&self.path(key)?, from..end).await.map_err(failed)?;
        if bytes.len() as u64 == size {
            return Ok(bytes);
        }
        let fault = format!("it ends before byte {end}");
        Err(StoreError::Damaged { key: key.to_owned(), fault })
    }

    /// The content of an object, or nothing where there is none.
    pub async fn try_get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        match self.get(key).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::Request { source: object_store::Error::NotFound { .. }, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The content of a committed object; anything but the bytes that its record names is damage.
    pub async fn get_verified(&self, object: &StoredObject) -> Result<Bytes, StoreError> {
        let damaged = |fault: String| StoreError::Damaged { key: object.key.clone(), fault };
        let bytes = self.try_get(&object.key).await?.ok_or_else(|| damaged("it is missing".to_owned()))?;
        if bytes.len() as u64 != object.size {
            return Err(damaged(format!("it has {} bytes, its record says {}", bytes.len(), object.size)));
        }
        let found = Digest::of(&bytes);
        if found != object.sha256 {
            return Err(damaged(format!("its digest is {found}, its record says {}", object.sha256)));
        }
        Ok(bytes)
    }

    /// A JSON object; one that does not parse is damage.
    pub async fn get_json<T: DeserializeOwned>(&self, key: &str) -> Result<T, StoreError> {
        let bytes = self.get(key).await?;
        let damaged =
            |e: serde_json::Error| StoreError::Damaged { key: key.to_owned(), fault: e.to_string() };
        serde_json::from_slice(&bytes).map_err(damaged)
    }

    /// Writes an object under a name that no other writer uses, and says what was written.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<StoredObject, StoreError> {
        let object =
            StoredObject { key: key.to_owned(), size: bytes.len() as u64, sha256: Digest::of(&bytes) };
        let failed = |source| StoreError::Request { deed: "write", key: key.to_owned(), source };
        self.objects.put(&self.path(key)?, bytes.into()).await.map_err(failed)?;
        Ok(object)
    }

    /// Creates an object unless there is one.
    pub async fn create(&self, key: &str, bytes: Bytes) -> Result<Created, StoreError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.objects.put_opts(&self.path(key)?, bytes.into(), options).await {
            Ok(_) => Ok(Created::Here),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Created::Already),
            Err(source) => Err(StoreError::Request { deed: "create", key: key.to_owned(), source }),
        }
    }

    /// Creates a JSON object unless there is one.
    pub async fn create_json(&self, key: &str, value: &impl Serialize) -> Result<Created, StoreError> {
        let json = serde_json::to_vec_pretty(value).expect("plain structs with string keys serialise");
        self.create(key, json.into()).await
    }

    /// The size of an object, or nothing where there is none.
    pub async fn size(&self, key: &str) -> Result<Option<u64>, StoreError> {
        match self.objects.head(&self.path(key)?).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(StoreError::Request { deed: "look at", key: key.to_owned(), source }),
        }
    }

    /// All objects under a folder, sorted by key.
    pub async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let failed = |source| StoreError::Request { deed: "list", key: folder.to_owned(), source };
        let prefix = self.path(folder)?;
        let stream = self.objects.list(Some(&prefix)).map_ok(listed);
        let mut listed: Vec<Listed> = stream.try_collect().await.map_err(failed)?;
        listed.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(listed)
    }

    /// The names of the folders directly under a folder, sorted.
    pub async fn folders(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let failed = |source| StoreError::Request { deed: "list", key: folder.to_owned(), source };
        let answer = self.objects.list_with_delimiter(Some(&self.path(folder)?)).await.map_err(failed)?;
        let mut names: Vec<String> =
            answer.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }

    /// Removes an object; one that is gone already is no error.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        match self.objects.delete(&self.path(key)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(StoreError::Request { deed: "delete", key: key.to_owned(), source }),
        }
    }

    /// Begins an object that is written piece by piece; nobody sees it before [`Upload::finish`].
    pub async fn upload(&self, key: &str) -> Result<Upload, StoreError> {
        const PIECE: usize = 8 << 20;
        let writer = BufWriter::with_capacity(self.objects.clone(), self.path(key)?, PIECE);
        Ok(Upload { writer, key: key.to_owned(), hash: sha2::Sha256::new(), size: 0 })
    }

    /// Copies an object into a file, piece by piece; the file's content is checked against `sha256`.
    pub async fn download(&self, object: &StoredObject, to: &Path) -> Result<(), StoreError> {
        let failed = |source| StoreError::Request { deed: "read", key: object.key.clone(), source };
        let disk = |source: std::io::Error| StoreError::Open { path: to.to_owned(), source };
        let answer = self.objects.get(&self.path(&object.key)?).await.map_err(failed)?;
        let mut pieces = answer.into_stream();
        let mut file = tokio::fs::File::create(to).await.map_err(disk)?;
        let mut hash = sha2::Sha256::new();
        while let Some(piece) = pieces.try_next().await.map_err(failed)? {
            hash.update(&piece);
            file.write_all(&piece).await.map_err(disk)?;
        }
        file.sync_all().await.map_err(disk)?;
        let found = Digest(hash.finalize().into());
        if found == object.sha256 {
            return Ok(());
        }
        let fault = format!("its digest is {found}, expected {}", object.sha256);
        Err(StoreError::Damaged { key: object.key.clone(), fault })
    }

    fn path(&self, key: &str) -> Result<path::Path, StoreError> {
        path::Path::parse(key).map_err(|e| StoreError::Request {
            deed: "name",
            key: key.to_owned(),
            source: e.into(),
        })
    }
}

fn listed(meta: object_store::ObjectMeta) -> Listed {
    Listed { key: meta.location.to_string(), size: meta.size, modified_s: meta.last_modified.timestamp() }
}

/// An object that is being written.
pub struct Upload {
    writer: BufWriter,
    key: String,
    hash: sha2::Sha256,
    size: u64,
}

impl Upload {
    /// Appends bytes.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        self.writer.write_all(bytes).await.map_err(|source| self.failed(source))
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The digest of the bytes so far.
    pub fn digest(&self) -> Digest {
        Digest(self.hash.clone().finalize().into())
    }

    /// Throws away what was written.
    pub async fn abandon(mut self) -> Result<(), StoreError> {
        self.writer.abort().await.map_err(|source| StoreError::Request {
            deed: "abandon",
            key: self.key.clone(),
            source,
        })
    }

    /// Makes the object visible.
    pub async fn finish(mut self) -> Result<(), StoreError> {
        self.writer.shutdown().await.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: std::io::Error) -> StoreError {
        let source = object_store::Error::Generic { store: "bucket", source: source.into() };
        StoreError::Request { deed: "write", key: self.key.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(store: Store) {
        assert_eq!(store.is_prepared().await.ok(), Some(false));
        store.prepare().await.expect("a fresh store");
        assert_eq!(store.is_prepared().await.ok(), Some(true));
        store.prepare().await.expect("a known store");
        assert_eq!(store.create("a/b", "1".into()).await.ok(), Some(Created::Here));
        assert_eq!(store.create("a/b", "2".into()).await.ok(), Some(Created::Already));
        assert_eq!(store.get("a/b").await.ok(), Some("1".into()));
        assert_eq!(store.try_get("a/c").await.ok(), Some(None));
        let object = store.put("a/d/e", "rows".into()).await.expect("a fresh key");
        assert_eq!(store.get_verified(&object).await.ok(), Some("rows".into()));
        let lying = StoredObject { sha256: Digest::of(b"other"), ..object.clone() };
        assert!(matches!(store.get_verified(&lying).await, Err(StoreError::Damaged { .. })));
        assert_eq!(store.get_range("a/d/e", 1, 2).await.ok(), Some("ow".into()));
        assert_eq!(store.get_range("a/d/e", 4, 0).await.ok(), Some(Bytes::new()));
        assert!(store.get_range("a/d/e", 2, 3).await.is_err());
        let keys: Vec<_> = store.list("a").await.expect("a list").into_iter().map(|o| o.key).collect();
        assert_eq!(keys, ["a/b", "a/d/e"]);
        assert_eq!(store.folders("a").await.ok(), Some(vec!["d".to_owned()]));
        store.delete("a/d/e").await.expect("it is there");
        store.delete("a/d/e").await.expect("gone is fine");
        assert!(matches!(store.get_verified(&object).await, Err(StoreError::Damaged { .. })));
        assert!(store.get("../outside").await.is_err());
    }

    #[tokio::test]
    async fn memory_keeps_the_contract() {
        check(Store::memory()).await;
    }

    #[tokio::test]
    async fn a_directory_keeps_the_contract() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        check(Store::open(&folder.path().display().to_string()).expect("a directory")).await;
    }

    #[test]
    fn other_schemes_are_refused_by_name() {
        let error = Store::open("s3://bucket/prefix").expect_err("not yet");
        assert!(error.to_string().contains("s3://bucket/prefix"));
    }
}
