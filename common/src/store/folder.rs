//! A bucket that is a folder, for what is asked of it most: each question takes one turn of a blocking thread, however
//! many objects it is about. Keys have been checked: none leaves the folder.

use std::io::{Error, ErrorKind};
use std::path::Path;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::Listed;

/// Objects as a listing would tell of them, in the order of their keys; nothing where there is none.
pub(super) async fn look(
    folder: &Path,
    keys: &[&str],
) -> Result<Vec<Option<Listed>>, (String, object_store::Error)> {
    let folder = folder.to_owned();
    let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
    let first = keys.first().cloned().unwrap_or_default();
    let look = move || keys.into_iter().map(|key| look_at(&folder, key)).collect();
    match spawn_blocking(look).await {
        Ok(found) => found,
        Err(source) => Err((first, object_store::Error::JoinError { source })),
    }
}

fn look_at(folder: &Path, key: String) -> Result<Option<Listed>, (String, object_store::Error)> {
    let found =
        folder.join(&key).metadata().and_then(|found| Ok((found.is_file(), found.len(), found.modified()?)));
    match found {
        Ok((true, size, modified)) => {
            let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
            Ok(Some(Listed { key, size, modified_s: i64::try_from(since.as_secs()).unwrap_or(i64::MAX) }))
        }
        Ok((false, ..)) => Ok(None),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err((key, trouble(error))),
    }
}

/// The content of an object; nothing where there is none.
pub(super) async fn read(folder: &Path, key: &str) -> Result<Option<Bytes>, object_store::Error> {
    let path = folder.join(key);
    let read = move || match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes.into())),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(trouble(error)),
    };
    spawn_blocking(read).await.unwrap_or_else(|source| Err(object_store::Error::JoinError { source }))
}

/// Also a folder is no object, and nothing lies below an object.
fn is_absent(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory | ErrorKind::NotADirectory)
}

fn trouble(error: Error) -> object_store::Error {
    object_store::Error::Generic { store: "folder", source: Box::new(error) }
}
