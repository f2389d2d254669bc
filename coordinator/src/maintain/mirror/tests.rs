//! From a hub in memory into a bucket, out to a directory, into another bucket, and read there.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use lsa_common::hub::{ContentId, Hub, HubError, HubFile, Listing, Repo, RepoKind};
use lsa_common::id::Digest;
use lsa_common::layout;
use lsa_common::mirror::{MirrorMode, MirroredHub};
use lsa_common::store::Store;
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::fill::{FillArgs, FillError, add_repo, fill};
use super::transfer::{TransferError, export, import, open_export};
use super::*;

/// `config.json` of these bytes has this git object id, as `git hash-object` gives it.
const HELLO: (&[u8], &str) = (b"hello\n", "ce013625030ba8dba906f756967f9e9ca394464a");

/// Repositories by id, all at one commit.
struct MemoryHub {
    repos: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    folder: TempDir,
}

impl MemoryHub {
    fn contents(&self, repo: &Repo) -> Result<&BTreeMap<String, Vec<u8>>, HubError> {
        let missing = || HubError::NoRepo { repo: repo.clone(), endpoint: "memory".to_owned() };
        self.repos.get(&repo.id).ok_or_else(missing)
    }
}

impl Hub for MemoryHub {
    fn list(&self, repo: &Repo, revision: &str) -> Result<Listing, HubError> {
        let file = |(path, bytes): (&String, &Vec<u8>)| {
            let content = match bytes == HELLO.0 {
                true => ContentId::GitSha1(HELLO.1.to_owned()),
                false => ContentId::Sha256(Digest::of(bytes)),
            };
            HubFile { path: path.clone(), size: bytes.len() as u64, content }
        };
        let files = self.contents(repo)?.iter().map(file).collect();
        let commit = if revision == "moved" { "2" } else { "1" }.repeat(40);
        Ok(Listing { repo: repo.clone(), commit, files })
    }

    fn open(&self, listing: &Listing, file: &HubFile, from: u64) -> Result<Box<dyn Read + Send>, HubError> {
        let bytes = self.contents(&listing.repo)?[&file.path][from as usize..].to_vec();
        Ok(Box::new(Cursor::new(bytes)))
    }

    fn read_range(
        &self,
        listing: &Listing,
        file: &HubFile,
        from: u64,
        size: u64,
    ) -> Result<Vec<u8>, HubError> {
        let bytes = &self.contents(&listing.repo)?[&file.path];
        Ok(bytes[from as usize..(from + size) as usize].to_vec())
    }

    fn fetch(&self, listing: &Listing, file: &HubFile) -> Result<PathBuf, HubError> {
        let path = self.folder.path().join(&file.path);
        std::fs::write(&path, &self.contents(&listing.repo)?[&file.path]).expect("written");
        Ok(path)
    }
}

#[derive(Parser)]
struct FillCli {
    #[command(flatten)]
    args: FillArgs,
}

fn fill_args(args: &[&str]) -> FillArgs {
    FillCli::try_parse_from([&["mirror"], args].concat()).expect("arguments").args
}

struct Bench {
    runtime: Runtime,
    folder: TempDir,
    hub: Arc<MemoryHub>,
    store: Store,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let index = json!({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}).to_string();
        let weights: Vec<u8> = (0..9_000_000u32).map(|i| (i >> 7) as u8 ^ (i as u8)).collect();
        let model = [
            ("README.md", b"not taken".to_vec()),
            ("config.json", HELLO.0.to_vec()),
            ("model.safetensors.index.json", index.into_bytes()),
            ("m-1.safetensors", weights),
            ("m-2.safetensors", b"two".to_vec()),
            ("pytorch_model.bin", b"another form".to_vec()),
            ("vocab.txt", b"[UNK]".to_vec()),
        ];
        let data = [("train.txt", b"a\nb\n".to_vec()), ("other.txt", b"large".to_vec())];
        let named = |files: &[(&str, Vec<u8>)]| {
            files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.clone())).collect()
        };
        let repos = BTreeMap::from([
            ("a/b".to_owned(), named(&model)),
            ("a/data".to_owned(), named(&data)),
            ("a/none".to_owned(), BTreeMap::new()),
        ]);
        let hub = Arc::new(MemoryHub { repos, folder: tempfile::tempdir().expect("a temporary folder") });
        let store = Store::open(&folder.path().join("bucket").display().to_string()).expect("a folder");
        Self { runtime: Runtime::new().expect("a runtime"), folder, hub, store }
    }

    fn mirror(&self, mode: MirrorMode, store: &Store) -> MirroredHub {
        let cache = self.folder.path().join("cache");
        let hub: Arc<dyn Hub> = self.hub.clone();
        MirroredHub::new(mode, store.clone(), self.runtime.handle().clone(), Some(hub), cache)
    }

    /// The model and the dataset into the bucket, as the command would.
    fn fill(&self, args: &[&str]) -> fill::FillSummary {
        let mirror = self.mirror(MirrorMode::Auto, &self.store);
        let dataset = |name: &str, told: lsa_common::mirror::Told<'_>| {
            let repo = Repo { kind: RepoKind::Dataset, id: name.to_owned() };
            let choose = |listing: &Listing| match listing.file("train.txt") {
                Some(file) => Ok(vec![file.clone()]),
                None => Err(FillError::Choice("no split train".into())),
            };
            add_repo(&*self.hub, &mirror, &repo, "main", &choose, told).map(|one| vec![one])
        };
        fill(&*self.hub, &mirror, &fill_args(args), &dataset, &|_, _, _| {})
    }

    fn add_texts(&self, part_key: &str) -> Digest {
        let key = Digest::of(b"texts");
        self.runtime.block_on(async {
            let part = self.store.put(part_key, "rows".into()).await.expect("a folder");
            let writer = json!({"coordinator": "c", "epoch": 0, "attempt": "0".repeat(32), "attempt_number": 1,
                "worker": "w", "numeric_profile": "", "committed_at": "", "elapsed_ms": 1});
            let record = json!({"writer": writer, "parts": [part], "n_texts": 1, "n_blank": 0, "n_bad": 0,
                "n_duplicates": 0, "columns": [], "warnings": []});
            self.store.settle_json(&layout::texts_commit(key, 0), &record).await.expect("a folder");
        });
        key
    }

    fn export(&self, directory: &Path) -> Result<Copied, TransferError> {
        self.runtime.block_on(export(&self.store, directory))
    }

    fn import(&self, directory: &Path, store: &Store) -> Result<Copied, TransferError> {
        self.runtime.block_on(async { import(&open_export(directory).await?, store).await })
    }
}

const BOTH: [&str; 4] = ["--models", "a/b", "--datasets", "a/data"];

#[test]
fn what_leaves_one_bucket_is_read_from_another() {
    let bench = Bench::new();
    let summary = bench.fill(&BOTH);
    assert!(summary.failed.is_empty(), "{:?}", summary.failed);
    assert_eq!(summary.filled.iter().map(|one| one.files_sent).collect::<Vec<_>>(), [5, 1]);
    assert!(summary.to_text().starts_with("a/b@main  111111111111  5 files, 8.6 MiB; 5 of them"));
    assert_eq!(bench.fill(&BOTH).filled[0].files_sent, 0);
    let texts = bench.add_texts(&format!("texts/{}/part_0.x.parquet", Digest::of(b"texts")));

    let carried = bench.folder.path().join("disk/mirror");
    let out = bench.export(&carried).expect("exported");
    assert_eq!((out.objects, out.skipped_objects, out.records), (7, 0, 6));
    let again = bench.export(&carried).expect("exported");
    let expected = Copied { skipped_objects: 7, skipped_bytes: out.bytes, ..Copied::default() };
    assert_eq!(again, expected);

    let inside = Store::open(&bench.folder.path().join("inside").display().to_string()).expect("a folder");
    assert_eq!(bench.import(&carried, &inside).expect("imported"), out);
    assert_eq!(bench.import(&carried, &inside).expect("imported"), expected);
    let only = bench.mirror(MirrorMode::Only, &inside);
    for (kind, id) in [(RepoKind::Model, "a/b"), (RepoKind::Dataset, "a/data")] {
        let repo = Repo { kind, id: id.to_owned() };
        let listing = only.list(&repo, "main").expect("mirrored");
        assert_eq!(listing, bench.hub.list(&repo, "main").expect("the hub is there"));
        for file in &listing.files {
            let expected = &bench.hub.repos[id][&file.path];
            let is_taken = !["README.md", "pytorch_model.bin", "other.txt"].contains(&file.path.as_str());
            match only.fetch(&listing, file) {
                Ok(path) => assert!(is_taken && std::fs::read(path).expect("a file") == *expected),
                Err(error) => assert!(!is_taken, "{}: {error}", file.path),
            }
        }
    }
    let record = bench.runtime.block_on(inside.get(&layout::texts_commit(texts, 0))).expect("imported");
    assert!(record.starts_with(b"{"));

    let mirrored = bench.runtime.block_on(list::list(&inside)).expect("listed");
    assert_eq!(mirrored.len(), 4);
    let text = list::to_text(&mirrored);
    assert!(text.starts_with("model    a/b@main  111111111111  5 of 7 files, 8.6 MiB  20"), "{text}");
    assert!(text.contains("dataset  a/data@main  111111111111  1 of 2 files, 4 B"), "{text}");
    assert_eq!(text.lines().count(), 2);
    assert!(list::to_text(&[]).contains("nothing"));
}

#[test]
fn a_transfer_goes_on_where_it_stopped_and_carries_no_damage() {
    let bench = Bench::new();
    bench.fill(&BOTH);
    let carried = bench.folder.path().join("carried");
    let out = bench.export(&carried).expect("exported");
    let key = layout::input(Digest::of(b"two"));
    std::fs::remove_file(carried.join(&key)).expect("removed");
    let again = bench.export(&carried).expect("exported");
    assert_eq!((again.objects, again.bytes, again.skipped_objects), (1, 3, out.objects - 1));

    let inside = Store::open(&bench.folder.path().join("inside").display().to_string()).expect("a folder");
    let check = |bytes: &[u8], words: &str| {
        std::fs::write(carried.join(&key), bytes).expect("written");
        let error = bench.import(&carried, &inside).expect_err("damaged").to_string();
        assert!(error.contains(&key) && error.contains(words), "{error}");
        let listings = bench.runtime.block_on(inside.list(layout::MIRROR)).expect("a list");
        assert!(listings.is_empty(), "no record before all data");
        assert_eq!(bench.runtime.block_on(inside.size(&key)).expect("a folder"), None);
    };
    check(b"TWO", "its digest is");
    check(b"twice", "5 bytes instead of 3");
    std::fs::write(carried.join(&key), b"two").expect("written");
    let rest = bench.import(&carried, &inside).expect("imported");
    assert_eq!(rest.objects + rest.skipped_objects, out.objects);
}

#[test]
fn an_import_moves_branches() {
    let bench = Bench::new();
    bench.fill(&BOTH);
    let carried = bench.folder.path().join("carried");
    bench.export(&carried).expect("exported");
    let inside = Store::open(&bench.folder.path().join("inside").display().to_string()).expect("a folder");
    bench.import(&carried, &inside).expect("imported");
    let repo = Repo { kind: RepoKind::Model, id: "a/b".to_owned() };
    let moved = bench.hub.list(&repo, "moved").expect("the hub is there");
    bench.mirror(MirrorMode::Auto, &bench.store).add(&moved, "main", &[], &|_, _, _| {}).expect("added");
    bench.export(&carried).expect("exported");
    let copied = bench.import(&carried, &inside).expect("imported");
    assert_eq!((copied.objects, copied.records), (0, 2));
    let only = bench.mirror(MirrorMode::Only, &inside);
    assert_eq!(only.list(&repo, "main").expect("mirrored"), moved);
    assert_eq!(only.list(&repo, &"1".repeat(40)).expect("mirrored").commit, "1".repeat(40));
}

#[test]
fn junk_is_not_imported() {
    let bench = Bench::new();
    let target = bench.folder.path().join("inside");
    let check = |name: &str, fill: &dyn Fn(&Path), words: &str| {
        let directory = bench.folder.path().join(name);
        fill(&directory);
        let transfer = TransferArgs {
            directory,
            bucket: BucketArgs { store: Some(target.display().to_string()), json: false },
        };
        let error = bench.runtime.block_on(super::import(&transfer)).expect_err(name);
        assert!(error.is_usage() && error.to_string().contains(words), "{name}: {error}");
    };
    let folder = |path: &Path| std::fs::create_dir(path).expect("created");
    let with_format = |path: &Path, format: &str| {
        folder(path);
        std::fs::write(path.join("format.json"), format).expect("written");
    };
    check("missing", &|_| {}, "it is no directory");
    check("file", &|path| std::fs::write(path, "x").expect("written"), "it is no directory");
    check("empty", &folder, "it has no format.json");
    check("junk", &|path| with_format(path, "junk"), "\"format.json\" is damaged");
    check("newer", &|path| with_format(path, "{\"format\": 999}"), "format 999");
    assert!(!target.exists(), "refused before anything was made");
    check("bare", &|path| with_format(path, "{\"format\": 1}"), "neither mirrored files nor prepared texts");
    assert_eq!(std::fs::read_dir(&target).expect("a folder").count(), 0);
    assert_eq!(std::fs::read_dir(bench.folder.path().join("bare")).expect("a folder").count(), 1);
}

#[test]
fn an_export_goes_to_a_directory_of_its_own() {
    let bench = Bench::new();
    let foreign = bench.folder.path().join("foreign");
    assert!(matches!(bench.export(&foreign), Err(TransferError::Nothing(_))));
    assert!(!foreign.exists());
    bench.fill(&BOTH);
    std::fs::create_dir(&foreign).expect("created");
    std::fs::write(foreign.join("thesis.tex"), "").expect("written");
    assert!(matches!(bench.export(&foreign), Err(TransferError::NotEmpty(_))));
    assert!(matches!(bench.export(&foreign.join("thesis.tex")), Err(TransferError::Directory { .. })));
    assert_eq!(std::fs::read_dir(&foreign).expect("a folder").count(), 1);
}

#[test]
fn records_of_texts_write_nothing_elsewhere() {
    let bench = Bench::new();
    bench.add_texts("epochs/7.json");
    let error = bench.export(&bench.folder.path().join("carried")).expect_err("a hostile record").to_string();
    assert!(error.contains("\"epochs/7.json\", which is not beside it"), "{error}");
    assert!(!bench.folder.path().join("carried/epochs").exists());
}

#[test]
fn one_mirror_failure_does_not_keep_the_others() {
    let bench = Bench::new();
    let here = bench.folder.path().display().to_string();
    let summary = bench.fill(&["--models", "a/gone,a/none", &here, "a/b@v1", "--datasets", "a/none"]);
    assert_eq!(summary.filled.len(), 1);
    assert_eq!((summary.filled[0].id.as_str(), summary.filled[0].revision.as_str()), ("a/b", "v1"));
    let failed: Vec<&str> = summary.failed.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(failed, ["a/gone", "a/none", here.as_str(), "a/none"]);
    let reasons: Vec<&str> = summary.failed.iter().map(|one| one.reason.as_str()).collect();
    assert!(reasons[0].contains("there is no model a/gone"), "{reasons:?}");
    assert!(reasons[1].contains("has no config.json"), "{reasons:?}");
    assert!(reasons[2].contains("is a folder"), "{reasons:?}");
    assert_eq!(reasons[3], "no split train");
}
