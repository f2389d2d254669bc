//! The bucket: put once, read, list. Everything that outlives a process goes through here.
//!
//! Only create-only puts are relied upon. Data objects carry an attempt id in their names, so a plain put never meets
//! another writer's object; records are made with [`Store::settle`], which reads back what stands before anybody
//! concludes who won: a store may answer *already exists* to the second try of a request whose first one it carried
//! out, or to a request that merely met another one.

mod connect;
mod error;
mod folder;
mod probe;
mod profile;
mod upload;
mod url;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::buffered::BufWriter;
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutOptions, local::LocalFileSystem, memory::InMemory, path,
};
use serde::{Serialize, de::DeserializeOwned};
use sha2::Digest as _;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, sleep};

use crate::artifact::STORE_FORMAT;
use crate::id::Digest;
use crate::layout;
use crate::record::StoredObject;

pub(crate) use connect::s3;
pub use error::StoreError;
pub use probe::{Race, probe_key};
pub use upload::Upload;
pub use url::{BucketUrl, Service, StoreUrl};

/// Objects up to this size are written by one request, larger ones in parts of [`PART_BYTES`].
const SINGLE_PUT_BYTES_MAX: usize = 32 << 20;
/// Parts of an object that is written piece by piece; at most [`PARTS_AT_ONCE`] of them are in memory.
const PART_BYTES: usize = 8 << 20;
const PARTS_AT_ONCE: usize = 4;
/// Objects that are asked after side by side.
const LOOKS_AT_ONCE: usize = 16;
/// How often a create is sent again whose outcome is not known, and how long the first pause is.
const SETTLE_TRIES_MAX: u32 = 6;
const SETTLE_PAUSE: Duration = Duration::from_millis(50);
/// The first and the longest pause of a patient store.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Whether a create-only put made the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// By this call, as far as the store says.
    Here,
    /// There is one already; read it back to learn whose.
    Already,
}

/// What stands under a key after somebody wanted to create it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled<T> {
    /// What is there, read back.
    pub value: T,
    /// Whether it is what this call wanted there. Only what names its writer tells two of them apart.
    pub is_mine: bool,
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
    patience: Duration,
}

#[derive(Serialize, serde::Deserialize)]
struct Format {
    format: u32,
}

impl Store {
    /// Opens the bucket at `place`, an address as [`StoreUrl`] reads it; a directory is made where missing. A service is
    /// not asked anything yet.
    pub fn open(place: &str) -> Result<Self, StoreError> {
        let path = match StoreUrl::parse(place)? {
            StoreUrl::Folder(path) => path,
            StoreUrl::Bucket(url) => {
                let connection = connect::connect(&url)?;
                return Ok(Self::over(connection.objects, connection.url.to_string()));
            }
        };
        let open = |path: &Path| {
            std::fs::create_dir_all(path)?;
            path.canonicalize()
        };
        let folder = open(&path).map_err(|source| StoreError::Open { path: path.clone(), source })?;
        let local = LocalFileSystem::new_with_prefix(&folder)
            .map_err(|source| StoreError::Open { path, source: source.into() })?
            .with_fsync(true);
        let url = StoreUrl::Folder(folder.clone()).to_string();
        Ok(Self { folder: Some(folder), ..Self::over(Arc::new(local), url) })
    }

    /// Opens the bucket at `place` if there is one; makes nothing.
    pub fn open_existing(place: &str) -> Result<Option<Self>, StoreError> {
        match StoreUrl::parse(place)? {
            StoreUrl::Folder(path) if !path.is_dir() => Ok(None),
            StoreUrl::Folder(_) | StoreUrl::Bucket(_) => Self::open(place).map(Some),
        }
    }

    /// A bucket that lives as long as the process, for tests.
    pub fn memory() -> Self {
        Self::over(Arc::new(InMemory::new()), "memory://".to_owned())
    }

    /// A bucket of any kind, called `url`.
    pub fn over(objects: Arc<dyn ObjectStore>, url: String) -> Self {
        Self { objects, url, folder: None, patience: Duration::ZERO }
    }

    /// The same bucket; reads and writes of data that meet a store in trouble are tried again for so long before they
    /// fail.
    pub fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
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
        if !self.settle(layout::FORMAT, format.into()).await?.is_mine {
            self.is_prepared().await?;
        }
        self.check_safety().await
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

    /// Asks again what meets a store in trouble, as long as patience lasts.
    async fn patiently<T, F>(&self, request: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let begun = Instant::now();
        let mut pause = PAUSE_FIRST;
        loop {
            match request().await {
                Err(error) if error.may_pass() && begun.elapsed() + pause <= self.patience => {
                    tracing::warn!("{}; trying again in {pause:?}", crate::failure::chain(&error));
                }
                end => return end,
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// The content of an object.
    pub async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let failed = |source| StoreError::Request { deed: "read", key: key.to_owned(), source };
        let path = self.path(key)?;
        let get = || async {
            let answer = self.objects.get(&path).await.map_err(failed)?;
            answer.bytes().await.map_err(failed)
        };
        self.patiently(get).await
    }

    /// Bytes `from` to `from + size` of an object, which has as many.
    pub async fn get_range(&self, key: &str, from: u64, size: u64) -> Result<Bytes, StoreError> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        let failed = |source| StoreError::Request { deed: "read", key: key.to_owned(), source };
        let end = from.saturating_add(size);
        let path = self.path(key)?;
        let get = || async { self.objects.get_range(&path, from..end).await.map_err(failed) };
        let bytes = self.patiently(get).await?;
        if bytes.len() as u64 == size {
            return Ok(bytes);
        }
        let fault = format!("it ends before byte {end}");
        Err(StoreError::Damaged { key: key.to_owned(), fault })
    }

    /// The content of an object, or nothing where there is none.
    pub async fn try_get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        if let Some(folder) = &self.folder {
            self.path(key)?;
            let failed = |source| StoreError::Request { deed: "read", key: key.to_owned(), source };
            return self.patiently(|| async { folder::read(folder, key).await.map_err(failed) }).await;
        }
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
        let path = self.path(key)?;
        let put = || async {
            if bytes.len() <= SINGLE_PUT_BYTES_MAX {
                return self.objects.put(&path, bytes.clone().into()).await.map(drop).map_err(failed);
            }
            let mut upload = self.upload(key).await?;
            upload.append(bytes.clone()).await?;
            upload.finish().await
        };
        self.patiently(put).await?;
        Ok(object)
    }

    /// Creates an object unless there is one: what the store says of it, which proves nothing about who did.
    pub async fn create(&self, key: &str, bytes: Bytes) -> Result<Created, StoreError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.objects.put_opts(&self.path(key)?, bytes.into(), options).await {
            Ok(_) => Ok(Created::Here),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Created::Already),
            Err(source) => Err(StoreError::Request { deed: "create", key: key.to_owned(), source }),
        }
    }

    /// Has an object under that key, this one unless there is one, and reads back which.
    ///
    /// Where nothing stands although the store spoke of something (a request that met another one's, which then
    /// failed), and where no answer came, it is tried again.
    pub async fn settle(&self, key: &str, bytes: Bytes) -> Result<Settled<Bytes>, StoreError> {
        let mut pause = SETTLE_PAUSE;
        for tries in 1.. {
            let created = self.create(key, bytes.clone()).await;
            match created {
                Ok(_) => {}
                Err(ref error) if error.may_pass() && tries < SETTLE_TRIES_MAX => {}
                Err(error) => return Err(error),
            }
            match self.try_get(key).await {
                Ok(Some(value)) => return Ok(Settled { is_mine: value == bytes, value }),
                Ok(None) if tries < SETTLE_TRIES_MAX => {}
                Ok(None) => {
                    let fault = format!("{tries} creates left nothing that can be read");
                    return Err(StoreError::Damaged { key: key.to_owned(), fault });
                }
                Err(error) if error.may_pass() && tries < SETTLE_TRIES_MAX => {}
                Err(error) => return Err(error),
            }
            sleep(pause).await;
            pause *= 2;
        }
        unreachable!("the last try returns")
    }

    /// [`Store::settle`] of a JSON object; what stands and does not parse is damage.
    pub async fn settle_json<T: Serialize + DeserializeOwned>(
        &self,
        key: &str,
        value: &T,
    ) -> Result<Settled<T>, StoreError> {
        let json = serde_json::to_vec_pretty(value).expect("plain structs with string keys serialise");
        let settled = self.settle(key, json.into()).await?;
        let damaged =
            |e: serde_json::Error| StoreError::Damaged { key: key.to_owned(), fault: e.to_string() };
        let value = serde_json::from_slice(&settled.value).map_err(damaged)?;
        Ok(Settled { value, is_mine: settled.is_mine })
    }

    /// The size of an object, or nothing where there is none.
    pub async fn size(&self, key: &str) -> Result<Option<u64>, StoreError> {
        Ok(self.look(key).await?.map(|object| object.size))
    }

    /// An object as a listing would tell of it, or nothing where there is none.
    pub async fn look(&self, key: &str) -> Result<Option<Listed>, StoreError> {
        Ok(self.look_all(&[key]).await?.pop().flatten())
    }

    /// Objects as a listing would tell of them, in the order of their keys; nothing where there is none.
    pub async fn look_all(&self, keys: &[&str]) -> Result<Vec<Option<Listed>>, StoreError> {
        let Some(folder) = &self.folder else {
            let looks: Vec<_> = keys.iter().map(|key| self.head(key)).collect();
            return stream::iter(looks).buffered(LOOKS_AT_ONCE).try_collect().await;
        };
        keys.iter().try_for_each(|key| self.path(key).map(drop))?;
        let failed = |(key, source)| StoreError::Request { deed: "look at", key, source };
        self.patiently(|| async { folder::look(folder, keys).await.map_err(failed) }).await
    }

    async fn head(&self, key: &str) -> Result<Option<Listed>, StoreError> {
        let path = self.path(key)?;
        let head = || async {
            match self.objects.head(&path).await {
                Ok(meta) => Ok(Some(listed(meta))),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(source) => Err(StoreError::Request { deed: "look at", key: key.to_owned(), source }),
            }
        };
        self.patiently(head).await
    }

    /// All objects under a folder, sorted by key.
    pub async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let failed = |source| StoreError::Request { deed: "list", key: folder.to_owned(), source };
        let prefix = self.path(folder)?;
        let list = || self.objects.list(Some(&prefix)).map_ok(listed).map_err(failed).try_collect();
        let mut listed: Vec<Listed> = self.patiently(list).await?;
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
        let writer = BufWriter::with_capacity(self.objects.clone(), self.path(key)?, PART_BYTES);
        Ok(Upload::new(writer.with_max_concurrency(PARTS_AT_ONCE), key))
    }

    /// Copies an object into a file, piece by piece; the file's content is checked against `sha256`.
    pub async fn download(&self, object: &StoredObject, to: &Path) -> Result<(), StoreError> {
        let failed = |source| StoreError::Request { deed: "read", key: object.key.clone(), source };
        let disk = |source: std::io::Error| StoreError::Disk { path: to.to_owned(), source };
        let path = self.path(&object.key)?;
        let copy = || async {
            let mut pieces = self.objects.get(&path).await.map_err(failed)?.into_stream();
            let mut file = tokio::fs::File::create(to).await.map_err(disk)?;
            let mut hash = sha2::Sha256::new();
            while let Some(piece) = pieces.try_next().await.map_err(failed)? {
                hash.update(&piece);
                file.write_all(&piece).await.map_err(disk)?;
            }
            file.sync_all().await.map_err(disk)?;
            Ok(Digest(hash.finalize().into()))
        };
        let found = self.patiently(copy).await?;
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
        assert_eq!(store.try_get("a/b/c").await.ok(), Some(None), "nothing lies below an object");
        assert_eq!(store.try_get("a").await.ok(), Some(None), "a folder is no object");
        let looked = store.look_all(&["a/b", "a/c", "a/b/c", "a"]).await.expect("a look");
        let sizes: Vec<Option<u64>> =
            looked.iter().map(|found| found.as_ref().map(|found| found.size)).collect();
        assert_eq!(sizes, [Some(1), None, None, None]);
        assert_eq!(store.list("a").await.ok().as_deref(), looked[0].as_ref().map(std::slice::from_ref));
        assert!(store.look("../outside").await.is_err() && store.try_get("../outside").await.is_err());
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
}
