//! What a run left in a bucket that is a local folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lsa_common::record::ShardRecord;

/// The shard records of a bucket with one extraction: (pooling, shard, generation) → record.
pub fn shard_records(store: &Path) -> BTreeMap<(String, u32, u32), ShardRecord> {
    let mut records = BTreeMap::new();
    for extraction in folders(&store.join("embeddings")) {
        for pooling in folders(&extraction) {
            let name = pooling.file_name().expect("a listed folder").to_string_lossy().into_owned();
            let commits = files(&pooling.join("commits")).into_iter();
            for path in commits.filter(|path| !self::name(path).starts_with("seg_")) {
                let (shard, generation) = numbers(&path);
                let json = fs::read(&path).expect("a record");
                let record = serde_json::from_slice(&json).expect("records are whole from the start");
                let known = records.insert((name.clone(), shard, generation), record);
                assert!(known.is_none(), "the bucket has two extractions");
            }
        }
    }
    records
}

/// The names of the segments of a bucket with one extraction, sorted.
pub fn segments(store: &Path) -> Vec<String> {
    let commits = folders(&store.join("embeddings")).into_iter().flat_map(|extraction| folders(&extraction));
    let names = commits.flat_map(|pooling| files(&pooling.join("commits"))).map(|path| name(&path));
    let mut segments: Vec<String> = names.filter(|name| name.starts_with("seg_")).collect();
    segments.sort();
    segments
}

/// The objects of trials: (comparison, trial, generation) → path.
pub fn trials(store: &Path) -> BTreeMap<(String, u32, u32), PathBuf> {
    let mut trials = BTreeMap::new();
    for comparison in folders(&store.join("trials")) {
        let name = comparison.file_name().expect("a listed folder").to_string_lossy().into_owned();
        for path in files(&comparison) {
            let (trial, generation) = numbers(&path);
            trials.insert((name.clone(), trial, generation), path);
        }
    }
    trials
}

/// Damages an object without changing its size.
pub fn flip_last_byte(object: &Path) {
    let mut bytes = fs::read(object).expect("an object");
    *bytes.last_mut().expect("an object has bytes") ^= 1;
    fs::write(object, bytes).expect("the bucket of a test");
}

/// `<index>.<generation>.…`
fn numbers(path: &Path) -> (u32, u32) {
    let name = name(path);
    lsa_common::layout::parse_record_name(&name).unwrap_or_else(|| panic!("{name} is no record"))
}

fn name(path: &Path) -> String {
    path.file_name().expect("a listed file").to_string_lossy().into_owned()
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    entries(folder).into_iter().filter(|path| path.is_dir()).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    // A store writes beside the target and links it there; the leftovers of a killed process are no objects.
    let is_object = |path: &PathBuf| path.is_file() && !path.to_string_lossy().contains('#');
    entries(folder).into_iter().filter(is_object).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.expect("a readable folder").path()).collect()
}
