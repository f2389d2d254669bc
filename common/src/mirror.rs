//! A hub through the bucket: every file is downloaded once in total, and there for every node, also without internet.
//!
//! The bytes of a file lie at `inputs/<sha256>`, whatever it is called and wherever it came from. Beside them, under
//! `mirror/`, stands which files a repository has at a revision, and under which content the small ones are kept, of
//! which a hub tells the git object id alone. [`MirroredHub`] reads all that; [`MirroredHub::add`] alone writes it.

mod add;
mod cache;
mod content;
mod error;
mod reader;
pub mod record;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::failure::FailureClass;
use crate::hub::{ContentId, Hub, HubError, HubFile, Listing, Repo};
use crate::layout;
use crate::record::StoredObject;
use crate::store::Store;

pub use add::{Added, Told};
pub use error::MirrorError;

use reader::ObjectReader;
use record::{ListingRecord, is_sha1};

/// How the bucket and the hub share the work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MirrorMode {
    /// What a repository holds now is asked of the hub, and of the bucket where the hub cannot be reached.
    #[default]
    Auto,
    /// What a repository holds is asked of the hub alone.
    Off,
    /// The hub is never asked.
    Only,
}

impl MirrorMode {
    /// Every mode, in the order in which they are listed.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Off, Self::Only];

    /// The name as it is written in grid files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Off => "off",
            Self::Only => "only",
        }
    }

    /// The mode of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text)
    }
}

impl fmt::Display for MirrorMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is no mirror mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mirror mode {0:?} must be auto, off or only")]
pub struct ParseMirrorModeError(String);

impl FromStr for MirrorMode {
    type Err = ParseMirrorModeError;

    fn from_str(text: &str) -> Result<Self, ParseMirrorModeError> {
        Self::parse(text).ok_or_else(|| ParseMirrorModeError(text.to_owned()))
    }
}

/// A hub whose files come from the bucket, as far as they are there.
///
/// Calls block on the runtime's threads, so they are made from blocking threads and the runtime is one of several
/// threads. In every mode a file whose content the bucket has is read from there.
pub struct MirroredHub {
    mode: MirrorMode,
    store: Store,
    runtime: Handle,
    hub: Option<Arc<dyn Hub>>,
    cache: PathBuf,
    /// Objects that were found in the bucket: most files are read a range at a time.
    found: Mutex<HashMap<ContentId, StoredObject>>,
}

/// Where the content of a file is in the bucket.
enum Place {
    /// Nowhere.
    Missing,
    /// There.
    There(StoredObject),
    /// There is an object in its place, of another size.
    WrongSize(StoredObject, u64),
}

impl MirroredHub {
    /// A hub through `store`; `cache` is the folder that local copies go to. Without `hub`, and always in mode
    /// [`MirrorMode::Only`], there is only what is mirrored.
    pub fn new(
        mode: MirrorMode,
        store: Store,
        runtime: Handle,
        hub: Option<Arc<dyn Hub>>,
        cache: impl Into<PathBuf>,
    ) -> Self {
        let hub = hub.filter(|_| mode != MirrorMode::Only);
        Self { mode, store, runtime, hub, cache: cache.into(), found: Mutex::default() }
    }

    /// How the bucket and the hub share the work.
    pub fn mode(&self) -> MirrorMode {
        self.mode
    }

    /// The bucket.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Whether the bucket has the content of `file`.
    pub fn has(&self, file: &HubFile) -> Result<bool, MirrorError> {
        self.stored(file).map(|object| object.is_some())
    }

    fn recorded(&self, repo: &Repo, revision: &str) -> Result<Option<ListingRecord>, MirrorError> {
        check_repo(repo)?;
        check_revision(revision)?;
        self.runtime.block_on(record::newest(&self.store, repo, revision))
    }

    fn list_or_why(&self, repo: &Repo, revision: &str) -> Result<Listing, MirrorError> {
        if self.mode == MirrorMode::Off {
            let hub = self.hub.as_ref().ok_or_else(|| MirrorError::NoHub { repo: repo.clone() })?;
            return Ok(hub.list(repo, revision)?);
        }
        let not_mirrored = || MirrorError::NotMirrored {
            repo: repo.clone(),
            revision: revision.to_owned(),
            store: self.store.url().to_owned(),
        };
        let Some(hub) = &self.hub else {
            return Ok(self.recorded(repo, revision)?.ok_or_else(not_mirrored)?.listing);
        };
        // What a commit holds never changes, so that a thousand nodes need not ask the hub for it.
        if is_sha1(revision)
            && let Some(known) = self.recorded(repo, revision)?
        {
            return Ok(known.listing);
        }
        let error = match hub.list(repo, revision) {
            Ok(listing) => return Ok(listing),
            Err(error) if error.failure_class() == FailureClass::Retry => error,
            // Offline by choice, and not on this machine.
            Err(error @ HubError::NotCached { .. }) => error,
            Err(error) => return Err(error.into()),
        };
        let Some(known) = self.recorded(repo, revision)? else { return Err(error.into()) };
        tracing::warn!(
            %repo, revision, commit = known.listing.commit, mirrored_at = known.mirrored_at,
            error = crate::failure::chain(&error),
            "the hub cannot be reached; going on with what the bucket knows of the repository"
        );
        Ok(known.listing)
    }

    /// Where the bucket has the content of `file`.
    fn place(&self, file: &HubFile) -> Result<Place, MirrorError> {
        let sha256 = match &file.content {
            ContentId::Sha256(sha256) => *sha256,
            ContentId::GitSha1(id) if is_sha1(id) => {
                let Some(known) = self.runtime.block_on(record::git(&self.store, id))? else {
                    return Ok(Place::Missing);
                };
                if known.size != file.size {
                    let fault = format!("it says {} bytes, the hub says {}", known.size, file.size);
                    return Err(MirrorError::Damaged { key: layout::mirror_git(id), fault });
                }
                known.sha256
            }
            ContentId::GitSha1(id) => {
                return Err(MirrorError::Malformed { what: "git object id", text: id.clone() });
            }
        };
        let object = StoredObject { key: layout::input(sha256), size: file.size, sha256 };
        Ok(match self.runtime.block_on(self.store.size(&object.key))? {
            None => Place::Missing,
            Some(size) if size == object.size => Place::There(object),
            Some(size) => Place::WrongSize(object, size),
        })
    }

    /// The object with the content of `file`, if the bucket has it.
    fn stored(&self, file: &HubFile) -> Result<Option<StoredObject>, MirrorError> {
        let known = self.found.lock().unwrap_or_else(PoisonError::into_inner).get(&file.content).cloned();
        if let Some(object) = known.filter(|object| object.size == file.size) {
            return Ok(Some(object));
        }
        match self.place(file)? {
            Place::Missing => Ok(None),
            Place::There(object) => {
                let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
                found.insert(file.content.clone(), object.clone());
                Ok(Some(object))
            }
            Place::WrongSize(object, size) => {
                let fault = format!("it has {size} bytes instead of {}", object.size);
                Err(MirrorError::Damaged { key: object.key, fault })
            }
        }
    }

    /// The hub, for a file that the bucket does not have.
    fn hub_for(&self, listing: &Listing, file: &HubFile) -> Result<&dyn Hub, MirrorError> {
        self.hub.as_deref().ok_or_else(|| MirrorError::FileNotMirrored {
            repo: listing.repo.clone(),
            commit: listing.commit.clone(),
            path: file.path.clone(),
            store: self.store.url().to_owned(),
        })
    }

    fn reader(&self, object: StoredObject, file: &HubFile, from: u64) -> Box<dyn Read + Send> {
        let (store, runtime) = (self.store.clone(), self.runtime.clone());
        Box::new(ObjectReader::new(store, runtime, object, file.content.clone(), from))
    }
}

impl Hub for MirroredHub {
    fn list(&self, repo: &Repo, revision: &str) -> Result<Listing, HubError> {
        Ok(self.list_or_why(repo, revision)?)
    }

    fn open(&self, listing: &Listing, file: &HubFile, from: u64) -> Result<Box<dyn Read + Send>, HubError> {
        check_range(file, from, 0)?;
        match self.stored(file)? {
            Some(object) => Ok(self.reader(object, file, from)),
            None => self.hub_for(listing, file)?.open(listing, file, from),
        }
    }

    fn read_range(
        &self,
        listing: &Listing,
        file: &HubFile,
        from: u64,
        size: u64,
    ) -> Result<Vec<u8>, HubError> {
        check_range(file, from, size)?;
        let Some(object) = self.stored(file)? else {
            return self.hub_for(listing, file)?.read_range(listing, file, from, size);
        };
        let bytes = self.runtime.block_on(self.store.get_range(&object.key, from, size));
        Ok(bytes.map_err(MirrorError::from)?.into())
    }

    fn fetch(&self, listing: &Listing, file: &HubFile) -> Result<PathBuf, HubError> {
        let place = cache::place(&self.cache, listing, file)?;
        if cache::has(&place, file.size) {
            return Ok(place);
        }
        let Some(object) = self.stored(file)? else {
            return self.hub_for(listing, file)?.fetch(listing, file);
        };
        cache::keep(&self.cache, &place, file.size, || Ok(self.reader(object, file, 0)))?;
        Ok(place)
    }
}

/// Refuses bytes that the file does not have.
fn check_range(file: &HubFile, from: u64, size: u64) -> Result<(), MirrorError> {
    if from.checked_add(size).is_some_and(|end| end <= file.size) {
        return Ok(());
    }
    let (path, file_size) = (file.path.clone(), file.size);
    Err(MirrorError::OutsideFile { path, file_size, from, size })
}

/// Parts of a key that are longer would be no names of files everywhere.
const NAME_BYTES_MAX: usize = 240;

/// Refuses an id that is none, or too long to be part of a key.
fn check_repo(repo: &Repo) -> Result<(), MirrorError> {
    check_name("repository", &repo.id, &layout::repo_name(&repo.id))
}

/// Refuses a revision that is none, or too long to be part of a key.
fn check_revision(revision: &str) -> Result<(), MirrorError> {
    check_name("revision", revision, &layout::revision_name(revision))
}

fn check_name(what: &'static str, text: &str, name: &str) -> Result<(), MirrorError> {
    if !text.is_empty() && name.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    Err(MirrorError::Malformed { what, text: text.chars().take(NAME_BYTES_MAX).collect() })
}
