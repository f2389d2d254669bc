//! One download of a file at a time, among all processes that share a cache.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::HubError;

/// After this time a waiting process says so.
const QUIET: Duration = Duration::from_secs(10);
/// Between two tries meanwhile.
const PAUSE: Duration = Duration::from_millis(50);

/// Held until dropped, or until the process ends in whatever way.
#[derive(Debug)]
pub(super) struct DownloadLock {
    _file: File,
}

impl DownloadLock {
    /// Waits without limit: whoever holds the lock downloads what we want, or gives up.
    pub(super) fn acquire(path: &Path) -> Result<Self, HubError> {
        let failed = |source| HubError::disk("lock", path, source);
        let folder = path.parent().unwrap_or(path);
        fs::create_dir_all(folder).map_err(failed)?;
        loop {
            let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path);
            let file = file.map_err(failed)?;
            wait(&file, path).map_err(failed)?;
            // Some programs delete the file that they have locked; then the next one locks another file.
            if is_still_there(&file, path) {
                return Ok(Self { _file: file });
            }
        }
    }
}

fn wait(file: &File, path: &Path) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if begun.elapsed() < QUIET => std::thread::sleep(PAUSE),
            Err(TryLockError::WouldBlock) => break,
        }
    }
    tracing::warn!(lock = %path.display(), "waiting for another process that downloads the same file");
    file.lock()
}

fn is_still_there(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (file.metadata(), path.metadata()) {
        (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("locks/a.lock");
        let held = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let _lock = DownloadLock::acquire(&path).expect("locked");
                    assert!(!held.swap(true, std::sync::atomic::Ordering::SeqCst));
                    std::thread::yield_now();
                    held.store(false, std::sync::atomic::Ordering::SeqCst);
                });
            }
        });
    }
}
