//! A grid of a hundred thousand experiments.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use lsa_tests::cluster::Cluster;
use lsa_tests::inputs::{dataset, tiny_model};
use lsa_tests::wait::until;

use super::{JOB_LIMIT, LEASE_TTL_S};

const N_POOLINGS: usize = 4;
const N_DATASETS: usize = 1667;

/// 15 models × 4 poolings × 1667 datasets of 32 texts; how many experiments those are.
fn grid(folder: &Path) -> usize {
    let models = fs::read_dir(tiny_model().parent().expect("a folder of models")).expect("fixtures");
    let models: Vec<String> =
        models.map(|entry| entry.expect("a fixture").path().display().to_string()).collect();
    let datasets: Vec<String> =
        (0..N_DATASETS).map(|number| dataset(folder, &format!("t{number}.txt"), number as u64, 32)).collect();
    let mut grid = format!("name = \"large\"\n[grid]\nmodels = {models:?}\ndatasets = {datasets:?}\n");
    grid += "pooling = [\"mean\", \"cls\", \"max\", \"last_token\"]\n";
    writeln!(grid, "[similarity]\nsample_size = 32\ntrials = 1").expect("a string takes all");
    fs::write(folder.join("grid.toml"), grid).expect("the test's folder");
    models.len() * N_POOLINGS * N_DATASETS
}

/// It is refused unless it is meant; then it is taken, worked on, found again by another coordinator, and cancelled.
#[test]
fn a_hundred_thousand_experiments_are_one_job() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let n_experiments = grid(folder.path());
    assert!(n_experiments >= 100_000);
    let grid = folder.path().join("grid.toml").display().to_string();
    let mut cluster = Cluster::start(folder.path(), LEASE_TTL_S);
    let refused = cluster.finish(&["submit", &grid]);
    assert_eq!(refused.code(), Some(2));
    assert!(refused.stderr.contains("run.max_experiments = 1000"), "{}", refused.stderr);

    let job = cluster.submit(&[&grid, "--max-experiments", "200000"]);
    let status = cluster.ask(&["status", &job]);
    assert_eq!(status["experiments"].as_array().map(Vec::len), Some(n_experiments));
    assert_eq!(status["experiments_total"], n_experiments);
    assert_eq!(cluster.ask(&["jobs"])[0]["experiments_total"], n_experiments);
    cluster.start_worker("w1");
    let some_done = |cluster: &Cluster, than: u64| {
        until("experiments to be done", JOB_LIMIT, || {
            cluster.ask(&["jobs"])[0]["experiments_done"].as_u64().filter(|done| *done > than)
        })
    };
    let done = some_done(&cluster, 0);
    cluster.kill_coordinator();
    cluster.restart_coordinator();
    some_done(&cluster, done);
    cluster.succeed(&["cancel", &job]);
    let status = cluster.until_ended(&job, JOB_LIMIT);
    let cancelled = status["experiments"].as_array().expect("a list").iter();
    assert!(cancelled.filter(|experiment| experiment["state"] == "cancelled").count() > n_experiments / 2);
}
