//! A hub in memory, which can be told to fail.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::super::content::ContentHash;
use crate::failure::FailureClass;
use crate::hub::{ContentId, Hub, HubError, HubFile, Listing, Repo, RepoKind};
use crate::id::Digest;

/// A repository under one or two names, with branches.
pub struct MemoryHub {
    branches: Mutex<BTreeMap<String, Listing>>,
    contents: Mutex<BTreeMap<String, Vec<u8>>>,
    pub gone: AtomicBool,
    pub n_lists: AtomicUsize,
    pub n_opens: AtomicUsize,
    /// Opens that succeed before all further ones fail.
    pub opens_left: AtomicUsize,
}

pub fn repo(id: &str) -> Repo {
    Repo { kind: RepoKind::Model, id: id.to_owned() }
}

pub fn commit(digit: char) -> String {
    digit.to_string().repeat(40)
}

/// A file by SHA-256, or by its git object id where the name ends in `.json`.
pub fn hub_file(path: &str, bytes: &[u8]) -> HubFile {
    let size = bytes.len() as u64;
    let like = match path.ends_with(".json") {
        true => ContentId::GitSha1(String::new()),
        false => ContentId::Sha256(Digest::of(b"")),
    };
    let mut hash = ContentHash::new(&like, size);
    hash.update(bytes);
    HubFile { path: path.to_owned(), size, content: hash.finish().1 }
}

impl MemoryHub {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            branches: Mutex::default(),
            contents: Mutex::default(),
            gone: AtomicBool::new(false),
            n_lists: AtomicUsize::new(0),
            n_opens: AtomicUsize::new(0),
            opens_left: AtomicUsize::new(usize::MAX),
        })
    }

    /// Makes a branch, and its commit, hold these files; the repository is `a/b` today, whatever it is asked for as.
    pub fn set(&self, branch: &str, commit: &str, files: &[(&str, &[u8])]) -> Listing {
        let mut listing = Listing { repo: repo("a/b"), commit: commit.to_owned(), files: Vec::new() };
        let mut contents = self.contents.lock().expect("no panic");
        for (path, bytes) in files {
            listing.files.push(hub_file(path, bytes));
            contents.insert(format!("{commit}/{path}"), bytes.to_vec());
        }
        listing.files.sort_by(|a, b| a.path.cmp(&b.path));
        let mut branches = self.branches.lock().expect("no panic");
        branches.insert(branch.to_owned(), listing.clone());
        branches.insert(commit.to_owned(), listing.clone());
        listing
    }

    /// Makes the hub send other bytes than it lists.
    pub fn corrupt(&self, commit: &str, path: &str, bytes: &[u8]) {
        self.contents.lock().expect("no panic").insert(format!("{commit}/{path}"), bytes.to_vec());
    }

    fn reachable(&self) -> Result<(), HubError> {
        match self.gone.load(Ordering::SeqCst) {
            true => Err(HubError::Other { class: FailureClass::Retry, source: "no route to host".into() }),
            false => Ok(()),
        }
    }
}

impl Hub for MemoryHub {
    fn list(&self, repo: &Repo, revision: &str) -> Result<Listing, HubError> {
        self.reachable()?;
        self.n_lists.fetch_add(1, Ordering::SeqCst);
        let missing = || HubError::NoRepo { repo: repo.clone(), endpoint: "memory".to_owned() };
        self.branches.lock().expect("no panic").get(revision).cloned().ok_or_else(missing)
    }

    fn open(&self, listing: &Listing, file: &HubFile, from: u64) -> Result<Box<dyn Read + Send>, HubError> {
        self.reachable()?;
        self.n_opens.fetch_add(1, Ordering::SeqCst);
        let left = self.opens_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        let contents = self.contents.lock().expect("no panic");
        let bytes = &contents[&format!("{}/{}", listing.commit, file.path)];
        let tail = bytes[from as usize..].to_vec();
        if left.is_ok() {
            return Ok(Box::new(Cursor::new(tail)));
        }
        let half = Cursor::new(tail[..tail.len() / 2].to_vec());
        Ok(Box::new(half.chain(Breaking)))
    }

    fn read_range(
        &self,
        listing: &Listing,
        file: &HubFile,
        from: u64,
        size: u64,
    ) -> Result<Vec<u8>, HubError> {
        let mut bytes = Vec::new();
        let opened = self.open(listing, file, from)?;
        opened.take(size).read_to_end(&mut bytes).expect("bytes in memory");
        Ok(bytes)
    }

    fn fetch(&self, _: &Listing, file: &HubFile) -> Result<PathBuf, HubError> {
        self.reachable()?;
        Ok(PathBuf::from("/hub").join(&file.path))
    }
}

/// A connection that breaks at once.
struct Breaking;

impl Read for Breaking {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        let source = "connection reset".into();
        Err(std::io::Error::other(HubError::Other { class: FailureClass::Retry, source }))
    }
}
