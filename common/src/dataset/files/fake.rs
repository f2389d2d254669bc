//! A hub of repositories in memory, for tests.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::PathBuf;

use crate::hub::{ContentId, Hub, HubError, HubFile, Listing, Repo};

/// Files of those paths, empty, sorted as in a listing.
pub(super) fn files(paths: &[&str]) -> Vec<HubFile> {
    let mut files: Vec<HubFile> = paths.iter().map(|path| file(path, 0)).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn file(path: &str, size: u64) -> HubFile {
    HubFile { path: path.to_owned(), size, content: ContentId::GitSha1(format!("{size:040}")) }
}

/// Repositories by name and revision. A commit is the revision, filled up to 40 digits.
#[derive(Default)]
pub(super) struct FakeHub {
    repos: BTreeMap<(String, String), BTreeMap<String, String>>,
    renamed: BTreeMap<String, String>,
}

impl FakeHub {
    /// Adds a repository whose `README.md` has this head, if it has one.
    pub(super) fn with(mut self, id: &str, revision: &str, head: &str, paths: &[&str]) -> Self {
        let mut files: BTreeMap<String, String> =
            paths.iter().map(|path| ((*path).to_owned(), format!("bytes of {path}"))).collect();
        if !head.is_empty() {
            files.insert("README.md".to_owned(), format!("---\n{head}\n---\n# Title\n"));
        }
        self.repos.insert((id.to_owned(), revision.to_owned()), files);
        self
    }

    /// Lets a repository answer to another name too.
    pub(super) fn with_old_name(mut self, old: &str, new: &str) -> Self {
        self.renamed.insert(old.to_owned(), new.to_owned());
        self
    }
}

impl Hub for FakeHub {
    fn list(&self, repo: &Repo, revision: &str) -> Result<Listing, HubError> {
        let id = self.renamed.get(&repo.id).unwrap_or(&repo.id).clone();
        let Some(files) = self.repos.get(&(id.clone(), revision.to_owned())) else {
            return Err(HubError::NoRepo { repo: repo.clone(), endpoint: "fake".to_owned() });
        };
        let files = files.iter().map(|(path, bytes)| file(path, bytes.len() as u64)).collect();
        Ok(Listing { repo: Repo { id, ..repo.clone() }, commit: format!("{revision:0<40}"), files })
    }

    fn open(&self, listing: &Listing, file: &HubFile, from: u64) -> Result<Box<dyn Read + Send>, HubError> {
        let bytes = self.read_range(listing, file, from, file.size - from)?;
        Ok(Box::new(Cursor::new(bytes)))
    }

    fn read_range(
        &self,
        listing: &Listing,
        file: &HubFile,
        from: u64,
        size: u64,
    ) -> Result<Vec<u8>, HubError> {
        let revision = listing.commit.trim_end_matches('0').to_owned();
        let found = self
            .repos
            .iter()
            .find(|((id, known), _)| *id == listing.repo.id && known.trim_end_matches('0') == revision);
        let bytes = &found.expect("a listed repository").1[&file.path];
        let (from, size) = (usize::try_from(from).expect("small"), usize::try_from(size).expect("small"));
        Ok(bytes.as_bytes()[from..from + size].to_vec())
    }

    fn fetch(&self, listing: &Listing, _: &HubFile) -> Result<PathBuf, HubError> {
        Err(HubError::NoRepo { repo: listing.repo.clone(), endpoint: "fake".to_owned() })
    }
}
