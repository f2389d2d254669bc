//! Files through the trait of a hub: what is verified, and what a fault means.

use std::io::{self, Cursor, Read};
use std::path::PathBuf;

use super::super::testing::{SETTINGS, file_name, read_all};
use super::super::{
    ByPlace, DatasetError, HubFiles, LocalFiles, Place, ReadSettings, SourceFile, TextsPlan, local_plan,
    read_texts,
};
use crate::failure::FailureClass;
use crate::hub::{ContentId, Hub, HubError, HubFile, Listing, Repo, RepoKind};
use crate::id::Digest;

/// A hub with one file, that breaks off after so many bytes.
struct OneFile {
    listing: Listing,
    bytes: Vec<u8>,
    breaks_at: Option<usize>,
}

impl OneFile {
    fn no_repo(&self) -> HubError {
        HubError::NoRepo { repo: self.listing.repo.clone(), endpoint: "here".to_owned() }
    }
}

impl Hub for OneFile {
    fn list(&self, repo: &Repo, _: &str) -> Result<Listing, HubError> {
        if *repo == self.listing.repo { Ok(self.listing.clone()) } else { Err(self.no_repo()) }
    }

    fn open(&self, _: &Listing, _: &HubFile, from: u64) -> Result<Box<dyn Read + Send>, HubError> {
        let bytes = self.bytes[from as usize..self.breaks_at.unwrap_or(self.bytes.len())].to_vec();
        let breaks = self.breaks_at.map(|_| Broken(Some(HubError::Stopped)));
        Ok(match breaks {
            Some(breaks) => Box::new(Cursor::new(bytes).chain(breaks)),
            None => Box::new(Cursor::new(bytes)),
        })
    }

    fn read_range(&self, _: &Listing, _: &HubFile, from: u64, size: u64) -> Result<Vec<u8>, HubError> {
        Ok(self.bytes[from as usize..(from + size) as usize].to_vec())
    }

    fn fetch(&self, _: &Listing, _: &HubFile) -> Result<PathBuf, HubError> {
        Err(self.no_repo())
    }
}

struct Broken(Option<HubError>);

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), |error| Err(io::Error::other(error)))
    }
}

/// `bytes` as `t.txt`, listed with that content.
fn hub(bytes: &[u8], content: ContentId) -> (OneFile, SourceFile) {
    let repo = Repo { kind: RepoKind::Dataset, id: "a/b".to_owned() };
    let (commit, size) = ("c".repeat(40), bytes.len() as u64);
    let file = HubFile { path: "t.txt".to_owned(), size, content: content.clone() };
    let listing = Listing { repo: repo.clone(), commit: commit.clone(), files: vec![file] };
    let place = Place::Hub { repo, commit, path: "t.txt".to_owned() };
    let (format, compression) = (super::Format::Text, super::Compression::None);
    let source = SourceFile { place, size, content: Some(content), format, compression, columns: None };
    (OneFile { listing, bytes: bytes.to_vec(), breaks_at: None }, source)
}

#[test]
fn what_is_read_to_its_end_is_verified() {
    // git hash-object of "a\nb\n".
    let git = || ContentId::GitSha1("422c2b7ab3b3c668038da977e4e93a5fc623169c".to_owned());
    for content in [git(), ContentId::Sha256(Digest::of(b"a\nb\n"))] {
        let (mut one, source) = hub(b"a\nb\n", content);
        let read = |one: &OneFile, source: &SourceFile, num_samples| {
            let settings = ReadSettings { num_samples, ..SETTINGS };
            read_all(std::slice::from_ref(source), settings, &HubFiles::new(one))
        };
        assert_eq!(read(&one, &source, 9).expect("two texts").strings(), ["a", "b"]);
        one.bytes = b"a\nx\n".to_vec();
        let error = read(&one, &source, 9).expect_err("other bytes");
        assert!(error.starts_with("t.txt of dataset a/b at cccccccccccc has changed"), "{error}");
        one.bytes = b"a\n".to_vec();
        assert!(read(&one, &source, 9).expect_err("fewer bytes").contains("2 bytes instead of 4"));
        let long = [b"a\n".as_slice(), &[b'x'; 200_000]].concat();
        let (mut one, source) = hub(&long, source.content.expect("known"));
        assert_eq!(read(&one, &source, 1).expect("a prefix is not verified").strings(), ["a"]);
        one.listing.files[0].size += 1;
        assert!(read(&one, &source, 1).expect_err("another listing").contains("lists another size"));
        one.listing.files.clear();
        assert!(read(&one, &source, 1).expect_err("no such file").contains("does not exist"));
    }
}

#[test]
fn a_fault_of_the_hub_may_pass() {
    let (mut one, source) = hub(b"a\nb\n", ContentId::Sha256(Digest::of(b"a\nb\n")));
    one.breaks_at = Some(2);
    let plan = TextsPlan::new("d".to_owned(), vec![source.clone()], SETTINGS);
    let fail = |files: &dyn super::FileOpener| {
        let outcome = read_texts(&plan, None, files).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        outcome.expect_err("it breaks off")
    };
    let error = fail(&HubFiles::new(&one));
    assert!(matches!(error, DatasetError::Hub { .. }) && error.failure_class() == FailureClass::Retry);
    let nowhere = Repo { kind: RepoKind::Model, id: "a/b".to_owned() };
    let listing = Listing { repo: nowhere, ..one.listing.clone() };
    let other = OneFile { listing, bytes: Vec::new(), breaks_at: None };
    let error = fail(&HubFiles::new(&other));
    assert!(matches!(error, DatasetError::Hub { .. }) && error.failure_class() == FailureClass::Reject);
    let error = fail(&ByPlace { local: &LocalFiles::default(), hub: None });
    assert!(matches!(error, DatasetError::NoHub { .. }) && error.failure_class() == FailureClass::Reject);
}

#[test]
fn each_file_comes_from_its_place() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (here, there) = (folder.path().join("l.txt"), folder.path().join("elsewhere"));
    std::fs::write(&here, "l\n").expect("write a file");
    let name = file_name(here.display());
    let mut files = local_plan(&name, SETTINGS).expect("a plan").files;
    files[0].content = Some(ContentId::Sha256(Digest::of(b"l\n")));
    let (one, source) = hub(b"h\n", ContentId::Sha256(Digest::of(b"h\n")));
    files.push(source);
    std::fs::rename(&here, &there).expect("move the file");
    let mut local = LocalFiles::default();
    local.moved(here, there);
    let both = ByPlace { local: &local, hub: Some(&HubFiles::new(&one)) };
    let outcome = read_all(&files, SETTINGS, &both).expect("two texts");
    assert_eq!(outcome.told(), [(0, 0, 0, "l"), (1, 0, 0, "h")]);
}
