//! Files of a hub into the bucket: the content first, then the records that name it.
//!
//! Nothing that is there is sent again, so an addition that was interrupted is simply made again.

use std::io::{self, Read, Seek as _, Write as _};

use super::content::{ContentHash, digest_text};
use super::record::{self, GitRecord, ListingRecord, is_sha1};
use super::{MirrorError, MirroredHub, Place, check_repo, check_revision};
use crate::hub::{ContentId, Hub, HubFile, Listing, Repo};
use crate::id::Digest;
use crate::layout;
use crate::store::Upload;

/// How much is read from the hub at a time.
const PIECE_BYTES: usize = 1 << 20;
/// Files without a SHA-256 are kept in memory up to here while they are read, on disk beyond. A hub has hardly any
/// that are larger than 10 MiB.
const SPOOL_BYTES: usize = 16 << 20;

/// Hears of a file how many of its bytes are in the bucket, and how many it has.
pub type Told<'a> = &'a dyn Fn(&str, u64, u64);

/// What an addition did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Files that were to be there.
    pub n_files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were not there and were sent.
    pub n_sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Whether the revision was not known, or known with other files.
    pub is_new: bool,
}

impl MirroredHub {
    /// Puts the content of `files` into the bucket, unless it is there, and then says what `revision` of the
    /// repository is. Every byte is digested on its way; what is not as listed is not kept.
    pub fn add(
        &self,
        listing: &Listing,
        revision: &str,
        files: &[HubFile],
        told: Told<'_>,
    ) -> Result<Added, MirrorError> {
        self.add_as(&listing.repo, listing, revision, files, told)
    }

    /// As [`MirroredHub::add`], of a repository that was asked for under the name `asked` and may have another today:
    /// it is found under both.
    pub fn add_as(
        &self,
        asked: &Repo,
        listing: &Listing,
        revision: &str,
        files: &[HubFile],
        told: Told<'_>,
    ) -> Result<Added, MirrorError> {
        check_addition(asked, listing, revision, files)?;
        let hub = self.hub.as_deref().ok_or_else(|| MirrorError::NoHub { repo: asked.clone() })?;
        let mut added = Added { n_files: files.len() as u64, ..Added::default() };
        for file in files {
            added.bytes += file.size;
            match self.place(file)? {
                Place::There(_) => {}
                Place::Missing | Place::WrongSize(..) => {
                    self.send(hub, listing, file, told)?;
                    added.n_sent += 1;
                    added.sent_bytes += file.size;
                }
            }
            told(&file.path, file.size, file.size);
        }
        let mut names = vec![asked];
        names.extend((*asked != listing.repo).then_some(&listing.repo));
        let mut revisions = vec![listing.commit.as_str()];
        revisions.extend((revision != listing.commit).then_some(revision));
        for repo in names {
            for revision in &revisions {
                let record = ListingRecord {
                    repo: repo.clone(),
                    revision: (*revision).to_owned(),
                    listing: listing.clone(),
                    mirrored_at: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
                };
                added.is_new |= self.runtime.block_on(record::put(&self.store, &record))?;
            }
        }
        Ok(added)
    }

    /// Streams one file from the hub into the bucket.
    fn send(
        &self,
        hub: &dyn Hub,
        listing: &Listing,
        file: &HubFile,
        told: Told<'_>,
    ) -> Result<(), MirrorError> {
        let mut reading = Reading { hub, listing, file, told };
        match &file.content {
            ContentId::Sha256(sha256) => self.upload(*sha256, |upload| {
                reading.run(&mut |piece| Ok(self.runtime.block_on(upload.write(piece))?))?;
                Ok(())
            }),
            // Where it belongs is known once it was read.
            ContentId::GitSha1(id) => {
                let mut spool = tempfile::spooled_tempfile(SPOOL_BYTES);
                let disk = |source| MirrorError::Cache { path: std::env::temp_dir(), source };
                let sha256 = reading.run(&mut |piece| spool.write_all(piece).map_err(disk))?;
                spool.rewind().map_err(disk)?;
                self.upload(sha256, |upload| {
                    each_piece(
                        &mut spool,
                        &mut |piece| Ok(self.runtime.block_on(upload.write(piece))?),
                        &disk,
                    )
                })?;
                let record = GitRecord { sha256, size: file.size };
                self.runtime.block_on(record::put_git(&self.store, id, &record))?;
                Ok(())
            }
        }
    }

    /// Makes the object of that content from what `fill` writes; nothing becomes visible unless `fill` succeeds.
    fn upload(
        &self,
        sha256: Digest,
        fill: impl FnOnce(&mut Upload) -> Result<(), MirrorError>,
    ) -> Result<(), MirrorError> {
        let key = layout::input(sha256);
        let mut upload = self.runtime.block_on(self.store.upload(&key))?;
        let filled = fill(&mut upload);
        let found = upload.digest();
        if filled.is_ok() && found == sha256 {
            return Ok(self.runtime.block_on(upload.finish())?);
        }
        if let Err(error) = self.runtime.block_on(upload.abandon()) {
            tracing::warn!(key, %error, "a broken upload could not be taken back; the store may keep its pieces");
        }
        let fault = format!("it was about to be written with SHA-256 {found}");
        filled.and(Err(MirrorError::Damaged { key, fault }))
    }
}

/// One file on its way from the hub.
struct Reading<'a> {
    hub: &'a dyn Hub,
    listing: &'a Listing,
    file: &'a HubFile,
    told: Told<'a>,
}

impl Reading<'_> {
    /// Gives all bytes to `take`; their SHA-256, if they are what the listing says.
    fn run(&mut self, take: &mut dyn FnMut(&[u8]) -> Result<(), MirrorError>) -> Result<Digest, MirrorError> {
        let file = self.file;
        let mut hash = ContentHash::new(&file.content, file.size);
        let mut done = 0;
        let mut from = self.hub.open(self.listing, file, 0)?;
        let broke_off =
            |source| MirrorError::Read { repo: self.listing.repo.clone(), path: file.path.clone(), source };
        let mut pass = |piece: &[u8]| {
            done += piece.len() as u64;
            if done > file.size {
                let expected = format!("{} bytes", file.size);
                return Err(self.other_content(expected, "more bytes".to_owned()));
            }
            hash.update(piece);
            take(piece)?;
            (self.told)(&file.path, done, file.size);
            Ok(())
        };
        each_piece(&mut from, &mut pass, &broke_off)?;
        if done < file.size {
            return Err(self.other_content(format!("{} bytes", file.size), format!("{done} bytes")));
        }
        let (sha256, found) = hash.finish();
        if found != file.content {
            return Err(self.other_content(digest_text(&file.content), digest_text(&found)));
        }
        Ok(sha256)
    }

    fn other_content(&self, expected: String, found: String) -> MirrorError {
        let (repo, path) = (self.listing.repo.clone(), self.file.path.clone());
        MirrorError::OtherContent { repo, path, expected, found }
    }
}

/// Reads to the end, a piece at a time.
fn each_piece(
    from: &mut dyn Read,
    take: &mut dyn FnMut(&[u8]) -> Result<(), MirrorError>,
    failed: &dyn Fn(io::Error) -> MirrorError,
) -> Result<(), MirrorError> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(size) => take(&piece[..size])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Everything that can be wrong before anything is sent.
fn check_addition(
    asked: &Repo,
    listing: &Listing,
    revision: &str,
    files: &[HubFile],
) -> Result<(), MirrorError> {
    for repo in [asked, &listing.repo] {
        check_repo(repo)?;
    }
    check_revision(revision)?;
    let malformed = |what, text: &str| Err(MirrorError::Malformed { what, text: text.to_owned() });
    if !is_sha1(&listing.commit) {
        return malformed("commit", &listing.commit);
    }
    for file in files {
        if listing.file(&file.path) != Some(file) {
            return Err(MirrorError::NotListed { repo: listing.repo.clone(), path: file.path.clone() });
        }
        if let ContentId::GitSha1(id) = &file.content
            && !is_sha1(id)
        {
            return malformed("git object id", id);
        }
    }
    Ok(())
}
