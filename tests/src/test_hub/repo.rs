//! The repositories of a test's hub: files at revisions, each with the digests that a hub would give.

use std::collections::BTreeMap;

use bytes::Bytes;
use lsa_common::hub::RepoKind;
use lsa_common::id::Digest;

/// A repository: files are added to a branch, first `main`, and keep their content at every tag set before.
#[derive(Clone, Debug)]
pub struct TestRepo {
    pub(super) kind: RepoKind,
    pub(super) id: String,
    /// The id that it had before.
    pub(super) old_id: Option<String>,
    pub(super) access: Access,
    branch: String,
    branches: BTreeMap<String, Files>,
    /// Commits that were named rather than computed, by branch.
    commits: BTreeMap<String, String>,
}

pub(super) type Files = BTreeMap<String, TestFile>;

/// Who may read.
#[derive(Clone, Debug)]
pub(super) enum Access {
    All,
    /// The listing is open; files want the token.
    Gated(String),
    /// Nobody else sees that there is such a repository.
    Private(String),
}

#[derive(Clone, Debug)]
pub(super) struct TestFile {
    pub(super) bytes: Bytes,
    pub(super) kind: FileKind,
    /// Git's digest of small files, SHA-256 of large ones.
    pub(super) etag: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum FileKind {
    Plain,
    Large,
    /// Large, and said to be had by the Xet protocol, which this hub does not speak.
    Xet,
}

impl TestRepo {
    /// A model.
    pub fn model(id: &str) -> Self {
        Self::new(RepoKind::Model, id)
    }

    /// A dataset.
    pub fn dataset(id: &str) -> Self {
        Self::new(RepoKind::Dataset, id)
    }

    fn new(kind: RepoKind, id: &str) -> Self {
        let branch = "main".to_owned();
        let branches = BTreeMap::from([(branch.clone(), Files::new())]);
        let (id, commits) = (id.to_owned(), BTreeMap::new());
        Self { kind, id, old_id: None, access: Access::All, branch, branches, commits }
    }

    /// A small file: its digest is git's, and the hub itself sends it.
    pub fn file(self, path: &str, bytes: impl Into<Bytes>) -> Self {
        self.with(path, bytes.into(), FileKind::Plain)
    }

    /// A large file: its digest is SHA-256, and the CDN sends it.
    pub fn large_file(self, path: &str, bytes: impl Into<Bytes>) -> Self {
        self.with(path, bytes.into(), FileKind::Large)
    }

    /// A large file that the hub would rather give by the Xet protocol, but cannot.
    pub fn xet_file(self, path: &str, bytes: impl Into<Bytes>) -> Self {
        self.with(path, bytes.into(), FileKind::Xet)
    }

    fn with(mut self, path: &str, bytes: Bytes, kind: FileKind) -> Self {
        let files = self.branches.entry(self.branch.clone()).or_default();
        files.insert(path.to_owned(), TestFile::new(bytes, kind));
        self
    }

    /// Further files go to that branch, which begins empty: `refs/convert/parquet`, for instance.
    pub fn branch(mut self, name: &str) -> Self {
        self.branch = name.to_owned();
        self.branches.entry(self.branch.clone()).or_default();
        self
    }

    /// Names the present state of the branch.
    pub fn tag(mut self, name: &str) -> Self {
        let files = self.branches.get(&self.branch).cloned().unwrap_or_default();
        self.branches.insert(name.to_owned(), files);
        self
    }

    /// Gives the branch this commit, which somebody has pinned.
    pub fn commit_is(mut self, commit: &str) -> Self {
        self.commits.insert(self.branch.clone(), commit.to_owned());
        self
    }

    /// Requests for the old id are redirected.
    pub fn renamed_from(self, old_id: &str) -> Self {
        Self { old_id: Some(old_id.to_owned()), ..self }
    }

    /// Whose files can be read with that token alone.
    pub fn gated(self, token: &str) -> Self {
        Self { access: Access::Gated(token.to_owned()), ..self }
    }

    /// Which does not seem to exist without that token.
    pub fn private(self, token: &str) -> Self {
        Self { access: Access::Private(token.to_owned()), ..self }
    }

    /// The commit and the files of a branch, a tag or a commit.
    pub(super) fn at(&self, revision: &str) -> Option<(String, &Files)> {
        let commit = |name, files| self.commits.get(name).cloned().unwrap_or_else(|| self.commit(files));
        let mut all = self.branches.iter().map(|(name, files)| (name, commit(name, files), files));
        let (_, commit, files) = all.find(|(name, commit, _)| *name == revision || commit == revision)?;
        Some((commit, files))
    }

    /// The same content has the same commit, in every run.
    fn commit(&self, files: &Files) -> String {
        let mut text = format!("{:?} {}", self.kind, self.id);
        for (path, file) in files {
            text.push_str(&format!("\n{path} {}", file.etag));
        }
        Digest::of(text.as_bytes()).to_string()[..40].to_owned()
    }
}

impl TestFile {
    fn new(bytes: Bytes, kind: FileKind) -> Self {
        let etag = match kind {
            FileKind::Plain => git_sha1(&bytes),
            FileKind::Large | FileKind::Xet => Digest::of(&bytes).to_string(),
        };
        Self { bytes, kind, etag }
    }

    /// Of what lies in git: for a large file that is a text of three lines.
    pub(super) fn git_oid(&self) -> String {
        match self.kind {
            FileKind::Plain => self.etag.clone(),
            FileKind::Large | FileKind::Xet => git_sha1(self.pointer().as_bytes()),
        }
    }

    pub(super) fn pointer(&self) -> String {
        let (oid, size) = (&self.etag, self.bytes.len());
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n")
    }
}

fn git_sha1(bytes: &[u8]) -> String {
    use sha1::Digest as _;
    let mut hash = sha1::Sha1::new_with_prefix(format!("blob {}\0", bytes.len()));
    hash.update(bytes);
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All repositories of a hub.
pub(super) struct Shelf(Vec<TestRepo>);

impl FromIterator<TestRepo> for Shelf {
    fn from_iter<T: IntoIterator<Item = TestRepo>>(repos: T) -> Self {
        Self(repos.into_iter().collect())
    }
}

impl Shelf {
    pub(super) fn repo(&self, kind: RepoKind, id: &str) -> Option<&TestRepo> {
        self.0.iter().find(|repo| repo.kind == kind && repo.id == id)
    }

    pub(super) fn renamed(&self, kind: RepoKind, id: &str) -> Option<&TestRepo> {
        self.0.iter().find(|repo| repo.kind == kind && repo.old_id.as_deref() == Some(id))
    }

    pub(super) fn commit(&self, id: &str, revision: &str) -> Option<String> {
        let repo = self.0.iter().find(|repo| repo.id == id)?;
        Some(repo.at(revision)?.0)
    }

    /// What the CDN has under that digest.
    pub(super) fn large_file(&self, etag: &str) -> Option<&TestFile> {
        let files = self.0.iter().flat_map(|repo| repo.branches.values()).flat_map(BTreeMap::values);
        files.filter(|file| file.kind != FileKind::Plain).find(|file| file.etag == etag)
    }
}
