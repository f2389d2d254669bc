//! The object key of every artifact; no other file builds one.
//!
//! The tree is drawn in README.md. Numbers in names are zero-padded only where a listing's order matters to a person;
//! readers parse them.

use std::collections::BTreeMap;

use crate::id::{AttemptId, Digest, Epoch, JobId, UnitId};
use crate::model::Pooling;

/// The version of the stored format, written once.
pub const FORMAT: &str = "format.json";

/// A file that came with a submission, by content.
pub fn input(sha256: Digest) -> String {
    format!("inputs/{sha256}")
}

/// A part of prepared texts.
pub fn texts_part(texts_key: Digest, part: usize, attempt: AttemptId) -> String {
    format!("texts/{texts_key}/part_{part}.{attempt}.parquet")
}

/// The folder of the records of prepared texts.
pub fn texts_commits(texts_key: Digest) -> String {
    format!("texts/{texts_key}/commits")
}

/// The record of prepared texts, generation `generation`.
pub fn texts_commit(texts_key: Digest, generation: u32) -> String {
    format!("{}/{generation}.json", texts_commits(texts_key))
}

/// Everything of one extraction and pooling.
pub fn embeddings(extraction_key: Digest, pooling: Pooling) -> String {
    format!("embeddings/{extraction_key}/{pooling}")
}

/// The rows of one shard at one layer.
pub fn embedding_rows(
    extraction_key: Digest,
    pooling: Pooling,
    layer: u32,
    shard: u32,
    attempt: AttemptId,
) -> String {
    format!("{}/layer_{layer}/rows_{shard}.{attempt}.safetensors", embeddings(extraction_key, pooling))
}

/// The folder of the records of one extraction and pooling.
pub fn embeddings_commits(extraction_key: Digest, pooling: Pooling) -> String {
    format!("{}/commits", embeddings(extraction_key, pooling))
}

/// The record of a shard, generation `generation`.
pub fn embeddings_commit(extraction_key: Digest, pooling: Pooling, shard: u32, generation: u32) -> String {
    format!("{}/{shard}.{generation}.json", embeddings_commits(extraction_key, pooling))
}

/// The folder of the trials of one comparison.
pub fn trials(comparison_key: Digest) -> String {
    format!("trials/{comparison_key}")
}

/// A trial's matrices and record, generation `generation`.
pub fn trial(comparison_key: Digest, trial: u32, generation: u32) -> String {
    format!("{}/{trial}.{generation}.safetensors", trials(comparison_key))
}

/// The folder of all jobs.
pub const JOBS: &str = "jobs";

/// The resolved spec of a job.
pub fn job_spec(job: &JobId) -> String {
    format!("{JOBS}/{job}/spec.json")
}

/// The folder of the runs of a job.
pub fn job_runs(job: &JobId) -> String {
    format!("{JOBS}/{job}/runs")
}

/// The folder of one run.
pub fn job_run(job: &JobId, run: u32) -> String {
    format!("{}/{run}", job_runs(job))
}

/// That the run was asked for: who, when, with which version.
pub fn run_request(job: &JobId, run: u32) -> String {
    format!("{}/request.json", job_run(job, run))
}

/// The numeric profile that the first lease bound a base key to.
pub fn run_profile(job: &JobId, run: u32, base_key: Digest) -> String {
    format!("{}/profiles/{base_key}.json", job_run(job, run))
}

/// Why an attempt failed.
pub fn run_failure(job: &JobId, run: u32, unit: &UnitId, attempt: AttemptId) -> String {
    format!("{}/failures/{unit}/{attempt}.json", job_run(job, run))
}

/// The folder of the failed attempts of a run.
pub fn run_failures(job: &JobId, run: u32) -> String {
    format!("{}/failures", job_run(job, run))
}

/// How the run ended, as the leader of `epoch` saw it.
pub fn run_status(job: &JobId, run: u32, epoch: Epoch) -> String {
    format!("{}/status/{epoch}.json", job_run(job, run))
}

/// The folder of a run's result files, as the leader of `epoch` wrote them.
pub fn run_results(job: &JobId, run: u32, epoch: Epoch) -> String {
    format!("{}/results/{epoch}", job_run(job, run))
}

/// The folder of epochs and beats.
pub const EPOCHS: &str = "epochs";

/// Who leads in `epoch`.
pub fn epoch(epoch: Epoch) -> String {
    format!("{EPOCHS}/{epoch}.json")
}

/// The leader's sign of life.
pub fn beat(epoch: Epoch) -> String {
    format!("{EPOCHS}/{epoch}.beat")
}

/// The two leading numbers of a record's file name, `<index>.<generation>.…`.
pub fn parse_record_name(name: &str) -> Option<(u32, u32)> {
    let mut parts = name.split('.');
    let index = parts.next()?.parse().ok()?;
    let generation = parts.next()?.parse().ok()?;
    parts.next()?;
    Some((index, generation))
}

/// The highest generation of each number among the object keys of records; other keys are passed over.
pub fn newest_records<'a>(keys: impl Iterator<Item = &'a str>) -> BTreeMap<u32, u32> {
    let mut newest = BTreeMap::new();
    for (number, generation) in keys.filter_map(|key| parse_record_name(key.rsplit('/').next()?)) {
        let known = newest.entry(number).or_insert(generation);
        *known = generation.max(*known);
    }
    newest
}

/// The generation of a record without index, `<generation>.json`.
pub fn parse_generation(name: &str) -> Option<u32> {
    name.strip_suffix(".json")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_generation_counts() {
        let keys =
            ["a/commits/3.0.json", "a/commits/3.10.json", "a/commits/3.9.json", "a/commits/1.0.json", "a/x"];
        assert_eq!(newest_records(keys.into_iter()), BTreeMap::from([(1, 0), (3, 10)]));
    }

    #[test]
    fn record_names_parse_back() {
        let key = Digest::of(b"k");
        let commit = embeddings_commit(key, Pooling::LastToken, 12, 3);
        assert_eq!(parse_record_name(commit.rsplit('/').next().unwrap_or("")), Some((12, 3)));
        let object = trial(key, 4, 0);
        assert_eq!(parse_record_name(object.rsplit('/').next().unwrap_or("")), Some((4, 0)));
        assert_eq!(parse_generation("7.json"), Some(7));
        for bad in ["", "x.json", "1", "1.2", "seg_0-9.1.json"] {
            assert_eq!(parse_record_name(bad), None, "{bad}");
        }
    }
}
