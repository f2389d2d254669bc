//! Objects that were fetched, as files of this machine.
//!
//! ```text
//! objects/<sha256><ending>         the bytes
//! objects/notes/<sha256>.json      of endpoint, bucket and key: which version of the object was fetched, and what it is
//! objects/.draft-…                 being written; a killed process leaves them
//! ```
//! The folder may be deleted at any time at which nothing runs.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use object_store::{GetOptions, ObjectStore};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use tempfile::NamedTempFile;

use super::ObjectsError;
use super::list::Listed;
use crate::id::Digest;

const DRAFT_PREFIX: &str = ".draft-";
/// Nobody writes that long at one object.
const DRAFT_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// More than any note has.
const NOTE_BYTES_MAX: u64 = 16 << 10;
/// Bytes that are digested at once.
const CHUNK: usize = 256 << 10;
/// An object whose fetching is told: one that takes a while.
const TOLD_BYTES_MIN: u64 = 1 << 20;

/// Where the objects of one bucket lie on this machine.
pub(super) struct Cache {
    folder: PathBuf,
    /// Tells objects of one key apart.
    bucket: String,
}

/// Which version of an object was fetched.
#[derive(Serialize, Deserialize)]
struct Note {
    name: String,
    etag: String,
    size: u64,
    sha256: String,
}

impl Cache {
    /// The objects of `bucket` at `endpoint`, below `root`; the folders are made where missing.
    pub(super) fn open(root: &Path, endpoint: &str, bucket: &str) -> Result<Self, ObjectsError> {
        let folder = root.join("objects");
        // A hint has to be absolute.
        let folder = std::path::absolute(&folder).map_err(|source| disk(&folder, source))?;
        let cache = Self { folder, bucket: format!("{endpoint}\n{bucket}") };
        fs::create_dir_all(cache.notes()).map_err(|source| disk(&cache.notes(), source))?;
        cache.sweep();
        Ok(cache)
    }

    /// Removes what killed processes have left. Where that fails it is in nobody's way.
    fn sweep(&self) {
        let is_old = |entry: &fs::DirEntry| {
            let written = entry.metadata().and_then(|metadata| metadata.modified());
            written.is_ok_and(|written| written.elapsed().is_ok_and(|age| age > DRAFT_AGE_MAX))
        };
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(DRAFT_PREFIX) && is_old(&entry) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// What the bytes of the object are and where they lie: fetched, unless this version of it is here.
    pub(super) async fn bring(
        &self,
        objects: &Arc<dyn ObjectStore>,
        object: &Listed,
    ) -> Result<(Digest, PathBuf), ObjectsError> {
        if let Some(found) = self.find(object) {
            return Ok(found);
        }
        if object.size >= TOLD_BYTES_MIN {
            tracing::info!("fetching {} ({} bytes)", object.name, object.size);
        }
        let (sha256, draft) = self.fetch(objects, object).await?;
        let path = self.path(object, sha256);
        keep(draft, &path)?;
        self.write_note(object, sha256)?;
        Ok((sha256, path))
    }

    /// The file of this version of the object, if its bytes are still what they were.
    fn find(&self, object: &Listed) -> Option<(Digest, PathBuf)> {
        let mut json = Vec::new();
        File::open(self.note(object)).ok()?.take(NOTE_BYTES_MAX).read_to_end(&mut json).ok()?;
        // A note that was damaged is none.
        let note: Note = serde_json::from_slice(&json).ok()?;
        if object.etag.as_ref() != Some(&note.etag) || object.size != note.size {
            return None;
        }
        let sha256: Digest = note.sha256.parse().ok()?;
        let path = self.path(object, sha256);
        let metadata = fs::metadata(&path).ok()?;
        if !metadata.is_file() || metadata.len() != object.size {
            return None;
        }
        (digest(&path).ok()? == sha256).then_some((sha256, path))
    }

    /// The object in a draft, of the size that was listed.
    async fn fetch(
        &self,
        objects: &Arc<dyn ObjectStore>,
        object: &Listed,
    ) -> Result<(Digest, NamedTempFile), ObjectsError> {
        let failed = |error: object_store::Error| ObjectsError::of(&object.name, &error);
        let options = GetOptions { if_match: object.etag.clone(), ..GetOptions::default() };
        let answer = objects.get_opts(&object.location, options).await.map_err(failed)?;
        // A server may know nothing of conditions.
        let is_other =
            matches!((&object.etag, &answer.meta.e_tag), (Some(listed), Some(got)) if listed != got);
        if is_other {
            return Err(ObjectsError::Changed { name: object.name.clone() });
        }
        let written = |source| disk(&self.folder, source);
        let mut draft =
            tempfile::Builder::new().prefix(DRAFT_PREFIX).tempfile_in(&self.folder).map_err(written)?;
        let (mut hasher, mut size) = (sha2::Sha256::new(), 0_u64);
        let mut chunks = answer.into_stream();
        // One that goes on past its size is left there.
        while size <= object.size
            && let Some(chunk) = chunks.try_next().await.map_err(failed)?
        {
            size += chunk.len() as u64;
            hasher.update(&chunk);
            draft.write_all(&chunk).map_err(written)?;
        }
        if size != object.size {
            return Err(ObjectsError::Size { name: object.name.clone(), size, listed: object.size });
        }
        Ok((Digest(hasher.finalize().into()), draft))
    }

    fn write_note(&self, object: &Listed, sha256: Digest) -> Result<(), ObjectsError> {
        let Some(etag) = object.etag.clone() else { return Ok(()) };
        let note = Note { name: object.name.clone(), etag, size: object.size, sha256: sha256.to_string() };
        let path = self.note(object);
        let mut draft = tempfile::Builder::new()
            .prefix(DRAFT_PREFIX)
            .tempfile_in(&self.folder)
            .map_err(|source| disk(&path, source))?;
        let json = serde_json::to_vec(&note).expect("plain data with string keys");
        draft.write_all(&json).map_err(|source| disk(&path, source))?;
        keep(draft, &path)
    }

    /// Readers go by endings.
    fn path(&self, object: &Listed, sha256: Digest) -> PathBuf {
        let ending = [object.format.ending(), object.compression.ending()].concat();
        self.folder.join(format!("{sha256}{ending}"))
    }

    fn notes(&self) -> PathBuf {
        self.folder.join("notes")
    }

    fn note(&self, object: &Listed) -> PathBuf {
        let whose = Digest::of(format!("{}\n{}", self.bucket, object.location).as_bytes());
        self.notes().join(format!("{whose}.json"))
    }
}

fn digest(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = sha2::Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(Digest(hasher.finalize().into())),
            n_read => hasher.update(&chunk[..n_read]),
        }
    }
}

/// Gives a draft its name, once all of it is on the disk.
fn keep(draft: NamedTempFile, path: &Path) -> Result<(), ObjectsError> {
    draft.as_file().sync_all().map_err(|source| disk(path, source))?;
    draft.persist(path).map_err(|error| disk(path, error.error))?;
    Ok(())
}

fn disk(path: &Path, source: io::Error) -> ObjectsError {
    ObjectsError::Disk { path: path.to_owned(), source }
}
