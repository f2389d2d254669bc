//! Listing and fetching, from a bucket in memory.

use std::fs;
use std::path::PathBuf;

use object_store::ObjectStoreExt as _;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::dataset::{DatasetName, LocalFiles, ReadLimits, Sampling, survey};
use crate::id::Digest;

const SETTINGS: ReadSettings = ReadSettings {
    num_samples: 100,
    sampling: Sampling::First,
    dedupe: false,
    skip_bad_rows: false,
    limits: ReadLimits {
        text_bytes_max: 1 << 20,
        record_bytes_max: 1 << 20,
        decompressed_bytes_max: 1 << 30,
    },
};

/// A bucket in memory, and a cache.
struct Bench {
    objects: Arc<dyn ObjectStore>,
    cache: TempDir,
    runtime: Runtime,
}

impl Bench {
    fn new(objects: &[(&str, &str)]) -> Self {
        let bench = Self {
            objects: Arc::new(InMemory::new()),
            cache: tempfile::tempdir().expect("a temporary folder"),
            runtime: Runtime::new().expect("a runtime"),
        };
        objects.iter().for_each(|(key, content)| bench.put(key, content));
        bench
    }

    fn put(&self, key: &str, content: &str) {
        let key = Key::parse(key).expect("a key");
        self.runtime.block_on(self.objects.put(&key, content.to_owned().into())).expect("memory takes all");
    }

    fn files(&self, name: &str) -> Result<Vec<SourceFile>, ObjectsError> {
        self.runtime.block_on(files(&self.objects, "http://here", &bucket_name(name), self.cache.path()))
    }

    fn list(&self, name: &str, objects_max: usize) -> Result<Vec<Listed>, ObjectsError> {
        self.runtime.block_on(list::list(&self.objects, &bucket_name(name), objects_max))
    }

    /// Of the objects that a name stands for.
    fn names(&self, name: &str) -> Vec<String> {
        self.list(name, OBJECTS_MAX).expect(name).into_iter().map(|listed| listed.name).collect()
    }

    /// Fetches an object that was listed like this.
    fn bring(&self, listed: &Listed) -> Result<(Digest, PathBuf), ObjectsError> {
        let cache = Cache::open(self.cache.path(), "http://here", "b").expect("a cache");
        self.runtime.block_on(cache.bring(&self.objects, listed))
    }

    /// Files of the cache that are no notes.
    fn n_cached(&self) -> usize {
        let entries = fs::read_dir(self.cache.path().join("objects")).expect("made");
        entries.filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().is_file())).count()
    }
}

fn bucket_name(name: &str) -> BucketName {
    match name.parse() {
        Ok(DatasetName::Bucket(name)) => name,
        other => panic!("{name}: {other:?}"),
    }
}

fn path(file: &SourceFile) -> &Path {
    match &file.place {
        Place::Local { hint, .. } => hint,
        Place::Hub { .. } => panic!("on this machine"),
    }
}

#[test]
fn which_objects_a_name_stands_for() {
    let keys = [
        "d/b.txt",
        "d/B.jsonl.gz",
        "d/a/z.csv",
        "d/a-1.parquet",
        "d/README.md",
        "d/_SUCCESS",
        "d/x.parquet.gz",
        "dd.txt",
        "d.txt",
        "d/b.txt.tsv",
        "e.txt/1.txt",
    ];
    let bench = Bench::new(&keys.map(|key| (key, "text\n")));
    bench.put("d/empty.txt", "");
    let check = |name: &str, expected: &[&str]| {
        let expected: Vec<String> = expected.iter().map(|key| format!("s3://b/{key}")).collect();
        assert_eq!(bench.names(name), expected, "{name}");
    };
    let all = ["d/B.jsonl.gz", "d/a-1.parquet", "d/a/z.csv", "d/b.txt", "d/b.txt.tsv"];
    check("s3://b/d", &all);
    check("s3://b/d/", &all);
    check("s3://b/d#column", &all);
    check("s3://b/d/a", &["d/a/z.csv"]);
    check("s3://b/d/b.txt", &["d/b.txt"]);
    check("s3://b/d.txt", &["d.txt"]);
    check("s3://b/e.txt", &["e.txt/1.txt"]);
    check("s3://b/d/empty.txt", &["d/empty.txt"]);
    for missing in ["s3://b/x", "s3://b/d/README.md", "s3://b/x.txt", "s3://b/d/b.txt/"] {
        let error = bench.list(missing, OBJECTS_MAX).expect_err(missing).to_string();
        assert!(error.contains(missing) && error.contains(".jsonl"), "{error}");
    }
}

#[test]
fn there_are_bounds() {
    let bench = Bench::new(&[("d/1.txt", "x"), ("d/2.txt", "x"), ("d/3.md", "x")]);
    assert_eq!(bench.list("s3://b/d", 3).expect("as many as may").len(), 2);
    let error = bench.list("s3://b/d", 2).expect_err("one more").to_string();
    assert!(error.contains("more than 2 objects"), "{error}");
}

#[test]
fn hostile_names() {
    let long = format!("d/{}.txt", "x".repeat(1024));
    let hostile = [
        ("s3://b/d/../e", ".."),
        ("s3://b/./e", "'.'"),
        ("s3://b//d", "begins with '/'"),
        ("s3://b/d//e", "empty part"),
        ("s3://b/d//", "empty part"),
        ("s3://b/d\u{1b}[31m", "U+001B"),
        ("s3://b/d\n", "U+000A"),
        ("s3://b/\u{202e}txt.d", "U+202E"),
        (&format!("s3://b/{long}"), "longer than 1024"),
    ];
    let bench = Bench::new(&[]);
    for (name, words) in hostile {
        let error = bench.files(name).expect_err(name).to_string();
        assert!(error.contains(words) && !error.contains(char::is_control), "{error}");
    }
    for key in ["d/\u{9b}31m.txt", "d/\u{2066}.txt", &long] {
        let bench = Bench::new(&[(key, "x"), ("d/a.txt", "x")]);
        let error = bench.files("s3://b/d").expect_err(key);
        assert!(matches!(error, ObjectsError::BadName { .. }), "{error}");
        assert!(!error.to_string().contains(char::is_control), "{error}");
        assert!(!bench.cache.path().join("objects").exists(), "nothing is fetched");
    }
    // What only looks like a pattern, a column or an escape is part of the name.
    let odd = ["d/a b.txt", "d/%41.txt", "d/*?[x].txt", "d/ä#b.txt"];
    let bench = Bench::new(&odd.map(|key| (key, key)));
    assert_eq!(bench.files("s3://b/d").expect("plain").len(), odd.len());
}

#[test]
fn objects_become_local_files_that_are_known_by_their_content() {
    let bench =
        Bench::new(&[("d/a.txt", "one\ntwo\n"), ("d/b.jsonl", "{\"t\": \"three\", \"u\": \"no\"}\n")]);
    let files = bench.files("s3://b/d#t").expect("files");
    let [text, json] = &files[..] else { panic!("{files:?}") };
    assert!(path(text).is_absolute() && text.columns.is_none(), "{text:?}");
    assert_eq!(json.columns.as_ref().map(|columns| &columns.names[..]), Some(&["t".to_owned()][..]));
    assert_eq!(text.content, Some(ContentId::Sha256(Digest::of(b"one\ntwo\n"))));
    assert!(matches!(&json.place, Place::Local { name, .. } if name == "s3://b/d/b.jsonl"), "{json:?}");
    let plan = TextsPlan::new("s3://b/d#t".to_owned(), files.clone(), SETTINGS);
    assert_eq!(survey(plan, &LocalFiles::default()).expect("texts").spec.n_texts, 3);
}

#[test]
fn what_is_here_is_not_fetched_again() {
    let bench = Bench::new(&[("d/a.txt", "one\n"), ("d/copy.txt", "one\n"), ("d/b.txt", "two\n")]);
    let listed = bench.list("s3://b/d/b.txt", OBJECTS_MAX).expect("listed").remove(0);
    let first = bench.files("s3://b/d").expect("fetched");
    assert_eq!(bench.n_cached(), 2, "equal objects are one file");
    let delete = bench.objects.delete(&listed.location);
    bench.runtime.block_on(delete).expect("was there");
    let (_, kept) = bench.bring(&listed).expect("the bucket is not asked for what is here");
    assert_eq!(kept, path(&first[1]));

    // Bytes that are no longer those that were fetched are none.
    fs::write(&kept, "2wo\n").expect("written");
    assert!(matches!(bench.bring(&listed), Err(ObjectsError::NotFound { .. })));
    bench.put("d/b.txt", "two\n");
    let again = bench.files("s3://b/d").expect("fetched");
    assert_eq!((fs::read(&kept).expect("mended"), &again), (b"two\n".to_vec(), &first));

    // A new version of an object is another object.
    bench.put("d/b.txt", "new\n");
    let new = bench.files("s3://b/d/b.txt").expect("fetched");
    assert_eq!(fs::read(path(&new[0])).expect("a file"), b"new\n");

    // Neither a damaged note nor a deleted cache does harm.
    let cache = bench.cache.path().join("objects");
    for note in fs::read_dir(cache.join("notes")).expect("a folder") {
        fs::write(note.expect("a note").path(), "{").expect("written");
    }
    assert_eq!(bench.files("s3://b/d/b.txt").expect("fetched"), new);
    fs::remove_dir_all(&cache).expect("deleted");
    assert_eq!(bench.files("s3://b/d/b.txt").expect("fetched"), new);
}

#[test]
fn what_breaks_off_or_changes_is_not_kept() {
    let bench = Bench::new(&[("d/a.txt", "1234567")]);
    let listed = bench.list("s3://b/d/a.txt", OBJECTS_MAX).expect("listed").remove(0);
    for size in [3, 8] {
        let other = Listed { size, ..listed.clone() };
        let error = bench.bring(&other).expect_err("another size");
        assert!(matches!(error, ObjectsError::Size { size: 7, listed, .. } if listed == size), "{error}");
    }
    bench.put("d/a.txt", "7654321");
    let error = bench.bring(&listed).expect_err("another version");
    assert!(matches!(&error, ObjectsError::Changed { name } if name == "s3://b/d/a.txt"), "{error}");
    assert_eq!(bench.n_cached(), 0, "no draft is left");

    // A bucket without versions is believed, and asked each time.
    let unversioned = Listed { etag: None, ..listed };
    let (first, _) = bench.bring(&unversioned).expect("fetched");
    bench.put("d/a.txt", "abcdefg");
    assert_ne!(bench.bring(&unversioned).expect("fetched").0, first);
}
