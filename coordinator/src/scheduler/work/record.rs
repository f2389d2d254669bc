//! Recording what was made: commits one at a time, generations, and what turns out damaged.

use std::sync::Arc;

use lsa_common::id::{AttemptId, WorkerId};
use lsa_common::model::Pooling;
use lsa_common::shard_records::block_of;
use lsa_common::time::Millis;

use super::{Committing, Lease, Recorded, Remade, Unit, UnitStatus, WorkState, WorkStatus};
use crate::plan::What;
use crate::scheduler::event::{Block, Commit, Item, Reported};

/// Reports on one unit that may wait for another one's commit, or for the unit to be known; more are not kept.
const WAITING_REPORTS_MAX: usize = 4;
/// How often one unit is made again because its data were damaged; more is not bad luck.
pub(super) const REMAKES_MAX: u32 = 16;

impl WorkState {
    /// Keeps a report until the work is open; false where there is no room.
    pub fn keep_early(&mut self, index: u32, report: Reported) -> bool {
        keep(self.early_reports.entry(index).or_default(), report)
    }

    /// The reports that came before the work was open.
    pub fn take_early(&mut self) -> Vec<Reported> {
        std::mem::take(&mut self.early_reports).into_values().flatten().collect()
    }

    /// Units of which reports came before the work was open.
    pub fn early_units(&self) -> impl Iterator<Item = u32> {
        self.early_reports.keys().copied()
    }

    /// Who has reported before the work was open.
    pub fn early_reporter(&self) -> Option<&WorkerId> {
        self.early_reports.values().flatten().map(|report| &report.worker).next()
    }

    /// What to record of a report, if the unit still lacks it. A late report of an expired lease counts as well: what
    /// it has written is as good as anybody's.
    pub fn begin_commit(&mut self, now: Millis, index: u32, report: Reported) -> Option<Arc<Commit>> {
        let payload = self.payload(index)?;
        let unit = self.units.get_mut(&index)?;
        let leases = match &unit.status {
            UnitStatus::Leased(leases) => leases.clone(),
            UnitStatus::Ready => Vec::new(),
            UnitStatus::Committing(_) | UnitStatus::Done => return None,
        };
        if unit.recorded == Some(report.attempt) {
            return None;
        }
        let next =
            |item: &Item| (*item, self.next_generation.get(&recorded(index, *item)).copied().unwrap_or(0));
        let commit = Arc::new(Commit {
            payload,
            generations: unit.items.iter().map(next).collect(),
            attempt_number: unit.attempts,
            numeric_profile: self.numeric_profile.to_string(),
            report,
        });
        let own = leases.iter().find(|lease| lease.attempt == commit.report.attempt);
        let ran_ms = own.map(|own| now.since(own.since));
        let committing = Committing {
            commit: commit.clone(),
            leases,
            ran_ms,
            troubles: 0,
            trouble: String::new(),
            retry_at: None,
        };
        self.set(index, UnitStatus::Committing(Box::new(committing)));
        Some(commit)
    }

    /// Whether a report of the unit is being recorded.
    pub fn is_committing(&self, index: u32) -> bool {
        self.units.get(&index).is_some_and(|unit| matches!(unit.status, UnitStatus::Committing(_)))
    }

    /// Keeps a report until the one that is being recorded has ended; false where there is no need or no room.
    pub fn keep_waiting(&mut self, index: u32, report: Reported) -> bool {
        let Some(unit) = self.units.get_mut(&index) else { return false };
        match &unit.status {
            // Sent again: its own commit is under way.
            UnitStatus::Committing(committing) if committing.commit.report.attempt == report.attempt => true,
            UnitStatus::Committing(_) => keep(&mut unit.aside_mut().waiting, report),
            UnitStatus::Ready | UnitStatus::Leased(_) | UnitStatus::Done => false,
        }
    }

    /// Ends the commit of `attempt`: the unit is ready, or leased again where another attempt runs on.
    pub fn end_commit(&mut self, index: u32, attempt: AttemptId) -> Option<(Committing, Vec<Reported>)> {
        let unit = self.units.get_mut(&index)?;
        let UnitStatus::Committing(committing) = &unit.status else { return None };
        if committing.commit.report.attempt != attempt {
            return None;
        }
        let others: Vec<Lease> = unit.status.held().cloned().collect();
        let waiting = unit.known_aside_mut().map(|aside| std::mem::take(&mut aside.waiting));
        let before =
            self.set(index, if others.is_empty() { UnitStatus::Ready } else { UnitStatus::Leased(others) })?;
        match before {
            UnitStatus::Committing(committing) => Some((*committing, waiting.unwrap_or_default())),
            UnitStatus::Ready | UnitStatus::Leased(_) | UnitStatus::Done => None,
        }
    }

    /// Notes that the store failed to take the record of `attempt`; how often so far.
    pub fn commit_trouble(&mut self, index: u32, attempt: AttemptId, message: String) -> Option<u32> {
        let committing = self.committing(index).filter(|c| c.commit.report.attempt == attempt)?;
        committing.troubles += 1;
        committing.trouble = message;
        Some(committing.troubles)
    }

    /// Has the commit of a unit tried again later.
    pub fn retry_commit(&mut self, index: u32, at: Millis) {
        if let Some(committing) = self.committing(index) {
            committing.retry_at = Some(at);
        }
    }

    /// A record that could not be written as yet: why, and how often it was tried.
    pub fn record_trouble(&self) -> Option<(&str, u32)> {
        let trouble = |index: &u32| match &self.units.get(index)?.status {
            UnitStatus::Committing(committing) if committing.troubles > 0 => {
                Some((committing.trouble.as_str(), committing.troubles))
            }
            _ => None,
        };
        self.busy.iter().find_map(trouble)
    }

    /// The commit of a unit, if its time to be tried again has come.
    pub fn due_commit(&mut self, now: Millis, index: u32) -> Option<Arc<Commit>> {
        let committing = self.committing(index)?;
        committing.retry_at.take_if(|at| *at <= now).map(|_| committing.commit.clone())
    }

    fn committing(&mut self, index: u32) -> Option<&mut Committing> {
        match &mut self.units.get_mut(&index)?.status {
            UnitStatus::Committing(committing) => Some(committing),
            UnitStatus::Ready | UnitStatus::Leased(_) | UnitStatus::Done => None,
        }
    }

    /// Every item of the unit has a record, made from the data of `attempt`; the leases that are pointless now.
    pub fn done(&mut self, index: u32, attempt: AttemptId) -> Vec<Lease> {
        let Some(before) = self.set(index, UnitStatus::Done) else { return Vec::new() };
        self.n_run += 1;
        let Some(unit) = self.units.get_mut(&index) else { return Vec::new() };
        unit.recorded = Some(attempt);
        for item in std::mem::take(&mut unit.items) {
            *self.next_generation.entry(recorded(index, item)).or_insert(0) += 1;
        }
        let also = unit.known_aside_mut().map(|aside| std::mem::take(&mut aside.also));
        for item in also.into_iter().flatten() {
            self.reopen(index, item);
        }
        match before {
            UnitStatus::Leased(leases) => leases,
            UnitStatus::Ready | UnitStatus::Committing(_) | UnitStatus::Done => Vec::new(),
        }
    }

    /// The blocks around the shard of unit `index` whose last missing record has just been written, one per pooling.
    pub fn whole_blocks(&self, index: u32) -> Vec<Block> {
        let (What::Extract(extraction), Some(key)) = (&self.work.what, self.key) else { return Vec::new() };
        let Some(shards) = block_of(index, extraction.n_shards()) else { return Vec::new() };
        let is_done = |unit: &Unit| matches!(unit.status, UnitStatus::Done);
        if !self.units.range(shards.clone()).all(|(_, unit)| is_done(unit)) {
            return Vec::new();
        }
        let newest = |pooling: Pooling, shard: u32| {
            let next = self.next_generation(shard, Item::Rows(pooling))?;
            Some((shard, next.checked_sub(1)?))
        };
        let block = |pooling: &Pooling| {
            let generations = shards.clone().map(|shard| newest(*pooling, shard)).collect::<Option<_>>()?;
            Some(Block { extraction_key: key, pooling: *pooling, generations })
        };
        extraction.poolings.iter().filter_map(block).collect()
    }

    /// An item has to be made again: its record stands, but what it names is damaged.
    ///
    /// Works that ask for other parts of the same thing share its records: see [`Self::skip_generations`].
    pub fn reopen(&mut self, index: u32, item: Item) -> Remade {
        if index >= self.n_units() || !matches!(self.status, WorkStatus::Open | WorkStatus::Done) {
            return Remade::Unknown;
        }
        // A unit that was found done was never listed; its one record is of some generation that the survey saw.
        let unit = self.units.entry(index).or_insert_with(Unit::found_done);
        match &unit.status {
            UnitStatus::Done => {
                let remakes = &mut unit.aside_mut().remakes;
                if *remakes == REMAKES_MAX {
                    return Remade::TooOften;
                }
                *remakes += 1;
                unit.items = Box::new([item]);
                self.set(index, UnitStatus::Ready);
                self.status = WorkStatus::Open;
            }
            UnitStatus::Ready => {
                let mut items = std::mem::take(&mut unit.items).into_vec();
                items.extend((!items.contains(&item)).then_some(item));
                items.sort_unstable();
                unit.items = items.into();
            }
            UnitStatus::Leased(_) | UnitStatus::Committing(_) => {
                if !unit.items.contains(&item) {
                    unit.aside_mut().also.insert(item);
                }
            }
        }
        Remade::Will
    }

    /// The generation under which an item of unit `index` would be recorded, if it has been recorded before.
    pub fn next_generation(&self, index: u32, item: Item) -> Option<u32> {
        self.next_generation.get(&recorded(index, item)).copied()
    }

    /// Another work under the same key has recorded an item up to here.
    pub fn skip_generations(&mut self, index: u32, item: Item, next: u32) {
        let known = self.next_generation.entry(recorded(index, item)).or_insert(next);
        *known = next.max(*known);
    }
}

/// Under which number an item of unit `index` is recorded.
fn recorded(index: u32, item: Item) -> Recorded {
    match item {
        Item::Texts | Item::Files | Item::Rows(_) => (index, item),
        Item::Trial(trial) => (trial, item),
    }
}

/// Adds a report to those that wait, once; false where there is no room.
fn keep(waiting: &mut Vec<Reported>, report: Reported) -> bool {
    if waiting.iter().any(|known| known.attempt == report.attempt) {
        return true;
    }
    let room = waiting.len() < WAITING_REPORTS_MAX;
    if room {
        waiting.push(report);
    }
    room
}
