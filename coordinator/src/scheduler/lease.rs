//! Who has what: workers that come and go, what they are lent, how they report.

use std::collections::BTreeSet;

use lsa_common::failure::FailureClass;
use lsa_common::id::{AttemptId, UnitId, WorkerId};
use lsa_common::report::{Damaged, Failure, Outcome};
use lsa_common::time::Millis;
use rand_core::Rng;

use super::event::{CommitEnd, Departure, Effect, FailedAttempt, Item, Reported};
use super::work::{Lease, Remade, WorkState, WorkStatus};
use super::{State, policy};
use crate::plan::{What, Work, WorkId};

/// A worker that has registered.
#[derive(Debug)]
pub(super) struct Worker {
    pub numeric_profile: String,
    pub memory_bytes: u64,
    pub connected: bool,
    /// What it did last.
    last_work: Option<WorkId>,
    /// What it has, among what it had: works say which of these leases still run.
    lent: BTreeSet<(WorkId, u32)>,
}

/// What a worker says it holds of a work that has not been looked through.
#[derive(Debug)]
pub(super) struct Claim {
    pub unit: UnitId,
    pub lease: Lease,
}

impl State {
    pub(super) fn join(
        &mut self,
        now: Millis,
        id: WorkerId,
        numeric_profile: String,
        memory_bytes: u64,
        held: Vec<(UnitId, AttemptId)>,
    ) {
        let last_work = held.first().and_then(|(unit, _)| Work::parse_unit_id(unit)).map(|(work, _)| work);
        let lent = BTreeSet::new();
        let worker = Worker { numeric_profile, memory_bytes, connected: true, last_work, lent };
        let before = self.workers.insert(id.clone(), worker);
        // It asks again once it is idle.
        self.hungry.remove(&id);
        for unit in before.into_iter().flat_map(|worker| worker.lent) {
            self.return_without(now, &id, unit, &held);
        }
        for (unit, attempt) in held {
            if !self.take_over(now, &id, &unit, attempt) {
                // Done, lent to somebody else meanwhile, or not wanted any more.
                self.effects.push(Effect::Stop { worker: id.clone(), unit, attempt });
            }
        }
    }

    /// A worker is back. If it does not have a unit any more, the loan was lost on the way, or its process was
    /// replaced by one of the same name, which counts as a failure lest a unit that kills workers be lent for ever.
    fn return_without(
        &mut self,
        now: Millis,
        worker: &WorkerId,
        (work, index): (WorkId, u32),
        held: &[(UnitId, AttemptId)],
    ) {
        let Some(state) = self.works.get_mut(&work) else { return };
        let unit = state.unit_id(index);
        let has = |attempt| held.iter().any(|(_, known)| *known == attempt);
        let claim = self.claims.get(&(work, index)).map(|claim| &claim.lease);
        if claim.is_some_and(|claim| claim.worker == *worker && !has(claim.attempt)) {
            self.claims.remove(&(work, index));
        }
        let Some(attempt) = state.attempt_of(index, worker).filter(|attempt| !has(*attempt)) else { return };
        if let Some(lease) = state.end_lease(index, attempt) {
            let message = format!("worker {worker} came back without this unit");
            self.fail_attempt(now, &unit, lease, FailureClass::Retry, message);
        }
    }

    /// Whether the worker may go on with what it says it has.
    fn take_over(&mut self, now: Millis, worker: &WorkerId, unit: &UnitId, attempt: AttemptId) -> bool {
        let deadline = now + self.settings.lease_ttl_ms;
        let lease = Lease { worker: worker.clone(), attempt, deadline, progress: (0, 0) };
        let Some((work, index)) = Work::parse_unit_id(unit) else { return false };
        let state = self.works.get_mut(&work).filter(|state| state.may_be(unit, index));
        let Some(state) = state else { return false };
        let Some(known) = self.workers.get_mut(worker) else { return false };
        let taken = match state.status {
            WorkStatus::Open => state.adopt(index, lease),
            // Not looked through yet: the claim waits.
            WorkStatus::Blocked | WorkStatus::Unbound | WorkStatus::Surveying(_) => {
                let claim = Claim { unit: unit.clone(), lease };
                let known = self.claims.entry((work, index)).or_insert(claim);
                let mine = known.lease.attempt == attempt;
                if mine {
                    known.lease.deadline = deadline;
                }
                mine
            }
            WorkStatus::Done | WorkStatus::Failed(_) => false,
        };
        if taken {
            known.lent.insert((work, index));
            self.advance(now, work);
        }
        taken
    }

    /// Gives those who hold units of a work that is open now their leases.
    pub(super) fn honour_claims(&mut self, work: WorkId) {
        let claimed: Vec<_> =
            self.claims.range((work, 0)..=(work, u32::MAX)).map(|(unit, _)| *unit).collect();
        for unit in claimed {
            let Some(Claim { unit: name, lease }) = self.claims.remove(&unit) else { continue };
            let Some(state) = self.works.get_mut(&work) else { continue };
            let (worker, attempt) = (lease.worker.clone(), lease.attempt);
            if !state.may_be(&name, unit.1) || !state.adopt(unit.1, lease) {
                self.effects.push(Effect::Stop { worker, unit: name, attempt });
            }
        }
    }

    pub(super) fn leave(&mut self, now: Millis, id: &WorkerId, departure: Departure) {
        self.hungry.remove(id);
        let faulted = match departure {
            Departure::Disconnected => {
                if let Some(worker) = self.workers.get_mut(id) {
                    worker.connected = false;
                }
                return;
            }
            Departure::Exited { faulted } => faulted,
        };
        let Some(worker) = self.workers.remove(id) else { return };
        for (work, index) in worker.lent {
            if self.claims.get(&(work, index)).is_some_and(|claim| claim.lease.worker == *id) {
                self.claims.remove(&(work, index));
            }
            let Some(state) = self.works.get_mut(&work) else { continue };
            let Some(attempt) = state.attempt_of(index, id) else { continue };
            let Some(lease) = state.end_lease(index, attempt) else { continue };
            let message = if faulted {
                state.fault(index, id);
                format!("worker {id} crashed while it ran this unit")
            } else {
                format!("worker {id} ended while it ran this unit")
            };
            let (unit, class) = (state.unit_id(index), state.class_of_crash(index));
            self.fail_attempt(now, &unit, lease, class, message);
        }
    }

    pub(super) fn renew(
        &mut self,
        now: Millis,
        worker: &WorkerId,
        unit: &UnitId,
        attempt: AttemptId,
        progress: (u64, u64),
    ) {
        let deadline = now + self.settings.lease_ttl_ms;
        let known =
            self.find(unit).is_some_and(|(state, index)| state.renew(index, attempt, deadline, progress));
        let claim = Work::parse_unit_id(unit).and_then(|unit| self.claims.get_mut(&unit));
        if let Some(claim) = claim.filter(|claim| claim.lease.attempt == attempt) {
            claim.lease.deadline = deadline;
        } else if !known {
            // Expired and lent to another, done, or cancelled: the worker may stop.
            self.effects.push(Effect::Stop { worker: worker.clone(), unit: unit.clone(), attempt });
        }
    }

    pub(super) fn report(&mut self, now: Millis, report: Reported) {
        let acknowledge = Effect::Acknowledge {
            worker: report.worker.clone(),
            unit: report.unit.clone(),
            attempt: report.attempt,
        };
        let unit = report.unit.clone();
        if let Some(unit) = Work::parse_unit_id(&unit)
            && self.claims.get(&unit).is_some_and(|claim| claim.lease.attempt == report.attempt)
        {
            self.claims.remove(&unit);
        }
        let Some((state, index)) = self.find(&unit) else {
            self.effects.push(acknowledge);
            return;
        };
        let work = state.work.id;
        let has_data = !matches!(report.outcome, Outcome::Failed(_) | Outcome::HandedBack);
        match (&state.status, has_data) {
            (WorkStatus::Open, true) => {
                if state.is_committing(index) {
                    if !state.keep_waiting(index, report) {
                        self.effects.push(acknowledge);
                    }
                    return;
                }
                let commit = state.begin_commit(index, report);
                self.effects.push(commit.map_or(acknowledge, |commit| Effect::Commit(Box::new(commit))));
            }
            (WorkStatus::Open, false) => {
                self.effects.push(acknowledge);
                self.failed(now, report);
            }
            (WorkStatus::Blocked | WorkStatus::Unbound | WorkStatus::Surveying(_), true) => {
                if state.keep_early(index, report) {
                    self.advance(now, work);
                } else {
                    self.effects.push(acknowledge);
                }
            }
            (WorkStatus::Blocked | WorkStatus::Unbound | WorkStatus::Surveying(_), false)
            | (WorkStatus::Done | WorkStatus::Failed(_), _) => self.effects.push(acknowledge),
        }
    }

    /// An attempt has ended without data. It counts only if its lease runs.
    fn failed(&mut self, now: Millis, report: Reported) {
        let unit = report.unit;
        let Some((state, index)) = self.find(&unit) else { return };
        let Some(lease) = state.end_lease(index, report.attempt) else { return };
        let Outcome::Failed(Failure { failure_class, message, damaged, panicked }) = report.outcome else {
            // Handed back: ready again, uncharged.
            return;
        };
        let reads = state.work.depends_on.clone();
        if let Some((maker, remade)) = damaged.and_then(|damaged| self.remake(&reads, &damaged)) {
            // What it reads is made again first; the unit waits for that, uncharged.
            if remade == Remade::TooOften {
                self.fail_work(
                    now,
                    maker,
                    &format!("made again and again, and damaged every time: {message}"),
                );
            }
            return;
        }
        let Some((state, index)) = self.find(&unit) else { return };
        if panicked {
            state.fault(index, &report.worker);
        }
        // A worker that cannot go on leaves by itself; the unit is as good as before for any other.
        let class = match failure_class {
            FailureClass::Reject => FailureClass::Reject,
            FailureClass::Retry | FailureClass::Fatal => state.class_of_crash(index),
        };
        self.fail_attempt(now, &unit, lease, class, message);
    }

    /// Makes something again that is committed but damaged; nothing where no work that is read makes it.
    ///
    /// Whatever reads it stays open, but nothing of that is lent before its dependencies are done again.
    pub(super) fn remake(&mut self, reads: &[WorkId], damaged: &Damaged) -> Option<(WorkId, Remade)> {
        let is_it = |state: &WorkState| match (&state.work.what, damaged) {
            (What::Prepare { texts_key, .. }, Damaged::Texts(key)) => texts_key == key,
            (What::Extract(extraction), Damaged::Shard { extraction_key, pooling, .. }) => {
                state.key == Some(*extraction_key) && extraction.poolings.contains(pooling)
            }
            _ => false,
        };
        let (index, item) = match damaged {
            Damaged::Texts(_) => (0, Item::Texts),
            Damaged::Shard { pooling, shard, .. } => (*shard, Item::Rows(*pooling)),
        };
        let maker = *reads.iter().find(|work| self.works.get(work).is_some_and(is_it))?;
        match self.reopen(maker, index, item) {
            Remade::Unknown => None,
            remade @ (Remade::Will | Remade::TooOften) => Some((maker, remade)),
        }
    }

    /// Has a work make an item again, as a generation that none of the works under the same key has recorded.
    pub(super) fn reopen(&mut self, maker: WorkId, index: u32, item: Item) -> Remade {
        let Some(key) = self.works.get(&maker).map(|state| state.key) else { return Remade::Unknown };
        let same_key = self.works.values().filter(|state| state.key == key);
        let next = same_key.filter_map(|state| state.next_generation(index, item)).max();
        let Some(state) = self.works.get_mut(&maker) else { return Remade::Unknown };
        if let Some(next) = next {
            state.skip_generations(index, item, next);
        }
        state.reopen(index, item)
    }

    fn fail_attempt(
        &mut self,
        now: Millis,
        unit: &UnitId,
        lease: Lease,
        class: FailureClass,
        message: String,
    ) {
        let Some((work, index)) = Work::parse_unit_id(unit) else { return };
        let Some(state) = self.works.get_mut(&work) else { return };
        let attempts_max =
            state.jobs.iter().filter_map(|job| self.jobs.get(job)).map(|job| job.settings.max_attempts).max();
        let attempts_max = attempts_max.unwrap_or(1);
        let Some(charged) = state.charge(index) else { return };
        self.effects.push(Effect::RecordFailure(Box::new(FailedAttempt {
            jobs: state.jobs.iter().cloned().collect(),
            what: state.payload(index).map(|payload| payload.describe()).unwrap_or_default(),
            unit: unit.clone(),
            attempt: lease.attempt,
            attempt_number: charged,
            worker: lease.worker,
            failure_class: class,
            message: message.clone(),
        })));
        if class == FailureClass::Reject {
            self.fail_work(now, work, &message);
        } else if charged >= attempts_max {
            self.fail_work(now, work, &format!("gave up after {charged} attempts; the last one: {message}"));
        } else {
            state.delay(index, now + policy::back_off_ms(charged, &mut self.generator));
        }
    }

    pub(super) fn committed(&mut self, now: Millis, unit: &UnitId, attempt: AttemptId, end: CommitEnd) {
        let Some((state, index)) = self.find(unit) else { return };
        if let CommitEnd::StoreTrouble(_) = end {
            // What the worker wrote is there; only the record is missing, so it alone is tried again.
            let Some(troubles) = state.commit_trouble(index, attempt) else { return };
            if troubles < policy::COMMIT_TRIES_MAX {
                let retry_at = now + policy::back_off_ms(troubles, &mut self.generator);
                let Some((state, index)) = self.find(unit) else { return };
                state.retry_commit(index, retry_at);
                return;
            }
        }
        let Some((state, index)) = self.find(unit) else { return };
        let Some((committing, waiting)) = state.end_commit(index, attempt) else { return };
        let id = state.work.id;
        let worker = committing.commit.report.worker.clone();
        let problem = match end {
            CommitEnd::Recorded => {
                if let Some(Lease { worker, attempt, .. }) = state.done(index, attempt) {
                    self.effects.push(Effect::Stop { worker, unit: unit.clone(), attempt });
                }
                None
            }
            CommitEnd::Refused(message) => {
                Some(format!("the report of worker {worker} was refused: {message}"))
            }
            CommitEnd::StoreTrouble(message) => Some(format!("the record could not be written: {message}")),
        };
        self.effects.push(Effect::Acknowledge { worker, unit: unit.clone(), attempt });
        for report in waiting {
            self.report(now, report);
        }
        // The attempt is charged if its lease ran and no other report has taken its place.
        if let (Some(problem), Some(lease), Some((state, index))) =
            (problem, committing.own_lease(), self.find(unit))
            && !state.is_committing(index)
        {
            self.fail_attempt(now, unit, lease.clone(), FailureClass::Retry, problem);
        }
        self.finish_if_complete(now, id);
    }

    pub(super) fn expire(&mut self, now: Millis) {
        let overdue: Vec<(WorkId, u32, AttemptId)> = self
            .works
            .values()
            .flat_map(|state| {
                state.overdue(now).into_iter().map(|(index, attempt)| (state.work.id, index, attempt))
            })
            .collect();
        for (work, index, attempt) in overdue {
            let Some(state) = self.works.get_mut(&work) else { continue };
            let Some(lease) = state.end_lease(index, attempt) else { continue };
            let unit = state.unit_id(index);
            let message = format!("worker {} gave no sign of life for a whole lease", lease.worker);
            self.fail_attempt(now, &unit, lease, FailureClass::Retry, message);
        }
        self.claims.retain(|_, claim| claim.lease.deadline >= now);
        let due = self.works.values_mut().flat_map(|state| state.due_commits(now));
        self.effects.extend(due.map(|commit| Effect::Commit(Box::new(commit))));
    }

    /// Lends what is ready to whoever has asked. Every work is looked at once, and once more for every loan.
    pub(super) fn lend(&mut self, now: Millis) {
        if self.hungry.is_empty() {
            return;
        }
        let candidates = self.candidates(now);
        if candidates.is_empty() {
            return;
        }
        // Workers of a kind for which there is nothing need not be tried one by one.
        let mut nothing_for = BTreeSet::new();
        let mut hungry = std::mem::take(&mut self.hungry);
        hungry.retain(|id| {
            let Some(worker) = self.workers.get(id) else { return false };
            let kind = (worker.memory_bytes, worker.numeric_profile.clone());
            // One that has a unit has asked early, or twice.
            if !worker.connected || nothing_for.contains(&kind) || self.has_unit(id, worker) {
                return true;
            }
            let lent = self.lend_one(now, id, policy::in_order(&candidates, worker.last_work));
            if !lent {
                nothing_for.insert(kind);
            }
            !lent
        });
        self.hungry = hungry;
    }

    /// Works of which something could be lent: those of the first job first, of each job the late stages first.
    fn candidates(&self, now: Millis) -> Vec<WorkId> {
        let mut seen = BTreeSet::new();
        let works = self.order.iter().filter_map(|job| self.jobs.get(job)).flat_map(|job| &job.works);
        works.copied().filter(|work| seen.insert(*work) && self.has_something(*work, now)).collect()
    }

    fn has_something(&self, work: WorkId, now: Millis) -> bool {
        let Some(state) = self.works.get(&work) else { return false };
        let some = match state.status {
            WorkStatus::Unbound => now >= state.not_before,
            WorkStatus::Open => now >= self.lend_after && state.has_ready(now),
            WorkStatus::Blocked | WorkStatus::Surveying(_) | WorkStatus::Done | WorkStatus::Failed(_) => {
                false
            }
        };
        some && self.is_unblocked(state)
    }

    fn has_unit(&self, id: &WorkerId, worker: &Worker) -> bool {
        worker.lent.iter().any(|(work, index)| {
            let leased = self.works.get(work).is_some_and(|state| state.attempt_of(*index, id).is_some());
            leased || self.claims.get(&(*work, *index)).is_some_and(|claim| claim.lease.worker == *id)
        })
    }

    fn lend_one(&mut self, now: Millis, id: &WorkerId, order: impl Iterator<Item = WorkId>) -> bool {
        let Some(worker) = self.workers.get(id) else { return false };
        let (memory, profile) = (worker.memory_bytes, worker.numeric_profile.clone());
        for work in order {
            let Some(state) = self.works.get_mut(&work) else { continue };
            if state.work.memory_bytes > memory || !state.is_bound_to(&profile) {
                continue;
            }
            if state.status == WorkStatus::Unbound {
                self.survey(work, profile.clone());
                continue;
            }
            if state.status != WorkStatus::Open || !state.has_ready(now) {
                continue;
            }
            let bits = [self.generator.next_u64(), self.generator.next_u64()].map(u128::from);
            let attempt = AttemptId((bits[0] << 64) | bits[1]);
            let deadline = now + self.settings.lease_ttl_ms;
            let lease = Lease { worker: id.clone(), attempt, deadline, progress: (0, 0) };
            let Some((index, payload, attempt_number)) = state.lend(now, lease) else { continue };
            let unit = state.unit_id(index);
            if let Some(worker) = self.workers.get_mut(id) {
                worker.last_work = Some(work);
                // It has none of the others any more, or would not have been lent this one.
                worker.lent = BTreeSet::from([(work, index)]);
            }
            let (worker, payload) = (id.clone(), Box::new(payload));
            self.effects.push(Effect::Lend { worker, unit, payload, attempt, attempt_number });
            return true;
        }
        false
    }
}
