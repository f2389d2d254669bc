//! The Hugging Face hub, or one that speaks like it, behind this machine's cache.

use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use super::client::Client;
use super::download::Download;
use super::names::{is_commit, is_hex, is_inside, is_repo_id};
use super::stream::{Steps, Stream};
use super::{
    ContentId, Hub, HubCache, HubError, HubFile, HubProgress, HubSettings, Listing, OnProgress, Repo,
    RepoKind, list, offline,
};
use crate::failure::FailureClass;

/// The largest range that is reserved at once, in bytes; a larger one grows as it comes.
const RESERVED_BYTES_MAX: u64 = 16 << 20;

/// Files of datasets up to here are fetched whole when something of them is read: so they are verified, and there the
/// next time, also offline. The weights of a model are fetched by whoever runs it.
const KEPT_BYTES_MAX: u64 = 32 << 20;

/// A hub over HTTP and the cache of the Python libraries.
///
/// What is in the cache is read from there without any request. Calls block the thread that makes them.
pub struct HfHub {
    cache: HubCache,
    /// There is none offline, so that no request can be made.
    client: Option<Arc<Client>>,
    on_progress: Option<OnProgress>,
}

impl HfHub {
    /// A hub with these settings; nothing is asked yet.
    pub fn new(settings: HubSettings) -> Result<Self, HubError> {
        let client = if settings.offline { None } else { Some(Arc::new(Client::new(&settings)?)) };
        Ok(Self { cache: settings.cache, client, on_progress: None })
    }

    /// Tells `on_progress` how far each [`Hub::fetch`] is that downloads something.
    pub fn with_progress(self, on_progress: Arc<dyn Fn(HubProgress) + Send + Sync>) -> Self {
        Self { on_progress: Some(on_progress), ..self }
    }

    /// Where files are kept.
    pub fn cache(&self) -> &HubCache {
        &self.cache
    }

    /// A listing can come from a file or a peer: its names become addresses and paths.
    fn check(listing: &Listing, file: &HubFile) -> Result<(), HubError> {
        check_repo(&listing.repo)?;
        if !is_commit(&listing.commit) {
            let (repo, revision) = (listing.repo.clone(), listing.commit.clone());
            return Err(HubError::MalformedRevision { repo, revision });
        }
        let is_digest = match &file.content {
            ContentId::Sha256(_) => true,
            ContentId::GitSha1(oid) => is_hex(oid, 40),
        };
        if !is_digest || !is_inside(&file.path) {
            let (repo, commit) = (listing.repo.clone(), listing.commit.clone());
            return Err(HubError::FileName { repo, commit, name: file.path.chars().take(200).collect() });
        }
        Ok(())
    }

    fn client(&self, listing: &Listing, file: &HubFile) -> Result<&Arc<Client>, HubError> {
        self.client.as_ref().ok_or_else(|| HubError::FileNotCached {
            repo: listing.repo.clone(),
            commit: listing.commit.clone(),
            path: file.path.clone(),
            cache: self.cache.root().to_owned(),
        })
    }

    /// From the cache or from the hub; `from + size` lies inside the file.
    fn range(
        &self,
        listing: &Listing,
        file: &HubFile,
        (from, size): (u64, u64),
        steps: Steps,
    ) -> Result<Box<dyn Read + Send>, HubError> {
        let mut cached = self.cache.find_file(listing, file).or_else(|| self.cache.find_blob(listing, file));
        if cached.is_none() && listing.repo.kind == RepoKind::Dataset && file.size <= KEPT_BYTES_MAX {
            cached = Some(self.fetch(listing, file)?);
        }
        if let Some(path) = cached {
            let failed = |source| HubError::disk("read", &path, source);
            let mut bytes = File::open(&path).map_err(failed)?;
            bytes.seek(SeekFrom::Start(from)).map_err(failed)?;
            return Ok(Box::new(bytes.take(size)));
        }
        let client = self.client(listing, file)?;
        let target = client.file_target(listing, file)?;
        Ok(Box::new(Stream::open(client, target, file, from..from + size, steps)?))
    }
}

impl Hub for HfHub {
    /// Also notes in the cache what is listed, and which commit the branch or tag is at: so it is listed offline. Of a
    /// snapshot that the Python libraries fetched, only the files that are in the cache are listed offline.
    fn list(&self, repo: &Repo, revision: &str) -> Result<Listing, HubError> {
        check_repo(repo)?;
        if !is_inside(revision) {
            let (repo, revision) = (repo.clone(), revision.chars().take(200).collect());
            return Err(HubError::MalformedRevision { repo, revision });
        }
        let Some(client) = &self.client else { return offline::list(&self.cache, repo, revision) };
        let listing = match list::list(client, repo, revision) {
            // As the Python libraries do: what is in the cache is better than nothing.
            Err(error) if error.failure_class() == FailureClass::Retry => {
                let cached = offline::list(&self.cache, repo, revision).ok();
                let cached = cached.filter(|listing| !listing.files.is_empty());
                let Some(listing) = cached else { return Err(error) };
                let error = crate::failure::chain(&error);
                tracing::warn!(%repo, revision, error, "the hub does not answer; going on with the cache");
                return Ok(listing);
            }
            listed => listed?,
        };
        let noted = self.cache.write_listing(&listing);
        if let Err(error) =
            noted.and_then(|()| self.cache.write_ref(&listing.repo, revision, &listing.commit))
        {
            // The listing itself is good; a cache may be shared and closed to writing.
            let error = crate::failure::chain(&error);
            tracing::warn!(%repo, revision, error, "the commit of a branch is not noted in the cache");
        }
        Ok(listing)
    }

    fn open(&self, listing: &Listing, file: &HubFile, from: u64) -> Result<Box<dyn Read + Send>, HubError> {
        Self::check(listing, file)?;
        match file.size.checked_sub(from) {
            Some(size) => self.range(listing, file, (from, size), Steps::Growing),
            None => Err(outside(file, from, 0)),
        }
    }

    fn read_range(
        &self,
        listing: &Listing,
        file: &HubFile,
        from: u64,
        size: u64,
    ) -> Result<Vec<u8>, HubError> {
        Self::check(listing, file)?;
        if from.checked_add(size).is_none_or(|end| end > file.size) {
            return Err(outside(file, from, size));
        }
        let mut reader = self.range(listing, file, (from, size), Steps::One)?;
        let mut bytes = Vec::with_capacity(size.min(RESERVED_BYTES_MAX) as usize);
        let n = reader.read_to_end(&mut bytes).map_err(|error| match error.downcast::<HubError>() {
            Ok(error) => error,
            Err(source) => HubError::disk("read", self.cache.root(), source),
        })?;
        if n as u64 == size { Ok(bytes) } else { Err(outside(file, from, size)) }
    }

    fn fetch(&self, listing: &Listing, file: &HubFile) -> Result<PathBuf, HubError> {
        Self::check(listing, file)?;
        if let Some(path) = self.cache.find_file(listing, file) {
            return Ok(path);
        }
        if self.cache.find_blob(listing, file).is_some() {
            return self.cache.link(listing, file);
        }
        let client = self.client(listing, file)?;
        let on_progress = self.on_progress.as_ref();
        Download { client, cache: &self.cache, listing, file, on_progress }.run()
    }
}

fn check_repo(repo: &Repo) -> Result<(), HubError> {
    if is_repo_id(&repo.id) {
        return Ok(());
    }
    Err(HubError::MalformedId(repo.id.chars().take(200).collect()))
}

fn outside(file: &HubFile, from: u64, size: u64) -> HubError {
    HubError::OutsideFile { path: file.path.clone(), file_size: file.size, from, size }
}
