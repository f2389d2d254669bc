//! One work and its units: what is found, lent, being committed, done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lsa_common::failure::FailureClass;
use lsa_common::id::{AttemptId, Digest, JobId, UnitId, WorkerId};
use lsa_common::time::Millis;
use lsa_common::unit::{CompareUnit, ExtractUnit, PrepareUnit, Unit as Payload};

use super::event::{Commit, Item, Reported, Survey};
use crate::plan::{What, Work};

/// How far a work is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkStatus {
    /// Something that it reads is not done.
    Blocked,
    /// Could begin; no profile is bound yet.
    Unbound,
    /// The bucket is being looked through.
    Surveying,
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
    pub numeric_profile: String,
    /// The key of its objects, once bound.
    pub key: Option<Digest>,
    /// The key of the rows that a comparison reads, once known.
    pub extraction_key: Option<Digest>,
    /// Units with something missing, by number.
    pub units: BTreeMap<u32, Unit>,
    /// Units that this coordinator has seen done, or found done.
    pub n_done: u64,
    /// Units that were found done.
    pub n_found: u64,
    /// Nothing of it is lent before.
    pub not_before: Millis,
    next_generation: BTreeMap<Recorded, u32>,
    ready: BTreeSet<u32>,
    delayed: BTreeSet<(Millis, u32)>,
}

/// An item with the number under which its record is kept: a shard, or a trial.
type Recorded = (u32, Item);

/// A unit with something missing.
#[derive(Debug)]
pub struct Unit {
    /// What is missing.
    pub items: BTreeSet<Item>,
    /// How far it is.
    pub status: UnitStatus,
    /// Attempts that count against the limit.
    pub charged: u32,
    /// All attempts.
    pub attempts: u32,
    faulted_by: BTreeSet<WorkerId>,
}

/// How far a unit is.
#[derive(Debug)]
pub enum UnitStatus {
    /// To be lent, now or after a while.
    Ready,
    /// A worker has it.
    Leased(Lease),
    /// Its record is being written.
    Committing(Lease),
    /// Every item has a record.
    Done,
}

/// A loan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// To whom.
    pub worker: WorkerId,
    /// Under which attempt.
    pub attempt: AttemptId,
    /// Until when, unless renewed.
    pub deadline: Millis,
    /// Done, of a total.
    pub progress: (u64, u64),
}

impl Unit {
    /// The live lease.
    pub fn lease(&self) -> Option<&Lease> {
        match &self.status {
            UnitStatus::Leased(lease) => Some(lease),
            UnitStatus::Ready | UnitStatus::Committing(_) | UnitStatus::Done => None,
        }
    }
}

impl WorkState {
    /// A work of which nothing is known yet.
    pub fn new(work: Arc<Work>) -> Self {
        Self {
            work,
            jobs: BTreeSet::new(),
            status: WorkStatus::Blocked,
            numeric_profile: String::new(),
            key: None,
            extraction_key: None,
            units: BTreeMap::new(),
            n_done: 0,
            n_found: 0,
            not_before: Millis(0),
            next_generation: BTreeMap::new(),
            ready: BTreeSet::new(),
            delayed: BTreeSet::new(),
        }
    }

    /// Prepare, extract, compare: 0, 1, 2.
    pub fn stage(&self) -> u8 {
        match self.work.what {
            What::Prepare { .. } => 0,
            What::Extract(_) => 1,
            What::Compare(_) => 2,
        }
    }

    /// Whether its units are known and some may be missing.
    pub fn is_open(&self) -> bool {
        self.status == WorkStatus::Open
    }

    /// Takes in what the bucket holds; what it does not becomes units.
    pub fn open(&mut self, survey: Survey) {
        self.status = WorkStatus::Open;
        self.key = survey.key;
        self.numeric_profile = survey.numeric_profile;
        self.next_generation =
            survey.found.iter().map(|(item, found)| (*item, found.generation + 1)).collect();
        let missing = |number: u32, item: Item| !survey.found.get(&(number, item)).is_some_and(|f| f.intact);
        let mut units: BTreeMap<u32, BTreeSet<Item>> = BTreeMap::new();
        match &self.work.what {
            What::Prepare { .. } => {
                if missing(0, Item::Texts) {
                    units.entry(0).or_default().insert(Item::Texts);
                }
            }
            What::Extract(extraction) => {
                for shard in 0..extraction.n_shards() {
                    let rows = extraction.poolings.iter().map(|pooling| Item::Rows(*pooling));
                    let items: BTreeSet<Item> = rows.filter(|item| missing(shard, *item)).collect();
                    if !items.is_empty() {
                        units.insert(shard, items);
                    }
                }
            }
            What::Compare(comparison) => {
                // Numbered by position in the full plan, so that a unit keeps its id across restarts.
                let per_unit = comparison.trials_per_unit();
                for trial in 0..comparison.settings.trials {
                    if missing(trial, Item::Trial(trial)) {
                        let unit = trial / u32::try_from(per_unit).expect("at most 8");
                        units.entry(unit).or_default().insert(Item::Trial(trial));
                    }
                }
            }
        }
        self.n_found = u64::from(self.work.n_units()).saturating_sub(units.len() as u64);
        self.n_done = self.n_found;
        self.ready = units.keys().copied().collect();
        self.units = units.into_iter().map(|(index, items)| (index, Unit::new(items))).collect();
    }

    /// Whether no unit is missing anything.
    pub fn is_complete(&self) -> bool {
        self.units.values().all(|unit| matches!(unit.status, UnitStatus::Done))
    }

    /// Lends the next unit that is ready.
    pub fn lend(&mut self, now: Millis, lease: Lease) -> Option<(UnitId, Payload, u32)> {
        while let Some((due, index)) = self.delayed.first().copied().filter(|(due, _)| *due <= now) {
            self.delayed.remove(&(due, index));
            self.ready.insert(index);
        }
        let index = *self.ready.first()?;
        let payload = self.payload(index)?;
        self.ready.remove(&index);
        let unit = self.units.get_mut(&index)?;
        unit.status = UnitStatus::Leased(lease);
        unit.attempts += 1;
        Some((self.work.unit_id(index), payload, unit.attempts))
    }

    /// Takes over a lease that an earlier coordinator gave; false where the unit is not to be had.
    pub fn adopt(&mut self, index: u32, lease: Lease) -> bool {
        let Some(unit) = self.units.get_mut(&index) else { return false };
        match &mut unit.status {
            UnitStatus::Ready => {
                unit.status = UnitStatus::Leased(lease);
                unit.attempts += 1;
                self.ready.remove(&index);
                self.delayed.retain(|(_, delayed)| *delayed != index);
                true
            }
            UnitStatus::Leased(held) | UnitStatus::Committing(held) if held.attempt == lease.attempt => {
                held.deadline = lease.deadline;
                true
            }
            UnitStatus::Leased(_) | UnitStatus::Committing(_) | UnitStatus::Done => false,
        }
    }

    /// Extends a lease; false where `attempt` does not hold it.
    pub fn renew(&mut self, index: u32, attempt: AttemptId, deadline: Millis, progress: (u64, u64)) -> bool {
        let unit = self.units.get_mut(&index);
        match unit.map(|unit| &mut unit.status) {
            Some(UnitStatus::Leased(lease)) if lease.attempt == attempt => {
                lease.deadline = deadline;
                lease.progress = progress;
                true
            }
            Some(UnitStatus::Committing(lease)) => lease.attempt == attempt,
            _ => false,
        }
    }

    /// Ends the lease of a unit, whoever has it. The caller releases, delays or fails the unit.
    pub fn end_lease(&mut self, index: u32) -> Option<Lease> {
        let unit = self.units.get_mut(&index)?;
        match std::mem::replace(&mut unit.status, UnitStatus::Ready) {
            UnitStatus::Leased(lease) => Some(lease),
            other => {
                unit.status = other;
                None
            }
        }
    }

    /// Ends the lease of a unit if `attempt` has it.
    pub fn end_lease_of(&mut self, index: u32, attempt: AttemptId) -> Option<Lease> {
        let held = self.units.get(&index)?.lease()?.attempt == attempt;
        if held { self.end_lease(index) } else { None }
    }

    /// Puts a unit back, to be lent at once.
    pub fn release(&mut self, index: u32) {
        self.ready.insert(index);
    }

    /// Puts a unit back, to be lent later.
    pub fn delay(&mut self, index: u32, not_before: Millis) {
        if self.units.get(&index).is_some_and(|unit| matches!(unit.status, UnitStatus::Ready)) {
            self.delayed.insert((not_before, index));
        }
    }

    /// Charges the unit with a failed attempt; the number of charges so far.
    pub fn charge(&mut self, index: u32) -> Option<u32> {
        let unit = self.units.get_mut(&index)?;
        unit.charged += 1;
        Some(unit.charged)
    }

    /// Notes that a worker died of the unit.
    pub fn fault(&mut self, index: u32, worker: &WorkerId) {
        if let Some(unit) = self.units.get_mut(&index) {
            unit.faulted_by.insert(worker.clone());
        }
    }

    /// What a failure means that another attempt could mend, if it were not for the workers that died of the unit: a
    /// crash that two different ones met is a defect.
    pub fn class_of_crash(&self, index: u32) -> FailureClass {
        match self.units.get(&index).map_or(0, |unit| unit.faulted_by.len()) {
            0 | 1 => FailureClass::Retry,
            _ => FailureClass::Reject,
        }
    }

    /// What to record of a report, if the unit still lacks it. A late report of an expired lease counts as well: what
    /// it has written is as good as anybody's.
    pub fn begin_commit(&mut self, index: u32, report: Reported) -> Option<Commit> {
        let payload = self.payload(index)?;
        let unit = self.units.get_mut(&index)?;
        let lease = match &unit.status {
            UnitStatus::Leased(lease) if lease.attempt == report.attempt => lease.clone(),
            UnitStatus::Leased(_) | UnitStatus::Ready => Lease {
                worker: report.worker.clone(),
                attempt: report.attempt,
                deadline: Millis(0),
                progress: (0, 0),
            },
            UnitStatus::Committing(_) | UnitStatus::Done => return None,
        };
        let attempt_number = unit.attempts;
        let next = |item: &Item| {
            let number = match item {
                Item::Texts | Item::Rows(_) => index,
                Item::Trial(trial) => *trial,
            };
            (*item, self.next_generation.get(&(number, *item)).copied().unwrap_or(0))
        };
        let generations = unit.items.iter().map(next).collect();
        unit.status = UnitStatus::Committing(lease);
        self.ready.remove(&index);
        self.delayed.retain(|(_, delayed)| *delayed != index);
        let numeric_profile = self.numeric_profile.clone();
        Some(Commit { payload, generations, attempt_number, numeric_profile, report })
    }

    /// Ends a commit; the lease under which it was made.
    pub fn end_commit(&mut self, index: u32, attempt: AttemptId) -> Option<Lease> {
        let unit = self.units.get_mut(&index)?;
        match std::mem::replace(&mut unit.status, UnitStatus::Ready) {
            UnitStatus::Committing(lease) if lease.attempt == attempt => Some(lease),
            other => {
                unit.status = other;
                None
            }
        }
    }

    /// Every item of the unit has a record.
    pub fn done(&mut self, index: u32) {
        let Some(unit) = self.units.get_mut(&index) else { return };
        unit.status = UnitStatus::Done;
        self.n_done += 1;
        for item in &unit.items {
            let number = match item {
                Item::Texts | Item::Rows(_) => index,
                Item::Trial(trial) => *trial,
            };
            *self.next_generation.entry((number, *item)).or_insert(0) += 1;
        }
    }

    /// An item has to be made again: its record stands, but what it names is damaged.
    pub fn reopen(&mut self, index: u32, item: Item) {
        // A unit that was found done was never listed; its one record is of some generation that the survey saw. What
        // is made again now is work of this run.
        let n_found = &mut self.n_found;
        let unit = self.units.entry(index).or_insert_with(|| {
            *n_found = n_found.saturating_sub(1);
            let mut unit = Unit::new(BTreeSet::new());
            unit.status = UnitStatus::Done;
            unit
        });
        if !matches!(unit.status, UnitStatus::Done) {
            return;
        }
        unit.items = BTreeSet::from([item]);
        unit.status = UnitStatus::Ready;
        self.n_done = self.n_done.saturating_sub(1);
        self.ready.insert(index);
    }

    /// A trial has to be computed again.
    pub fn reopen_trial(&mut self, trial: u32) {
        let What::Compare(comparison) = &self.work.what else { return };
        let per_unit = u32::try_from(comparison.trials_per_unit()).expect("at most 8");
        self.reopen(trial / per_unit, Item::Trial(trial));
    }

    /// Units whose lease has run out.
    pub fn overdue(&self, now: Millis) -> Vec<UnitId> {
        let late = |unit: &Unit| unit.lease().is_some_and(|lease| lease.deadline < now);
        self.units.iter().filter(|(_, unit)| late(unit)).map(|(index, _)| self.work.unit_id(*index)).collect()
    }

    /// Takes every unit from its worker.
    pub fn drop_leases(&mut self) -> Vec<(UnitId, Lease)> {
        let indices: Vec<u32> = self.units.keys().copied().collect();
        let take = |index| self.end_lease(index).map(|lease| (self.work.unit_id(index), lease));
        indices.into_iter().filter_map(take).collect()
    }

    /// The unit as a worker gets it.
    pub fn payload(&self, index: u32) -> Option<Payload> {
        let unit = self.units.get(&index)?;
        Some(match &self.work.what {
            What::Prepare { texts_key, texts } => {
                Payload::Prepare(PrepareUnit { texts_key: *texts_key, texts: texts.clone() })
            }
            What::Extract(extraction) => {
                let pooling = |item: &Item| match item {
                    Item::Rows(pooling) => Some(*pooling),
                    Item::Texts | Item::Trial(_) => None,
                };
                Payload::Extract(Box::new(ExtractUnit {
                    extraction_key: self.key?,
                    texts_key: extraction.texts_key,
                    model: extraction.model.clone(),
                    settings: extraction.settings.clone(),
                    poolings: unit.items.iter().filter_map(pooling).collect(),
                    shard: index,
                    n_rows: extraction.shard_len(index),
                }))
            }
            What::Compare(comparison) => {
                let trial = |item: &Item| match item {
                    Item::Trial(trial) => Some(*trial),
                    Item::Texts | Item::Rows(_) => None,
                };
                Payload::Compare(CompareUnit {
                    comparison_key: self.key?,
                    extraction_key: self.extraction_key?,
                    pooling: comparison.pooling,
                    n_texts: comparison.n_texts,
                    n_shards: comparison.n_shards,
                    layers: comparison.layers.clone(),
                    hidden_size: comparison.hidden_size,
                    settings: comparison.settings.clone(),
                    trials: unit.items.iter().filter_map(trial).collect(),
                })
            }
        })
    }
}

impl Unit {
    fn new(items: BTreeSet<Item>) -> Self {
        Self { items, status: UnitStatus::Ready, charged: 0, attempts: 0, faulted_by: BTreeSet::new() }
    }
}
