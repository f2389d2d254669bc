//! Repositories of models and datasets: listed, opened at any offset, fetched whole and verified.
//!
//! Everything that asks a hub goes through [`Hub`]; whether a file comes from the hub, from this machine's cache or
//! from a mirror in the bucket is the implementation's business. Calls block; they are made from blocking threads.
//!
//! [`HfHub`] speaks plain HTTP itself. The hub's own library (hf-hub 1.0.0) verifies neither status, size nor digest of
//! what it downloads, does not go on where a download broke, knows no time limits and ignores `Retry-After` and
//! `HF_HUB_OFFLINE`; so it is used for the one thing that it alone can do, the Xet protocol (`xet.rs`).

mod cache;
mod client;
pub(crate) mod content;
mod download;
mod error;
mod hf;
mod list;
mod lock;
pub(crate) mod names;
mod offline;
mod retry;
pub(crate) mod settings;
mod stream;
mod xet;

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::Digest;

pub use cache::HubCache;
pub use error::HubError;
pub use hf::HfHub;
pub use retry::RetryPolicy;
pub use settings::{HubSettings, Token};

/// What a repository holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RepoKind {
    /// A model.
    Model,
    /// A dataset.
    Dataset,
}

/// A repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Repo {
    /// What it holds.
    pub kind: RepoKind,
    /// `owner/name`, or `name` alone for the oldest ones.
    pub id: String,
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            RepoKind::Model => write!(f, "model {}", self.id),
            RepoKind::Dataset => write!(f, "dataset {}", self.id),
        }
    }
}

/// What identifies the content of a file without reading it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContentId {
    /// SHA-256 of the bytes: large files, and all files that were read.
    Sha256(Digest),
    /// The git object id, SHA-1 of a header and the bytes, 40 hex digits: small files on a hub.
    GitSha1(String),
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => digest.fmt(f),
            Self::GitSha1(oid) => f.write_str(oid),
        }
    }
}

/// One file of a repository at a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubFile {
    /// Path inside the repository, with `/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// What its bytes are.
    pub content: ContentId,
}

/// The files of a repository at a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The repository under its present name: the one asked for may have been renamed.
    pub repo: Repo,
    /// The commit, 40 hex digits.
    pub commit: String,
    /// All files, sorted by path.
    pub files: Vec<HubFile>,
}

impl Listing {
    /// The file of that path.
    pub fn file(&self, path: &str) -> Option<&HubFile> {
        self.files.binary_search_by(|file| file.path.as_str().cmp(path)).ok().map(|place| &self.files[place])
    }
}

/// Repositories, wherever they come from.
pub trait Hub: Send + Sync {
    /// The files of `repo` at a branch, tag, commit or ref such as `refs/convert/parquet`.
    fn list(&self, repo: &Repo, revision: &str) -> Result<Listing, HubError>;

    /// The bytes of a file from offset `from` on. A connection that breaks is taken up again where it broke; an
    /// `io::Error` from the reader carries a [`HubError`].
    fn open(&self, listing: &Listing, file: &HubFile, from: u64) -> Result<Box<dyn Read + Send>, HubError>;

    /// Exactly `size` bytes of a file from offset `from` on.
    fn read_range(
        &self,
        listing: &Listing,
        file: &HubFile,
        from: u64,
        size: u64,
    ) -> Result<Vec<u8>, HubError>;

    /// The whole file on this machine, its size and content verified, under `snapshots/<commit>/<path>`.
    fn fetch(&self, listing: &Listing, file: &HubFile) -> Result<PathBuf, HubError>;
}

/// How far a download is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubProgress {
    /// Path inside the repository.
    pub file: String,
    /// Bytes that are on this machine, those of an earlier attempt included.
    pub done: u64,
    /// Bytes of the file.
    pub total: u64,
}

type OnProgress = Arc<dyn Fn(HubProgress) + Send + Sync>;
