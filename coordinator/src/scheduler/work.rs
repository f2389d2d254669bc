//! One work and its units: what is found, lent, being committed, done.

mod loan;
mod median;
mod payload;
mod record;
#[cfg(test)]
mod tests;
mod unit;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lsa_common::id::{Digest, JobId, UnitId, WorkerId};
use lsa_common::time::Millis;

use super::event::{Found, Item, Reported, Survey};
use super::index::Entry;
use crate::plan::{What, Work};
use median::Median;
pub use unit::{Abandoned, Committing, Lease, Remade, Unit, UnitStatus};

/// How far a work is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkStatus {
    /// Something that it reads is not done.
    Blocked,
    /// Could begin; no profile is bound yet.
    Unbound,
    /// The bucket is being looked through, under this number: the end of an older survey is not believed.
    Surveying(u64),
    /// Its units are known.
    Open,
    /// Every item has a record.
    Done,
    /// It cannot be done.
    Failed(String),
}

/// A work in progress.
#[derive(Debug)]
pub struct WorkState {
    /// What it is.
    pub work: Arc<Work>,
    /// Who wants it.
    pub jobs: BTreeSet<JobId>,
    /// How far it is.
    pub status: WorkStatus,
    /// The profile it is bound to; empty before, and for texts.
    pub numeric_profile: Arc<str>,
    /// The key of its objects, once bound.
    pub key: Option<Digest>,
    /// The keys of the rows that a comparison reads, in its order, once known.
    pub rows_keys: Vec<Digest>,
    /// Trials of a comparison that somebody wants as yet: 0 to so many. Grows where more turn out to be needed.
    pub n_trials: u32,
    /// Units with something missing, by number.
    pub units: BTreeMap<u32, Unit>,
    /// Units that this coordinator has had done.
    pub n_run: u64,
    /// Not looked through before.
    pub not_before: Millis,
    /// Why it could not be looked through, and how often in a row.
    pub trouble: Option<(String, u32)>,
    /// What the indexes of the state say of it.
    pub(super) entry: Entry,
    /// Reports that came before the work was open.
    early_reports: BTreeMap<u32, Vec<Reported>>,
    /// The generation after the newest one, for every item that has been recorded.
    next_generation: BTreeMap<Recorded, u32>,
    /// Trials that the bucket had when it was looked through.
    found_trials: BTreeSet<u32>,
    n_missing: u64,
    /// To be lent at once.
    ready: BTreeSet<u32>,
    /// To be lent after a while.
    delayed: BTreeMap<u32, Millis>,
    /// Leased or committing.
    busy: BTreeSet<u32>,
    n_leased: u64,
    /// Units that one worker alone has, the longest loan first.
    alone: BTreeSet<(Millis, u32)>,
    /// How long units took, from loan to report.
    pace_ms: Median,
    /// Workers that have no unit of this work any more; see [`Self::take_freed`].
    freed: Vec<WorkerId>,
}

/// An item with the number under which its record is kept: a shard, or a trial.
type Recorded = (u32, Item);

impl WorkState {
    /// A work of which nothing is known yet.
    pub fn new(work: Arc<Work>) -> Self {
        let n_trials = match &work.what {
            What::Compare(comparison) => comparison.settings.trials.at_first(),
            What::Prepare { .. } | What::Mirror { .. } | What::Extract(_) => 0,
        };
        Self {
            work,
            n_trials,
            jobs: BTreeSet::new(),
            status: WorkStatus::Blocked,
            numeric_profile: "".into(),
            key: None,
            rows_keys: Vec::new(),
            units: BTreeMap::new(),
            n_run: 0,
            not_before: Millis(0),
            trouble: None,
            entry: Entry::default(),
            early_reports: BTreeMap::new(),
            next_generation: BTreeMap::new(),
            found_trials: BTreeSet::new(),
            n_missing: 0,
            ready: BTreeSet::new(),
            delayed: BTreeMap::new(),
            busy: BTreeSet::new(),
            n_leased: 0,
            alone: BTreeSet::new(),
            pace_ms: Median::default(),
            freed: Vec::new(),
        }
    }

    /// Forgets everything but who wants it and how it is indexed.
    pub(super) fn begin_afresh(&mut self) {
        let (jobs, entry, freed) = (
            std::mem::take(&mut self.jobs),
            std::mem::take(&mut self.entry),
            std::mem::take(&mut self.freed),
        );
        *self = Self { jobs, entry, freed, ..Self::new(self.work.clone()) };
    }

    /// Prepare and mirror, extract, compare: 0, 1, 2.
    pub fn stage(&self) -> u8 {
        match self.work.what {
            What::Prepare { .. } | What::Mirror { .. } => 0,
            What::Extract(_) => 1,
            What::Compare(_) => 2,
        }
    }

    /// Whether it depends on the profile of the worker that begins it.
    pub(super) fn binds_profile(&self) -> bool {
        self.stage() > 0
    }

    /// The unit with that number, as it is called under the key that the work is bound to.
    pub fn unit_id(&self, index: u32) -> UnitId {
        // Before it is bound it has no units to speak of.
        self.work.unit_id(index, self.key.unwrap_or(self.work.id.0))
    }

    /// Whether that is the name of a unit under the key that the work is bound to, if it is bound.
    pub fn may_be(&self, unit: &UnitId, index: u32) -> bool {
        index < self.work.n_units_max() && (self.key.is_none() || self.unit_id(index) == *unit)
    }

    /// Takes in what the bucket holds; what it does not becomes units.
    pub fn open(&mut self, survey: Survey) {
        self.status = WorkStatus::Open;
        self.trouble = None;
        self.key = survey.key;
        self.numeric_profile = survey.numeric_profile.into();
        self.next_generation =
            survey.found.iter().map(|(item, found)| (*item, found.generation + 1)).collect();
        let units = match &self.work.what {
            What::Prepare { .. } => missing_once(&survey.found, Item::Texts),
            What::Mirror { .. } => missing_once(&survey.found, Item::Files),
            What::Extract(extraction) => {
                let missing = |shard: u32| {
                    let rows = extraction.poolings.iter().map(|pooling| Item::Rows(*pooling));
                    let mut items: Vec<Item> =
                        rows.filter(|item| !is_intact(&survey.found, shard, *item)).collect();
                    items.sort_unstable();
                    (!items.is_empty()).then(|| (shard, Unit::new(items)))
                };
                (0..extraction.n_shards()).filter_map(missing).collect()
            }
            What::Compare(comparison) => {
                let trials = comparison.settings.trials;
                let found =
                    survey.found.iter().filter(|(_, found)| found.intact).map(|((number, _), _)| *number);
                self.found_trials = found.collect();
                // Somebody has gone further before, and need not be asked to again.
                let mut n_trials = trials.at_first();
                let all_there = |n: &u32| (0..*n).all(|trial| self.found_trials.contains(&trial));
                while let Some(next) = trials.after(n_trials).filter(all_there) {
                    n_trials = next;
                }
                self.n_trials = n_trials;
                self.missing_trials(0)
            }
        };
        self.n_missing = units.len() as u64;
        self.ready = units.keys().copied().collect();
        self.delayed.clear();
        self.busy.clear();
        self.n_leased = 0;
        self.alone.clear();
        self.units = units;
    }

    /// The units that make the trials from `first` on that the bucket did not have. Numbered by position in the full
    /// plan, so that a unit keeps its id across restarts.
    fn missing_trials(&self, first: u32) -> BTreeMap<u32, Unit> {
        let What::Compare(comparison) = &self.work.what else { return BTreeMap::new() };
        let mut units: BTreeMap<u32, Vec<Item>> = BTreeMap::new();
        for trial in (first..self.n_trials).filter(|trial| !self.found_trials.contains(trial)) {
            units.entry(comparison.unit_of(trial)).or_default().push(Item::Trial(trial));
        }
        units.into_iter().map(|(index, items)| (index, Unit::new(items))).collect()
    }

    /// Has more trials of a comparison made: 0 to `n_trials`, which is where a look is taken or the end.
    pub fn extend(&mut self, n_trials: u32) {
        let What::Compare(comparison) = &self.work.what else { return };
        let n_trials = n_trials.min(comparison.settings.trials.at_most());
        if n_trials <= self.n_trials || !matches!(self.status, WorkStatus::Open | WorkStatus::Done) {
            return;
        }
        let first = std::mem::replace(&mut self.n_trials, n_trials);
        let units = self.missing_trials(first);
        self.status = WorkStatus::Open;
        self.n_missing += units.len() as u64;
        self.ready.extend(units.keys());
        // No unit reaches beyond a look, so that none of these is there already.
        self.units.extend(units);
    }

    /// Has as many trials made as the unit with that number takes part in, if it is one of this work.
    pub fn extend_to_unit(&mut self, index: u32) {
        let What::Compare(comparison) = &self.work.what else { return };
        let mut n_trials = self.n_trials;
        while index >= comparison.n_units(n_trials) {
            let Some(next) = comparison.settings.trials.after(n_trials) else { return };
            n_trials = next;
        }
        self.extend(n_trials);
    }

    /// How many units there are as yet, those done included.
    pub fn n_units(&self) -> u32 {
        match &self.work.what {
            What::Compare(comparison) => comparison.n_units(self.n_trials),
            What::Prepare { .. } | What::Mirror { .. } | What::Extract(_) => self.work.n_units_max(),
        }
    }

    /// Whether no unit is missing anything.
    pub fn is_complete(&self) -> bool {
        self.n_missing == 0
    }

    /// Units that are done or were found done.
    pub fn n_done(&self) -> u64 {
        match self.status {
            WorkStatus::Open | WorkStatus::Done => u64::from(self.n_units()) - self.n_missing,
            _ => 0,
        }
    }

    /// Changes a unit's status and everything that counts units by it. A unit that turns `Ready` is lent at once
    /// unless the caller delays it.
    fn set(&mut self, index: u32, status: UnitStatus) -> Option<UnitStatus> {
        let unit = self.units.get_mut(&index)?;
        let before = std::mem::replace(&mut unit.status, status);
        let done = |status: &UnitStatus| u64::from(matches!(status, UnitStatus::Done));
        let leased = |status: &UnitStatus| match status {
            UnitStatus::Leased(leases) => leases.len() as u64,
            UnitStatus::Ready | UnitStatus::Committing(_) | UnitStatus::Done => 0,
        };
        self.n_missing = self.n_missing + done(&before) - done(&unit.status);
        self.n_leased = self.n_leased + leased(&unit.status) - leased(&before);
        let is_freed = |lease: &&Lease| unit.status.held().all(|now| now.attempt != lease.attempt);
        self.freed.extend(before.held().filter(is_freed).map(|lease| lease.worker.clone()));
        if let Some(since) = before.alone_since() {
            self.alone.remove(&(since, index));
        }
        self.alone.extend(unit.status.alone_since().map(|since| (since, index)));
        self.ready.remove(&index);
        self.delayed.remove(&index);
        self.busy.remove(&index);
        match unit.status {
            UnitStatus::Ready => self.ready.insert(index),
            UnitStatus::Leased(_) | UnitStatus::Committing(_) => self.busy.insert(index),
            UnitStatus::Done => false,
        };
        Some(before)
    }

    /// Workers that have had a unit of this work and do not have it any more, since this was last asked.
    pub(super) fn take_freed(&mut self) -> Vec<WorkerId> {
        std::mem::take(&mut self.freed)
    }

    /// Takes every unit from its worker and forgets every report.
    pub fn abandon(&mut self) -> Abandoned {
        let mut abandoned = Abandoned::default();
        let of = |report: &Reported| (report.worker.clone(), report.unit.clone(), report.attempt);
        for index in std::mem::take(&mut self.busy) {
            let unit_id = self.unit_id(index);
            if let Some(aside) = self.units.get_mut(&index).and_then(Unit::known_aside_mut) {
                abandoned.reports.extend(std::mem::take(&mut aside.waiting).iter().map(of));
            }
            let Some(before) = self.set(index, UnitStatus::Ready) else { continue };
            if let UnitStatus::Committing(committing) = &before {
                abandoned.reports.push(of(&committing.commit.report));
            }
            abandoned.leases.extend(before.held().map(|lease| (unit_id.clone(), lease.clone())));
        }
        abandoned.reports.extend(self.take_early().iter().map(of));
        abandoned
    }

    /// The unit that computes a trial.
    pub fn unit_of_trial(&self, trial: u32) -> Option<u32> {
        let What::Compare(comparison) = &self.work.what else { return None };
        Some(comparison.unit_of(trial))
    }
}

fn is_intact(found: &BTreeMap<Recorded, Found>, number: u32, item: Item) -> bool {
    found.get(&(number, item)).is_some_and(|found| found.intact)
}

/// The one unit of a work that makes one thing, unless that is there.
fn missing_once(found: &BTreeMap<Recorded, Found>, item: Item) -> BTreeMap<u32, Unit> {
    let missing = !is_intact(found, 0, item);
    missing.then(|| (0, Unit::new([item]))).into_iter().collect()
}
