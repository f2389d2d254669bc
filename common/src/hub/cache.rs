//! The cache that the Python libraries keep on this machine: which file lies where, and how it gets its name there.
//!
//! ```text
//! models--owner--name/ or datasets--owner--name/
//!   refs/<branch or tag>        the commit, 40 hex digits
//!   blobs/<content id>          the bytes: SHA-256 of large files, git's SHA-1 of small ones
//!   snapshots/<commit>/<path>   a relative link to a blob
//!   .lsa/<commit>.json          what was listed at that commit: a snapshot has only what was fetched
//! .locks/models--owner--name/<content id>.lock
//! ```
//! A blob has its name only once its bytes were verified, so a blob of the right size is believed.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::names::{is_commit, is_inside};
use super::{HubError, HubFile, Listing, Repo, RepoKind};

/// A ref file holds one commit hash; anything longer is no ref.
const REF_BYTES_MAX: u64 = 1024;
/// Where listings are kept, which the Python libraries know nothing of.
const LISTINGS: &str = ".lsa";
/// More than a listing of a million files has.
const LISTING_BYTES_MAX: u64 = 512 << 20;
/// How the names of drafts begin; a killed process leaves them.
pub(super) const DRAFT_PREFIX: &str = ".lsa-draft-";

/// Where cached repositories lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubCache {
    root: PathBuf,
}

impl HubCache {
    /// The cache at that place.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The commit that a branch, tag or commit means here, and its folder; none where there is no such snapshot.
    pub(crate) fn snapshot(&self, repo: &Repo, revision: &str) -> Option<(String, PathBuf)> {
        let repository = self.repository(repo);
        let commit = if is_commit(revision) { revision.to_owned() } else { read_ref(&repository, revision)? };
        let folder = repository.join("snapshots").join(&commit);
        folder.is_dir().then_some((commit, folder))
    }

    fn repository(&self, repo: &Repo) -> PathBuf {
        self.root.join(folder_name(repo))
    }

    /// Where the bytes of a file lie, or will.
    pub(super) fn blob(&self, repo: &Repo, file: &HubFile) -> PathBuf {
        self.repository(repo).join("blobs").join(file.content.to_string())
    }

    /// The lock that Python's library takes too while it downloads that blob.
    pub(super) fn lock_path(&self, repo: &Repo, file: &HubFile) -> PathBuf {
        let name = format!("{}.lock", file.content);
        self.root.join(".locks").join(folder_name(repo)).join(name)
    }

    fn pointer(&self, listing: &Listing, file: &HubFile) -> PathBuf {
        self.repository(&listing.repo).join("snapshots").join(&listing.commit).join(&file.path)
    }

    /// The file under its name in the snapshot, if it is there whole.
    pub(super) fn find_file(&self, listing: &Listing, file: &HubFile) -> Option<PathBuf> {
        let pointer = self.pointer(listing, file);
        // Where there are no links, the Python libraries put the file itself here.
        let is_ours = match fs::read_link(&pointer) {
            Ok(target) => target.file_name() == Some(OsStr::new(&file.content.to_string())),
            Err(_) => true,
        };
        (is_ours && has_size(&pointer, file.size)).then_some(pointer)
    }

    /// The blob of the file, if it is there whole; a snapshot of another commit may have brought it.
    pub(super) fn find_blob(&self, listing: &Listing, file: &HubFile) -> Option<PathBuf> {
        let blob = self.blob(&listing.repo, file);
        has_size(&blob, file.size).then_some(blob)
    }

    /// Gives the blob of `file` its name in the snapshot.
    pub(super) fn link(&self, listing: &Listing, file: &HubFile) -> Result<PathBuf, HubError> {
        let pointer = self.pointer(listing, file);
        let above = "../".repeat(2 + file.path.matches('/').count());
        let target = PathBuf::from(format!("{above}blobs/{}", file.content));
        replace(&pointer, |path| std::os::unix::fs::symlink(&target, path))
            .map_err(|source| HubError::disk("link", &pointer, source))?;
        Ok(pointer)
    }

    /// All files of a repository at the commit of a branch, tag or commit, as they were listed once.
    pub(super) fn read_listing(&self, repo: &Repo, revision: &str) -> Option<Listing> {
        let repository = self.repository(repo);
        let commit = if is_commit(revision) { revision.to_owned() } else { read_ref(&repository, revision)? };
        let path = repository.join(LISTINGS).join(format!("{commit}.json"));
        let size = path.metadata().ok().filter(fs::Metadata::is_file)?.len();
        let json = (size <= LISTING_BYTES_MAX).then(|| fs::read(&path).ok())??;
        // A listing that was damaged is none.
        serde_json::from_slice(&json).ok().filter(|listing: &Listing| listing.commit == commit)
    }

    /// Notes what a commit holds.
    pub(super) fn write_listing(&self, listing: &Listing) -> Result<(), HubError> {
        let path = self.repository(&listing.repo).join(LISTINGS).join(format!("{}.json", listing.commit));
        if path.is_file() {
            return Ok(());
        }
        let json = serde_json::to_vec(listing).expect("a listing is plain data");
        replace(&path, |path| fs::write(path, &json)).map_err(|source| HubError::disk("write", &path, source))
    }

    /// Notes which commit a branch or tag is at; commits need no note.
    pub(super) fn write_ref(&self, repo: &Repo, revision: &str, commit: &str) -> Result<(), HubError> {
        if is_commit(revision) {
            return Ok(());
        }
        let repository = self.repository(repo);
        if read_ref(&repository, revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = repository.join("refs").join(revision);
        replace(&path, |path| fs::write(path, commit))
            .map_err(|source| HubError::disk("write", &path, source))
    }
}

fn folder_name(repo: &Repo) -> String {
    let kind = match repo.kind {
        RepoKind::Model => "models",
        RepoKind::Dataset => "datasets",
    };
    format!("{kind}--{}", repo.id.replace('/', "--"))
}

fn has_size(path: &Path, size: u64) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.len() == size)
}

/// Makes something beside `path` and moves it there, so that no reader meets it half done.
fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = path.parent().unwrap_or(path);
    let draft = folder.join(format!("{DRAFT_PREFIX}{}-{number}", std::process::id()));
    fs::create_dir_all(folder)?;
    let made = make(&draft).and_then(|()| fs::rename(&draft, path));
    if made.is_err() {
        // Whatever is left of it is in nobody's way.
        let _ = fs::remove_file(&draft);
    }
    made
}

fn read_ref(repository: &Path, revision: &str) -> Option<String> {
    if !is_inside(revision) {
        return None;
    }
    let path = repository.join("refs").join(revision);
    let size = path.metadata().ok().filter(fs::Metadata::is_file)?.len();
    let commit = (size <= REF_BYTES_MAX).then(|| fs::read_to_string(&path).ok())??;
    let commit = commit.trim();
    is_commit(commit).then(|| commit.to_owned())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::hub::ContentId;
    use crate::hub::settings::cache_folder;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn model() -> Repo {
        Repo { kind: RepoKind::Model, id: "owner/name".to_owned() }
    }

    #[test]
    fn branches_tags_and_commits_lead_to_a_snapshot() {
        let root = tempfile::tempdir().expect("temporary folder");
        let repository = root.path().join("models--owner--name");
        fs::create_dir_all(repository.join("snapshots").join(COMMIT)).expect("created");
        fs::create_dir_all(repository.join("refs/refs/pr")).expect("created");
        fs::write(repository.join("refs/main"), COMMIT).expect("written");
        fs::write(repository.join("refs/refs/pr/1"), format!("{COMMIT}\n")).expect("written");
        fs::write(repository.join("refs/bad"), "../../..").expect("written");
        let cache = HubCache::at(root.path());
        for revision in ["main", "refs/pr/1", COMMIT] {
            let (commit, folder) = cache.snapshot(&model(), revision).expect(revision);
            assert_eq!(commit, COMMIT);
            assert!(folder.ends_with(COMMIT));
        }
        for revision in ["bad", "other", "", "../refs/main", "/etc/passwd", &COMMIT.replace('0', "1")] {
            assert_eq!(cache.snapshot(&model(), revision), None, "{revision}");
        }
    }

    #[test]
    fn refs_are_written_as_they_are_read() {
        let root = tempfile::tempdir().expect("temporary folder");
        let cache = HubCache::at(root.path());
        for revision in ["main", "refs/convert/parquet"] {
            let later = COMMIT.replace('0', "f");
            for commit in [COMMIT, COMMIT, &later] {
                cache.write_ref(&model(), revision, commit).expect(revision);
                let read = read_ref(&root.path().join("models--owner--name"), revision);
                assert_eq!(read.as_deref(), Some(commit));
            }
        }
        cache.write_ref(&model(), COMMIT, COMMIT).expect("nothing to write");
        assert!(!root.path().join("models--owner--name/refs").join(COMMIT).exists());
    }

    #[test]
    fn a_file_is_found_by_its_path_once_its_blob_is_whole() {
        let root = tempfile::tempdir().expect("temporary folder");
        let cache = HubCache::at(root.path());
        let content = ContentId::GitSha1("ce013625030ba8dba906f756967f9e9ca394464a".to_owned());
        let file = HubFile { path: "a/b/c.txt".to_owned(), size: 6, content };
        let listing = Listing { repo: model(), commit: COMMIT.to_owned(), files: vec![file.clone()] };
        let blob = cache.blob(&listing.repo, &file);
        fs::create_dir_all(blob.parent().expect("a folder")).expect("created");
        for (bytes, is_whole) in [("hell", false), ("hello\n", true)] {
            fs::write(&blob, bytes).expect("written");
            assert_eq!(cache.find_blob(&listing, &file).is_some(), is_whole);
            let pointer = cache.link(&listing, &file).expect("linked");
            assert_eq!(fs::read_to_string(&pointer).expect("readable"), bytes);
            assert!(fs::read_link(&pointer).expect("a link").is_relative());
            assert_eq!(cache.find_file(&listing, &file).is_some(), is_whole);
        }
        let other = HubFile { content: ContentId::GitSha1("0".repeat(40)), ..file };
        assert_eq!(cache.find_file(&listing, &other), None, "the link leads to other bytes");
    }

    #[test]
    fn the_first_variable_that_is_set_wins() {
        let check = |set: &[(&str, &str)], expected: &str| {
            let found = cache_folder(&|name: &str| {
                set.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
            });
            assert_eq!(found, Path::new(expected), "{set:?}");
        };
        check(&[("HF_HUB_CACHE", "/a"), ("HF_HOME", "/b")], "/a");
        check(&[("HUGGINGFACE_HUB_CACHE", "/c"), ("HF_HOME", "/b")], "/c");
        check(&[("HF_HUB_CACHE", ""), ("HF_HOME", "/b")], "/b/hub");
        check(&[("XDG_CACHE_HOME", "/d")], "/d/huggingface/hub");
    }
}
