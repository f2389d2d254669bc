//! What the bytes of a file are: counted and digested while they are read, compared with what was planned.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::DatasetError;
use super::opener::name_of;
use super::source::{Place, SourceFile};
use crate::hub::content::ContentHash;
use crate::hub::{ContentId, HubError};
use crate::id::Digest;

/// A file that digests what is read from it. Clones read on from the same place.
#[derive(Clone)]
pub(super) struct HashingFile(Arc<Mutex<Inner>>);

struct Inner {
    reader: Box<dyn Read + Send>,
    hash: ContentHash,
    n_bytes: u64,
    /// Whether the file itself could not be read: tells a broken disk from broken compressed data.
    failed: bool,
}

impl HashingFile {
    /// Digests the bytes of `reader` the way in which the content of `file` is named.
    pub(super) fn new(reader: Box<dyn Read + Send>, file: &SourceFile) -> Self {
        let sha256 = ContentId::Sha256(Digest([0; 32]));
        let hash = ContentHash::like(file.content.as_ref().unwrap_or(&sha256), file.size);
        Self(Arc::new(Mutex::new(Inner { reader, hash, n_bytes: 0, failed: false })))
    }

    pub(super) fn has_failed(&self) -> bool {
        self.inner().failed
    }

    /// Bytes read so far and what they are.
    pub(super) fn content(&self) -> (u64, ContentId) {
        let inner = self.inner();
        (inner.n_bytes, inner.hash.clone().finish())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Read for HashingFile {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut inner = self.inner();
        match inner.reader.read(out) {
            Ok(n_read) => {
                inner.hash.update(&out[..n_read]);
                inner.n_bytes += n_read as u64;
                Ok(n_read)
            }
            Err(error) => {
                inner.failed |= error.kind() != io::ErrorKind::Interrupted;
                Err(error)
            }
        }
    }
}

/// What is left of a file is read and digested; its content, if that is known now.
///
/// A local file is read to its end. A hub file is, where it `ended` for its reader, and is then known; of one that was
/// left before its end, a prefix was read that nobody has verified.
pub(super) fn finish(
    reader: &mut HashingFile,
    file: &SourceFile,
    ended: bool,
) -> Result<Option<ContentId>, DatasetError> {
    let is_local = matches!(file.place, Place::Local { .. });
    if is_local || ended {
        io::copy(reader, &mut io::sink()).map_err(|source| read_error(file, source))?;
    }
    let (size, content) = reader.content();
    if !is_local && !ended && size < file.size {
        return Ok(None);
    }
    compare(file, size, &content)?;
    Ok(Some(content))
}

fn compare(file: &SourceFile, size: u64, content: &ContentId) -> Result<(), DatasetError> {
    if size != file.size {
        let what = format!("{size} bytes instead of {}", file.size);
        return Err(DatasetError::Changed { file: name_of(file), what });
    }
    match &file.content {
        Some(expected) if expected != content => {
            let what = format!("{} instead of {}", short(content), short(expected));
            Err(DatasetError::Changed { file: name_of(file), what })
        }
        Some(_) | None => Ok(()),
    }
}

fn short(content: &ContentId) -> String {
    match content {
        ContentId::Sha256(digest) => format!("sha256 {}", digest.short()),
        ContentId::GitSha1(digits) => format!("git object {}", digits.chars().take(12).collect::<String>()),
    }
}

/// A fault of reading the file itself, told as the hub's where it carries one of the hub's.
pub(super) fn read_error(file: &SourceFile, source: io::Error) -> DatasetError {
    match source.downcast::<HubError>() {
        Ok(source) => DatasetError::Hub { file: name_of(file), source: Box::new(source) },
        Err(source) => DatasetError::Io { file: name_of(file), source },
    }
}
