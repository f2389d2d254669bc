//! Texts that kill whoever computes them.

use std::collections::BTreeSet;

use lsa_tests::cluster::Cluster;
use lsa_tests::s3_server::{CREDENTIALS, Fault, Promise, S3Server};
use lsa_tests::wait::until;
use serde_json::Value;

use super::{JOB_LIMIT, LEASE_TTL_S, Quiet};

/// Attempts at a unit before it is given up, as many as a grid asks for if it says nothing.
const ATTEMPTS_MAX: u64 = 4;

/// Whoever computes the second shard is killed before it can deliver. The store lets nobody write these rows, so that the
/// kill never comes too late.
#[test]
fn texts_that_kill_workers_are_given_up_and_named() {
    let quiet = Quiet::new(5000);
    let server = S3Server::start(Promise::Kept);
    server.rule(|_, path| match path.contains("/rows_1.") {
        true => Fault::Refused(503, "SlowDown"),
        false => Fault::None,
    });
    let mut cluster = Cluster::start_at(quiet.path(), LEASE_TTL_S, &server.url("p"), &CREDENTIALS);
    let job = quiet.submit(&cluster);
    let mut killed = Vec::new();
    for number in 1..=ATTEMPTS_MAX {
        // One at a time, so that it is known who does what; the first one also does everything else.
        let id = format!("w{number}");
        cluster.start_worker(&id);
        let lease = until("the poison to be lent", JOB_LIMIT, || {
            let status = cluster.ask(&["status", &job]);
            assert_eq!(status["state"], "running", "{status:#}");
            let is_poison = |lease: &&Value| {
                lease["worker"] == id && lease["what"].as_str().is_some_and(|what| what.ends_with("shard 1"))
            };
            status["leases"].as_array()?.iter().find(is_poison).cloned()
        });
        assert_eq!(lease["attempt_number"], number);
        cluster.kill_worker(&id);
        killed.push(id);
    }
    let status = cluster.until_ended(&job, JOB_LIMIT);
    assert_eq!(status["state"], "failed", "{status:#}");
    let said = status.to_string();
    let which = "shard 1 (texts 2048 to 4095, counted from 0): gave up after 4 attempts";
    assert!(said.contains(which), "{status:#}");
    let named: BTreeSet<&String> = killed.iter().filter(|id| said.contains(id.as_str())).collect();
    assert_eq!(named.len(), killed.len(), "every worker that it killed is named: {status:#}");

    // Mended, the same job does what is left and no more.
    server.rule(|_, _| Fault::None);
    cluster.start_worker("last");
    assert_eq!(quiet.submit(&cluster), job);
    quiet.check(&cluster, &job);
}
