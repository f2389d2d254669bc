//! A device without memory for a whole batch. The device is the CPU here, and the memory is refused by a library that is
//! loaded before the system's.

use std::path::Path;
use std::process::Command;

use lsa_tests::preload;
use lsa_tests::process::{command, finish, succeed};
use lsa_tests::results::read_tree;
use serde_json::Value;

use super::Quiet;

/// A batch has 1024 tokens on a CPU, and its widest tensor 0.8 MB; the largest of the weights is the embedding, 0.13 MB.
const HALF_A_BATCH: u64 = 500_000;
const NO_MODEL: u64 = 100_000;

fn run(quiet: &Quiet, library: &Path, block_max: u64, name: &str) -> Command {
    let mut run = command("lsa-coordinator", quiet.path());
    run.arg("run").args(&quiet.grid).args(["--device", "cpu", "--json"]);
    run.arg("--store").arg(quiet.path().join(format!("{name}-store")));
    run.arg("--output-dir").arg(quiet.path().join(name));
    run.env("LD_PRELOAD", library).env("MEMORY_BLOCK_MAX", block_max.to_string());
    run
}

#[test]
fn batches_that_do_not_fit_are_halved() {
    let quiet = Quiet::new(3000);
    let library = preload::library("memory_limit", quiet.path());
    succeed(run(&quiet, &library, HALF_A_BATCH, "halved"));
    let mut found = read_tree(&quiet.path().join("halved"));
    let mut n_told = 0;
    for (path, bytes) in &found {
        if path.ends_with("metadata.json") {
            let metadata: Value = serde_json::from_slice(bytes).expect("JSON");
            assert!(metadata.to_string().contains("split"), "{metadata:#}");
            n_told += 1;
        }
    }
    assert_eq!(n_told, 2, "both poolings tell of it");
    // What is told apart, the numbers are those of whole batches.
    let mut expected = quiet.expected.clone();
    for tree in [&mut found, &mut expected] {
        tree.retain(|path, _| path.ends_with(".npz") || path.ends_with(".pkl"));
    }
    lsa_tests::results::assert_same(&found, &expected);
}

#[test]
fn a_model_that_does_not_fit_is_named() {
    let quiet = Quiet::new(300);
    let library = preload::library("memory_limit", quiet.path());
    let ended = finish(run(&quiet, &library, NO_MODEL, "none"));
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    let said = "can't allocate memory: you tried to allocate";
    assert!(ended.stderr.contains(said) && !ended.stderr.contains("frame #"), "{ended:?}");
}
