//! Models pinned from a hub: with all of their weights here, and with the headers alone.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use lsa_common::hub::{ContentId, Hub, HubError, HubFile, Listing, Repo};
use lsa_common::id::Digest;
use lsa_common::model_source::{Fetch, ModelFolder, ModelSourceError, pin_from_hub};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub whose only repository is a folder, and which counts the bytes of weights that it gives away.
struct FolderHub {
    folder: PathBuf,
    weights_read: AtomicU64,
}

impl FolderHub {
    fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), weights_read: AtomicU64::new(0) }
    }

    fn count(&self, file: &HubFile, size: u64) {
        if [".safetensors", ".bin", ".pt"].iter().any(|end| file.path.ends_with(end)) {
            self.weights_read.fetch_add(size, Ordering::Relaxed);
        }
    }
}

impl Hub for FolderHub {
    fn list(&self, repo: &Repo, revision: &str) -> Result<Listing, HubError> {
        if repo.id != "owner/tiny" || !["main", COMMIT].contains(&revision) {
            return Err(HubError::NoRepo { repo: repo.clone(), endpoint: "here".into() });
        }
        let entries = fs::read_dir(&self.folder).expect("a folder").map(|entry| entry.expect("an entry"));
        let file = |entry: fs::DirEntry| {
            let content = fs::read(entry.path()).expect("a file");
            let path = entry.file_name().into_string().expect("UTF-8");
            HubFile { path, size: content.len() as u64, content: ContentId::Sha256(Digest::of(&content)) }
        };
        let mut files: Vec<HubFile> = entries.filter(|entry| entry.path().is_file()).map(file).collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Listing { repo: repo.clone(), commit: COMMIT.into(), files })
    }

    fn open(&self, _: &Listing, file: &HubFile, from: u64) -> Result<Box<dyn Read + Send>, HubError> {
        self.count(file, file.size - from);
        let content = fs::read(self.folder.join(&file.path)).expect("a file");
        Ok(Box::new(std::io::Cursor::new(content[from as usize..].to_vec())))
    }

    fn read_range(&self, _: &Listing, file: &HubFile, from: u64, size: u64) -> Result<Vec<u8>, HubError> {
        self.count(file, size);
        let content = fs::read(self.folder.join(&file.path)).expect("a file");
        Ok(content[from as usize..][..size as usize].to_vec())
    }

    fn fetch(&self, _: &Listing, file: &HubFile) -> Result<PathBuf, HubError> {
        self.count(file, file.size);
        Ok(self.folder.join(&file.path))
    }
}

fn fixtures(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models").join(name)
}

#[test]
fn headers_alone_pin_the_same_model() {
    let names =
        ["open/bert", "variants/bert-sharded-safetensors", "variants/bert-bin-zip", "exported/convbert"];
    for name in names.into_iter().filter(|name| fixtures(name).is_dir()) {
        let local = ModelFolder { id: "owner/tiny".into(), revision: None, folder: fixtures(name) };
        let local = local.pin().expect(name);
        let whole = FolderHub::new(&fixtures(name));
        let pinned = pin_from_hub("owner/tiny", None, &whole, Fetch::Weights).expect(name);
        assert_eq!((&pinned.files, &pinned.facts), (&local.files, &local.facts), "{name}");
        assert_eq!(pinned.revision.as_deref(), Some(COMMIT));
        assert_eq!(pinned.folder, fixtures(name));

        let hub = FolderHub::new(&fixtures(name));
        let headers = pin_from_hub("owner/tiny", Some(COMMIT), &hub, Fetch::Headers).expect(name);
        assert_eq!(headers, pinned, "{name}");
        let (read, all) = (hub.weights_read.into_inner(), whole.weights_read.into_inner());
        if local.files.iter().any(|file| file.name.ends_with(".safetensors")) {
            assert!(read < all / 2, "{name}: {read} of {all} bytes of weights");
        }
    }
}

#[test]
fn what_a_repository_lacks_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let refuse = |id: &str, revision: Option<&str>| {
        pin_from_hub(id, revision, &FolderHub::new(folder.path()), Fetch::Headers).expect_err("refused")
    };
    assert!(matches!(refuse("owner/other", None), ModelSourceError::Hub { .. }));
    let message = lsa_common::failure::chain(&refuse("owner/tiny", None));
    assert!(message.contains("model owner/tiny has no config.json at commit"), "{message}");
    fs::copy(fixtures("open/bert/config.json"), folder.path().join("config.json")).expect("copied");
    fs::copy(fixtures("open/bert/tokenizer.json"), folder.path().join("tokenizer.json")).expect("copied");
    let error = refuse("owner/tiny", Some("main"));
    let message = lsa_common::failure::chain(&error);
    assert!(message.contains("has no weights that can be read"), "{message}");
    // A file that is no such thing as its name says.
    fs::write(folder.path().join("model.safetensors"), "version https://git-lfs").expect("written");
    let error = refuse("owner/tiny", None);
    assert!(matches!(error, ModelSourceError::Checkpoint { .. }), "{error}");
}
