//! The commit rule: check that what an attempt reports is there and is what was asked for, then create the records.
//!
//! The coordinator alone runs this. A record that is there already, whoever wrote it, ends the matter: attempts are
//! interchangeable and the first record wins.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use lsa_common::artifact::{decode_trial, encode_trial};
use lsa_common::layout;
use lsa_common::metric::MetricSpec;
use lsa_common::model::Pooling;
use lsa_common::record::{
    ExtractNotes, ShardLayer, ShardRecord, StoredObject, TextsRecord, TrialRecord, Writer,
};
use lsa_common::report::{Extracted, Outcome, Prepared};
use lsa_common::store::{Listed, Store, StoreError};
use lsa_common::trial_matrices::TrialMatrices;
use lsa_common::unit::{CompareUnit, ExtractUnit, MirrorUnit, PrepareUnit, Unit};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::identity::{Identity, now_rfc3339};
use crate::maintain::gc::COMMIT_AGE_MAX;
use crate::scheduler::event::{Commit, CommitEnd, Item};
use crate::store_clock::StoreClock;

/// How many records of a unit are made side by side.
const STEPS_AT_ONCE: usize = 16;

/// Why nothing was recorded.
#[derive(Debug, thiserror::Error)]
enum CommitError {
    #[error("{0}")]
    Refused(String),
    #[error("this coordinator does not lead any more")]
    Deposed,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Checks and records what an attempt reports.
pub async fn commit(store: &Store, clock: &StoreClock, identity: &Identity, commit: &Commit) -> CommitEnd {
    match try_commit(store, clock, identity, commit).await {
        Ok(()) => CommitEnd::Recorded,
        Err(CommitError::Refused(message)) => CommitEnd::Refused(message),
        Err(error) => CommitEnd::StoreTrouble(crate::chain(&error)),
    }
}

async fn try_commit(
    store: &Store,
    clock: &StoreClock,
    identity: &Identity,
    commit: &Commit,
) -> Result<(), CommitError> {
    let writer = Writer {
        coordinator: identity.coordinator.clone(),
        epoch: identity.epoch,
        attempt: commit.report.attempt,
        attempt_number: commit.attempt_number,
        worker: commit.report.worker.clone(),
        numeric_profile: commit.numeric_profile.clone(),
        committed_at: now_rfc3339(),
        elapsed_ms: commit.report.elapsed_ms,
    };
    let recorder = Recorder { store, identity, writer, now_s: clock.now_s(store).await? };
    match (&commit.payload, &commit.report.outcome) {
        (Unit::Prepare(unit), Outcome::Prepared(prepared)) => {
            recorder.texts(unit, prepared, generation(&commit.generations, Item::Texts)).await
        }
        (Unit::Mirror(unit), Outcome::Mirrored) => recorder.files(unit).await,
        (Unit::Extract(unit), Outcome::Extracted(extracted)) => {
            let shard = |pooling: &Pooling| {
                let generation = generation(&commit.generations, Item::Rows(*pooling));
                recorder.shard(unit, *pooling, extracted, generation)
            };
            together(unit.poolings.iter().map(shard).collect()).await
        }
        (Unit::Compare(unit), Outcome::Compared(trials)) => {
            let record = |trial: &u32| {
                let generation = generation(&commit.generations, Item::Trial(*trial));
                recorder.trial(unit, *trial, trials, generation)
            };
            together(unit.trials.iter().map(record).collect()).await
        }
        _ => Err(CommitError::Refused("it is of another kind than the unit".to_owned())),
    }
}

fn generation(generations: &BTreeMap<Item, u32>, item: Item) -> u32 {
    generations.get(&item).copied().unwrap_or(0)
}

fn refuse<T>(message: String) -> Result<T, CommitError> {
    Err(CommitError::Refused(message))
}

/// Whether an object may be removed soon, at `now_s` by the store's clock.
fn is_too_old(object: &Listed, now_s: i64) -> bool {
    let age_s = now_s.saturating_sub(object.modified_s);
    u64::try_from(age_s).is_ok_and(|age_s| age_s > COMMIT_AGE_MAX.as_secs())
}

/// Steps that wait for the store, side by side.
async fn together<F>(steps: Vec<F>) -> Result<(), CommitError>
where
    F: Future<Output = Result<(), CommitError>>,
{
    stream::iter(steps).buffer_unordered(STEPS_AT_ONCE).try_collect().await
}

struct Recorder<'a> {
    store: &'a Store,
    identity: &'a Identity,
    writer: Writer,
    /// By the store's clock.
    now_s: i64,
}

impl Recorder<'_> {
    async fn texts(
        &self,
        unit: &PrepareUnit,
        prepared: &Prepared,
        generation: u32,
    ) -> Result<(), CommitError> {
        if prepared.n_texts != u64::from(unit.texts.n_texts) {
            return refuse(format!(
                "{} texts were prepared, the spec has {}",
                prepared.n_texts, unit.texts.n_texts
            ));
        }
        let name = |part| layout::texts_part(unit.texts_key, part, self.writer.attempt);
        self.are_there(prepared.parts.iter().enumerate().map(|(part, object)| (object, name(part)))).await?;
        let record = TextsRecord {
            writer: self.writer.clone(),
            parts: prepared.parts.clone(),
            n_texts: prepared.n_texts,
            n_blank: prepared.n_blank,
            n_bad: prepared.n_bad,
            n_duplicates: prepared.n_duplicates,
            columns: prepared.columns.clone(),
            warnings: prepared.warnings.clone(),
        };
        self.record(&layout::texts_commit(unit.texts_key, generation), &record).await
    }

    /// Files lie under their digests: that they are there is all the record there is.
    async fn files(&self, unit: &MirrorUnit) -> Result<(), CommitError> {
        let keys: Vec<String> = unit.model.files.iter().map(|file| layout::input(file.sha256)).collect();
        let found = self.store.look_all(&keys.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        for (file, found) in unit.model.files.iter().zip(found) {
            let found = found.map(|found| found.size);
            if found != Some(file.size) {
                let found = found.map_or("no".to_owned(), |size| size.to_string());
                return refuse(format!("{:?} has {found} bytes in the bucket, not {}", file.name, file.size));
            }
        }
        Ok(())
    }

    async fn shard(
        &self,
        unit: &ExtractUnit,
        pooling: Pooling,
        extracted: &Extracted,
        generation: u32,
    ) -> Result<(), CommitError> {
        let Some((_, layers)) = extracted.poolings.iter().find(|(reported, _)| *reported == pooling) else {
            return refuse(format!("it has no rows of pooling {pooling}"));
        };
        let reported: Vec<u32> = layers.iter().map(|layer| layer.layer).collect();
        if reported != unit.settings.layers {
            return refuse(format!(
                "it has layers {reported:?}, the unit asked for {:?}",
                unit.settings.layers
            ));
        }
        if let Some(layer) = layers.iter().find(|layer| layer.width == 0) {
            return refuse(format!("layer {} has no width", layer.layer));
        }
        let name = |layer| {
            layout::embedding_rows(unit.extraction_key, pooling, layer, unit.shard, self.writer.attempt)
        };
        self.are_there(layers.iter().map(|ShardLayer { layer, object, .. }| (object, name(*layer)))).await?;
        let notes: ExtractNotes = extracted.notes.clone();
        let record = ShardRecord {
            writer: self.writer.clone(),
            shard: unit.shard,
            n_rows: unit.n_rows,
            layers: layers.clone(),
            notes,
        };
        self.record(&layout::embeddings_commit(unit.extraction_key, pooling, unit.shard, generation), &record)
            .await
    }

    async fn trial(
        &self,
        unit: &CompareUnit,
        trial: u32,
        trials: &[(u32, TrialMatrices)],
        generation: u32,
    ) -> Result<(), CommitError> {
        let Some((_, matrices)) = trials.iter().find(|(reported, _)| *reported == trial) else {
            return refuse(format!("trial {trial} is missing"));
        };
        let metrics: Vec<&MetricSpec> = matrices.matrices.iter().map(|(metric, _)| metric).collect();
        let asked: Vec<&MetricSpec> = unit.settings.metrics.iter().collect();
        let n_layers = unit.n_layers();
        let of_layers = |values: &Vec<f64>| values.len() == n_layers * n_layers;
        let whole = matrices.matrices.iter().all(|(_, values)| of_layers(values));
        let n_nulls = if unit.settings.calibrate { metrics.len() } else { 0 };
        let nulls = matrices.nulls.len() == n_nulls && matrices.nulls.iter().all(of_layers);
        let quantities = matrices.layer_metrics.iter().map(|(name, _)| name).eq(&unit.settings.layer_metrics)
            && matrices.layer_metrics.iter().all(|(_, values)| values.len() == n_layers);
        if matrices.n_layers as usize != n_layers || metrics != asked || !(whole && nulls && quantities) {
            return refuse(format!("trial {trial} has other layers or metrics than the unit asked for"));
        }
        self.may_write()?;
        let record = TrialRecord { writer: self.writer.clone(), trial };
        let object = encode_trial(matrices, Some(&record));
        let key = layout::trial(unit.comparison_key, trial, generation);
        let settled = self.store.settle(&key, object.into()).await?;
        if !settled.is_mine {
            decode_trial(&settled.value).map_err(|e| StoreError::Damaged { key, fault: e.to_string() })?;
        }
        Ok(())
    }

    /// That objects have the names that their attempt may use, and the reported sizes.
    async fn are_there<'o>(
        &self,
        objects: impl Iterator<Item = (&'o StoredObject, String)>,
    ) -> Result<(), CommitError> {
        let objects: Vec<(&StoredObject, String)> = objects.collect();
        if let Some((object, key)) = objects.iter().find(|(object, key)| object.key != *key) {
            return refuse(format!("it names object {:?}, expected {key:?}", object.key));
        }
        let keys: Vec<&str> = objects.iter().map(|(_, key)| key.as_str()).collect();
        let found = self.store.look_all(&keys).await?;
        objects.iter().zip(found).try_for_each(|((object, _), found)| self.is_intact(object, found))
    }

    fn is_intact(&self, object: &StoredObject, found: Option<Listed>) -> Result<(), CommitError> {
        let key = &object.key;
        match found {
            Some(found) if found.size != object.size => {
                refuse(format!("object {key:?} has {} bytes, reported were {}", found.size, object.size))
            }
            Some(found) if is_too_old(&found, self.now_s) => refuse(format!(
                "object {key:?} was written more than {} hours ago by the store's clock: what no record names for so \
                 long is about to be removed",
                COMMIT_AGE_MAX.as_secs() / 3600
            )),
            Some(_) => Ok(()),
            None => refuse(format!("object {key:?} is not in the bucket")),
        }
    }

    async fn record<T: Serialize + DeserializeOwned>(
        &self,
        key: &str,
        record: &T,
    ) -> Result<(), CommitError> {
        self.may_write()?;
        // Also another attempt's record commits the unit, if it can be read.
        self.store.settle_json(key, record).await?;
        Ok(())
    }

    fn may_write(&self) -> Result<(), CommitError> {
        if self.identity.leads() { Ok(()) } else { Err(CommitError::Deposed) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};
    use std::time::{Duration, SystemTime};

    use lsa_common::id::{AttemptId, Epoch};

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a file's age is measured from now")]
    #[tokio::test]
    async fn what_may_be_collected_is_not_committed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(&folder.path().display().to_string()).expect("a folder");
        let identity = Identity::new("c".to_owned(), Epoch(0));
        let writer = Writer {
            coordinator: identity.coordinator.clone(),
            epoch: identity.epoch,
            attempt: AttemptId(1),
            attempt_number: 1,
            worker: "w".parse().expect("a name"),
            numeric_profile: "cpu".to_owned(),
            committed_at: now_rfc3339(),
            elapsed_ms: 1,
        };
        let now_s = store.now_s().await.expect("a folder");
        let recorder = Recorder { store: &store, identity: &identity, writer, now_s };
        let object = store.put("a/b", "rows".into()).await.expect("a fresh key");
        let age = |seconds: u64| {
            let then = FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(seconds));
            let file = File::options().append(true).open(folder.path().join("a/b")).expect("just written");
            file.set_times(then).expect("a file of one's own");
        };
        // A minute on either side, for a slow machine.
        age(COMMIT_AGE_MAX.as_secs() - 60);
        let named = || std::iter::once((&object, "a/b".to_owned()));
        assert!(recorder.are_there(named()).await.is_ok());
        age(COMMIT_AGE_MAX.as_secs() + 60);
        let refused = recorder.are_there(named()).await.expect_err("too old");
        assert!(refused.to_string().contains("more than 12 hours ago"), "{refused}");
    }
}
