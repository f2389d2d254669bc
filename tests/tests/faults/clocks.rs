//! Clocks that are set forward and back by a day, under coordinators and workers that are at work.

use std::collections::BTreeSet;
use std::fs;

use lsa_tests::bucket::shard_records;
use lsa_tests::cluster::Cluster;
use lsa_tests::preload;
use lsa_tests::wait::until;

use super::{JOB_LIMIT, LEASE_TTL_S, Quiet};

const DAY_S: i64 = 24 * 3600;
const N_SHARDS: usize = 32;
/// Records that may be in the making when a clock jumps: of two workers' units, two poolings each.
const UNDER_WAY: usize = 4;

#[test]
fn clocks_may_jump() {
    let quiet = Quiet::new(N_SHARDS * 2048);
    let library = preload::library("clock_shift", quiet.path());
    let clock = |name: &str| quiet.path().join(name).display().to_string();
    let shift = |name: &str, seconds: i64| {
        // Whoever reads it meanwhile finds the old content or the new one.
        let beside = clock("beside");
        fs::write(&beside, seconds.to_string()).expect("the test's folder");
        fs::rename(&beside, clock(name)).expect("the test's folder");
    };
    ["leader", "others"].iter().for_each(|name| shift(name, 0));
    let preload = library.display().to_string();
    let store = quiet.path().join("store");
    let variables = [("LD_PRELOAD", preload.as_str()), ("CLOCK_SHIFT_FILE", &clock("leader"))];
    let mut cluster = Cluster::start_at(quiet.path(), LEASE_TTL_S, &store.display().to_string(), &variables);
    cluster.set_variable("CLOCK_SHIFT_FILE", &clock("others"));
    cluster.start_standby();
    cluster.start_workers(2);
    let job = quiet.submit(&cluster);
    let n_records = || shard_records(&store).len();
    for (leader, others) in [(DAY_S, 0), (-DAY_S, 0), (0, DAY_S), (0, -DAY_S), (DAY_S, -DAY_S)] {
        shift("leader", leader);
        shift("others", others);
        let before = n_records();
        until("records made after the jump", JOB_LIMIT, || (n_records() > before + UNDER_WAY).then_some(()));
    }
    assert!(n_records() < 2 * N_SHARDS, "the last jump came too late");
    quiet.check(&cluster, &job);
    assert_eq!(cluster.ask(&["workers"])["epoch"], 1, "nobody took over");
    let log = cluster.ask(&["logs", &job]).to_string();
    assert!(!log.contains("failed"), "{log}");
    // The jumps were felt: records say when they were made, by the leader's clock.
    let days = shard_records(&store).into_values().map(|record| record.writer.committed_at[..10].to_owned());
    let days: BTreeSet<String> = days.collect();
    assert!(days.len() >= 3, "{days:?}");
}
