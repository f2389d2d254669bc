//! Processes that are killed, stopped or interrupted midway: no finished work is lost, and the bytes stay the same.
//!
//! These tests run one at a time, on a model that is slow enough to be caught in the middle of a shard.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use lsa_tests::bucket::shard_records;
use lsa_tests::cluster::Cluster;
use lsa_tests::inputs::{dataset, minilm};
use lsa_tests::process::{Ended, Running, command, is_worker, send, succeed, workers_of};
use lsa_tests::results::{Tree, assert_same, read_all, read_tree, without_timings};
use lsa_tests::wait::until;
use nix::sys::signal::Signal;
use tempfile::TempDir;

/// Four shards of 1024.
const TEXTS: usize = 4 * 1024;
const SHARDS: u32 = 4;
/// A job of this file, on a machine that does other things as well.
const JOB_LIMIT: Duration = Duration::from_secs(150);
/// Ctrl-C ends a run within this time.
const INTERRUPT_LIMIT: Duration = Duration::from_secs(10);
/// A second Ctrl-C asks for no batch to be finished; what is left is the end of two processes.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Short, so that a killed worker is missed soon; a worker that lives renews six times within it.
const LEASE_TTL_S: u32 = 4;

/// What all tests of this file share: the input, and the results of a run that nobody disturbed.
struct Shared {
    folder: TempDir,
    reference: Tree,
}

/// One test at a time: they measure how long things take, and there may be two cores.
fn shared() -> (MutexGuard<'static, ()>, &'static Shared) {
    static TURN: Mutex<()> = Mutex::new(());
    static SHARED: OnceLock<Shared> = OnceLock::new();
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let make = || {
        let folder = tempfile::tempdir().expect("a temporary folder");
        dataset(folder.path(), "texts.txt", 3, TEXTS);
        let mut shared = Shared { folder, reference: Tree::new() };
        let quiet = Home::new(&shared);
        succeed(quiet.run());
        shared.reference = without_timings(read_tree(&quiet.results()));
        shared
    };
    (turn, SHARED.get_or_init(make))
}

impl Shared {
    /// A grid with small batches, so that there is much to do between two of them.
    fn grid(&self) -> Vec<String> {
        let texts = self.folder.path().join("texts.txt");
        let model = minilm();
        let path = |path: &Path| path.to_str().expect("a plain path").to_owned();
        let words = ["--pooling", "mean", "--trials", "2", "--sample-size", "300", "--batch-size", "4"];
        let mut grid = vec!["--model".to_owned(), path(&model), "--dataset".to_owned()];
        grid.push(format!("file:{}", path(&texts)));
        grid.extend(words.map(str::to_owned));
        grid
    }
}

/// A folder of one test.
struct Home<'a> {
    shared: &'a Shared,
    folder: TempDir,
}

impl<'a> Home<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self { shared, folder: tempfile::tempdir().expect("a temporary folder") }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    fn results(&self) -> PathBuf {
        self.path().join("results")
    }

    fn run(&self) -> std::process::Command {
        let mut run = command("lsa-coordinator", self.path());
        run.arg("run").args(self.shared.grid()).args(["--device", "cpu", "--json"]);
        run.arg("--store").arg(self.store()).arg("--output-dir").arg(self.results());
        run
    }

    fn submit(&self, cluster: &Cluster) -> String {
        let grid = self.shared.grid();
        cluster.submit(&grid.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The job's results are those of the run that nobody disturbed.
    fn check_fetched(&self, cluster: &Cluster, job: &str) {
        let results = self.results();
        cluster.succeed(&["fetch", job, "--output-dir", results.to_str().expect("a plain path")]);
        assert_same(&without_timings(read_tree(&results)), &self.shared.reference);
    }
}

#[test]
fn a_killed_worker_is_replaced() {
    let (_turn, shared) = shared();
    let home = Home::new(shared);
    let mut cluster = Cluster::start(home.path(), LEASE_TTL_S);
    cluster.start_workers(3);
    let job = home.submit(&cluster);
    let lease = cluster.until_midway(&job, "extract", JOB_LIMIT);
    let victim = lease["worker"].as_str().expect("a worker").to_owned();
    let what = lease["what"].as_str().expect("a description").to_owned();
    assert_eq!(lease["attempt_number"], 1);
    cluster.kill_worker(&victim);

    let status = cluster.until_ended(&job, JOB_LIMIT);
    assert_eq!(status["state"], "done", "{status:#}");
    let records = shard_records(&home.store());
    assert_eq!(records.len(), SHARDS as usize, "one record a shard");
    let second: Vec<_> = records.values().filter(|record| record.writer.attempt_number == 2).collect();
    let [second] = second[..] else { panic!("one shard was lent twice: {records:#?}") };
    assert!(what.ends_with(&format!("shard {}", second.shard)), "{what}: {second:#?}");
    assert_ne!(second.writer.worker.as_str(), victim);
    assert_ne!(second.writer.attempt.to_string(), lease["attempt"].as_str().expect("an id"));

    let log = cluster.ask(&["logs", &job]).to_string();
    assert!(log.contains("gave no sign of life") && log.contains(&victim), "{log}");
    let workers = cluster.ask(&["workers"]);
    let gone = workers["workers"].as_array().expect("a list").iter().find(|w| w["worker"] == *victim);
    assert_eq!(gone.expect("known before")["connected"], false);
    home.check_fetched(&cluster, &job);
}

#[test]
fn a_killed_coordinator_is_replaced() {
    let (_turn, shared) = shared();
    let home = Home::new(shared);
    let mut cluster = Cluster::start(home.path(), LEASE_TTL_S);
    cluster.start_workers(2);
    let job = home.submit(&cluster);
    // At least one shard is recorded, at least one is under way.
    until("the first shard", JOB_LIMIT, || (!shard_records(&home.store()).is_empty()).then_some(()));
    let lease = cluster.until_midway(&job, "extract", JOB_LIMIT);
    let watch = cluster.begin(&["watch", &job, "--json"]);
    until("the watcher to watch", JOB_LIMIT, || watch.stderr().contains('%').then_some(()));
    cluster.kill_coordinator();
    let before = shard_records(&home.store());
    assert!((1..SHARDS as usize).contains(&before.len()), "{} shards were done", before.len());
    cluster.restart_coordinator();

    let status = cluster.until_ended(&job, JOB_LIMIT);
    assert_eq!((&status["state"], &status["run"]), (&"done".into(), &1.into()), "{status:#}");
    cluster.until_connected(2);
    let after = shard_records(&home.store());
    assert_eq!(after.len(), SHARDS as usize);
    for (shard, record) in &before {
        assert_eq!(after.get(shard), Some(record), "what was done is not done again");
    }
    let attempt = lease["attempt"].as_str().expect("an id");
    let kept = after.values().any(|record| record.writer.attempt.to_string() == attempt);
    assert!(kept, "the worker went on with what it held, and the successor took it");
    assert!(after.values().any(|record| record.writer.epoch.0 == 2), "the successor leads the next epoch");

    let watched = watch.wait(JOB_LIMIT);
    assert_eq!((watched.code(), &watched.json()["state"]), (Some(0), &"done".into()), "{watched:?}");
    home.check_fetched(&cluster, &job);
}

/// Starts a run and waits until its worker is in the middle of the second shard.
fn run_midway(home: &Home) -> (Running, Vec<u32>) {
    let run = Running::start(home.run());
    until("the first shard", JOB_LIMIT, || (!shard_records(&home.store()).is_empty()).then_some(()));
    let workers = workers_of(run.pid());
    assert_eq!(workers.len(), 1, "one worker for the CPU");
    (run, workers)
}

/// Workers that cannot end by themselves; none of them outlives a test that fails.
struct Stopped(Vec<u32>);

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.iter().filter(|pid| is_worker(**pid)).for_each(|pid| send(*pid, Signal::SIGKILL));
    }
}

fn check_interrupted(run: Running, workers: &[u32], limit: Duration) {
    let begun = Instant::now();
    let ended = run.wait(limit);
    let took = begun.elapsed();
    assert_eq!(ended.code(), Some(130), "{ended:?}");
    assert!(took < limit, "it took {took:?}");
    // A worker that is killed is gone when the system has let go of its memory.
    until("the workers to be gone", AT_ONCE, || workers.iter().all(|pid| !is_worker(*pid)).then_some(()));
}

/// The same command goes on and ends with the same bytes.
fn check_resumed(home: &Home) -> Ended {
    let before = shard_records(&home.store());
    let done = before.len();
    assert!((1..SHARDS as usize).contains(&done), "{done} shards were done");
    assert!(!home.results().join("metadata.json").exists(), "nothing is written before it is whole");
    let ended = succeed(home.run());
    let units_run = ended.json()["units_run"].as_u64().expect("a count");
    assert_eq!(units_run, u64::from(SHARDS) - done as u64 + 2, "the other shards and two trials");
    let after = shard_records(&home.store());
    assert!(before.iter().all(|(shard, record)| after.get(shard) == Some(record)));
    assert_same(&without_timings(read_tree(&home.results())), &home.shared.reference);
    ended
}

#[test]
fn an_interrupted_run_goes_on_where_it_stopped() {
    let (_turn, shared) = shared();
    let home = Home::new(shared);
    let (run, workers) = run_midway(&home);
    run.signal(Signal::SIGINT);
    check_interrupted(run, &workers, INTERRUPT_LIMIT);
    check_resumed(&home);
}

#[test]
fn a_second_interrupt_ends_a_run_at_once() {
    let (_turn, shared) = shared();
    let home = Home::new(shared);
    let (run, workers) = run_midway(&home);
    // A worker that cannot finish its batch: only the second Ctrl-C can end the run before the grace period.
    let stopped = Stopped(workers.clone());
    stopped.0.iter().for_each(|pid| send(*pid, Signal::SIGSTOP));
    run.signal(Signal::SIGINT);
    until("the run to say that it stops", AT_ONCE, || {
        run.stderr().contains("again stops at once").then_some(())
    });
    run.signal(Signal::SIGINT);
    check_interrupted(run, &workers, AT_ONCE);
    check_resumed(&home);
}

#[test]
fn a_worker_that_dies_in_a_run_is_started_again() {
    let (_turn, shared) = shared();
    let home = Home::new(shared);
    let (run, workers) = run_midway(&home);
    let killed = Instant::now();
    workers.iter().for_each(|pid| send(*pid, Signal::SIGKILL));
    let ended = run.wait(JOB_LIMIT);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    // The lease of a run is a minute; the end of a child ends its lease at once.
    assert!(killed.elapsed() < Duration::from_secs(60), "it took {:?}", killed.elapsed());
    let records = shard_records(&home.store());
    assert_eq!(records.values().map(|record| record.writer.attempt_number).max(), Some(2));
    assert_same(&without_timings(read_tree(&home.results())), &shared.reference);
}

#[test]
fn a_cancelled_job_frees_its_workers() {
    let (_turn, shared) = shared();
    let home = Home::new(shared);
    let mut cluster = Cluster::start(home.path(), LEASE_TTL_S);
    cluster.start_workers(2);
    let job = home.submit(&cluster);
    cluster.until_midway(&job, "extract", JOB_LIMIT);
    cluster.succeed(&["cancel", &job]);
    let status = cluster.until_ended(&job, INTERRUPT_LIMIT);
    assert_eq!(status["state"], "cancelled");
    assert_eq!(status["experiments"][0]["state"], "cancelled");
    until("the workers to be idle", INTERRUPT_LIMIT, || {
        let list = cluster.ask(&["workers"]);
        let workers = list["workers"].as_array()?;
        workers.iter().all(|worker| worker["doing"] == "" && worker["connected"] == true).then_some(())
    });
    assert_eq!(cluster.finish(&["status", &job]).code(), Some(1), "a cancelled job is no success");

    // The same job again is run 2, and the workers take its work at once.
    assert_eq!(home.submit(&cluster), job);
    let status = cluster.until_ended(&job, JOB_LIMIT);
    assert_eq!((&status["state"], &status["run"]), (&"done".into(), &2.into()), "{status:#}");
    home.check_fetched(&cluster, &job);
    let leftovers = read_all(&home.store());
    assert!(leftovers.keys().all(|key| !key.contains('#')), "no half-written object is left");
}
