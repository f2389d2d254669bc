//! What the jobs of a bucket need, and when it was used last.

use std::collections::BTreeMap;

use lsa_common::id::{Digest, JobId};
use lsa_common::job::JobSpec;
use lsa_common::key::{comparison_key, extraction_key};
use lsa_common::layout;
use lsa_common::record::{ProfileBinding, RunRequest};
use lsa_common::store::{Listed, Store, StoreError};

use super::GcError;
use crate::journal;
use crate::plan::{What, WorkId, plan};

/// When something was used last, in seconds since 1970 by the store's clock.
type LastUse = BTreeMap<Digest, i64>;

/// What a run that has not ended needs is in use for ever.
const IN_USE_S: i64 = i64::MAX;

/// What is used, by key.
#[derive(Debug, Default)]
pub(super) struct Uses {
    /// Texts, extractions and comparisons.
    works: LastUse,
    /// Input files, by content.
    inputs: LastUse,
}

/// Digests of texts, models, extractions and comparisons by the profile that a run bound them to.
type Bindings = BTreeMap<Digest, String>;

impl Uses {
    /// Reads every job. Embedded runs that were never ended hold what they need, unless they are older than
    /// `unused_before_s`.
    pub async fn read(store: &Store, unused_before_s: Option<i64>) -> Result<Self, GcError> {
        let mut uses = Self::default();
        // A mirror is filled on purpose: what it has stays.
        for object in store.list(layout::MIRROR).await? {
            uses.mention(&store.get(&object.key).await?, IN_USE_S);
        }
        for job in journal::job_ids(store).await? {
            uses.read_job(store, &job, unused_before_s).await?;
        }
        Ok(uses)
    }

    /// When a work's objects were used last; nothing where no job is known to have used them.
    pub fn work(&self, key: Digest) -> Option<i64> {
        self.works.get(&key).copied()
    }

    /// The same of an input file.
    pub fn input(&self, sha256: Digest) -> Option<i64> {
        self.inputs.get(&sha256).copied()
    }

    /// Whether a run that has not ended needs it.
    pub fn is_needed(&self, key: Digest) -> bool {
        self.work(key) == Some(IN_USE_S)
    }

    async fn read_job(
        &mut self,
        store: &Store,
        job: &JobId,
        unused_before_s: Option<i64>,
    ) -> Result<(), GcError> {
        let objects = store.list(&layout::job(job)).await?;
        let Some(mut used_s) = objects.iter().map(|object| object.modified_s).max() else { return Ok(()) };
        if is_unfinished(store, job, used_s, unused_before_s).await? {
            used_s = IN_USE_S;
        }
        let json = match store.try_get(&layout::job_spec(job)).await? {
            Some(json) => json,
            None => return Ok(()),
        };
        self.mention(&json, used_s);
        let spec: JobSpec = match serde_json::from_slice(&json) {
            Ok(spec) => spec,
            // Of an earlier format, and ended: nobody can go on with it.
            Err(_) if used_s < IN_USE_S => return Ok(()),
            Err(fault) => return Err(GcError::Unreadable { job: job.to_string(), fault: fault.to_string() }),
        };
        for bindings in bindings_of_runs(store, &objects).await?.into_values() {
            for key in keys(&spec, &bindings) {
                use_at(&mut self.works, key, used_s);
            }
        }
        // Texts are bound to no profile, and needed by a run that has bound nothing yet.
        for key in keys(&spec, &Bindings::new()) {
            use_at(&mut self.works, key, used_s);
        }
        Ok(())
    }

    /// Takes everything in a JSON object that looks like a digest for one.
    fn mention(&mut self, json: &[u8], used_s: i64) {
        for word in json.split(|byte| !byte.is_ascii_alphanumeric()) {
            let digest = std::str::from_utf8(word).ok().filter(|word| word.len() == 64);
            if let Some(digest) = digest.and_then(|word| word.parse().ok()) {
                use_at(&mut self.inputs, digest, used_s);
            }
        }
    }
}

fn use_at(uses: &mut LastUse, key: Digest, used_s: i64) {
    let known = uses.entry(key).or_insert(used_s);
    *known = used_s.max(*known);
}

async fn is_unfinished(
    store: &Store,
    job: &JobId,
    used_s: i64,
    unused_before_s: Option<i64>,
) -> Result<bool, StoreError> {
    let Some((run, ended)) = journal::last_run_ended(store, job).await? else { return Ok(false) };
    if ended {
        return Ok(false);
    }
    let request: RunRequest = store.get_json(&layout::run_request(job, run)).await?;
    // One that was killed is never ended; its user may come back for it, but not for ever.
    Ok(!request.embedded || unused_before_s.is_none_or(|before_s| used_s >= before_s))
}

/// What each run of a job has bound, by the run's folder.
async fn bindings_of_runs(
    store: &Store,
    objects: &[Listed],
) -> Result<BTreeMap<String, Bindings>, StoreError> {
    let mut runs: BTreeMap<String, Bindings> = BTreeMap::new();
    for object in objects {
        let Some((run, name)) = object.key.rsplit_once("/profiles/") else { continue };
        let Some(base) = name.strip_suffix(".json").and_then(|base| base.parse().ok()) else { continue };
        let binding: ProfileBinding = store.get_json(&object.key).await?;
        runs.entry(run.to_owned()).or_default().insert(base, binding.numeric_profile);
    }
    Ok(runs)
}

/// The keys of the works of a job, as far as their profiles are bound.
fn keys(spec: &JobSpec, bindings: &Bindings) -> Vec<Digest> {
    let mut known: BTreeMap<WorkId, Digest> = BTreeMap::new();
    for work in plan(spec).works {
        let key = match &work.what {
            What::Prepare { texts_key, .. } => Some(*texts_key),
            // Its files are inputs, which the spec mentions.
            What::Mirror { .. } => None,
            What::Extract(extraction) => {
                bindings.get(&extraction.base_key).map(|profile| extraction_key(extraction.base_key, profile))
            }
            What::Compare(comparison) => {
                let rows: Option<Vec<Digest>> =
                    comparison.sides.iter().map(|side| known.get(&side.extraction).copied()).collect();
                let base = comparison.base_key;
                bindings.get(&base).zip(rows).map(|(profile, rows)| comparison_key(base, &rows, profile))
            }
        };
        if let Some(key) = key {
            known.insert(work.id, key);
        }
    }
    known.into_values().collect()
}
