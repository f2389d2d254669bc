//! Jobs that want the same at once.

use std::collections::BTreeSet;

use lsa_tests::bucket::{shard_records, trials};
use lsa_tests::cluster::Cluster;

use super::{JOB_LIMIT, LEASE_TTL_S, Quiet};

const N_SHARDS: u64 = 5;

#[test]
fn two_jobs_share_their_extractions() {
    let quiet = Quiet::new(10_000);
    let mut cluster = Cluster::start(quiet.path(), LEASE_TTL_S);
    // The second one wants the same rows, and trials of its own.
    let mut other = quiet.grid.clone();
    other.extend(["--seed", "7"].map(str::to_owned));
    let first = quiet.submit(&cluster);
    let second = cluster.submit(&other.iter().map(String::as_str).collect::<Vec<_>>());
    assert_ne!(first, second);
    cluster.start_workers(2);
    quiet.check(&cluster, &first);
    let ended = cluster.until_ended(&second, JOB_LIMIT);
    assert_eq!(ended["state"], "done", "{ended:#}");
    let records = shard_records(&cluster.store());
    assert_eq!(records.len() as u64, 2 * N_SHARDS, "one record for each shard and pooling");
    let attempts: BTreeSet<_> = records.values().map(|record| record.writer.attempt).collect();
    assert_eq!(
        attempts.len() as u64,
        N_SHARDS,
        "each text went through the model once, for both poolings and jobs"
    );
    assert_eq!(trials(&cluster.store()).len(), 2 * 2 * 3);
}

#[test]
fn the_same_job_submitted_at_once_is_one_job() {
    let quiet = Quiet::new(2_000);
    let mut cluster = Cluster::start(quiet.path(), LEASE_TTL_S);
    let jobs: BTreeSet<String> = std::thread::scope(|scope| {
        let submit = || scope.spawn(|| quiet.submit(&cluster));
        let submissions: Vec<_> = (0..4).map(|_| submit()).collect();
        submissions.into_iter().map(|submission| submission.join().expect("a submission")).collect()
    });
    let [job] = &Vec::from_iter(jobs)[..] else { panic!("more than one job") };
    cluster.start_workers(1);
    quiet.check(&cluster, job);
    assert_eq!(cluster.ask(&["status", job])["run"], 1, "one run for all of them");
    assert_eq!(cluster.ask(&["jobs"]).as_array().map(Vec::len), Some(1));
}
