//! The object key of every artifact; no other file builds one.
//!
//! The tree is drawn in README.md. Numbers in names are zero-padded only where a listing's order matters to a person;
//! readers parse them.

use std::collections::BTreeMap;

use crate::hub::{Repo, RepoKind};
use crate::id::{AttemptId, Digest, Epoch, JobId, UnitId};
use crate::model::Pooling;

/// The version of the stored format, written once.
pub const FORMAT: &str = "format.json";

/// The folder of files by content.
pub const INPUTS: &str = "inputs";

/// A file by content: one that came with a submission, or one of a hub.
pub fn input(sha256: Digest) -> String {
    format!("{INPUTS}/{sha256}")
}

/// The folder of what is known of hub repositories.
pub const MIRROR: &str = "mirror";

/// The folder that says under which content the small files of a hub are kept.
pub const MIRROR_GIT: &str = "mirror/git";

/// What the file of that git object id is.
pub fn mirror_git(sha1: &str) -> String {
    format!("{MIRROR_GIT}/{}.json", escaped(sha1, false))
}

/// `models` or `datasets`.
pub fn repo_folder(kind: RepoKind) -> &'static str {
    match kind {
        RepoKind::Model => "models",
        RepoKind::Dataset => "datasets",
    }
}

/// `owner--name`: one part of a key or path, another one for every other id.
pub fn repo_name(id: &str) -> String {
    // No part holds or touches a double hyphen, so that those between the parts can be told.
    id.split('/').map(|part| escaped(part, true)).collect::<Vec<_>>().join("--")
}

/// A branch, tag or commit as one part of a key, another one for every other revision.
pub fn revision_name(revision: &str) -> String {
    escaped(revision, false)
}

/// The folder of the listings of a repository at a branch, tag or commit.
pub fn mirror_refs(repo: &Repo, revision: &str) -> String {
    let folder = repo_folder(repo.kind);
    format!("{MIRROR}/{folder}/{}/refs/{}", repo_name(&repo.id), revision_name(revision))
}

/// A listing of a repository at a branch, tag or commit; the highest number counts.
pub fn mirror_ref(repo: &Repo, revision: &str, number: u32) -> String {
    format!("{}/{number}.json", mirror_refs(repo, revision))
}

/// `text` as one part of a key: letters, digits, `_`, `-` and `.` stay, all else becomes `~` and two digits a byte.
/// Different texts give different parts, none of which is empty or begins with a dot.
fn escaped(text: &str, single_hyphens: bool) -> String {
    let bytes = text.as_bytes();
    let mut part = String::new();
    for (place, byte) in bytes.iter().copied().enumerate() {
        let alone = place > 0 && place + 1 < bytes.len() && bytes[place - 1] != b'-';
        let stays = match byte {
            b'.' => place > 0,
            b'-' => !single_hyphens || alone,
            byte => byte.is_ascii_alphanumeric() || byte == b'_',
        };
        match stays {
            true => part.push(char::from(byte)),
            false => part.push_str(&format!("~{byte:02x}")),
        }
    }
    if part.is_empty() { "~".to_owned() } else { part }
}

/// The folder of all prepared texts.
pub const TEXTS: &str = "texts";

/// Everything of prepared texts.
pub fn texts(texts_key: Digest) -> String {
    format!("{TEXTS}/{texts_key}")
}

/// A part of prepared texts.
pub fn texts_part(texts_key: Digest, part: usize, attempt: AttemptId) -> String {
    format!("{}/part_{part}.{attempt}.parquet", texts(texts_key))
}

/// The folder of the records of prepared texts.
pub fn texts_commits(texts_key: Digest) -> String {
    format!("{}/commits", texts(texts_key))
}

/// The record of prepared texts, generation `generation`.
pub fn texts_commit(texts_key: Digest, generation: u32) -> String {
    format!("{}/{generation}.json", texts_commits(texts_key))
}

/// The folder of all embeddings.
pub const EMBEDDINGS: &str = "embeddings";

/// Everything of one extraction.
pub fn extraction(extraction_key: Digest) -> String {
    format!("{EMBEDDINGS}/{extraction_key}")
}

/// Everything of one extraction and pooling.
pub fn embeddings(extraction_key: Digest, pooling: Pooling) -> String {
    format!("{}/{pooling}", extraction(extraction_key))
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

/// The `number`-th segment with the records of shards `first` to `last`; the highest number counts.
pub fn embeddings_segment(
    extraction_key: Digest,
    pooling: Pooling,
    first: u32,
    last: u32,
    number: u32,
) -> String {
    format!("{}/seg_{first}-{last}.{number}.json", embeddings_commits(extraction_key, pooling))
}

/// The folder of the trials of one comparison.
pub fn trials(comparison_key: Digest) -> String {
    format!("{TRIALS}/{comparison_key}")
}

/// The folder of all trials.
pub const TRIALS: &str = "trials";

/// A trial's matrices and record, generation `generation`.
pub fn trial(comparison_key: Digest, trial: u32, generation: u32) -> String {
    format!("{}/{trial}.{generation}.safetensors", trials(comparison_key))
}

/// The folder of all jobs.
pub const JOBS: &str = "jobs";

/// Everything of a job.
pub fn job(job: &JobId) -> String {
    format!("{JOBS}/{job}")
}

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

/// The folder of the orders to pause a run or to go on with it.
pub fn pause_orders(job: &JobId, run: u32) -> String {
    format!("{}/pauses", job_run(job, run))
}

/// The `number`-th of those orders.
pub fn pause_order(job: &JobId, run: u32, number: u32) -> String {
    format!("{}/{number}.json", pause_orders(job, run))
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

/// First shard, last shard and number of a segment's file name, `seg_<first>-<last>.<number>.json`.
pub fn parse_segment_name(name: &str) -> Option<(u32, u32, u32)> {
    let (shards, number) = name.strip_prefix("seg_")?.strip_suffix(".json")?.split_once('.')?;
    let (first, last) = shards.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?, number.parse().ok()?))
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
    fn whatever_a_repository_is_called_it_has_keys_of_its_own() {
        let parts =
            ["", ".", "..", "-", "--", "a", "A", "a-", "-b", "a-b", "a--b", "~", "~2e", "~7e2e", "%2F", "é"];
        let mut ids: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
        for a in parts {
            ids.extend(parts.iter().map(|b| format!("{a}/{b}")));
            ids.extend(parts.iter().map(|b| format!("{a}{b}")));
            ids.push(format!("{a}\\{a}\0{a}\n"));
        }
        ids.sort();
        ids.dedup();
        let check = |keys: Vec<String>, prefix: &str, depth: usize| {
            for key in &keys {
                let parsed = object_store::path::Path::parse(key).expect(key);
                assert!(key.starts_with(prefix) && parsed.parts().count() == depth, "{key}");
                let sound = |part: &str| !part.is_empty() && !part.starts_with('.');
                let plain = |c: char| c.is_ascii_alphanumeric() || "_-.~/".contains(c);
                assert!(key.split('/').all(sound) && key.chars().all(plain), "{key}");
            }
            let different: std::collections::BTreeSet<&String> = keys.iter().collect();
            assert_eq!(different.len(), ids.len());
        };
        let repo = |id: &str| Repo { kind: RepoKind::Model, id: id.to_owned() };
        check(ids.iter().map(|id| mirror_ref(&repo(id), "main", 3)).collect(), "mirror/models/", 6);
        check(ids.iter().map(|id| mirror_ref(&repo("a/b"), id, 0)).collect(), "mirror/models/a--b/refs/", 6);
        check(ids.iter().map(|id| mirror_git(id)).collect(), "mirror/git/", 3);
        assert_eq!(
            mirror_ref(&repo("BAAI/bge-small-en-v1.5"), "refs/convert/parquet", 2),
            "mirror/models/BAAI--bge-small-en-v1.5/refs/refs~2fconvert~2fparquet/2.json"
        );
    }

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
        let segment = embeddings_segment(key, Pooling::Mean, 256, 511, 3);
        assert_eq!(parse_segment_name(segment.rsplit('/').next().unwrap_or("")), Some((256, 511, 3)));
        for bad in ["seg_1.0.json", "seg_0-9.json", "0-9.1.json", "seg_0-9.1.json#2", "12.3.json"] {
            assert_eq!(parse_segment_name(bad), None, "{bad}");
        }
        let object = trial(key, 4, 0);
        assert_eq!(parse_record_name(object.rsplit('/').next().unwrap_or("")), Some((4, 0)));
        assert_eq!(parse_generation("7.json"), Some(7));
        for bad in ["", "x.json", "1", "1.2", "seg_0-9.1.json"] {
            assert_eq!(parse_record_name(bad), None, "{bad}");
        }
    }
}
