//! `gc`: what it removes, what it leaves, and that whatever it removed can be made again.

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use lsa_tests::bucket;
use lsa_tests::cluster::Cluster;
use lsa_tests::inputs::{dataset, tiny_model};
use lsa_tests::process::{command, finish, succeed};
use lsa_tests::results::{Tree, assert_same, read_all, read_tree, without_timings};
use serde_json::{Value, json};
use tempfile::TempDir;

const LEASE_TTL_S: u32 = 10;
const JOB_LIMIT: Duration = Duration::from_secs(120);
/// Longer than the grace period, and a year.
const OLD: Duration = Duration::from_secs(3 * 24 * 3600);
const ANCIENT: Duration = Duration::from_secs(365 * 24 * 3600);

/// A folder with a bucket in which a job has been run.
struct Place {
    folder: TempDir,
    texts: String,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let texts = dataset(folder.path(), "texts.txt", 1, 700);
        Self { folder, texts }
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Runs a job of two poolings; how many units, and the results.
    fn run(&self) -> (u64, Tree) {
        let output = self.folder.path().join("out");
        let mut run = command("lsa-coordinator", self.folder.path());
        run.args(["run", "--dataset", &self.texts, "--pooling", "mean", "cls", "--trials", "2"]);
        run.args(["--sample-size", "150", "--device", "cpu", "--json", "--store"]).arg(self.store());
        run.arg("--model").arg(tiny_model()).arg("--output-dir").arg(&output);
        let units = succeed(run).json()["units_run"].as_u64().expect("a count");
        (units, without_timings(read_tree(&output)))
    }

    fn gc(&self, args: &[&str]) -> Value {
        let mut gc = command("lsa-coordinator", self.folder.path());
        gc.args(["gc", "--json", "--store"]).arg(self.store()).args(args);
        succeed(gc).json()
    }
}

/// Lets everything in a bucket but its epochs have been written so long ago.
fn age(store: &Path, by: Duration) {
    let then = SystemTime::now() - by;
    for key in keys(store) {
        let file = File::options().append(true).open(store.join(key)).expect("a listed file");
        file.set_times(FileTimes::new().set_modified(then)).expect("a file of one's own");
    }
}

/// Puts a file into a bucket; its size.
fn plant(store: &Path, key: &str) -> u64 {
    let path = store.join(key);
    fs::create_dir_all(path.parent().expect("a key has a folder")).expect("the test's bucket");
    fs::write(path, b"left behind").expect("the test's bucket");
    b"left behind".len() as u64
}

/// The keys of a bucket but for those of epochs, which a leader keeps writing.
fn keys(store: &Path) -> Vec<String> {
    let mut keys = Vec::new();
    for entry in fs::read_dir(store).expect("a bucket") {
        let entry = entry.expect("a readable folder");
        let name = entry.file_name().to_string_lossy().into_owned();
        match entry.path().is_dir() {
            true if name == "epochs" => {}
            true => keys.extend(read_all(&entry.path()).into_keys().map(|key| format!("{name}/{key}"))),
            false => keys.push(name),
        }
    }
    keys.sort();
    keys
}

#[test]
fn garbage_goes_and_nothing_else() {
    let place = Place::new();
    let store = place.store();
    let (_, first) = place.run();
    // A shard that is made again leaves a record that is replaced, and data that nothing names any more.
    let record = bucket::shard_records(&store)[&("mean".to_owned(), 0, 0)].clone();
    bucket::flip_last_byte(&store.join(&record.layers[1].object.key));
    fs::remove_dir_all(store.join("trials")).expect("trials of the run");
    place.run();
    assert!(bucket::shard_records(&store).contains_key(&("mean".to_owned(), 0, 1)));

    // What a killed worker leaves, what a client sent and never asked for, and what is none of this program's.
    let rows = &record.layers[0].object.key;
    let (folder, _) = rows.rsplit_once('/').expect("a folder");
    let texts = keys(&store).into_iter().find(|key| key.starts_with("texts/") && key.ends_with(".parquet"));
    let texts_folder =
        texts.as_deref().and_then(|key| key.rsplit_once('/')).expect("prepared texts").0.to_owned();
    let attempt = "00000000000000000000000000000abc";
    let orphans = [
        format!("{folder}/rows_0.{attempt}.safetensors"),
        format!("{folder}/rows_7.{attempt}.safetensors"),
        format!("{texts_folder}/part_0.{attempt}.parquet"),
    ];
    let unmentioned = format!("inputs/{}", "ab".repeat(32));
    let foreign = [format!("{folder}/notes.txt"), "inputs/readme".to_owned(), "mine/file".to_owned()];
    let size = plant(&store, &unmentioned);
    orphans.iter().chain(&foreign).for_each(|key| {
        plant(&store, key);
    });
    let whole = keys(&store);
    assert_eq!(place.gc(&[]), json!({}), "all of it is young");
    assert_eq!(keys(&store), whole);

    age(&store, OLD);
    let expected = place.gc(&["--dry-run"]);
    assert_eq!(keys(&store), whole, "a dry run removes nothing");
    assert_eq!(place.gc(&[]), expected);
    let replaced_bytes: u64 = record.layers.iter().map(|layer| layer.object.size).sum();
    assert_eq!(expected["unmentioned"], json!({ "objects": 1, "bytes": size }));
    assert_eq!(expected["replaced"]["objects"], 1);
    let uncommitted = json!({ "objects": 3 + record.layers.len(), "bytes": 3 * size + replaced_bytes });
    assert_eq!(expected["uncommitted"], uncommitted);
    assert_eq!(expected.as_object().map(serde_json::Map::len), Some(3), "{expected:#}");
    let left = keys(&store);
    for gone in orphans.iter().chain([&unmentioned, rows]) {
        assert!(whole.contains(gone) && !left.contains(gone), "{gone}");
    }
    assert!(foreign.iter().all(|key| left.contains(key)));
    assert_eq!(place.gc(&[]), json!({}), "there is nothing more");
    let (units, again) = place.run();
    assert_eq!(units, 0, "all that counts is there");
    assert_same(&again, &first);
}

#[test]
fn what_was_not_used_for_long_goes_where_asked_for() {
    let place = Place::new();
    let store = place.store();
    let (units, first) = place.run();
    age(&store, ANCIENT);
    assert_eq!(place.gc(&[]), json!({}), "it is not garbage");
    place.run();
    assert_eq!(place.gc(&["--unused-days", "30"]), json!({}), "a run has just used it");
    age(&store, ANCIENT);
    let removed = place.gc(&["--unused-days", "400"]);
    assert_eq!(removed, json!({}), "it was used within that time");
    let removed = place.gc(&["--unused-days", "30"]);
    assert_eq!(removed.as_object().map(serde_json::Map::len), Some(1), "{removed:#}");
    assert!(removed["unused"]["objects"].as_u64() > Some(0));
    let kept = keys(&store);
    assert!(kept.iter().all(|key| key.starts_with("jobs/") || key == "format.json"), "{kept:?}");
    let (again, results) = place.run();
    assert_eq!(again, units, "everything is made again");
    assert_same(&results, &first);
}

#[test]
fn a_run_that_has_not_ended_keeps_what_it_needs() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let texts = dataset(folder.path(), "texts.txt", 1, 700);
    let mut cluster = Cluster::start(folder.path(), LEASE_TTL_S);
    let store = cluster.store();
    let model = tiny_model().display().to_string();
    let grid = ["--model", &model, "--dataset", &texts, "--sample-size", "150", "--trials", "2"];
    let job = cluster.submit(&grid);
    let unmentioned = format!("inputs/{}", "ab".repeat(32));
    plant(&store, &unmentioned);
    let before = keys(&store);
    age(&store, ANCIENT);
    assert_eq!(cluster.ask(&["gc"])["unmentioned"]["objects"], 1);
    assert_eq!(cluster.ask(&["gc", "--unused-days", "1"]), json!({}));
    let expected: Vec<String> = before.into_iter().filter(|key| *key != unmentioned).collect();
    assert_eq!(keys(&store), expected, "nothing that the job needs is gone");

    let mut gc = command("lsa-coordinator", folder.path());
    gc.args(["gc", "--store"]).arg(&store);
    let refused = finish(gc);
    assert_eq!(refused.code(), Some(2));
    assert!(refused.stderr.contains("a coordinator leads that bucket"), "{}", refused.stderr);

    cluster.start_workers(1);
    assert_eq!(cluster.until_ended(&job, JOB_LIMIT)["state"], "done");
    age(&store, ANCIENT);
    let removed = cluster.ask(&["gc", "--unused-days", "1"]);
    assert!(removed["unused"]["objects"].as_u64() > Some(0), "{removed:#}");
    let results = folder.path().join("results");
    cluster.succeed(&["fetch", &job, "--output-dir", results.to_str().expect("a plain path")]);
    assert!(read_tree(&results).contains_key("similarities/CKA.pkl"), "results stay");
}
