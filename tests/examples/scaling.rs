//! How close a fleet comes to the ideal when units take a second each, and what the coordinator costs.
//!
//! ```text
//! cargo build --release --workspace --bins && cargo run --release -p lsa-tests --example scaling [workers] [seconds] [s3]
//! ```
//!
//! A real coordinator, and workers that do all that a worker does but compute: they register, ask, wait a second,
//! write objects of the names and layers that the unit asks for, and report. The job has as many shards as the workers
//! make in that time. The bucket is a folder; with `s3` an S3 server in this process, which keeps it in a folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lsa_common::id::{AttemptId, Digest, Epoch, JobId};
use lsa_common::job::{JobSpec, Trials};
use lsa_common::layout;
use lsa_common::record::{ExtractNotes, ShardLayer, StoredObject};
use lsa_common::report::{Extracted, Outcome, Prepared};
use lsa_common::trial_matrices::TrialMatrices;
use lsa_common::unit::Unit;
use lsa_common::wire::job as pb;
use lsa_common::wire::job::jobs_client::JobsClient;
use lsa_tests::cluster::Cluster;
use lsa_tests::inputs::{dataset, tiny_model};
use lsa_tests::s3_server::{CREDENTIALS, Promise, S3Server};
use lsa_worker::rpc::{FromCoordinator, Introduction, Session};
use tonic::transport::{Channel, Endpoint};

const COMPUTE: Duration = Duration::from_secs(1);
/// The least that a shard may have, so that the texts stay few.
const SHARD_ROWS: u32 = 32;
const TRIALS: u32 = 5;
const LEASE_TTL_S: u32 = 60;
/// Of the times in `/proc`, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize, default: u32| match arguments.get(place) {
        None => default,
        Some(number) => number.parse().expect("workers, seconds: numbers"),
    };
    let (n_workers, seconds) = (number(0, 64), number(1, 60));
    let home = tempfile::tempdir().expect("a temporary folder");
    let server = (arguments.get(2).map(String::as_str) == Some("s3")).then(|| S3Server::start(Promise::Kept));
    let (cluster, bucket) = match &server {
        Some(server) => {
            let cluster = Cluster::start_at(home.path(), LEASE_TTL_S, &server.url("p"), &CREDENTIALS);
            (cluster, server.folder().join("p"))
        }
        None => {
            let cluster = Cluster::start(home.path(), LEASE_TTL_S);
            let bucket = cluster.store();
            (cluster, bucket)
        }
    };
    let n_shards = n_workers * seconds;
    let spec = spec(&cluster, home.path(), &bucket, n_shards);
    let n_objects =
        spec.experiments.iter().map(|experiment| experiment.extraction.layers.len()).sum::<usize>();
    println!(
        "{n_workers} workers, {n_shards} shards of {n_objects} objects, bucket {}",
        bucket_kind(&server)
    );
    tokio::runtime::Runtime::new().expect("threads").block_on(async {
        let channel = Endpoint::new(cluster.url().to_owned()).expect("an address").connect_lazy();
        let fleet: Vec<_> = (0..n_workers)
            .map(|number| tokio::spawn(work(channel.clone(), number, bucket.clone())))
            .collect();
        cluster.until_connected(n_workers as usize);
        measure(&cluster, channel, &spec, n_workers, n_shards).await;
        fleet.iter().for_each(tokio::task::JoinHandle::abort);
    });
}

fn bucket_kind(server: &Option<S3Server>) -> &'static str {
    if server.is_some() { "S3" } else { "a folder" }
}

/// A job of the tiny model over so many shards, as the coordinator has resolved it.
fn spec(cluster: &Cluster, home: &Path, bucket: &Path, n_shards: u32) -> JobSpec {
    let n_texts = n_shards * SHARD_ROWS;
    let texts = dataset(home, "texts.txt", 1, n_texts as usize);
    let (model, n_texts) = (tiny_model().display().to_string(), n_texts.to_string());
    let of = ["--model", &model, "--dataset", &texts, "--num-samples", &n_texts, "--sample-size", "100"];
    let job = cluster.submit(&of);
    cluster.ask(&["cancel", &job]);
    let job: JobId = job.parse().expect("an id");
    let json = fs::read(bucket.join(layout::job_spec(&job))).expect("what was submitted");
    let mut spec: JobSpec = serde_json::from_slice(&json).expect("a spec");
    for experiment in &mut spec.experiments {
        experiment.extraction.shard_rows = SHARD_ROWS;
        experiment.similarity.trials = Trials::Fixed(TRIALS);
    }
    spec
}

async fn measure(cluster: &Cluster, channel: Channel, spec: &JobSpec, n_workers: u32, n_shards: u32) {
    let mut client = JobsClient::new(channel);
    let begun = Instant::now();
    let cpu_before = cpu_seconds(cluster.coordinator_pid());
    let chunk = pb::SpecChunk { data: serde_json::to_vec(spec).expect("a spec serialises").into() };
    let job_id =
        client.submit(futures::stream::iter([chunk])).await.expect("a sound spec").into_inner().job_id;
    let mut updates = client.watch_job(pb::JobRequest { job_id }).await.expect("just submitted").into_inner();
    let mut last = None;
    while let Some(status) = updates.message().await.expect("the coordinator is there") {
        last = Some(status);
    }
    let last = last.expect("a job has a status");
    assert_eq!(last.state(), pb::JobState::Done, "{last:#?}");
    let (took, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds(cluster.coordinator_pid()) - cpu_before);
    // One after another: the texts, the shards, the trials.
    let n_trial_units = u32::try_from(last.units_total).expect("few") - n_shards - 1;
    let rounds = 1 + n_shards.div_ceil(n_workers) + n_trial_units.div_ceil(n_workers);
    let ideal = f64::from(rounds) * COMPUTE.as_secs_f64();
    println!("took {took:.2} s, ideally {ideal:.0} s: {:+.1} %", (took / ideal - 1.0) * 100.0);
    let rate = last.units_total as f64 / took;
    println!("{rate:.0} units/s; the coordinator used {cpu:.2} CPU-s: {:.1} % of a core", cpu / took * 100.0);
}

/// User and system time of a process so far.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process of one's own");
    let (_, fields) = stat.rsplit_once(')').expect("the name is in parentheses");
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().expect("a number")).sum();
    ticks as f64 / TICKS_PER_SECOND
}

/// One worker, to the end of the program.
async fn work(channel: Channel, number: u32, bucket: PathBuf) {
    let introduction = Introduction {
        worker: format!("simulated-{number}").parse().expect("a plain name"),
        device: "none".to_owned(),
        threads: 1,
        memory_bytes: 1 << 40,
        numeric_profile: "simulated".to_owned(),
    };
    let (mut session, _) = Session::open(channel, &introduction, &[], Epoch(0)).await.expect("a coordinator");
    session.ask().await.expect("a coordinator");
    loop {
        let message = session.next().await.expect("a coordinator");
        let FromCoordinator::Lease { unit, attempt, payload } = message else { continue };
        tokio::time::sleep(COMPUTE).await;
        let outcome = outcome(&bucket, &payload, attempt);
        session.report(&unit, attempt, 1_000, outcome).await.expect("a coordinator");
        session.ask().await.expect("a coordinator");
    }
}

/// Writes what a unit asks for, with nothing in it.
fn outcome(bucket: &Path, unit: &Unit, attempt: AttemptId) -> Outcome {
    let put = |key: String| {
        let path = bucket.join(&key);
        fs::create_dir_all(path.parent().expect("a key has a folder")).expect("the bucket's folder");
        fs::write(path, b"none").expect("the bucket's folder");
        StoredObject { key, size: 4, sha256: Digest::of(b"none") }
    };
    match unit {
        Unit::Mirror(_) => Outcome::Mirrored,
        Unit::Prepare(unit) => Outcome::Prepared(Prepared {
            parts: vec![put(layout::texts_part(unit.texts_key, 0, attempt))],
            n_texts: u64::from(unit.texts.n_texts),
            n_blank: 0,
            n_bad: 0,
            n_duplicates: 0,
            columns: Vec::new(),
            warnings: Vec::new(),
        }),
        Unit::Extract(unit) => {
            let layer = |pooling, layer: u32| {
                let key = layout::embedding_rows(unit.extraction_key, pooling, layer, unit.shard, attempt);
                ShardLayer { layer, width: 48, object: put(key) }
            };
            let layers =
                |pooling| unit.settings.layers.iter().map(|number| layer(pooling, *number)).collect();
            let poolings = unit.poolings.iter().map(|pooling| (*pooling, layers(*pooling))).collect();
            Outcome::Extracted(Extracted { poolings, notes: ExtractNotes::default() })
        }
        Unit::Compare(unit) => {
            let n_layers = unit.n_layers();
            let ones = vec![1.0; n_layers * n_layers];
            let matrices = TrialMatrices {
                n_layers: u32::try_from(n_layers).expect("few"),
                matrices: unit.settings.metrics.iter().map(|metric| (metric.clone(), ones.clone())).collect(),
                nulls: Vec::new(),
                layer_metrics: Vec::new(),
                undefined: BTreeMap::new(),
            };
            Outcome::Compared(unit.trials.iter().map(|trial| (*trial, matrices.clone())).collect())
        }
    }
}
