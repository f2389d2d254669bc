//! The files of a repository as far as they are in the cache: what can be listed without a request.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use super::cache::DRAFT_PREFIX;
use super::content::ContentHash;
use super::names::is_hex;
use super::{ContentId, HubCache, HubError, HubFile, Listing, Repo};
use crate::id::Digest;

/// What was listed at the commit that `revision` leads to; else the snapshot, of which the cache may lack files.
///
/// The name of a blob is its digest. A file that is no link is read to know its digest.
pub(super) fn list(cache: &HubCache, repo: &Repo, revision: &str) -> Result<Listing, HubError> {
    let not_cached = || HubError::NotCached {
        repo: repo.clone(),
        revision: revision.to_owned(),
        cache: cache.root().to_owned(),
    };
    if let Some(listing) = cache.read_listing(repo, revision) {
        return Ok(listing);
    }
    let (commit, folder) = cache.snapshot(repo, revision).ok_or_else(not_cached)?;
    let mut files = Vec::new();
    collect(&folder, "", &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Listing { repo: repo.clone(), commit, files })
}

fn collect(folder: &Path, prefix: &str, files: &mut Vec<HubFile>) -> Result<(), HubError> {
    let failed = |source| HubError::disk("list", folder, source);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        // Names that are no text, and drafts of a process that was killed, are no files of a hub.
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = entry.path();
        if kind.is_dir() {
            collect(&path, &format!("{prefix}{name}/"), files)?;
            continue;
        }
        // A link whose blob was deleted leads nowhere.
        let Ok(metadata) = path.metadata() else { continue };
        let is_draft = name.starts_with(DRAFT_PREFIX);
        if is_draft || !metadata.is_file() {
            continue;
        }
        let size = metadata.len();
        let content = match link_content(&path) {
            Some(content) => content,
            None => read_content(&path, size).map_err(|source| HubError::disk("read", &path, source))?,
        };
        files.push(HubFile { path: format!("{prefix}{name}"), size, content });
    }
    Ok(())
}

fn link_content(path: &Path) -> Option<ContentId> {
    let target = fs::read_link(path).ok()?;
    let name = target.file_name()?.to_str()?;
    match name.parse::<Digest>() {
        Ok(digest) => Some(ContentId::Sha256(digest)),
        Err(_) => is_hex(name, 40).then(|| ContentId::GitSha1(name.to_owned())),
    }
}

fn read_content(path: &Path, size: u64) -> io::Result<ContentId> {
    let mut hash = ContentHash::like(&ContentId::Sha256(Digest([0; 32])), size);
    let mut file = File::open(path)?;
    let mut part = vec![0; 1 << 20];
    loop {
        match file.read(&mut part)? {
            0 => return Ok(hash.finish()),
            n => hash.update(&part[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::RepoKind;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn links_and_files_and_nothing_else_are_listed() {
        let root = tempfile::tempdir().expect("temporary folder");
        let repository = root.path().join("datasets--a--b");
        let snapshot = repository.join("snapshots").join(COMMIT);
        fs::create_dir_all(snapshot.join("data")).expect("created");
        fs::create_dir_all(repository.join("blobs")).expect("created");
        fs::create_dir_all(repository.join("refs")).expect("created");
        fs::write(repository.join("refs/main"), COMMIT).expect("written");
        let sha1 = "0a".repeat(20);
        fs::write(repository.join("blobs").join(&sha1), "seven b").expect("written");
        let link = |name: &str, blob: &str| {
            std::os::unix::fs::symlink(format!("../../../blobs/{blob}"), snapshot.join("data").join(name))
        };
        link("a.txt", &sha1).expect("linked");
        link("gone.txt", &"0b".repeat(20)).expect("linked");
        fs::write(snapshot.join("z.txt"), "abc").expect("written");
        fs::write(snapshot.join(".lsa-draft-1-2"), "").expect("written");
        let repo = Repo { kind: RepoKind::Dataset, id: "a/b".to_owned() };
        let listing = list(&HubCache::at(root.path()), &repo, "main").expect("listed");
        let found: Vec<_> =
            listing.files.iter().map(|file| (file.path.as_str(), file.size, file.content.clone())).collect();
        let plain = ("data/a.txt", 7, ContentId::GitSha1(sha1));
        assert_eq!(found, [plain, ("z.txt", 3, ContentId::Sha256(Digest::of(b"abc")))]);
        let error = list(&HubCache::at(root.path()), &repo, "other").expect_err("not there").to_string();
        assert!(error.contains("dataset a/b") && error.contains("HF_HUB_OFFLINE"), "{error}");
    }
}
