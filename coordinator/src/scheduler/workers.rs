//! Workers that come and go, what they say they hold, and what becomes of it.

use std::collections::BTreeSet;

use lsa_common::failure::FailureClass;
use lsa_common::id::{AttemptId, UnitId, WorkerId};
use lsa_common::time::Millis;

use super::event::{Departure, Effect};
use super::index::Kind;
use super::timer::Due;
use super::work::{Lease, WorkStatus};
use super::{State, policy};
use crate::plan::{Work, WorkId};

/// A worker that has registered.
#[derive(Debug)]
pub(super) struct Worker {
    pub kind: Kind,
    pub connected: bool,
    /// Its lease ran out, or it said that it cannot go on, and it has given no sign of life since: nobody waits for it.
    pub silent: bool,
    /// It finishes or hands back what it has, and is lent nothing more.
    pub draining: bool,
    /// Nothing is lent to it before this.
    pub rests_until: Millis,
    /// Attempts of it that failed since one succeeded.
    n_failed: u32,
    /// Units that anybody had done when the first of those failed.
    n_done_before: u64,
    /// It wants a unit.
    pub has_asked: bool,
    /// What it did last.
    pub last_work: Option<WorkId>,
    /// What it has, among what it had: works say which of these leases still run.
    pub lent: BTreeSet<(WorkId, u32)>,
    pub entry: Entry,
}

/// What the indexes say of a worker.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub is_available: bool,
    pub is_idle: bool,
}

/// What a worker says it holds of a work that has not been looked through.
#[derive(Debug)]
pub(super) struct Claim {
    pub unit: UnitId,
    pub lease: Lease,
}

impl Worker {
    /// Whether it may be lent something once it asks.
    pub fn may_be_lent(&self, now: Millis) -> bool {
        self.connected && !self.draining && now >= self.rests_until
    }
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
        // A process that replaces another of its name is on the same machine: what was wrong there may be still.
        let (rests_until, n_failed, n_done_before) = match self.workers.get(&id) {
            Some(known) => (known.rests_until, known.n_failed, known.n_done_before),
            None => (Millis(0), 0, 0),
        };
        let worker = Worker {
            kind: Kind { profile: numeric_profile.into(), memory_bytes },
            connected: true,
            silent: false,
            draining: false,
            rests_until,
            n_failed,
            n_done_before,
            // It asks again once it is idle.
            has_asked: false,
            last_work: held.first().and_then(|(unit, _)| Work::parse_unit_id(unit)).map(|(work, _)| work),
            lent: BTreeSet::new(),
            entry: Entry::default(),
        };
        let before = self.workers.insert(id.clone(), worker);
        self.touched_workers.push(id.clone());
        if let Some(before) = before {
            self.withdraw_worker(&id, &before);
            for unit in before.lent {
                self.return_without(now, &id, before.draining, unit, &held);
            }
        }
        for (unit, attempt) in held {
            if !self.take_over(now, &id, &unit, attempt) {
                // Done, lent to somebody else meanwhile, or not wanted any more.
                self.effects.push(Effect::Stop { worker: id.clone(), unit, attempt });
            }
        }
    }

    pub(super) fn asked(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.connected) {
            worker.has_asked = true;
            worker.silent = false;
            self.touched_workers.push(id);
        }
    }

    /// Has nothing more lent to a worker; whether there is one.
    pub(super) fn drain(&mut self, id: &WorkerId) -> bool {
        let Some(worker) = self.workers.get_mut(id) else { return false };
        worker.draining = true;
        self.touched_workers.push(id.clone());
        true
    }

    /// Whether a worker is lent nothing more.
    pub fn is_draining(&self, id: &WorkerId) -> bool {
        self.workers.get(id).is_some_and(|worker| worker.draining)
    }

    /// A worker gives a sign of life.
    pub(super) fn hear_from(&mut self, id: &WorkerId) {
        if let Some(worker) = self.workers.get_mut(id).filter(|worker| worker.silent) {
            worker.silent = false;
            self.touched_workers.push(id.clone());
        }
    }

    pub(super) fn fall_silent(&mut self, id: &WorkerId) {
        if let Some(worker) = self.workers.get_mut(id) {
            worker.silent = true;
            self.touched_workers.push(id.clone());
        }
    }

    /// A worker has had a unit done.
    pub(super) fn count_success(&mut self, id: &WorkerId) {
        self.n_done += 1;
        if let Some(worker) = self.workers.get_mut(id) {
            worker.n_failed = 0;
        }
    }

    /// An attempt of a worker has failed. When that happens again and again while others succeed, the worker is at
    /// fault rather than the units, and rests before it may spoil more.
    pub(super) fn count_failure(&mut self, now: Millis, id: &WorkerId) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.n_failed += 1;
        if worker.n_failed == 1 {
            worker.n_done_before = self.n_done;
        }
        if self.n_done > worker.n_done_before
            && let Some(rest) = policy::rest_ms(worker.n_failed, &mut self.generator)
        {
            worker.rests_until = now + rest;
            let until = worker.rests_until;
            self.touched_workers.push(id.clone());
            self.schedule(until, Due::Worker(id.clone()));
        }
    }

    /// A worker is back. If it does not have a unit any more, the loan was lost on the way, or its process was
    /// replaced by one of the same name, which counts as a failure lest a unit that kills workers be lent for ever. Not
    /// where it was draining: nobody expected it to finish.
    fn return_without(
        &mut self,
        now: Millis,
        worker: &WorkerId,
        was_draining: bool,
        (work, index): (WorkId, u32),
        held: &[(UnitId, AttemptId)],
    ) {
        let has = |attempt| held.iter().any(|(_, known)| *known == attempt);
        let claim = self.claims.get(&(work, index)).map(|claim| &claim.lease);
        if claim.is_some_and(|claim| claim.worker == *worker && !has(claim.attempt)) {
            self.take_claim((work, index));
        }
        let Some(state) = self.touch(work) else { return };
        let unit = state.unit_id(index);
        let Some(attempt) = state.attempt_of(index, worker).filter(|attempt| !has(*attempt)) else { return };
        if let Some(lease) = state.end_lease(index, attempt)
            && !was_draining
        {
            let message = format!("worker {worker} came back without this unit");
            self.fail_attempt(now, &unit, lease, FailureClass::Retry, message);
        }
    }

    /// Whether the worker may go on with what it says it has.
    fn take_over(&mut self, now: Millis, worker: &WorkerId, unit: &UnitId, attempt: AttemptId) -> bool {
        let deadline = now + self.settings.lease_ttl_ms;
        let lease = Lease { worker: worker.clone(), attempt, since: now, deadline, progress: (0, 0) };
        let Some((state, index)) = self.find(unit) else { return false };
        let work = state.work.id;
        let taken = match state.status {
            WorkStatus::Open => {
                let taken = state.adopt(index, lease);
                self.watch_lease(work, index, attempt, deadline);
                taken
            }
            // Not looked through yet: the claim waits.
            WorkStatus::Blocked | WorkStatus::Unbound | WorkStatus::Surveying(_) => {
                let claim = Claim { unit: unit.clone(), lease };
                let known = self.claims.entry((work, index)).or_insert(claim);
                let mine = known.lease.attempt == attempt;
                if mine {
                    known.lease.deadline = deadline;
                    self.schedule(deadline + 1, Due::Claim(work, index));
                }
                mine
            }
            WorkStatus::Done | WorkStatus::Failed(_) => false,
        };
        if taken && let Some(known) = self.workers.get_mut(worker) {
            known.lent.insert((work, index));
        }
        taken
    }

    /// Gives those who hold units of a work that is open now their leases.
    pub(super) fn honour_claims(&mut self, work: WorkId) {
        for (work, index) in self.claims_of(work) {
            let Some(Claim { unit, lease }) = self.take_claim((work, index)) else { continue };
            let Some(state) = self.touch(work) else { continue };
            let (worker, attempt, deadline) = (lease.worker.clone(), lease.attempt, lease.deadline);
            if state.may_be(&unit, index) && state.adopt(index, lease) {
                self.watch_lease(work, index, attempt, deadline);
            } else {
                self.effects.push(Effect::Stop { worker, unit, attempt });
            }
        }
    }

    pub(super) fn claims_of(&self, work: WorkId) -> Vec<(WorkId, u32)> {
        self.claims.range((work, 0)..=(work, u32::MAX)).map(|(unit, _)| *unit).collect()
    }

    /// Ends a claim; its worker may be idle then.
    pub(super) fn take_claim(&mut self, unit: (WorkId, u32)) -> Option<Claim> {
        let claim = self.claims.remove(&unit)?;
        self.touched_workers.push(claim.lease.worker.clone());
        Some(claim)
    }

    pub(super) fn leave(&mut self, now: Millis, id: &WorkerId, departure: Departure) {
        let faulted = match departure {
            Departure::Disconnected => {
                if let Some(worker) = self.workers.get_mut(id) {
                    worker.connected = false;
                    worker.has_asked = false;
                    self.touched_workers.push(id.clone());
                }
                return;
            }
            Departure::Exited { faulted } => faulted,
        };
        let Some(worker) = self.workers.remove(id) else { return };
        self.withdraw_worker(id, &worker);
        for (work, index) in worker.lent {
            if self.claims.get(&(work, index)).is_some_and(|claim| claim.lease.worker == *id) {
                self.take_claim((work, index));
            }
            let Some(state) = self.touch(work) else { continue };
            let Some(attempt) = state.attempt_of(index, id) else { continue };
            let Some(lease) = state.end_lease(index, attempt) else { continue };
            if worker.draining && !faulted {
                continue;
            }
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
        self.hear_from(worker);
        let parsed = Work::parse_unit_id(unit);
        // Nothing can be lent after a sign of life that could not before: the work is not touched.
        let known = parsed.is_some_and(|(work, index)| {
            let state = self.works.get_mut(&work).filter(|state| state.may_be(unit, index));
            state.is_some_and(|state| state.renew(index, attempt, deadline, progress))
        });
        let claim = parsed.and_then(|unit| self.claims.get_mut(&unit));
        if let Some(claim) = claim.filter(|claim| claim.lease.attempt == attempt) {
            claim.lease.deadline = deadline;
        } else if !known {
            // Expired and lent to another, done, or cancelled: the worker may stop.
            self.effects.push(Effect::Stop { worker: worker.clone(), unit: unit.clone(), attempt });
        }
    }

    pub(super) fn has_unit(&self, id: &WorkerId, worker: &Worker) -> bool {
        worker.lent.iter().any(|(work, index)| {
            let leased = self.works.get(work).is_some_and(|state| state.attempt_of(*index, id).is_some());
            leased || self.claims.get(&(*work, *index)).is_some_and(|claim| claim.lease.worker == *id)
        })
    }
}
