//! Workers that come back late, and links that lose much.

use std::net::SocketAddr;

use lsa_tests::bucket::shard_records;
use lsa_tests::cluster::Cluster;
use lsa_tests::proxy::{Proxy, Weather};
use lsa_tests::s3_server::{CREDENTIALS, Promise, S3Server};
use lsa_tests::wait::until;
use nix::sys::signal::Signal;

use super::{JOB_LIMIT, LEASE_TTL_S, Quiet};

/// A worker is stopped for longer than its lease, its unit is done by another one, and then it goes on.
#[test]
fn a_zombie_changes_nothing() {
    let quiet = Quiet::new(40_000);
    let mut cluster = Cluster::start(quiet.path(), LEASE_TTL_S);
    cluster.start_workers(2);
    let job = quiet.submit(&cluster);
    let lease = cluster.until_midway(&job, "extract", JOB_LIMIT);
    let zombie = lease["worker"].as_str().expect("a worker").to_owned();
    let shard: u32 =
        lease["what"].as_str().and_then(|what| what.rsplit(' ').next()?.parse().ok()).expect("a shard");
    cluster.worker(&zombie).signal(Signal::SIGSTOP);
    let of_shard = || {
        let records = shard_records(&cluster.store()).into_iter();
        records.filter(|((_, number, _), _)| *number == shard).collect::<Vec<_>>()
    };
    let before = until("the other worker to do it", JOB_LIMIT, || {
        Some(of_shard()).filter(|records| records.len() == 2)
    });
    assert!(before.iter().all(|(_, record)| record.writer.worker.as_str() != zombie), "{before:#?}");
    cluster.worker(&zombie).signal(Signal::SIGCONT);
    cluster.until_connected(2);
    quiet.check(&cluster, &job);
    assert_eq!(of_shard(), before, "what stands stays");
    // It is no zombie any more.
    let workers = cluster.ask(&["workers"]);
    let workers = workers["workers"].as_array().expect("a list");
    assert!(workers.iter().all(|worker| worker["connected"] == true), "{workers:#?}");
}

fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().expect("an address by numbers")
}

/// Everybody reaches everybody else through a link that stalls again and again and breaks now and then.
#[test]
fn a_job_ends_over_links_that_lose_much() {
    let quiet = Quiet::new(10_000);
    let server = S3Server::start(Promise::Kept);
    let to_store = Proxy::to(address(&server.endpoint()));
    let store = server.url("p").replace(&server.endpoint(), &format!("http://{}", to_store.address()));
    let mut cluster = Cluster::start_at(quiet.path(), LEASE_TTL_S, &store, &CREDENTIALS);
    let to_coordinator = Proxy::to(address(cluster.url()));
    let url = format!("http://{}", to_coordinator.address());
    for id in ["w1", "w2"] {
        cluster.start_worker_with(id, &["--coordinator", &url]);
    }
    cluster.until_connected(2);
    to_store.set(Weather::Lossy);
    to_coordinator.set(Weather::Lossy);
    let job = quiet.submit(&cluster);
    cluster.until_ended(&job, JOB_LIMIT);
    assert!(to_store.losses() > 0 && to_coordinator.losses() > 0, "nothing was lost");
    to_store.set(Weather::Clear);
    quiet.check(&cluster, &job);
}

/// One worker is cut off from the store until the other one has done something meanwhile, and then from the coordinator
/// until its lease has run out.
#[test]
fn a_partition_of_one_worker_passes() {
    let quiet = Quiet::new(60_000);
    let server = S3Server::start(Promise::Kept);
    let mut cluster = Cluster::start_at(quiet.path(), LEASE_TTL_S, &server.url("p"), &CREDENTIALS);
    let (to_store, to_coordinator) =
        (Proxy::to(address(&server.endpoint())), Proxy::to(address(cluster.url())));
    let store = server.url("p").replace(&server.endpoint(), &format!("http://{}", to_store.address()));
    let url = format!("http://{}", to_coordinator.address());
    cluster.start_worker("w1");
    cluster.start_worker_with("cut-off", &["--coordinator", &url, "--store", &store]);
    cluster.until_connected(2);
    let job = quiet.submit(&cluster);
    let holds = || {
        let status = cluster.ask(&["status", &job]);
        assert_eq!(status["state"], "running", "the job ended too soon: {status:#}");
        let is_it = |lease: &serde_json::Value| {
            lease["worker"] == "cut-off"
                && lease["what"].as_str().is_some_and(|what| what.starts_with("extract"))
        };
        status["leases"].as_array()?.iter().any(is_it).then_some(())
    };
    let records = || shard_records(&server.folder().join("p")).len();

    until("the worker to have a shard", JOB_LIMIT, holds);
    to_store.set(Weather::Silent);
    let before = records();
    // What was sent before the silence may be recorded yet: two poolings of a shard.
    until("the other worker to go on", JOB_LIMIT, || (records() > before + 2).then_some(()));
    to_store.set(Weather::Clear);

    until("the worker to have a shard", JOB_LIMIT, holds);
    to_coordinator.set(Weather::Silent);
    until("its lease to run out", JOB_LIMIT, || {
        let log = cluster.ask(&["logs", &job]).to_string();
        log.contains("worker cut-off gave no sign of life").then_some(())
    });
    to_coordinator.set(Weather::Clear);
    quiet.check(&cluster, &job);
}
