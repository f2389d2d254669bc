//! Faults that one has to stage, one by one: disks, clocks, memory, texts that kill, workers that come back late, links
//! that lose much, and jobs that want the same. Whatever happens, the bytes are those of a run that nobody disturbed, or
//! the result says by name what could not be done.

#[path = "faults/clocks.rs"]
mod clocks;
#[path = "faults/disks.rs"]
mod disks;
#[path = "faults/large.rs"]
mod large;
#[path = "faults/links.rs"]
mod links;
#[path = "faults/memory.rs"]
mod memory;
#[path = "faults/poison.rs"]
mod poison;
#[path = "faults/shared.rs"]
mod shared;

use std::path::{Path, PathBuf};
use std::time::Duration;

use lsa_tests::cluster::Cluster;
use lsa_tests::inputs::{dataset, tiny_model};
use lsa_tests::process::{command, succeed};
use lsa_tests::results::{Tree, assert_same, read_tree, without_timings};

const LEASE_TTL_S: u32 = 4;
const JOB_LIMIT: Duration = Duration::from_secs(120);

/// A grid over texts of its own, and what a run of it gives that nobody disturbs.
struct Quiet {
    folder: tempfile::TempDir,
    grid: Vec<String>,
    expected: Tree,
}

impl Quiet {
    /// A grid of a tiny model over so many texts; 2,048 make a shard.
    fn new(n_texts: usize) -> Self {
        Self::of(&tiny_model(), n_texts)
    }

    fn of(model: &Path, n_texts: usize) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let texts = dataset(folder.path(), "texts.txt", 6, n_texts);
        let model = model.display();
        let line = format!(
            "--model {model} --pooling mean cls --dataset {texts} --num-samples {n_texts} --trials 3 --sample-size 150"
        );
        let grid: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let results = folder.path().join("quiet");
        let mut run = command("lsa-coordinator", folder.path());
        run.arg("run").args(&grid).args(["--device", "cpu"]).arg("--output-dir").arg(&results);
        run.arg("--store").arg(folder.path().join("quiet-store"));
        succeed(run);
        let expected = without_timings(read_tree(&results));
        Self { folder, grid, expected }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn submit(&self, cluster: &Cluster) -> String {
        cluster.submit(&self.grid.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// That a job ends well, with these bytes.
    fn check(&self, cluster: &Cluster, job: &str) {
        let status = cluster.until_ended(job, JOB_LIMIT);
        assert_eq!(status["state"], "done", "{status:#}");
        let output: PathBuf = self.path().join("fetched");
        cluster.succeed(&["fetch", job, "--output-dir", output.to_str().expect("a plain path")]);
        assert_same(&without_timings(read_tree(&output)), &self.expected);
    }
}
