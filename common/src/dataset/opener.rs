//! Where the bytes of a dataset's files come from: this machine, a hub, or each file from where it lies.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::DatasetError;
use super::content::read_error;
use super::source::{Place, SourceFile};
use crate::hub::{Hub, HubFile, Listing, Repo};

/// Gives the bytes of files. What comes back is checked by whoever reads a file to its end.
pub trait FileOpener {
    /// The bytes of `file` from its start. An `io::Error` from the reader may carry a [`crate::hub::HubError`].
    fn open(&self, file: &SourceFile) -> Result<Box<dyn Read + Send>, DatasetError>;

    /// Exactly `size` bytes of `file` from offset `from` on.
    fn read_at(&self, file: &SourceFile, from: u64, size: u64) -> Result<Vec<u8>, DatasetError>;
}

/// Files of this machine, at their hints or at a place that is told.
#[derive(Clone, Debug, Default)]
pub struct LocalFiles {
    moved: BTreeMap<PathBuf, PathBuf>,
}

impl LocalFiles {
    /// The file with that hint lies at `path` instead.
    pub fn moved(&mut self, hint: PathBuf, path: PathBuf) {
        self.moved.insert(hint, path);
    }

    fn file(&self, file: &SourceFile) -> Result<File, DatasetError> {
        let Place::Local { hint, .. } = &file.place else {
            return Err(DatasetError::NoHub { file: name_of(file) });
        };
        let path: &Path = self.moved.get(hint).unwrap_or(hint);
        // Looked at before it is opened: opening a named pipe waits for a writer.
        let metadata = std::fs::metadata(path).map_err(|source| read_error(file, source))?;
        if !metadata.is_file() {
            return Err(DatasetError::NotAFile { file: name_of(file) });
        }
        if metadata.len() != file.size {
            let what = format!("{} bytes instead of {}", metadata.len(), file.size);
            return Err(DatasetError::Changed { file: name_of(file), what });
        }
        File::open(path).map_err(|source| read_error(file, source))
    }
}

impl FileOpener for LocalFiles {
    fn open(&self, file: &SourceFile) -> Result<Box<dyn Read + Send>, DatasetError> {
        Ok(Box::new(self.file(file)?))
    }

    fn read_at(&self, file: &SourceFile, from: u64, size: u64) -> Result<Vec<u8>, DatasetError> {
        use std::os::unix::fs::FileExt as _;
        let opened = self.file(file)?;
        let mut bytes = vec![0; within(file, from, size)?];
        opened.read_exact_at(&mut bytes, from).map_err(|source| read_error(file, source))?;
        Ok(bytes)
    }
}

/// Files of hub repositories, by the commits that their places name.
pub struct HubFiles<'a> {
    hub: &'a dyn Hub,
    listings: Mutex<BTreeMap<(Repo, String), Arc<Listing>>>,
}

impl<'a> HubFiles<'a> {
    /// Asks `hub` for the listing of a repository when a file of it is opened first.
    pub fn new(hub: &'a dyn Hub) -> Self {
        Self { hub, listings: Mutex::default() }
    }

    fn find(&self, file: &SourceFile) -> Result<(Arc<Listing>, HubFile), DatasetError> {
        let Place::Hub { repo, commit, path } = &file.place else {
            return Err(DatasetError::NotInRepo { file: name_of(file) });
        };
        let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (repo.clone(), commit.clone());
        let listing = match listings.get(&key) {
            Some(listing) => listing.clone(),
            None => {
                let listed = self.hub.list(repo, commit);
                let listed = listed
                    .map_err(|source| DatasetError::Hub { file: name_of(file), source: Box::new(source) })?;
                listings.entry(key).or_insert(Arc::new(listed)).clone()
            }
        };
        let found = listing.file(path).ok_or_else(|| DatasetError::NotInRepo { file: name_of(file) })?;
        if found.size != file.size || file.content.as_ref().is_some_and(|content| *content != found.content) {
            let what = "the hub lists another size or content".to_owned();
            return Err(DatasetError::Changed { file: name_of(file), what });
        }
        let found = found.clone();
        Ok((listing, found))
    }
}

impl FileOpener for HubFiles<'_> {
    fn open(&self, file: &SourceFile) -> Result<Box<dyn Read + Send>, DatasetError> {
        let (listing, found) = self.find(file)?;
        self.hub
            .open(&listing, &found, 0)
            .map_err(|source| DatasetError::Hub { file: name_of(file), source: Box::new(source) })
    }

    fn read_at(&self, file: &SourceFile, from: u64, size: u64) -> Result<Vec<u8>, DatasetError> {
        within(file, from, size)?;
        let (listing, found) = self.find(file)?;
        self.hub
            .read_range(&listing, &found, from, size)
            .map_err(|source| DatasetError::Hub { file: name_of(file), source: Box::new(source) })
    }
}

/// Each file from where its place says.
pub struct ByPlace<'a> {
    /// For local files.
    pub local: &'a dyn FileOpener,
    /// For files of a hub, where one is at hand.
    pub hub: Option<&'a dyn FileOpener>,
}

impl ByPlace<'_> {
    fn of(&self, file: &SourceFile) -> Result<&dyn FileOpener, DatasetError> {
        match &file.place {
            Place::Local { .. } => Ok(self.local),
            Place::Hub { .. } => self.hub.ok_or_else(|| DatasetError::NoHub { file: name_of(file) }),
        }
    }
}

impl FileOpener for ByPlace<'_> {
    fn open(&self, file: &SourceFile) -> Result<Box<dyn Read + Send>, DatasetError> {
        self.of(file)?.open(file)
    }

    fn read_at(&self, file: &SourceFile, from: u64, size: u64) -> Result<Vec<u8>, DatasetError> {
        self.of(file)?.read_at(file, from, size)
    }
}

/// What a person calls the file: the path as typed, or where it lies on the hub.
pub(super) fn name_of(file: &SourceFile) -> String {
    match &file.place {
        Place::Local { name, .. } => name.clone(),
        Place::Hub { repo, commit, path } => {
            format!("{path} of {repo} at {}", commit.chars().take(12).collect::<String>())
        }
    }
}

/// `size` as a length in memory, where the range lies inside the file.
fn within(file: &SourceFile, from: u64, size: u64) -> Result<usize, DatasetError> {
    let inside = from.checked_add(size).is_some_and(|end| end <= file.size);
    usize::try_from(size).ok().filter(|_| inside).ok_or_else(|| {
        let source = io::Error::from(io::ErrorKind::UnexpectedEof);
        DatasetError::Io { file: name_of(file), source }
    })
}
