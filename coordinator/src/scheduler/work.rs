//! One work and its units: what is found, lent, being committed, done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lsa_common::failure::FailureClass;
use lsa_common::id::{AttemptId, Digest, JobId, UnitId, WorkerId};
use lsa_common::time::Millis;
use lsa_common::unit::{CompareSide, CompareUnit, ExtractUnit, MirrorUnit, PrepareUnit, Unit as Payload};

use super::event::{Commit, Item, Reported, Survey};
use crate::plan::{Side, What, Work};

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
    pub numeric_profile: String,
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
    /// Reports that came before the work was open.
    early_reports: BTreeMap<u32, Vec<Reported>>,
    next_generation: BTreeMap<Recorded, u32>,
    /// Trials that the bucket had when it was looked through.
    found_trials: BTreeSet<u32>,
    n_missing: u64,
    ready: BTreeSet<u32>,
    delayed: BTreeSet<(Millis, u32)>,
    /// Leased or committing.
    busy: BTreeSet<u32>,
}

/// Reports on one unit that may wait for another one's commit, or for the unit to be known; more are not kept.
const WAITING_REPORTS_MAX: usize = 4;
/// How often one unit is made again because its data were damaged; more is not bad luck.
const REMAKES_MAX: u32 = 16;

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
    /// Whose data are on record: not to be recorded again once they turn out damaged.
    recorded: Option<AttemptId>,
    /// Reports of other attempts, while one is being committed.
    waiting: Vec<Reported>,
    /// What turned out damaged while other items of the unit were being made.
    also: BTreeSet<Item>,
    remakes: u32,
}

/// How far a unit is.
#[derive(Debug)]
pub enum UnitStatus {
    /// To be lent, now or after a while.
    Ready,
    /// A worker has it.
    Leased(Lease),
    /// Its record is being written.
    Committing(Box<Committing>),
    /// Every item has a record.
    Done,
}

/// A report that is being recorded.
#[derive(Clone, Debug)]
pub struct Committing {
    /// What is recorded.
    pub commit: Commit,
    /// The live lease when the report came: the reporter's own, or another one's that runs on until the record stands.
    pub lease: Option<Lease>,
    /// How often the store has failed.
    pub troubles: u32,
    /// When to try again; nothing while a try is under way.
    pub retry_at: Option<Millis>,
}

impl Committing {
    /// The reporter's own lease; nothing where the report is late.
    pub fn own_lease(&self) -> Option<&Lease> {
        self.lease.as_ref().filter(|lease| lease.attempt == self.commit.report.attempt)
    }

    /// The lease of another attempt that runs on.
    pub fn other_lease(&self) -> Option<&Lease> {
        self.lease.as_ref().filter(|lease| lease.attempt != self.commit.report.attempt)
    }
}

/// What becomes of something damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remade {
    /// It will be made again.
    Will,
    /// There is no such thing here.
    Unknown,
    /// It was made again too often.
    TooOften,
}

/// What a work has in the air when it is given up.
#[derive(Debug, Default)]
pub struct Abandoned {
    /// Units that workers may stop.
    pub leases: Vec<(UnitId, Lease)>,
    /// Reports that nobody waits for any more.
    pub reports: Vec<(WorkerId, UnitId, AttemptId)>,
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
        let n_trials = match &work.what {
            What::Compare(comparison) => comparison.settings.trials.at_first(),
            What::Prepare { .. } | What::Mirror { .. } | What::Extract(_) => 0,
        };
        Self {
            work,
            n_trials,
            jobs: BTreeSet::new(),
            status: WorkStatus::Blocked,
            numeric_profile: String::new(),
            key: None,
            rows_keys: Vec::new(),
            units: BTreeMap::new(),
            n_run: 0,
            not_before: Millis(0),
            trouble: None,
            early_reports: BTreeMap::new(),
            next_generation: BTreeMap::new(),
            found_trials: BTreeSet::new(),
            n_missing: 0,
            ready: BTreeSet::new(),
            delayed: BTreeSet::new(),
            busy: BTreeSet::new(),
        }
    }

    /// Forgets everything but who wants it.
    pub fn begin_afresh(&mut self) {
        let jobs = std::mem::take(&mut self.jobs);
        *self = Self { jobs, ..Self::new(self.work.clone()) };
    }

    /// Prepare and mirror, extract, compare: 0, 1, 2.
    pub fn stage(&self) -> u8 {
        match self.work.what {
            What::Prepare { .. } | What::Mirror { .. } => 0,
            What::Extract(_) => 1,
            What::Compare(_) => 2,
        }
    }

    /// Whether a worker of that profile may run its units.
    pub fn is_bound_to(&self, profile: &str) -> bool {
        self.numeric_profile.is_empty() || self.numeric_profile == profile
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
            What::Mirror { .. } => {
                if missing(0, Item::Files) {
                    units.entry(0).or_default().insert(Item::Files);
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
                // Numbered by position in the full plan, so that a unit keeps its id across restarts.
                for trial in (0..n_trials).filter(|trial| !self.found_trials.contains(trial)) {
                    units.entry(comparison.unit_of(trial)).or_default().insert(Item::Trial(trial));
                }
                self.n_trials = n_trials;
            }
        }
        self.n_missing = units.len() as u64;
        self.ready = units.keys().copied().collect();
        self.delayed.clear();
        self.busy.clear();
        self.units = units.into_iter().map(|(index, items)| (index, Unit::new(items))).collect();
    }

    /// Has more trials of a comparison made: 0 to `n_trials`, which is where a look is taken or the end.
    pub fn extend(&mut self, n_trials: u32) {
        let What::Compare(comparison) = &self.work.what else { return };
        let n_trials = n_trials.min(comparison.settings.trials.at_most());
        if n_trials <= self.n_trials || !matches!(self.status, WorkStatus::Open | WorkStatus::Done) {
            return;
        }
        let mut units: BTreeMap<u32, BTreeSet<Item>> = BTreeMap::new();
        for trial in (self.n_trials..n_trials).filter(|trial| !self.found_trials.contains(trial)) {
            units.entry(comparison.unit_of(trial)).or_default().insert(Item::Trial(trial));
        }
        self.n_trials = n_trials;
        self.status = WorkStatus::Open;
        self.n_missing += units.len() as u64;
        self.ready.extend(units.keys());
        // No unit reaches beyond a look, so that none of these is there already.
        self.units.extend(units.into_iter().map(|(index, items)| (index, Unit::new(items))));
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

    /// Whether a unit could be lent.
    pub fn has_ready(&self, now: Millis) -> bool {
        !self.ready.is_empty() || self.delayed.first().is_some_and(|(due, _)| *due <= now)
    }

    /// Lends the next unit that is ready.
    pub fn lend(&mut self, now: Millis, lease: Lease) -> Option<(u32, Payload, u32)> {
        while let Some((due, index)) = self.delayed.first().copied().filter(|(due, _)| *due <= now) {
            self.delayed.remove(&(due, index));
            self.ready.insert(index);
        }
        let index = *self.ready.first()?;
        let payload = self.payload(index)?;
        self.begin_lease(index, lease);
        Some((index, payload, self.units.get(&index)?.attempts))
    }

    /// Takes over a lease that an earlier coordinator gave; false where the unit is not to be had.
    pub fn adopt(&mut self, index: u32, lease: Lease) -> bool {
        let Some(unit) = self.units.get_mut(&index) else { return false };
        match &mut unit.status {
            UnitStatus::Ready => {
                let usable = unit.recorded != Some(lease.attempt);
                if usable {
                    self.begin_lease(index, lease);
                }
                usable
            }
            UnitStatus::Leased(held) => {
                let same = held.attempt == lease.attempt;
                if same {
                    held.deadline = lease.deadline;
                }
                same
            }
            UnitStatus::Committing(committing) => {
                let of_report = committing.commit.report.attempt == lease.attempt;
                let waits = unit.waiting.iter().any(|report| report.attempt == lease.attempt);
                let other = committing.other_lease().is_some_and(|other| other.attempt == lease.attempt);
                if other {
                    committing.lease = Some(lease);
                }
                of_report || waits || other
            }
            UnitStatus::Done => false,
        }
    }

    fn begin_lease(&mut self, index: u32, lease: Lease) {
        let Some(unit) = self.units.get_mut(&index) else { return };
        unit.attempts += 1;
        self.set(index, UnitStatus::Leased(lease));
    }

    /// Changes a unit's status and everything that counts units by it. A unit that turns `Ready` is lent at once
    /// unless the caller delays it.
    fn set(&mut self, index: u32, status: UnitStatus) -> Option<UnitStatus> {
        let unit = self.units.get_mut(&index)?;
        let before = std::mem::replace(&mut unit.status, status);
        let (was_done, is_done) =
            (matches!(before, UnitStatus::Done), matches!(unit.status, UnitStatus::Done));
        let is_ready = matches!(unit.status, UnitStatus::Ready);
        self.n_missing = self.n_missing + u64::from(was_done) - u64::from(is_done);
        self.ready.remove(&index);
        if matches!(before, UnitStatus::Ready) {
            self.delayed.retain(|(_, delayed)| *delayed != index);
        }
        if is_ready {
            self.ready.insert(index);
        }
        if is_ready || is_done {
            self.busy.remove(&index);
        } else {
            self.busy.insert(index);
        }
        Some(before)
    }

    /// Extends a lease; false where `attempt` does not hold it.
    pub fn renew(&mut self, index: u32, attempt: AttemptId, deadline: Millis, progress: (u64, u64)) -> bool {
        let Some(unit) = self.units.get_mut(&index) else { return false };
        let lease = match &mut unit.status {
            UnitStatus::Leased(lease) => Some(lease),
            UnitStatus::Committing(committing) => {
                if committing.commit.report.attempt == attempt {
                    return true;
                }
                committing.lease.as_mut()
            }
            UnitStatus::Ready | UnitStatus::Done => None,
        };
        match lease {
            Some(lease) if lease.attempt == attempt => {
                lease.deadline = deadline;
                lease.progress = progress;
                true
            }
            _ => false,
        }
    }

    /// Ends the lease of a unit if `attempt` has it; the unit is ready then, and the caller may delay it.
    pub fn end_lease(&mut self, index: u32, attempt: AttemptId) -> Option<Lease> {
        let unit = self.units.get_mut(&index)?;
        match &mut unit.status {
            UnitStatus::Leased(lease) if lease.attempt == attempt => {
                let lease = lease.clone();
                self.set(index, UnitStatus::Ready);
                Some(lease)
            }
            UnitStatus::Committing(committing) => {
                // Another one's report decides; if it is refused, the unit is free.
                if committing.other_lease().is_some_and(|other| other.attempt == attempt) {
                    committing.lease = None;
                }
                None
            }
            UnitStatus::Leased(_) | UnitStatus::Ready | UnitStatus::Done => None,
        }
    }

    /// The attempt under which a worker has a unit.
    pub fn attempt_of(&self, index: u32, worker: &WorkerId) -> Option<AttemptId> {
        let lease = match &self.units.get(&index)?.status {
            UnitStatus::Leased(lease) => Some(lease),
            UnitStatus::Committing(committing) => committing.other_lease(),
            UnitStatus::Ready | UnitStatus::Done => None,
        };
        lease.filter(|lease| lease.worker == *worker).map(|lease| lease.attempt)
    }

    /// Puts off a unit that is ready.
    pub fn delay(&mut self, index: u32, not_before: Millis) {
        if self.ready.remove(&index) {
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
    pub fn begin_commit(&mut self, index: u32, report: Reported) -> Option<Commit> {
        let payload = self.payload(index)?;
        let unit = self.units.get_mut(&index)?;
        let lease = match &unit.status {
            UnitStatus::Leased(lease) => Some(lease.clone()),
            UnitStatus::Ready => None,
            UnitStatus::Committing(_) | UnitStatus::Done => return None,
        };
        if unit.recorded == Some(report.attempt) {
            return None;
        }
        let next =
            |item: &Item| (*item, self.next_generation.get(&recorded(index, *item)).copied().unwrap_or(0));
        let commit = Commit {
            payload,
            generations: unit.items.iter().map(next).collect(),
            attempt_number: unit.attempts,
            numeric_profile: self.numeric_profile.clone(),
            report,
        };
        let committing = Committing { commit: commit.clone(), lease, troubles: 0, retry_at: None };
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
            UnitStatus::Committing(_) => keep(&mut unit.waiting, report),
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
        let other = committing.other_lease().cloned();
        let waiting = std::mem::take(&mut unit.waiting);
        let before = self.set(index, other.map_or(UnitStatus::Ready, UnitStatus::Leased))?;
        match before {
            UnitStatus::Committing(committing) => Some((*committing, waiting)),
            UnitStatus::Ready | UnitStatus::Leased(_) | UnitStatus::Done => None,
        }
    }

    /// Notes that the store failed to take the record of `attempt`; how often so far.
    pub fn commit_trouble(&mut self, index: u32, attempt: AttemptId) -> Option<u32> {
        let committing = self.committing(index).filter(|c| c.commit.report.attempt == attempt)?;
        committing.troubles += 1;
        Some(committing.troubles)
    }

    /// Has the commit of a unit tried again later.
    pub fn retry_commit(&mut self, index: u32, at: Millis) {
        if let Some(committing) = self.committing(index) {
            committing.retry_at = Some(at);
        }
    }

    /// Commits whose time to be tried again has come.
    pub fn due_commits(&mut self, now: Millis) -> Vec<Commit> {
        let mut due = Vec::new();
        for index in &self.busy {
            let Some(unit) = self.units.get_mut(index) else { continue };
            if let UnitStatus::Committing(committing) = &mut unit.status
                && committing.retry_at.is_some_and(|at| at <= now)
            {
                committing.retry_at = None;
                due.push(committing.commit.clone());
            }
        }
        due
    }

    fn committing(&mut self, index: u32) -> Option<&mut Committing> {
        match &mut self.units.get_mut(&index)?.status {
            UnitStatus::Committing(committing) => Some(committing),
            UnitStatus::Ready | UnitStatus::Leased(_) | UnitStatus::Done => None,
        }
    }

    /// Every item of the unit has a record, made from the data of `attempt`; the lease that is pointless now.
    pub fn done(&mut self, index: u32, attempt: AttemptId) -> Option<Lease> {
        let before = self.set(index, UnitStatus::Done)?;
        self.n_run += 1;
        let unit = self.units.get_mut(&index)?;
        unit.recorded = Some(attempt);
        for item in &unit.items {
            *self.next_generation.entry(recorded(index, *item)).or_insert(0) += 1;
        }
        for item in std::mem::take(&mut unit.also) {
            self.reopen(index, item);
        }
        match before {
            UnitStatus::Leased(lease) => Some(lease),
            UnitStatus::Ready | UnitStatus::Committing(_) | UnitStatus::Done => None,
        }
    }

    /// An item has to be made again: its record stands, but what it names is damaged.
    ///
    /// Works that ask for other parts of the same thing share its records: see [`Self::skip_generations`].
    pub fn reopen(&mut self, index: u32, item: Item) -> Remade {
        if index >= self.n_units() || !matches!(self.status, WorkStatus::Open | WorkStatus::Done) {
            return Remade::Unknown;
        }
        // A unit that was found done was never listed; its one record is of some generation that the survey saw.
        let unit = self.units.entry(index).or_insert_with(|| {
            let mut unit = Unit::new(BTreeSet::new());
            unit.status = UnitStatus::Done;
            unit
        });
        match &unit.status {
            UnitStatus::Done if unit.remakes == REMAKES_MAX => return Remade::TooOften,
            UnitStatus::Done => {
                unit.remakes += 1;
                unit.items = BTreeSet::from([item]);
                self.set(index, UnitStatus::Ready);
                self.status = WorkStatus::Open;
            }
            UnitStatus::Ready => {
                unit.items.insert(item);
            }
            UnitStatus::Leased(_) | UnitStatus::Committing(_) => {
                if !unit.items.contains(&item) {
                    unit.also.insert(item);
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

    /// The unit that computes a trial.
    pub fn unit_of_trial(&self, trial: u32) -> Option<u32> {
        let What::Compare(comparison) = &self.work.what else { return None };
        Some(comparison.unit_of(trial))
    }

    /// Units whose lease has run out, with the attempt that had it.
    pub fn overdue(&self, now: Millis) -> Vec<(u32, AttemptId)> {
        self.leases().filter(|(_, _, l)| l.deadline < now).map(|(index, _, l)| (index, l.attempt)).collect()
    }

    /// Live leases.
    pub fn leases(&self) -> impl Iterator<Item = (u32, &Unit, &Lease)> {
        let leased = |index: &u32| {
            let unit = self.units.get(index)?;
            Some((*index, unit, unit.lease()?))
        };
        self.busy.iter().filter_map(leased)
    }

    /// Takes every unit from its worker and forgets every report.
    pub fn abandon(&mut self) -> Abandoned {
        let mut abandoned = Abandoned::default();
        let of = |report: &Reported| (report.worker.clone(), report.unit.clone(), report.attempt);
        for index in std::mem::take(&mut self.busy) {
            let unit_id = self.unit_id(index);
            let Some(UnitStatus::Leased(lease)) =
                self.set(index, UnitStatus::Ready).map(|before| match before {
                    UnitStatus::Committing(committing) => {
                        abandoned.reports.push(of(&committing.commit.report));
                        committing.other_lease().cloned().map_or(UnitStatus::Ready, UnitStatus::Leased)
                    }
                    other => other,
                })
            else {
                continue;
            };
            abandoned.leases.push((unit_id, lease));
        }
        for unit in self.units.values_mut() {
            abandoned.reports.extend(std::mem::take(&mut unit.waiting).iter().map(of));
        }
        abandoned.reports.extend(self.take_early().iter().map(of));
        abandoned
    }

    /// The unit as a worker gets it.
    pub fn payload(&self, index: u32) -> Option<Payload> {
        let unit = self.units.get(&index)?;
        Some(match &self.work.what {
            What::Prepare { texts_key, texts } => {
                Payload::Prepare(PrepareUnit { texts_key: *texts_key, texts: texts.clone() })
            }
            What::Mirror { model, .. } => Payload::Mirror(Box::new(MirrorUnit { model: model.clone() })),
            What::Extract(extraction) => {
                let pooling = |item: &Item| match item {
                    Item::Rows(pooling) => Some(*pooling),
                    Item::Texts | Item::Files | Item::Trial(_) => None,
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
                    Item::Texts | Item::Files | Item::Rows(_) => None,
                };
                if self.rows_keys.len() != comparison.sides.len() {
                    return None;
                }
                let side = |(side, key): (&Side, &Digest)| CompareSide {
                    extraction_key: *key,
                    n_shards: side.n_shards,
                    layers: side.layers.clone(),
                    hidden_size: side.hidden_size,
                };
                Payload::Compare(CompareUnit {
                    comparison_key: self.key?,
                    sides: comparison.sides.iter().zip(&self.rows_keys).map(side).collect(),
                    pooling: comparison.pooling,
                    n_texts: comparison.n_texts,
                    settings: comparison.settings.clone(),
                    trials: unit.items.iter().filter_map(trial).collect(),
                })
            }
        })
    }
}

impl Unit {
    fn new(items: BTreeSet<Item>) -> Self {
        Self {
            items,
            status: UnitStatus::Ready,
            charged: 0,
            attempts: 0,
            faulted_by: BTreeSet::new(),
            recorded: None,
            waiting: Vec::new(),
            also: BTreeSet::new(),
            remakes: 0,
        }
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

#[cfg(test)]
mod tests {
    use lsa_common::job::{Compare, SimilaritySettings, Trials};
    use lsa_common::metric::{MetricName, MetricSpec, Number};
    use lsa_common::model::Pooling;
    use lsa_common::report::Outcome;

    use super::super::event::Found;
    use super::*;
    use crate::plan::{Comparison, WorkId};

    const LATER: Millis = Millis(1_000);

    /// Eight trials, two to a unit, of which the bucket holds the first three, the third one as generation 4.
    fn opened() -> WorkState {
        opened_with(Trials::Fixed(8), &[(0, 0), (1, 0), (2, 4)])
    }

    /// A comparison of which the bucket holds some trials, each as some generation.
    fn opened_with(trials: Trials, there: &[(u32, u32)]) -> WorkState {
        let what = What::Compare(Comparison {
            base_key: Digest::of(b"base"),
            sides: vec![Side {
                extraction: WorkId(Digest::of(b"rows")),
                n_shards: 2,
                layers: vec![0, 1],
                hidden_size: 8,
            }],
            pooling: Pooling::Mean,
            n_texts: 64,
            settings: SimilaritySettings {
                metrics: vec![MetricSpec::new(MetricName::Cka)],
                sample_size: 10,
                layer_metrics: Vec::new(),
                trials,
                compare: Compare::Within,
                calibrate: false,
                seed: 1,
            },
        });
        let id = WorkId(Digest::of(b"work"));
        let work = Work { id, what, depends_on: Vec::new(), memory_bytes: 0, flop: 0 };
        let mut state = WorkState::new(Arc::new(work));
        state.rows_keys = vec![Digest::of(b"rows")];
        let found = |(trial, generation): &(u32, u32)| {
            ((*trial, Item::Trial(*trial)), Found { generation: *generation, intact: true })
        };
        state.open(Survey {
            numeric_profile: "cpu".to_owned(),
            key: Some(Digest::of(b"key")),
            found: there.iter().map(found).collect(),
        });
        state
    }

    fn lease(attempt: u128, deadline: u64) -> Lease {
        Lease {
            worker: "w".parse().expect("a plain name"),
            attempt: AttemptId(attempt),
            deadline: Millis(deadline),
            progress: (0, 0),
        }
    }

    fn report(state: &WorkState, index: u32, attempt: u128) -> Reported {
        Reported {
            worker: "w".parse().expect("a plain name"),
            unit: state.unit_id(index),
            attempt: AttemptId(attempt),
            elapsed_ms: 1,
            outcome: Outcome::Compared(Vec::new()),
        }
    }

    fn run(state: &mut WorkState, index: u32, attempt: u128) -> Commit {
        let report = report(state, index, attempt);
        let commit = state.begin_commit(index, report).expect("the unit is missing something");
        state.end_commit(index, AttemptId(attempt)).expect("it was begun");
        state.done(index, AttemptId(attempt));
        commit
    }

    #[test]
    fn only_what_is_missing_becomes_a_unit() {
        let state = opened();
        let missing: Vec<_> = state.units.iter().map(|(index, unit)| (*index, unit.items.len())).collect();
        assert_eq!(missing, [(1, 1), (2, 2), (3, 2)]);
        assert_eq!((state.n_done(), state.is_complete()), (1, false));
    }

    fn auto() -> Trials {
        Trials::Auto { ci_half_width: Number::new(0.01).expect("finite"), max_trials: 22 }
    }

    /// The trials of each unit that is missing some.
    fn missing(state: &WorkState) -> Vec<(u32, Vec<u32>)> {
        let trial = |item: &Item| match item {
            Item::Trial(trial) => Some(*trial),
            Item::Texts | Item::Files | Item::Rows(_) => None,
        };
        let units = state.units.iter().filter(|(_, unit)| !matches!(unit.status, UnitStatus::Done));
        units.map(|(index, unit)| (*index, unit.items.iter().filter_map(trial).collect())).collect()
    }

    #[test]
    fn more_trials_are_units_of_their_own() {
        let mut state = opened_with(auto(), &[(3, 0), (12, 0), (15, 0)]);
        assert_eq!(missing(&state), [(0, vec![0, 1, 2, 4]), (1, vec![5, 6, 7, 8, 9])]);
        assert_eq!((state.n_units(), state.n_done()), (2, 0));
        run(&mut state, 0, 1);
        run(&mut state, 1, 2);
        assert!(state.is_complete());
        state.status = WorkStatus::Done;

        state.extend(10);
        assert_eq!(state.status, WorkStatus::Done, "they are there");
        state.extend(15);
        assert_eq!(state.status, WorkStatus::Open);
        assert_eq!(missing(&state), [(2, vec![10, 11, 13, 14])]);
        assert_eq!((state.n_units(), state.n_done()), (3, 2));
        assert!(state.has_ready(LATER));
        run(&mut state, 2, 3);
        state.extend(99);
        assert_eq!(
            missing(&state),
            [(3, vec![16, 17, 18, 19]), (4, vec![20, 21])],
            "no more than there can be"
        );
        assert_eq!((state.n_units(), state.n_done()), (5, 3));
        assert_eq!(state.reopen(2, Item::Trial(12)), Remade::Will, "what was found can turn out damaged");
    }

    #[test]
    fn where_somebody_went_further_before_nobody_has_to_ask_again() {
        let there = |n: u32| (0..n).map(|trial| (trial, 0)).collect::<Vec<_>>();
        let n_trials = |there: &[(u32, u32)]| {
            let state = opened_with(auto(), there);
            (state.n_trials, missing(&state))
        };
        assert_eq!(n_trials(&there(10)), (10, vec![]));
        assert_eq!(n_trials(&there(14)), (10, vec![]));
        assert_eq!(n_trials(&there(15)), (15, vec![]));
        assert_eq!(n_trials(&there(22)), (22, vec![]));
        assert_eq!(n_trials(&there(22)[1..]), (10, vec![(0, vec![0])]));
    }

    #[test]
    fn a_unit_that_another_coordinator_lent_is_one_of_this_one() {
        let mut state = opened_with(auto(), &[]);
        assert!(state.may_be(&state.unit_id(2), 2) && !state.adopt(2, lease(7, 10)), "not as yet");
        state.extend_to_unit(2);
        assert_eq!((state.n_trials, state.adopt(2, lease(7, 10))), (15, true));
        state.extend_to_unit(99);
        assert_eq!(state.n_trials, 15, "there is no such unit");
    }

    #[test]
    fn a_lease_of_another_coordinator_is_taken_over_once() {
        let mut state = opened();
        assert!(state.adopt(1, lease(7, 10)));
        assert!(state.adopt(1, lease(7, 20)), "it says again what it has");
        assert!(!state.adopt(1, lease(8, 20)), "somebody has it");
        assert!(!state.adopt(0, lease(9, 20)), "it was found done");
        assert!(state.overdue(Millis(20)).is_empty());
        assert_eq!(state.overdue(Millis(21)), [(1, AttemptId(7))]);
    }

    #[test]
    fn progress_renews_the_lease_of_its_attempt_alone() {
        let mut state = opened();
        let (index, _, _) = state.lend(LATER, lease(1, 10)).expect("three are ready");
        assert!(!state.renew(index, AttemptId(2), Millis(99), (1, 2)));
        assert!(state.renew(index, AttemptId(1), Millis(99), (1, 2)));
        assert!(state.overdue(Millis(99)).is_empty());
        assert_eq!(state.end_lease(index, AttemptId(2)), None);
        assert!(state.end_lease(index, AttemptId(1)).is_some_and(|lease| lease.progress == (1, 2)));
    }

    #[test]
    fn a_late_report_is_recorded_and_the_lease_of_another_attempt_runs_on() {
        let mut state = opened();
        let (index, _, _) = state.lend(LATER, lease(2, 50)).expect("three are ready");
        let late = report(&state, index, 1);
        assert!(state.begin_commit(index, late).is_some());
        assert!(state.renew(index, AttemptId(2), Millis(80), (0, 0)), "it is not stopped yet");
        let (committing, _) = state.end_commit(index, AttemptId(1)).expect("it was begun");
        assert_eq!(committing.own_lease(), None, "nothing is charged if it was refused");
        assert_eq!(state.overdue(Millis(81)), [(index, AttemptId(2))], "leased again");
    }

    #[test]
    fn a_unit_is_put_off_and_taken_over_all_the_same() {
        let mut state = opened();
        let (index, _, _) = state.lend(LATER, lease(1, 10)).expect("three are ready");
        state.end_lease(index, AttemptId(1));
        state.delay(index, Millis(5_000));
        let lent: Vec<_> = (0..3).filter_map(|n| state.lend(LATER, lease(10 + n, 10))).collect();
        assert_eq!(lent.len(), 2, "the third one rests");
        assert!(!state.has_ready(Millis(4_999)) && state.has_ready(Millis(5_000)));
        assert!(state.adopt(index, lease(1, 10)));
        assert!(!state.has_ready(Millis(5_000)), "it is not lent a second time");
    }

    #[test]
    fn damage_is_made_again_as_the_next_generation() {
        let mut state = opened();
        for (index, attempt) in [(1, 1), (2, 2), (3, 3)] {
            run(&mut state, index, attempt);
        }
        assert!(state.is_complete());
        // Found, made here, and in a unit that held a found one besides.
        for (trial, index, generation) in [(0, 0, 1), (4, 2, 1), (2, 1, 5), (2, 1, 6)] {
            assert_eq!(state.reopen(index, Item::Trial(trial)), Remade::Will);
            assert!(!state.is_complete());
            let commit = run(&mut state, index, 100 + u128::from(generation));
            assert_eq!(commit.generations, BTreeMap::from([(Item::Trial(trial), generation)]));
        }
        assert!(state.is_complete());
        assert_eq!(state.n_done(), 4);
    }

    #[test]
    fn damaged_data_are_not_recorded_twice() {
        let mut state = opened();
        run(&mut state, 1, 1);
        state.reopen(1, Item::Trial(3));
        let again = report(&state, 1, 1);
        assert!(state.begin_commit(1, again).is_none());
        assert!(!state.adopt(1, lease(1, 10)));
    }

    #[test]
    fn damage_that_is_met_while_the_unit_is_busy_waits_for_it() {
        let mut state = opened();
        let (index, _, _) = state.lend(LATER, lease(1, 10)).expect("three are ready");
        assert_eq!((index, state.units[&1].items.len()), (1, 1), "trial 3 is missing, trial 2 was found");
        assert_eq!(state.reopen(1, Item::Trial(2)), Remade::Will);
        run(&mut state, 1, 1);
        assert!(state.has_ready(LATER));
        assert_eq!(state.units[&1].items, BTreeSet::from([Item::Trial(2)]));
    }

    #[test]
    fn what_is_not_there_is_not_made_again_and_nothing_for_ever() {
        let mut state = opened();
        assert_eq!(state.reopen(4, Item::Trial(8)), Remade::Unknown);
        for attempt in 0..REMAKES_MAX {
            assert_eq!(state.reopen(0, Item::Trial(0)), Remade::Will);
            run(&mut state, 0, u128::from(attempt));
        }
        assert_eq!(state.reopen(0, Item::Trial(0)), Remade::TooOften);
    }

    #[test]
    fn a_unit_of_another_key_is_another_unit() {
        let state = opened();
        let other = state.work.unit_id(1, Digest::of(b"another key"));
        assert!(state.may_be(&state.unit_id(1), 1));
        assert!(!state.may_be(&other, 1));
    }
}
