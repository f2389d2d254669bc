//! A whole file into the cache, verified before it has its name there.
//!
//! ```text
//! cached? → lock → cached meanwhile? → blobs/<content id>.incomplete, from where it ends → digest → rename → link
//! ```
//! A process that is killed leaves an incomplete file, which the next one goes on with. Python's library gives lock
//! and incomplete file the same names.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::client::{Client, Target, shown};
use super::content::ContentHash;
use super::lock::DownloadLock;
use super::stream::{Steps, Stream};
use super::{ContentId, HubCache, HubError, HubFile, HubProgress, Listing, OnProgress, xet};

/// Bytes between two reports.
const REPORT_BYTES: u64 = 1 << 20;

/// One download.
pub(super) struct Download<'a> {
    pub(super) client: &'a Arc<Client>,
    pub(super) cache: &'a HubCache,
    pub(super) listing: &'a Listing,
    pub(super) file: &'a HubFile,
    pub(super) on_progress: Option<&'a OnProgress>,
}

impl Download<'_> {
    /// The file in its snapshot. Only one process at a time downloads it, the others wait.
    pub(super) fn run(&self) -> Result<PathBuf, HubError> {
        let (cache, listing, file) = (self.cache, self.listing, self.file);
        let _lock = DownloadLock::acquire(&cache.lock_path(&listing.repo, file))?;
        if cache.find_blob(listing, file).is_none() {
            let blob = cache.blob(&listing.repo, file);
            let folder = blob.parent().unwrap_or(&blob);
            fs::create_dir_all(folder).map_err(|source| HubError::disk("create", folder, source))?;
            let target = self.client.file_target(listing, file)?;
            self.bring(&target, &blob)?;
        }
        cache.link(listing, file)
    }

    fn bring(&self, target: &Target, blob: &Path) -> Result<(), HubError> {
        let partial = blob.with_extension("incomplete");
        if !partial.exists()
            && matches!(self.file.content, ContentId::Sha256(_))
            && self.client.is_xet(target)
        {
            match self.bring_by_xet(target, blob) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    let (file, error) = (&self.file.path, crate::failure::chain(&error));
                    tracing::warn!(file, error, "going on without Xet");
                }
            }
        }
        let first = self.bring_by_http(target, &partial, blob);
        let is_other = matches!(first, Err(HubError::OtherContent { .. } | HubError::OtherSize { .. }));
        if !is_other {
            return first;
        }
        // What was there before may have been at fault.
        self.delete(&partial)?;
        let second = self.bring_by_http(target, &partial, blob);
        if matches!(second, Err(HubError::OtherContent { .. })) {
            self.delete(&partial)?;
        }
        second
    }

    fn bring_by_http(&self, target: &Target, partial: &Path, blob: &Path) -> Result<(), HubError> {
        let size = self.file.size;
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(partial);
        let mut output = open.map_err(|source| self.disk("write", partial, source))?;
        let mut hash = ContentHash::like(&self.file.content, size);
        let mut done = self.take_over(&mut output, &mut hash, partial)?;
        let mut reported = done;
        self.report(done);
        let mut stream = Stream::open(self.client, target.clone(), self.file, done..size, Steps::One)?;
        while let Some(part) = stream.next()? {
            output.write_all(&part).map_err(|source| self.disk("write", partial, source))?;
            hash.update(&part);
            done += part.len() as u64;
            if done - reported >= REPORT_BYTES || done == size {
                reported = done;
                self.report(done);
            }
        }
        self.verify(hash.finish(), target)?;
        output.sync_all().map_err(|source| self.disk("write", partial, source))?;
        fs::rename(partial, blob).map_err(|source| self.disk("rename", partial, source))
    }

    /// Digests what an earlier download left, and says how much that is.
    fn take_over(&self, output: &mut File, hash: &mut ContentHash, path: &Path) -> Result<u64, HubError> {
        let failed = |source| self.disk("read", path, source);
        let length = output.metadata().map_err(failed)?.len();
        if length > self.file.size {
            output.set_len(0).map_err(failed)?;
            return Ok(0);
        }
        // The writer goes on where the reading ends.
        let mut buffer = vec![0; 1 << 20];
        let mut done = 0;
        loop {
            match output.read(&mut buffer).map_err(failed)? {
                0 => return Ok(done),
                n => {
                    hash.update(&buffer[..n]);
                    done += n as u64;
                }
            }
        }
    }

    /// Beside the blob, because a rename does not leave a disk.
    fn bring_by_xet(&self, target: &Target, blob: &Path) -> Result<(), HubError> {
        let folder = blob.with_extension("xet");
        let brought = xet::download(self.client, self.listing, self.file, &folder).and_then(|path| {
            let failed = |source| self.disk("read", &path, source);
            let mut output = File::open(&path).map_err(failed)?;
            let mut hash = ContentHash::like(&self.file.content, self.file.size);
            self.take_over(&mut output, &mut hash, &path)?;
            self.verify(hash.finish(), target)?;
            output.sync_all().map_err(failed)?;
            fs::rename(&path, blob).map_err(failed)?;
            self.report(self.file.size);
            Ok(())
        });
        // Whether it succeeded or not, nobody needs the rest.
        let _ = fs::remove_dir_all(&folder);
        brought
    }

    fn verify(&self, found: ContentId, target: &Target) -> Result<(), HubError> {
        if found == self.file.content {
            return Ok(());
        }
        Err(HubError::OtherContent {
            path: self.file.path.clone(),
            expected: self.file.content.to_string(),
            found: found.to_string(),
            url: shown(&target.url),
        })
    }

    fn report(&self, done: u64) {
        if let Some(on_progress) = self.on_progress {
            on_progress(HubProgress { file: self.file.path.clone(), done, total: self.file.size });
        }
    }

    fn delete(&self, path: &Path) -> Result<(), HubError> {
        match fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(self.disk("delete", path, source)),
            _ => Ok(()),
        }
    }

    fn disk(&self, doing: &'static str, path: &Path, source: io::Error) -> HubError {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => HubError::DiskFull {
                path: self.file.path.clone(),
                size: self.file.size,
                folder: path.parent().unwrap_or(path).to_owned(),
            },
            _ => HubError::disk(doing, path, source),
        }
    }
}
