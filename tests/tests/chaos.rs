//! Real processes under random harm: two coordinators, four workers and an S3 server, whose processes are killed, stopped
//! and told to end, and whose networks are cut, silent and slow, for a bounded time. Then everything must come to its end,
//! with the bytes of a run that nobody disturbed.
//!
//! `make test` runs it for seconds against `moto_server`; `make chaos` for many minutes against a Ceph object gateway:
//! ```text
//! LSA_CHAOS_SECONDS=900 LSA_CHAOS_STORE='s3://bucket/prefix?endpoint=http://127.0.0.1:7480' LSA_CHAOS_SEED=7 \
//!     cargo test --release -p lsa-tests --test chaos -- --nocapture
//! ```
//! The seed decides what is done to whom in which order; when exactly it meets them is the machine's.

#[path = "chaos/field.rs"]
mod field;
#[path = "chaos/harm.rs"]
mod harm;

use std::path::Path;
use std::time::{Duration, Instant};

use field::Field;
use harm::Harm;
use lsa_tests::inputs::{dataset, tiny_model};
use lsa_tests::moto::Moto;
use lsa_tests::process::{command, succeed};
use lsa_tests::python::skipped;
use lsa_tests::results::{Tree, assert_same, read_tree, without_timings};
use lsa_tests::s3_server::CREDENTIALS;
use lsa_tests::wait::until;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

const SECONDS: u64 = 20;
/// The longest that anything waits once the harm is over: leases, a takeover, back-offs; and the work itself.
const CALM_LIMIT: Duration = Duration::from_secs(300);
/// Shards of 1,024.
const TEXTS: usize = 20_000;

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn number(name: &str) -> Option<u64> {
    setting(name).map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// The jobs of one round: two that share an extraction, and one of their own.
fn grids(folder: &Path, round: u64) -> Vec<Vec<String>> {
    let shared = dataset(folder, &format!("shared-{round}.txt"), 2 * round, TEXTS);
    let own = dataset(folder, &format!("own-{round}.txt"), 2 * round + 1, TEXTS);
    let grid = |texts: &str, poolings: &[&str], seed: u64| {
        let mut grid: Vec<String> =
            vec!["--model".into(), tiny_model().display().to_string(), "--pooling".into()];
        grid.extend(poolings.iter().map(|pooling| (*pooling).to_owned()));
        let rest =
            format!("--dataset {texts} --num-samples {TEXTS} --trials 6 --sample-size 150 --seed {seed}");
        grid.extend(rest.split(' ').map(str::to_owned));
        grid
    };
    vec![grid(&shared, &["mean", "cls"], 1), grid(&shared, &["mean"], 2), grid(&own, &["max"], 1)]
}

/// What a run that nobody disturbs makes of a grid.
fn quiet(folder: &Path, grid: &[String], name: &str) -> Tree {
    let output = folder.join(name);
    let mut run = command("lsa-coordinator", folder);
    run.arg("run").args(grid).args(["--device", "cpu"]).arg("--output-dir").arg(&output);
    run.arg("--store").arg(folder.join("quiet-store"));
    succeed(run);
    without_timings(read_tree(&output))
}

#[test]
fn whatever_is_done_to_it_the_bytes_are_the_same() {
    let limit = Duration::from_secs(number("LSA_CHAOS_SECONDS").unwrap_or(SECONDS));
    let seed = number("LSA_CHAOS_SEED").unwrap_or(1);
    let moto = if setting("LSA_CHAOS_STORE").is_none() {
        match Moto::start() {
            Ok(moto) => Some(moto),
            Err(reason) => return skipped("whatever_is_done_to_it_the_bytes_are_the_same", &reason),
        }
    } else {
        None
    };
    let store = moto
        .as_ref()
        .map_or_else(|| setting("LSA_CHAOS_STORE").expect("looked up"), |moto| moto.url("chaos"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    println!("seed {seed}, {limit:?}, {store}");
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let mut field = Field::new(folder.path(), &store, moto.as_ref().map(Moto::process), &CREDENTIALS);

    let begun = Instant::now();
    let mut rounds = 0;
    let mut n_harms = 0;
    while begun.elapsed() < limit || rounds == 0 {
        let grids = grids(folder.path(), rounds);
        let jobs: Vec<String> = grids.iter().map(|grid| field.submit(grid)).collect();
        // The same job once more is the same job.
        assert_eq!(field.submit(&grids[0]), jobs[0]);
        while begun.elapsed() < limit && !jobs.iter().all(|job| field.has_ended(job)) {
            let harm = Harm::draw(&mut generator);
            println!("{:>6.1} s: {harm:?}", begun.elapsed().as_secs_f64());
            harm.befall(&mut field, &mut generator);
            n_harms += 1;
            field.pass(Duration::from_millis(200 + generator.next_u64() % 1_500));
        }
        field.calm();
        for (grid, (place, job)) in grids.iter().zip(jobs.iter().enumerate()) {
            let status = until("the job to end", CALM_LIMIT, || {
                field.tend();
                field.status(job).filter(|status| status["state"] != "running")
            });
            assert_eq!(status["state"], "done", "{status:#}");
            let found = without_timings(read_tree(&field.fetch(job)));
            assert_same(&found, &quiet(folder.path(), grid, &format!("quiet-{rounds}-{place}")));
        }
        rounds += 1;
    }
    println!("{n_harms} harms in {rounds} rounds, {:.0} s", begun.elapsed().as_secs_f64());
    assert!(n_harms > 0, "the jobs ended before anything was done to them");
}
