//! `serve`, `submit` and the other clients' commands with workers as processes of their own; how much memory a worker
//! takes.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use lsa_coordinator::leader::TAKEOVER_AFTER;
use lsa_tests::bucket;
use lsa_tests::cluster::Cluster;
use lsa_tests::inputs::{dataset, tiny_model};
use lsa_tests::process::{command, peak_memory_bytes, succeed};
use lsa_tests::results::{assert_same, read_all, read_tree, without_timings};
use lsa_tests::wait::until;
use nix::sys::signal::Signal;

const LEASE_TTL_S: u32 = 10;
const JOB_LIMIT: Duration = Duration::from_secs(120);
/// A coordinator takes over within this time.
const START_LIMIT: Duration = Duration::from_secs(40);
/// A worker that has nothing to do ends within this time.
const END_LIMIT: Duration = Duration::from_secs(10);

/// By how much a worker's peak memory may grow from 8,192 texts to ten times as many, in bytes. A part of prepared texts
/// has 16,384 rows, so that the first have half a part and the others several full ones; beyond that memory stays where
/// it is. Measured: 30 MB, most of it what the allocator keeps. All rows of one pooling would be 57 MB.
const GROWTH_MAX_BYTES: u64 = 48 << 20;

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[test]
fn submitted_results_are_those_of_a_run() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (long, short) =
        (dataset(folder.path(), "long.txt", 1, 2500), dataset(folder.path(), "short.txt", 2, 700));
    let grid = folder.path().join("grid.toml");
    let model = tiny_model();
    fs::write(
        &grid,
        format!(
            "name = \"cluster\"\n[grid]\nmodels = [{model:?}]\npooling = [\"mean\", \"cls\"]\n\
             datasets = [{long:?}, {short:?}]\n[extraction]\nsave_embeddings = true\n\
             [similarity]\nsample_size = 150\ntrials = 3\n"
        ),
    )
    .expect("the test's folder");

    let embedded = folder.path().join("embedded");
    let mut run = command("lsa-coordinator", folder.path());
    run.arg("run").arg(&grid).arg("--output-dir").arg(&embedded);
    run.args(["--device", "cpu", "--store"]).arg(folder.path().join("own-store"));
    succeed(run);
    let expected = without_timings(read_tree(&embedded));
    assert!(expected.contains_key("bert_cls_short/embeddings/layer_3/batch_10.pt"));

    let mut cluster = Cluster::start(folder.path(), LEASE_TTL_S);
    cluster.start_workers(3);
    let watched = folder.path().join("watched");
    let submitted =
        cluster.succeed(&["submit", text(&grid), "--watch", "--output-dir", text(&watched), "--json"]).json();
    assert_eq!(submitted["state"], "done", "{submitted:#}");
    let found = read_tree(&watched);
    assert_same(&without_timings(found.clone()), &expected);

    let job = submitted["job"].as_str().expect("an id");
    assert!(job.starts_with("cluster-"), "{job}");
    let status = cluster.ask(&["status", job]);
    assert_eq!((&status["state"], &status["fraction"]), (&"done".into(), &1.0.into()));
    assert_eq!(status["units_run"], 2 + 3 + 4 * 3);
    assert_eq!(cluster.ask(&["status", "cluster"])["job"], job, "a beginning of the id is enough");
    let jobs = cluster.ask(&["jobs"]);
    assert_eq!(jobs.as_array().map(|jobs| (jobs.len(), &jobs[0]["job"])), Some((1, &job.into())));
    let workers = cluster.ask(&["workers"]);
    assert_eq!(workers["epoch"], 1);
    for worker in workers["workers"].as_array().expect("a list") {
        assert_eq!(
            (&worker["connected"], &worker["doing"], &worker["threads"]),
            (&true.into(), &"".into(), &1.into())
        );
    }
    let log = cluster.ask(&["logs", job]);
    let log: Vec<&str> = log.as_array().expect("lines").iter().filter_map(|line| line.as_str()).collect();
    assert!(
        log.iter().any(|line| line.contains("lent to w")) && log.last().is_some_and(|l| l.contains("done"))
    );

    // Again: attached to nothing, a second run with nothing to do. Fetched by a client of its own: the same bytes.
    assert_eq!(cluster.submit(&[text(&grid)]), job);
    let again = cluster.until_ended(job, JOB_LIMIT);
    assert_eq!((&again["run"], &again["units_run"]), (&2.into(), &0.into()), "{again:#}");
    let fetched = folder.path().join("fetched");
    cluster.succeed(&["fetch", job, "--output-dir", text(&fetched)]);
    assert_same(&read_tree(&fetched), &found);

    // Damage that nobody can mend while fetching is an error that says how to; the job run again mends it.
    let embeddings = cluster.store().join("embeddings");
    let objects = read_all(&embeddings);
    let rows =
        objects.keys().find(|key| key.contains("/cls/layer_1/rows_0.")).expect("rows of the first shard");
    bucket::flip_last_byte(&embeddings.join(rows));
    let refused = cluster.finish(&["fetch", job, "--output-dir", text(&fetched)]);
    assert_eq!(refused.code(), Some(1));
    assert!(refused.stderr.contains("run the job again"), "{}", refused.stderr);
    assert_eq!(cluster.submit(&[text(&grid)]), job);
    let mended = cluster.until_ended(job, JOB_LIMIT);
    assert_eq!((&mended["state"], &mended["units_run"]), (&"done".into(), &1.into()), "{mended:#}");
    fs::remove_dir_all(&fetched).expect("fetched before");
    cluster.succeed(&["fetch", job, "--output-dir", text(&fetched)]);
    assert_same(&without_timings(read_tree(&fetched)), &expected);

    let unknown = cluster.finish(&["status", "nothing-like-it"]);
    assert_eq!(unknown.code(), Some(2));
    assert!(unknown.stderr.contains("no job \"nothing-like-it\""), "{}", unknown.stderr);
}

#[test]
fn what_a_submission_names_goes_along() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // A folder that is gone when the work begins, as on a machine of its own.
    let client = folder.path().join("client");
    fs::create_dir(&client).expect("the test's folder");
    let texts = dataset(&client, "texts.txt", 5, 300);
    let model = client.join("bert");
    fs::create_dir(&model).expect("the test's folder");
    for entry in fs::read_dir(tiny_model()).expect("a fixture") {
        let path = entry.expect("a fixture").path();
        fs::copy(&path, model.join(path.file_name().expect("a listed file"))).expect("the test's folder");
    }
    let mut cluster = Cluster::start(folder.path(), LEASE_TTL_S);
    let job = cluster.submit(&[
        "--model",
        text(&model),
        "--dataset",
        &texts,
        "--sample-size",
        "100",
        "--trials",
        "1",
    ]);
    let status = cluster.ask(&["status", &job]);
    assert!(
        status["waiting"].as_str().is_some_and(|why| why.contains("no worker is connected")),
        "{status:#}"
    );
    fs::remove_dir_all(&client).expect("just written");
    cluster.start_workers(1);
    let status = cluster.until_ended(&job, JOB_LIMIT);
    assert_eq!(status["state"], "done", "{status:#}");

    // A worker ends on SIGTERM with success, and the coordinator notices.
    cluster.worker("w1").signal(Signal::SIGTERM);
    cluster.until_connected(0);
    assert_eq!(cluster.end_worker("w1", END_LIMIT).code(), Some(0));
}

#[test]
fn a_leader_that_was_stopped_stands_by_and_leads_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut cluster = Cluster::start(folder.path(), LEASE_TTL_S);
    let first = cluster.url().to_owned();
    let second = cluster.start_standby();
    // Whatever address a client is given, it finds the one that leads, or is told where that is.
    let both = format!("{second},{first}");
    assert_eq!(cluster.finish(&["workers", "--coordinator", &both, "--json"]).json()["epoch"], 1);
    let refused = cluster.finish(&["workers", "--coordinator", &second]);
    assert_eq!(refused.code(), Some(1));
    assert!(refused.stderr.contains(&format!("{second} (stands by)")), "{}", refused.stderr);

    cluster.signal_coordinator(Signal::SIGSTOP);
    cluster.until_taken_over();
    assert_eq!(cluster.ask(&["workers"])["epoch"], 2);
    cluster.standby(0).signal(Signal::SIGCONT);
    until("the first one to stand by", START_LIMIT, || {
        let said = cluster.standby(0).stderr();
        said.contains("epoch 1 is over").then_some(()).filter(|()| said.contains("standing by on"))
    });
    assert_eq!(cluster.finish(&["workers", "--coordinator", &both, "--json"]).json()["epoch"], 2);

    // One that is told to end says so, and nobody has to wait for its silence.
    let begun = Instant::now();
    cluster.signal_coordinator(Signal::SIGTERM);
    assert_eq!(cluster.end_coordinator(END_LIMIT).code(), Some(0));
    until("the first one to lead again", START_LIMIT, || {
        cluster.standby(0).stderr().contains("leading epoch 3").then_some(())
    });
    assert!(begun.elapsed() < TAKEOVER_AFTER, "it took {:?}", begun.elapsed());
    assert_eq!(cluster.finish(&["workers", "--coordinator", &first, "--json"]).json()["epoch"], 3);
}

#[test]
fn a_standby_takes_a_job_over() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let texts = dataset(folder.path(), "texts.txt", 9, 40_000);
    let model = tiny_model();
    let sample = ["--num-samples", "40000", "--sample-size", "200", "--trials", "3"];
    let grid = [&["--model", text(&model), "--dataset", &texts][..], &sample].concat();
    let quiet = folder.path().join("quiet");
    let mut run = command("lsa-coordinator", folder.path());
    run.arg("run").args(&grid).arg("--output-dir").arg(&quiet);
    run.args(["--device", "cpu", "--store"]).arg(folder.path().join("quiet-store"));
    succeed(run);

    let mut cluster = Cluster::start(folder.path(), LEASE_TTL_S);
    cluster.start_standby();
    let (urls, store) = (cluster.urls(), cluster.store());
    cluster.start_worker_with("w1", &["--coordinator", &urls]);
    cluster.start_worker_with("w2", &["--store", text(&store)]);
    cluster.until_connected(2);
    let job = cluster.submit(&grid);
    let output = folder.path().join("results");
    let watching = cluster.begin(&["watch", &job, "--coordinator", &urls]);
    cluster.until_midway(&job, "extract", JOB_LIMIT);
    cluster.kill_coordinator();
    cluster.until_taken_over();
    let status = cluster.until_ended(&job, JOB_LIMIT);
    assert_eq!((&status["state"], &status["run"]), (&"done".into(), &1.into()), "{status:#}");
    assert_eq!(watching.wait(END_LIMIT).code(), Some(0), "a watcher goes on with the one that took over");
    cluster.succeed(&["fetch", &job, "--output-dir", text(&output)]);
    assert_same(&without_timings(read_tree(&output)), &without_timings(read_tree(&quiet)));
}

#[test]
fn jobs_are_paused_and_workers_drained() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let texts = dataset(folder.path(), "texts.txt", 11, 30_000);
    let model = tiny_model();
    let mut cluster = Cluster::start(folder.path(), LEASE_TTL_S);
    cluster.start_standby();
    let urls = cluster.urls();
    for id in ["w1", "w2"] {
        cluster.start_worker_with(id, &["--coordinator", &urls]);
    }
    cluster.until_connected(2);
    let sample = ["--num-samples", "30000", "--sample-size", "200", "--trials", "2"];
    let job = cluster.submit(&[&["--model", text(&model), "--dataset", &texts][..], &sample].concat());
    let done = |cluster: &Cluster| cluster.ask(&["status", &job])["units_done"].as_u64().filter(|n| *n > 1);
    until("some units", JOB_LIMIT, || done(&cluster));

    assert_eq!(cluster.ask(&["pause", &job])["paused"], true);
    until("what is under way to end", JOB_LIMIT, || {
        let status = cluster.ask(&["status", &job]);
        let waits = status["waiting"].as_str().is_some_and(|why| why.starts_with("it is paused"));
        (waits && status["leases"] == serde_json::json!([])).then_some(())
    });
    let before = done(&cluster).expect("some were done");
    // The order outlives who took it.
    cluster.kill_coordinator();
    cluster.until_taken_over();
    cluster.until_connected(2);
    let status = cluster.ask(&["status", &job]);
    assert_eq!((&status["paused"], &status["state"]), (&true.into(), &"running".into()), "{status:#}");
    assert_eq!(cluster.ask(&["jobs"])[0]["paused"], true);

    let unknown = cluster.finish(&["drain", "w9"]);
    assert_eq!(unknown.code(), Some(2));
    assert!(unknown.stderr.contains("no worker \"w9\""), "{}", unknown.stderr);
    assert_eq!(cluster.ask(&["drain", "w1"])["draining"], true);
    assert_eq!(cluster.end_worker("w1", END_LIMIT).code(), Some(0));

    assert_eq!(cluster.ask(&["resume", &job])["paused"], false);
    let status = cluster.until_ended(&job, JOB_LIMIT);
    assert_eq!(status["state"], "done", "{status:#}");
    assert!(before < status["units_done"].as_u64().expect("a number"), "{before} of {status:#}");
    let late = cluster.finish(&["pause", &job]);
    assert_eq!(late.code(), Some(1));
    assert!(late.stderr.contains("has ended"), "{}", late.stderr);
}

#[test]
fn memory_of_a_worker_does_not_grow_with_the_texts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let peak = |name: &str, n: usize| {
        let home = folder.path().join(name);
        fs::create_dir(&home).expect("the test's folder");
        let texts = dataset(&home, "texts.txt", 7, n);
        let mut cluster = Cluster::start(&home, LEASE_TTL_S);
        cluster.start_workers(1);
        let model = tiny_model();
        let job = cluster.submit(&[
            "--model",
            text(&model),
            "--dataset",
            &texts,
            "--pooling",
            "mean",
            "cls",
            "--sample-size",
            "400",
            "--trials",
            "2",
            "--batch-size",
            "16",
            "--num-samples",
            &n.to_string(),
        ]);
        let status = cluster.until_ended(&job, JOB_LIMIT);
        assert_eq!(status["state"], "done", "{status:#}");
        let segments = bucket::segments(&cluster.store());
        let rolled_up = if n < 16 * 2048 { vec![] } else { vec!["seg_0-39.0.json"; 2] };
        assert_eq!(segments, rolled_up, "what one coordinator made is rolled up once per pooling");
        peak_memory_bytes(cluster.worker("w1").pid())
    };
    // Four full shards and forty, so that only their number differs.
    let (once, tenfold) = (peak("once", 8192), peak("tenfold", 81_920));
    println!("peak memory: {} MB for 8,192 texts, {} MB for 81,920", once >> 20, tenfold >> 20);
    assert!(tenfold <= once + GROWTH_MAX_BYTES, "{once} bytes for 8,192 texts, {tenfold} for 81,920");
}
