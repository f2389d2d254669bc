//! Copies of mirrored files on this machine: `mirror/<kind>s--<owner--name>/<commit>/<path>` below the cache folder.
//!
//! A file is there whole and verified, or not at all: it is written beside its place and renamed. A lock keeps others
//! from fetching it a second time meanwhile; that only saves work, so a lock that cannot be had holds nobody up.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write as _};
use std::path::{Component, Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::MirrorError;
use super::record::is_sha1;
use crate::hub::{HubError, HubFile, Listing};
use crate::id::Digest;
use crate::layout;

/// How long another one's download of the same file is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(1800);
/// Between two looks at the lock.
const LOCK_LOOK: Duration = Duration::from_millis(50);
/// How much of a file is copied at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Where a file's copy lies, whether it is there or not.
pub(super) fn place(cache: &Path, listing: &Listing, file: &HubFile) -> Result<PathBuf, MirrorError> {
    let malformed = |what, text: &str| MirrorError::Malformed { what, text: text.to_owned() };
    if !is_sha1(&listing.commit) {
        return Err(malformed("commit", &listing.commit));
    }
    if !stays_inside(&file.path) {
        return Err(malformed("file name", &file.path));
    }
    let repo = format!("{}--{}", layout::repo_folder(listing.repo.kind), layout::repo_name(&listing.repo.id));
    Ok(cache.join("mirror").join(repo).join(&listing.commit).join(&file.path))
}

/// Whether a file's path names a file below the folder that it is joined to.
fn stays_inside(path: &str) -> bool {
    let plain = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    let normal = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    plain && normal && !path.contains(['\\', '\0'])
}

/// Whether the copy is there; it was verified before it got its name.
pub(super) fn has(place: &Path, size: u64) -> bool {
    fs::metadata(place).is_ok_and(|found| found.is_file() && found.len() == size)
}

/// Puts what `open` gives, which verifies itself while it is read, at `place`, unless someone else does so meanwhile.
pub(super) fn keep(
    cache: &Path,
    place: &Path,
    size: u64,
    open: impl FnOnce() -> Result<Box<dyn Read + Send>, MirrorError>,
) -> Result<(), MirrorError> {
    let _lock = lock(cache, place);
    if has(place, size) {
        return Ok(());
    }
    let failed = |source| MirrorError::Cache { path: place.to_owned(), source };
    let folder = place.parent().unwrap_or(cache);
    fs::create_dir_all(folder).map_err(failed)?;
    let mut from = open()?;
    let mut beside = tempfile::Builder::new().prefix(".lsa-").tempfile_in(folder).map_err(failed)?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let size = match from.read(&mut piece) {
            Ok(0) => break,
            Ok(size) => size,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(reading_failed(error, place)),
        };
        beside.write_all(&piece[..size]).map_err(failed)?;
    }
    finish(beside, place).map_err(failed)
}

/// Makes a file that is written whole visible to all.
fn finish(beside: tempfile::NamedTempFile, place: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    beside.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    beside.as_file().sync_all()?;
    beside.persist(place).map_err(|error| error.error)?;
    Ok(())
}

/// What a reader's error carries.
fn reading_failed(error: io::Error, place: &Path) -> MirrorError {
    match error.downcast::<HubError>() {
        Ok(error) => MirrorError::Hub(error),
        Err(source) => MirrorError::Cache { path: place.to_owned(), source },
    }
}

/// The right to fetch this file, among all threads and processes of this machine; dropped with the file.
fn lock(cache: &Path, place: &Path) -> Option<File> {
    let folder = cache.join("mirror/locks");
    let name = Digest::of(place.as_os_str().as_encoded_bytes()).to_string();
    fs::create_dir_all(&folder).ok()?;
    let file = File::options().create(true).append(true).open(folder.join(name)).ok()?;
    let begin = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Some(file),
            Err(TryLockError::WouldBlock) if begin.elapsed() < LOCK_WAIT => thread::sleep(LOCK_LOOK),
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_below_the_folder() {
        for good in ["config.json", "a/b.c", "..a", "a..b/..c", "a b", "ä", "-", "~x"] {
            assert!(stays_inside(good), "{good}");
        }
        for bad in
            ["", ".", "..", "/", "/etc/passwd", "a/", "/a", "a//b", "a/../b", "./a", "a\\b", "a\0", "a/.."]
        {
            assert!(!stays_inside(bad), "{bad}");
        }
    }
}
