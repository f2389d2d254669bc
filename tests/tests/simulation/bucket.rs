//! A bucket that keeps records by place and generation, and knows which of the data behind them are spoiled.

use std::collections::{BTreeMap, BTreeSet};

use lsa_common::id::{AttemptId, Digest, JobId};
use lsa_common::job::SimilaritySettings;
use lsa_common::key::{comparison_key, digest_of, extraction_key, model_files_key};
use lsa_common::report::Outcome;
use lsa_common::unit::{CompareSide, Unit};
use lsa_coordinator::plan::{What, Work, WorkId};
use lsa_coordinator::scheduler::event::{Commit, CommitEnd, Found, Item, Survey};

/// Where an item's records lie: under a key, by number.
pub type Place = (Digest, u32, Item);

/// The whole of it.
#[derive(Default)]
pub struct Bucket {
    /// By place; the index is the generation.
    records: BTreeMap<Place, Vec<Record>>,
    bindings: BTreeMap<(JobId, u32, Digest), String>,
    /// Attempts whose objects never arrived.
    pub lost: BTreeSet<AttemptId>,
}

struct Record {
    attempt: AttemptId,
    intact: bool,
    /// Of its data.
    digest: Digest,
    /// Works whose scheduler was told of it.
    known_to: BTreeSet<WorkId>,
}

/// How the store treats a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// It works.
    Fair,
    /// It fails after so many records.
    TroubleAfter(usize),
}

/// What a unit makes.
pub fn makes(unit: &Unit) -> Vec<Place> {
    match unit {
        Unit::Prepare(unit) => vec![(unit.texts_key, 0, Item::Texts)],
        Unit::Mirror(unit) => vec![(model_files_key(&unit.model), 0, Item::Files)],
        Unit::Extract(unit) => unit
            .poolings
            .iter()
            .map(|pooling| (unit.extraction_key, unit.shard, Item::Rows(*pooling)))
            .collect(),
        Unit::Compare(unit) => {
            unit.trials.iter().map(|trial| (unit.comparison_key, *trial, Item::Trial(*trial))).collect()
        }
    }
}

/// What a unit reads.
pub fn reads(unit: &Unit) -> Vec<Place> {
    match unit {
        Unit::Prepare(_) | Unit::Mirror(_) => Vec::new(),
        Unit::Extract(unit) => vec![(unit.texts_key, 0, Item::Texts)],
        Unit::Compare(unit) => {
            let shards = |side: &CompareSide| {
                let (key, rows) = (side.extraction_key, Item::Rows(unit.pooling));
                (0..side.n_shards).map(move |shard| (key, shard, rows))
            };
            unit.sides.iter().flat_map(shards).collect()
        }
    }
}

/// All items of a work, once it is bound to a key.
pub fn items(work: &Work, key: Digest) -> Vec<Place> {
    match &work.what {
        What::Prepare { .. } => vec![(key, 0, Item::Texts)],
        What::Mirror { .. } => vec![(key, 0, Item::Files)],
        What::Extract(extraction) => (0..extraction.n_shards())
            .flat_map(|shard| extraction.poolings.iter().map(move |p| (key, shard, Item::Rows(*p))))
            .collect(),
        What::Compare(comparison) => {
            (0..comparison.settings.trials.at_most()).map(|trial| (key, trial, Item::Trial(trial))).collect()
        }
    }
}

impl Bucket {
    /// The newest generation of a place and whether its data are intact.
    pub fn newest(&self, place: &Place) -> Option<(u32, bool)> {
        let records = self.records.get(place)?;
        let newest = records.last()?;
        Some((u32::try_from(records.len()).expect("few") - 1, newest.intact))
    }

    /// Whether the scheduler of that work was told of the newest record.
    pub fn is_known(&self, place: &Place, work: WorkId) -> bool {
        self.records.get(place).and_then(|r| r.last()).is_some_and(|newest| newest.known_to.contains(&work))
    }

    /// Notes that it was.
    pub fn tell(&mut self, place: &Place, work: WorkId) {
        if let Some(newest) = self.records.get_mut(place).and_then(|records| records.last_mut()) {
            newest.known_to.insert(work);
        }
    }

    /// Another coordinator, or another life of the work: it knows nothing.
    pub fn forget(&mut self, is_it: impl Fn(&WorkId) -> bool) {
        for record in self.records.values_mut().flatten() {
            record.known_to.retain(|work| !is_it(work));
        }
    }

    /// Binds as a coordinator does and lists what is there.
    pub fn survey(
        &mut self,
        work: &Work,
        runs: &[(JobId, u32)],
        profile: &str,
        rows_keys: &[Digest],
    ) -> Survey {
        let mut bind = |base: Digest| {
            let mut bound = profile.to_owned();
            for (job, run) in runs {
                bound = self.bindings.entry((job.clone(), *run, base)).or_insert(bound).clone();
            }
            bound
        };
        let (numeric_profile, key) = match &work.what {
            What::Prepare { texts_key, .. } => (String::new(), *texts_key),
            What::Mirror { files_key, .. } => (String::new(), *files_key),
            What::Extract(extraction) => {
                let profile = bind(extraction.base_key);
                let key = extraction_key(extraction.base_key, &profile);
                (profile, key)
            }
            What::Compare(comparison) => {
                let profile = bind(comparison.base_key);
                assert_eq!(
                    rows_keys.len(),
                    comparison.sides.len(),
                    "rows are there before they are compared"
                );
                let key = comparison_key(comparison.base_key, rows_keys, &profile);
                (profile, key)
            }
        };
        let mut found = BTreeMap::new();
        for place in items(work, key) {
            if let Some((generation, intact)) = self.newest(&place) {
                // Trials are looked into by those who merge them.
                let intact = intact || matches!(place.2, Item::Trial(_));
                found.insert((place.1, place.2), Found { generation, intact });
            }
        }
        Survey { numeric_profile, key: Some(key), found }
    }

    /// Checks and records a report, as the commit rule says.
    pub fn commit(&mut self, commit: &Commit, weather: Weather) -> CommitEnd {
        let attempt = commit.report.attempt;
        for place in makes(&commit.payload) {
            let reported = match (&commit.report.outcome, place.2) {
                (Outcome::Prepared(_), Item::Texts) | (Outcome::Mirrored, Item::Files) => true,
                (Outcome::Extracted(made), Item::Rows(pooling)) => {
                    made.poolings.iter().any(|(of, _)| *of == pooling)
                }
                (Outcome::Compared(made), Item::Trial(trial)) => made.iter().any(|(of, _)| *of == trial),
                _ => false,
            };
            let spoiled = |record: &Record| record.attempt == attempt && !record.intact;
            let is_object = !matches!(place.2, Item::Trial(_));
            let gone =
                is_object && self.records.get(&place).is_some_and(|records| records.iter().any(spoiled));
            if !reported || gone || self.lost.contains(&attempt) {
                return CommitEnd::Refused(format!("{place:?} is not there"));
            }
        }
        for (number, place) in makes(&commit.payload).into_iter().enumerate() {
            if weather == Weather::TroubleAfter(number) {
                return CommitEnd::StoreTrouble("it rains".to_owned());
            }
            let generation = commit.generations[&place.2] as usize;
            let digest = self.contents(&commit.payload, &place);
            let records = self.records.entry(place).or_default();
            assert!(generation <= records.len(), "{place:?}: generation {generation} leaves a gap");
            let before = records.first().map_or(digest, |record| record.digest);
            assert_eq!(before, digest, "{place:?} has other bytes than an earlier generation");
            if generation == records.len() {
                records.push(Record { attempt, intact: true, digest, known_to: BTreeSet::new() });
            }
        }
        match weather {
            Weather::Fair => CommitEnd::Recorded,
            Weather::TroubleAfter(_) => CommitEnd::StoreTrouble("it rains".to_owned()),
        }
    }

    /// The digest of what a unit makes of one place: of all that its worker was told and of what it reads, but nothing
    /// of the worker, the attempt, or what else the unit makes.
    fn contents(&self, unit: &Unit, place: &Place) -> Digest {
        let inputs: Vec<Digest> = reads(unit).iter().map(|input| self.digest(input)).collect();
        let told = match unit {
            Unit::Prepare(unit) => digest_of("texts", &unit.texts),
            Unit::Mirror(unit) => digest_of("files", &unit.model),
            Unit::Extract(unit) => digest_of("rows", &(&unit.model, &unit.settings, unit.shard, unit.n_rows)),
            Unit::Compare(unit) => {
                // Not how many trials: jobs that ask for different numbers share those that both need.
                let SimilaritySettings { metrics, sample_size, layer_metrics, calibrate, seed, .. } =
                    &unit.settings;
                digest_of("trial", &(unit.pooling, metrics, sample_size, layer_metrics, calibrate, seed))
            }
        };
        digest_of("contents", &(told, place.0, place.1, format!("{:?}", place.2), inputs))
    }

    /// Of the data of a place that is recorded.
    pub fn digest(&self, place: &Place) -> Digest {
        self.records
            .get(place)
            .and_then(|records| records.first())
            .expect("read before it was recorded")
            .digest
    }

    /// Spoils the newest data of one place, unless it has been spoiled often.
    pub fn spoil(&mut self, pick: usize) {
        const SPOILED_MAX: usize = 4;
        let n_places = self.records.len().max(1);
        let Some(records) = self.records.values_mut().nth(pick % n_places) else { return };
        if records.len() <= SPOILED_MAX
            && let Some(newest) = records.last_mut()
        {
            newest.intact = false;
        }
    }
}
