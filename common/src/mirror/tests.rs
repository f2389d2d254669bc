//! The mirror against a hub in memory and a bucket in a folder.

mod memory_hub;

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::failure::chain;
use crate::id::Digest;
use memory_hub::{MemoryHub, commit, hub_file, repo};

/// A file that takes several pieces to read.
fn weights() -> Vec<u8> {
    (0..3_000_001u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

const CONFIG: &[u8] = b"{\"model_type\": \"bert\"}";

struct Bench {
    runtime: Runtime,
    folder: TempDir,
    hub: Arc<MemoryHub>,
    store: Store,
    listing: Listing,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let hub = MemoryHub::new();
        let files: [(&str, &[u8]); 4] =
            [("config.json", CONFIG), ("empty.json", b""), ("empty.txt", b""), ("model.bin", &weights())];
        let listing = hub.set("main", &commit('1'), &files);
        let store = Store::open(&folder.path().join("bucket").display().to_string()).expect("a folder");
        Self { runtime: Runtime::new().expect("a runtime"), folder, hub, store, listing }
    }

    fn mirror(&self, mode: MirrorMode) -> MirroredHub {
        let hub: Arc<dyn Hub> = self.hub.clone();
        let cache = self.folder.path().join("cache");
        MirroredHub::new(mode, self.store.clone(), self.runtime.handle().clone(), Some(hub), cache)
    }

    fn add(&self, files: &[HubFile]) -> Result<Added, MirrorError> {
        self.mirror(MirrorMode::Auto).add(&self.listing, "main", files, &|_, _, _| {})
    }

    fn add_all(&self) -> Added {
        self.add(&self.listing.files).expect("the hub is there")
    }

    fn file(&self, path: &str) -> &HubFile {
        self.listing.file(path).expect("listed")
    }

    /// Overwrites an object in the bucket.
    fn damage(&self, file: &HubFile, bytes: &[u8]) {
        let ContentId::Sha256(sha256) = file.content else { panic!("known by git id alone") };
        std::fs::write(self.folder.path().join("bucket").join(layout::input(sha256)), bytes)
            .expect("written");
    }
}

fn read_all(hub: &dyn Hub, listing: &Listing, path: &str, from: u64) -> Result<Vec<u8>, String> {
    let mut reader =
        hub.open(listing, listing.file(path).expect("listed"), from).map_err(|error| chain(&error))?;
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(|error| chain(&error))?;
    Ok(bytes)
}

#[test]
fn modes_have_names() {
    for mode in MirrorMode::ALL {
        assert_eq!(mode.to_string().parse(), Ok(mode));
        assert_eq!(serde_json::to_string(&mode).ok(), Some(format!("\"{mode}\"")));
    }
    let error = "on".parse::<MirrorMode>().expect_err("no mode").to_string();
    assert!(error.contains("auto, off or only"), "{error}");
}

#[test]
fn what_was_added_is_read_without_the_hub() {
    let bench = Bench::new();
    let added = bench.add_all();
    let bytes = (CONFIG.len() + weights().len()) as u64;
    let expected = Added { n_files: 4, bytes, n_sent: 3, sent_bytes: bytes, is_new: true };
    assert_eq!(added, expected, "the two empty files are one content, under two kinds of id");
    assert_eq!(bench.add_all(), Added { n_sent: 0, sent_bytes: 0, is_new: false, ..expected });
    bench.hub.gone.store(true, Ordering::SeqCst);
    for mode in MirrorMode::ALL {
        let mirror = bench.mirror(mode);
        for (path, bytes) in [("config.json", CONFIG), ("empty.txt", b""), ("model.bin", &weights())] {
            assert_eq!(read_all(&mirror, &bench.listing, path, 0).as_deref(), Ok(bytes), "{mode} {path}");
            let file = bench.file(path);
            let fetched = mirror.fetch(&bench.listing, file).expect(path);
            assert!(fetched.ends_with(format!("mirror/models--a--b/{}/{path}", commit('1'))), "{fetched:?}");
            assert_eq!(std::fs::read(fetched).expect("a file"), bytes);
            let middle = bytes.len() / 2;
            let tail = mirror.read_range(&bench.listing, file, middle as u64, (bytes.len() - middle) as u64);
            assert_eq!(tail.expect(path), &bytes[middle..]);
            assert_eq!(
                read_all(&mirror, &bench.listing, path, middle as u64).as_deref(),
                Ok(&bytes[middle..])
            );
            assert_eq!(read_all(&mirror, &bench.listing, path, bytes.len() as u64), Ok(Vec::new()));
            assert!(mirror.open(&bench.listing, file, file.size + 1).is_err());
            assert!(mirror.read_range(&bench.listing, file, 1, file.size).is_err());
            assert!(mirror.read_range(&bench.listing, file, 1, u64::MAX).is_err());
        }
    }
}

#[test]
fn each_mode_lists_as_it_says() {
    let bench = Bench::new();
    let list = |mode, revision: &str| bench.mirror(mode).list(&repo("a/b"), revision);
    let error = chain(&list(MirrorMode::Only, "main").expect_err("nothing mirrored"));
    assert!(error.contains("lsa-coordinator mirror --store file://"), "{error}");
    assert!(error.contains("--models a/b@main"), "{error}");
    assert_eq!(bench.hub.n_lists.load(Ordering::SeqCst), 0);
    bench.add_all();
    for revision in ["main".to_owned(), commit('1')] {
        for mode in MirrorMode::ALL {
            assert_eq!(list(mode, &revision).expect("listed"), bench.listing, "{mode} {revision}");
        }
    }
    assert_eq!(bench.hub.n_lists.load(Ordering::SeqCst), 3, "auto on a branch, off on both");
    // What is not there is not replaced by what was there once.
    assert!(matches!(list(MirrorMode::Auto, "v2"), Err(HubError::NoRepo { .. })));
    bench.hub.gone.store(true, Ordering::SeqCst);
    assert_eq!(list(MirrorMode::Auto, "main").expect("a record"), bench.listing);
    assert!(chain(&list(MirrorMode::Auto, "v2").expect_err("no record")).contains("no route to host"));
    assert!(list(MirrorMode::Off, "main").is_err());
    let cache = bench.folder.path().join("cache");
    let runtime = bench.runtime.handle().clone();
    let offline = MirroredHub::new(MirrorMode::Auto, bench.store.clone(), runtime, None, cache);
    assert_eq!(offline.list(&repo("a/b"), "main").expect("a record"), bench.listing);
    assert!(chain(&offline.list(&repo("a/b"), "v2").expect_err("no record")).contains("not mirrored"));
    let added = offline.add(&bench.listing, "main", &[], &|_, _, _| {});
    assert!(matches!(added, Err(MirrorError::NoHub { .. })));
}

#[test]
fn files_that_are_not_mirrored_come_from_the_hub_or_not_at_all() {
    let bench = Bench::new();
    bench.add(&[bench.file("config.json").clone()]).expect("the hub is there");
    let auto = bench.mirror(MirrorMode::Auto);
    assert!(auto.has(bench.file("config.json")).expect("a bucket"));
    assert!(!auto.has(bench.file("model.bin")).expect("a bucket"));
    assert_eq!(read_all(&auto, &bench.listing, "model.bin", 0), Ok(weights()));
    assert_eq!(
        auto.fetch(&bench.listing, bench.file("model.bin")).ok().as_deref(),
        Some("/hub/model.bin".as_ref())
    );
    let range = auto.read_range(&bench.listing, bench.file("model.bin"), 5, 3);
    assert_eq!(range.expect("the hub is there"), &weights()[5..8]);
    let only = bench.mirror(MirrorMode::Only);
    let error = read_all(&only, &bench.listing, "model.bin", 0).expect_err("not mirrored");
    assert!(error.contains("\"model.bin\" of model a/b is not mirrored"), "{error}");
    assert!(only.fetch(&bench.listing, bench.file("model.bin")).is_err());
    assert!(only.read_range(&bench.listing, bench.file("model.bin"), 0, 1).is_err());
}

#[test]
fn a_branch_that_moves_gets_the_next_number() {
    let bench = Bench::new();
    bench.add_all();
    let moved = bench.hub.set("main", &commit('2'), &[("config.json", CONFIG), ("new.bin", b"new")]);
    let auto = bench.mirror(MirrorMode::Auto);
    let added = auto.add(&moved, "main", &moved.files, &|_, _, _| {}).expect("the hub is there");
    assert_eq!((added.n_sent, added.sent_bytes, added.is_new), (1, 3, true));
    let only = bench.mirror(MirrorMode::Only);
    assert_eq!(only.list(&repo("a/b"), "main").expect("mirrored"), moved);
    assert_eq!(only.list(&repo("a/b"), &commit('1')).expect("mirrored"), bench.listing);
    // And back again.
    bench.add_all();
    assert_eq!(only.list(&repo("a/b"), "main").expect("mirrored"), bench.listing);
    let keys = bench.runtime.block_on(bench.store.list("mirror/models")).expect("a list");
    let keys: Vec<&str> = keys.iter().map(|object| object.key.as_str()).collect();
    let refs = |revision: &str, number: u32| layout::mirror_ref(&repo("a/b"), revision, number);
    assert_eq!(
        keys,
        [refs(&commit('1'), 0), refs(&commit('2'), 0), refs("main", 0), refs("main", 1), refs("main", 2)]
    );
}

#[test]
fn a_renamed_repository_is_found_under_both_names() {
    let bench = Bench::new();
    let auto = bench.mirror(MirrorMode::Auto);
    auto.add_as(&repo("old"), &bench.listing, "main", &bench.listing.files, &|_, _, _| {}).expect("added");
    let only = bench.mirror(MirrorMode::Only);
    for name in ["old", "a/b"] {
        assert_eq!(only.list(&repo(name), "main").expect(name), bench.listing);
        assert_eq!(only.list(&repo(name), &commit('1')).expect(name), bench.listing);
    }
    assert!(only.list(&repo("a--b"), "main").is_err());
    let all = bench.runtime.block_on(record::all(&bench.store)).expect("records");
    assert_eq!(all.len(), 4);
    assert_eq!(bench.runtime.block_on(record::all_git(&bench.store)).expect("records").len(), 2);
}

#[test]
fn damage_is_named_and_never_handed_out() {
    let bench = Bench::new();
    bench.add_all();
    let file = bench.file("model.bin");
    let mut wrong = weights();
    *wrong.last_mut().expect("not empty") ^= 1;
    bench.damage(file, &wrong);
    let only = bench.mirror(MirrorMode::Only);
    let check = |error: String| {
        assert!(error.contains("inputs/") && error.contains("is damaged"), "{error}");
    };
    check(read_all(&only, &bench.listing, "model.bin", 0).expect_err("another digest"));
    check(chain(&only.fetch(&bench.listing, file).expect_err("another digest")));
    let cached = bench.folder.path().join("cache/mirror/models--a--b").join(commit('1'));
    assert_eq!(std::fs::read_dir(cached).expect("a folder").count(), 0, "nothing of it is left");
    // Whoever reads as many bytes as there should be does not get the last ones.
    let mut all = vec![0; wrong.len()];
    assert!(only.open(&bench.listing, file, 0).expect("opened").read_exact(&mut all).is_err());

    bench.damage(file, b"short");
    let fresh = bench.mirror(MirrorMode::Only);
    check(read_all(&fresh, &bench.listing, "model.bin", 0).expect_err("another size"));
    check(chain(&fresh.read_range(&bench.listing, file, 0, 2).expect_err("another size")));
    assert_eq!(bench.add_all().n_sent, 1, "another size is seen without reading");
    assert_eq!(read_all(&fresh, &bench.listing, "model.bin", 0), Ok(weights()));
}

#[test]
fn damaged_records_are_named_and_passed_by_the_next() {
    let bench = Bench::new();
    bench.add_all();
    let key = layout::mirror_ref(&repo("a/b"), "main", 0);
    let other = layout::mirror_ref(&repo("a/b"), &commit('1'), 0);
    let path = |key: &str| bench.folder.path().join("bucket").join(key);
    let only = bench.mirror(MirrorMode::Only);
    let check = |words: &str| {
        let error = chain(&only.list(&repo("a/b"), "main").expect_err("damaged"));
        assert!(error.contains("refs/main/") && error.contains(words), "{error}");
    };
    std::fs::copy(path(&other), path(&key)).expect("copied");
    check("it is about model a/b at");
    std::fs::write(path(&key), "{").expect("written");
    check("is damaged");
    assert!(bench.add_all().is_new);
    assert_eq!(only.list(&repo("a/b"), "main").expect("mirrored"), bench.listing);

    let ContentId::GitSha1(id) = &bench.file("config.json").content else { panic!("a small file") };
    let lying = record::GitRecord { sha256: Digest::of(&weights()), size: CONFIG.len() as u64 };
    std::fs::write(path(&layout::mirror_git(id)), serde_json::to_vec(&lying).expect("json"))
        .expect("written");
    let error = read_all(&only, &bench.listing, "config.json", 0).expect_err("another file");
    assert!(error.contains("is damaged"), "{error}");
    // One that names the content of another file of the same size.
    let bytes = vec![b'x'; CONFIG.len()];
    let object = layout::input(Digest::of(&bytes));
    bench.runtime.block_on(bench.store.put(&object, bytes.clone().into())).expect("a folder");
    let lying = record::GitRecord { sha256: Digest::of(&bytes), size: CONFIG.len() as u64 };
    std::fs::write(path(&layout::mirror_git(id)), serde_json::to_vec(&lying).expect("json"))
        .expect("written");
    let fresh = bench.mirror(MirrorMode::Only);
    let error = read_all(&fresh, &bench.listing, "config.json", 0).expect_err("another file");
    assert!(error.contains("git object id"), "{error}");
}

#[test]
fn an_interrupted_addition_goes_on_where_it_stopped() {
    let bench = Bench::new();
    bench.hub.opens_left.store(2, Ordering::SeqCst);
    let error = bench.add(&bench.listing.files).expect_err("the connection breaks");
    assert_eq!(error.failure_class(), FailureClass::Retry);
    assert!(chain(&error).contains("connection reset"), "{error}");
    assert_eq!(bench.runtime.block_on(record::all(&bench.store)).expect("none").len(), 0);
    assert_eq!(bench.runtime.block_on(bench.store.list("inputs")).expect("a list").len(), 2);
    bench.hub.opens_left.store(usize::MAX, Ordering::SeqCst);
    bench.hub.n_opens.store(0, Ordering::SeqCst);
    let added = bench.add_all();
    assert_eq!((added.n_sent, added.sent_bytes), (1, weights().len() as u64));
    assert_eq!(bench.hub.n_opens.load(Ordering::SeqCst), 1);
}

#[test]
fn what_is_not_as_listed_is_not_kept() {
    let bench = Bench::new();
    let mut wrong = weights();
    wrong[7] ^= 1;
    let longer = [weights(), b"more".to_vec()].concat();
    let check = |path: &str, bytes: &[u8], words: &str| {
        bench.hub.corrupt(&commit('1'), path, bytes);
        let error = bench.add(&[bench.file(path).clone()]).expect_err(path);
        assert!(error.to_string().contains(words), "{error}");
        assert!(matches!(error, MirrorError::OtherContent { .. }));
        assert!(bench.runtime.block_on(bench.store.list("")).expect("a list").is_empty());
    };
    check("model.bin", &wrong, "came with SHA-256");
    check("model.bin", &weights()[1..], "came with 3000000 bytes");
    check("model.bin", &longer, "came with more bytes");
    check("config.json", &vec![b' '; CONFIG.len()], "came with git object id");
    check("empty.json", b" ", "came with more bytes");
}

#[test]
fn sixteen_threads_fetch_one_file() {
    let bench = Bench::new();
    bench.add_all();
    let mirrors = [bench.mirror(MirrorMode::Only), bench.mirror(MirrorMode::Only)];
    std::thread::scope(|scope| {
        let fetches: Vec<_> = (0..16)
            .map(|n| {
                let (mirror, bench) = (&mirrors[n % 2], &bench);
                scope.spawn(move || {
                    let path = mirror.fetch(&bench.listing, bench.file("model.bin")).expect("it is mirrored");
                    std::fs::read(path).expect("a file")
                })
            })
            .collect();
        for fetch in fetches {
            assert!(fetch.join().expect("no panic") == weights());
        }
    });
    let folder = bench.folder.path().join("cache/mirror/models--a--b").join(commit('1'));
    assert_eq!(std::fs::read_dir(folder).expect("a folder").count(), 1);
}

#[test]
fn a_copy_of_the_right_size_is_used_and_another_is_replaced() {
    let bench = Bench::new();
    bench.add_all();
    let only = bench.mirror(MirrorMode::Only);
    let file = bench.file("model.bin");
    let path = only.fetch(&bench.listing, file).expect("mirrored");
    std::fs::write(&path, b"cut off").expect("written");
    assert_eq!(only.fetch(&bench.listing, file).ok(), Some(path.clone()));
    assert!(std::fs::read(&path).expect("a file") == weights());
    // Without the bucket's content, the copy still serves.
    std::fs::remove_dir_all(bench.folder.path().join("bucket/inputs")).expect("removed");
    assert_eq!(bench.mirror(MirrorMode::Only).fetch(&bench.listing, file).ok(), Some(path));
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let bench = Bench::new();
    let auto = bench.mirror(MirrorMode::Auto);
    for bad in ["../x", "/etc/passwd", "a/../../x", "a\\..\\x", "", "."] {
        let mut listing = bench.listing.clone();
        listing.files = vec![hub_file(bad, b"content")];
        let error = auto.fetch(&listing, &listing.files[0]).expect_err(bad);
        assert!(error.to_string().contains("malformed"), "{error}");
    }
    let listing = Listing { commit: "../../x".to_owned(), ..bench.listing.clone() };
    assert!(auto.fetch(&listing, bench.file("model.bin")).is_err());
    let none = |_: &str, _: u64, _: u64| {};
    assert!(auto.add(&listing, "main", &listing.files, &none).is_err());
    for revision in ["", &"é".repeat(100)] {
        assert!(auto.add(&bench.listing, revision, &bench.listing.files, &none).is_err(), "{revision}");
        assert!(bench.mirror(MirrorMode::Only).list(&repo("a/b"), revision).is_err(), "{revision}");
    }
    let stranger = hub_file("other.bin", b"x");
    assert!(matches!(
        auto.add(&bench.listing, "main", &[stranger], &none),
        Err(MirrorError::NotListed { .. })
    ));
    let mut listing = bench.listing.clone();
    listing.files[0].content = ContentId::GitSha1("../../../x".to_owned());
    assert!(auto.add(&listing, "main", &listing.files, &none).is_err());
    assert!(auto.open(&listing, &listing.files[0], 0).is_err());
    // Revisions and ids that only look like paths are names like any other.
    for (id, revision) in [("../../x", "main"), ("a/b", "../../../x"), (".", "..")] {
        auto.add_as(&repo(id), &bench.listing, revision, &bench.listing.files, &none).expect(revision);
        let listed = bench.mirror(MirrorMode::Only).list(&repo(id), revision);
        assert_eq!(listed.expect(revision), bench.listing);
    }
    let mut top: Vec<_> = std::fs::read_dir(bench.folder.path()).expect("a folder").flatten().collect();
    top.retain(|entry| entry.file_name() != "cache");
    assert_eq!(top.len(), 1, "the bucket alone");
    let inside = std::fs::read_dir(bench.folder.path().join("bucket")).expect("a folder").flatten();
    let mut inside: Vec<_> = inside.map(|entry| entry.file_name()).collect();
    inside.sort();
    assert_eq!(inside, ["inputs", "mirror"]);
}
