//! The coordinator killed at each step that it writes down, just before the store carries it out and just after, when the
//! answer is lost. Another one goes on, and the bytes are those of a run that nobody disturbed.
//!
//! Nothing in the programs helps: the S3 server of this process knows every request, and kills who sent it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::Method;
use lsa_tests::cluster::Cluster;
use lsa_tests::inputs::{dataset, tiny_model};
use lsa_tests::process::{command, send, succeed};
use lsa_tests::results::{Tree, assert_same, read_tree, without_timings};
use lsa_tests::s3_server::{CREDENTIALS, Fault, Promise, S3Server};
use lsa_tests::wait::until;
use nix::sys::signal::Signal;

const LEASE_TTL_S: u32 = 4;
const LIMIT: Duration = Duration::from_secs(150);
/// Clusters at once: most of their time they wait for a takeover.
const AT_ONCE: usize = 4;

/// What is put, by a part of its key.
const STEPS: [&str; 9] = [
    "/spec.json",
    "/request.json",
    "/profiles/",
    "texts/",
    "/mean/commits/",
    "/trials/",
    "/results/",
    "/status/",
    "epochs/1.beat",
];

fn grid(folder: &Path) -> Vec<String> {
    let texts = dataset(folder, "texts.txt", 4, 3000);
    let model = tiny_model().display().to_string();
    let grid = format!("--model {model} --pooling mean cls --dataset {texts} --trials 3 --sample-size 150");
    grid.split(' ').map(str::to_owned).collect()
}

/// Kills the coordinator at the first put of a key with `step` in it.
fn killed_at(step: &'static str, is_carried_out: bool, grid: &[&str], expected: &Tree) {
    let home = tempfile::tempdir().expect("a temporary folder");
    let server = S3Server::start(Promise::Kept);
    let mut cluster = Cluster::start_at(home.path(), LEASE_TTL_S, &server.url("p"), &CREDENTIALS);
    let pid = cluster.coordinator_pid();
    let done = AtomicBool::new(false);
    server.rule(move |method, path| {
        let is_it = *method == Method::PUT && path.contains(step) && !path.contains("/part_");
        if !is_it || done.swap(true, Ordering::Relaxed) {
            return Fault::None;
        }
        send(pid, Signal::SIGKILL);
        if is_carried_out { Fault::Lost } else { Fault::Reset }
    });
    cluster.start_worker("w1");
    let submit = [&["submit"], grid, &["--json"]].concat();
    // Whoever submits gets no answer where that is the step, and submits again.
    let first = cluster.finish(&submit);
    until("the coordinator to be killed", LIMIT, || cluster.coordinator_has_ended().then_some(()));
    cluster.restart_coordinator();
    let job = match first.code() {
        Some(0) => first.json()["job"].as_str().expect("a name").to_owned(),
        _ => cluster.submit(grid),
    };
    let status = cluster.until_ended(&job, LIMIT);
    assert_eq!(status["state"], "done", "{step} {is_carried_out}: {status:#}");
    let output = home.path().join("results");
    cluster.succeed(&["fetch", &job, "--output-dir", output.to_str().expect("a plain path")]);
    assert_same(&without_timings(read_tree(&output)), expected);
}

#[test]
fn a_coordinator_may_die_at_any_step() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let grid = grid(folder.path());
    let quiet = folder.path().join("quiet");
    let mut run = command("lsa-coordinator", folder.path());
    run.arg("run").args(&grid).args(["--device", "cpu"]).arg("--output-dir").arg(&quiet);
    run.arg("--store").arg(folder.path().join("store"));
    succeed(run);
    let expected = without_timings(read_tree(&quiet));
    let grid: Vec<&str> = grid.iter().map(String::as_str).collect();
    let cases: Vec<(&'static str, bool)> =
        STEPS.iter().flat_map(|step| [(*step, false), (*step, true)]).collect();
    for some in cases.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            for (step, is_carried_out) in some {
                let (grid, expected) = (&grid, &expected);
                scope.spawn(move || killed_at(step, *is_carried_out, grid, expected));
            }
        });
    }
}
