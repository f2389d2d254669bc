//! Result files to where they belong: a directory of the user's, or the bucket.

use std::path::{Path, PathBuf};

use lsa_common::store::{Store, StoreError};

/// Where result files go.
#[derive(Clone, Debug)]
pub enum Output {
    /// A directory. Each file is written beside its place and renamed there, so that no reader meets half a file.
    Directory(PathBuf),
    /// A folder of the bucket.
    Bucket {
        /// The bucket.
        store: Store,
        /// The folder.
        folder: String,
    },
}

/// Why a result file could not be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// On disk.
    #[error("cannot write {path:?}; free space or name a directory that you may write to")]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// In the bucket.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Output {
    /// Writes one file; `path` is relative, with `/`.
    pub async fn write(&self, path: &str, bytes: Vec<u8>) -> Result<(), OutputError> {
        match self {
            Self::Directory(directory) => {
                let path = directory.join(path);
                let at = path.clone();
                let written = tokio::task::spawn_blocking(move || replace(&path, &bytes)).await;
                let written = written.unwrap_or_else(|e| Err(std::io::Error::other(e)));
                written.map_err(|source| OutputError::Write { path: at, source })
            }
            Self::Bucket { store, folder } => {
                store.put(&format!("{folder}/{path}"), bytes.into()).await?;
                Ok(())
            }
        }
    }
}

/// Writes a file beside its place and renames it there.
pub fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut beside = tempfile::Builder::new().prefix(".lsa-").tempfile_in(folder)?;
    std::io::Write::write_all(&mut beside, bytes)?;
    use std::os::unix::fs::PermissionsExt as _;
    beside.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    beside.persist(path).map_err(|e| e.error)?;
    Ok(())
}

/// Whether files may be written to a directory, or to the nearest folder above it where it is still to be made.
/// Leaves nothing behind.
pub fn check_writable(directory: &Path) -> Result<(), OutputError> {
    let failed = |source| OutputError::Write { path: directory.to_owned(), source };
    // Looked at without following: a link that leads nowhere is there, and nothing can be made in its place.
    let there = directory.ancestors().find(|folder| folder.symlink_metadata().is_ok());
    let there = there.unwrap_or(Path::new("."));
    tempfile::Builder::new().prefix(".lsa-").tempfile_in(there).map_err(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_whether_a_directory_is_writable_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        check_writable(&folder.path().join("a/b")).unwrap();
        check_writable(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("link")).unwrap();
        for bad in [file.clone(), file.join("below"), folder.path().join("link/below")] {
            assert!(check_writable(&bad).is_err(), "{bad:?}");
        }
    }
}
