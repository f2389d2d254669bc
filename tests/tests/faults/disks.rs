//! Disks that are full or cannot be written: a worker's cache, the bucket where it is a folder, the place for results.

use std::fs;
use std::path::Path;

use lsa_tests::bucket::shard_records;
use lsa_tests::cluster::Cluster;
use lsa_tests::disk::{self, Disk};
use lsa_tests::inputs::tiny_model;
use lsa_tests::process::{Running, command, finish};
use lsa_tests::python::skipped;
use lsa_tests::results::{assert_same, read_tree, without_timings};
use lsa_tests::wait::until;

use super::{JOB_LIMIT, LEASE_TTL_S, Quiet};

const MIB: u64 = 1 << 20;

#[test]
fn a_worker_whose_cache_takes_nothing_leaves_its_units_to_others() {
    if let Some(why) = disk::why_not() {
        return skipped("a_worker_whose_cache_takes_nothing_leaves_its_units_to_others", &why);
    }
    // What is submitted is gone afterwards, so that workers have to fetch it into their caches.
    let client = tempfile::tempdir().expect("a temporary folder");
    for entry in fs::read_dir(tiny_model()).expect("a fixture") {
        let path = entry.expect("a fixture").path();
        fs::copy(&path, client.path().join(path.file_name().expect("a listed file")))
            .expect("the test's folder");
    }
    let quiet = Quiet::of(client.path(), 5000);
    let mut cluster = Cluster::start(quiet.path(), LEASE_TTL_S);
    let job = quiet.submit(&cluster);
    drop(client);

    let cache = |id: &str| quiet.path().join(id).join("cache");
    let (full, read_only) = (cache("full"), cache("read-only"));
    cluster.start_worker_on("full", &Disk { place: &full, size: MIB / 8, is_read_only: false });
    cluster.start_worker_on("read-only", &Disk { place: &read_only, size: MIB, is_read_only: true });
    cluster.until_connected(2);
    let failed = |id: &str| {
        let log = cluster.ask(&["logs", &job]);
        let lines = log.as_array()?.iter().filter_map(|line| line.as_str());
        lines.map(str::to_owned).find(|line| line.contains("failed") && line.contains(id))
    };
    let said = until("the full one to fail", JOB_LIMIT, || failed("full"));
    assert!(said.contains("No space left on device") && said.contains("free space"), "{said}");
    let said = until("the read-only one to fail", JOB_LIMIT, || failed("read-only"));
    assert!(said.contains("Read-only file system") && said.contains("--cache"), "{said}");
    cluster.start_worker("w3");
    quiet.check(&cluster, &job);
}

/// A run whose bucket is on a small disk, stopped by that disk after the first shard, ends well once there is room again.
#[test]
fn a_run_waits_while_its_bucket_is_full() {
    if let Some(why) = disk::why_not() {
        return skipped("a_run_waits_while_its_bucket_is_full", &why);
    }
    let quiet = Quiet::new(20_000);
    let (small, results) = (quiet.path().join("small"), quiet.path().join("results"));
    let store = small.join("store");
    let disk = Disk { place: &small, size: 200 * MIB, is_read_only: false };
    let mut run = command("lsa-coordinator", quiet.path());
    run.arg("run").args(&quiet.grid).args(["--device", "cpu", "--store"]).arg(&store);
    let run = Running::start(disk.under(run.arg("--output-dir").arg(&results)));
    let seen = |path: &Path| disk::seen_by(run.pid(), path);
    let n_shards = || shard_records(&seen(&store)).len();
    until("the first shard", JOB_LIMIT, || (n_shards() > 0).then_some(()));
    let filler = seen(&small.join("filler"));
    disk::fill(&filler);
    until("the run to say so", JOB_LIMIT, || run.stderr().contains("No space left on device").then_some(()));
    let full = n_shards();
    assert!(full < 20, "the disk was full too late");
    fs::remove_file(filler).expect("just written");
    let ended = run.wait(JOB_LIMIT);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_same(&without_timings(read_tree(&results)), &quiet.expected);
}

#[test]
fn a_bucket_or_a_place_for_results_that_takes_nothing_is_named() {
    if let Some(why) = disk::why_not() {
        return skipped("a_bucket_or_a_place_for_results_that_takes_nothing_is_named", &why);
    }
    let quiet = Quiet::new(300);
    let small = quiet.path().join("small");
    let run = |size: u64, is_read_only: bool, store: &Path, output: &Path| {
        let mut run = command("lsa-coordinator", quiet.path());
        run.arg("run").args(&quiet.grid).args(["--device", "cpu", "--store"]).arg(store);
        finish(Disk { place: &small, size, is_read_only }.under(run.arg("--output-dir").arg(output)))
    };
    let (store, output) = (quiet.path().join("store"), quiet.path().join("results"));
    let check = |is_read_only: bool, store: &Path, output: &Path, code: i32, said: &[&str]| {
        let ended = run(if is_read_only { MIB } else { 4096 }, is_read_only, store, output);
        assert_eq!(ended.code(), Some(code), "{ended:?}");
        assert!(said.iter().all(|words| ended.stderr.contains(words)), "{ended:?}");
    };
    let place = small.display().to_string();
    check(true, &small, &output, 1, &["cannot create \"format.json\"", &place, "Read-only file system"]);
    check(false, &small, &output, 2, &["the bucket's file system has 4.0 KiB free", "--store"]);
    // The one is seen before anything is done, the other when there is something to write.
    check(true, &store, &small, 2, &["cannot write", &place, "Read-only file system"]);
    check(false, &store, &small, 1, &["cannot write", &place, "No space left on device"]);
}
