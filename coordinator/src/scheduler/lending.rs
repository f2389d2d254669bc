//! Which unit to which worker.
//!
//! A job of higher priority goes first; among equals the one that has the fewest units lent, then the older one. Within
//! a job a worker goes on with what it did last, since its model is loaded and its rows are cached; else late stages go
//! first. A unit that has failed on a worker goes to others while there are any. A worker for which there is nothing
//! is lent what another one lags with: the first of the two that is recorded counts.

use std::collections::BTreeSet;
use std::ops::Bound;

use lsa_common::id::{AttemptId, WorkerId};
use lsa_common::time::Millis;
use rand_core::Rng;

use super::event::Effect;
use super::index::Kind;
use super::work::{Lease, WorkState};
use super::workers::Worker;
use super::{State, policy};
use crate::plan::WorkId;

/// How many works the bucket is looked through for at once, for workers that would begin them. More would bind works
/// to the profile of the first worker that asks although others will be idle before they are begun.
const SURVEYS_AT_ONCE: usize = 32;

/// How many units of a work are looked at for a worker on which some of them have failed.
const LOOKED_AT_MAX: usize = 64;

/// What there is for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    /// A unit.
    Unit(WorkId, u32),
    /// A unit that another worker has, and lags with: there is nothing else.
    Straggler(WorkId, u32),
    /// Units that have failed on it, and that others shall try.
    LeftToOthers,
    /// Nothing.
    Nothing,
}

impl State {
    /// Lends what is ready to whoever is idle.
    pub(super) fn lend(&mut self, now: Millis) {
        let retry = std::mem::take(&mut self.retry_idle);
        let newly_idle = std::mem::take(&mut self.newly_idle);
        if self.turns.is_empty() {
            return;
        }
        if !retry {
            for id in &newly_idle {
                self.lend_to(now, id);
            }
            return;
        }
        let kinds: Vec<Kind> = self.idle.keys().cloned().collect();
        for kind in kinds {
            let mut after = Bound::Unbounded;
            while let Some(id) = self.next_idle(&kind, after) {
                // Where there is nothing for one worker of a kind, there is nothing for the others either.
                if self.lend_to(now, &id) == Choice::Nothing {
                    break;
                }
                after = Bound::Excluded(id);
            }
        }
        // Nobody who is still idle can have anything that is there.
        self.retry_idle = false;
        self.newly_idle.clear();
    }

    fn next_idle(&self, kind: &Kind, after: Bound<WorkerId>) -> Option<WorkerId> {
        self.idle.get(kind)?.range((after, Bound::Unbounded)).next().cloned()
    }

    /// Lends a unit to a worker that is idle, if there is one for it.
    fn lend_to(&mut self, now: Millis, id: &WorkerId) -> Choice {
        self.look_ahead(now, id);
        let Some(worker) = self.workers.get(id).filter(|_| self.may_lend) else { return Choice::Nothing };
        let choice = self.choose(now, id, worker);
        match choice {
            Choice::Unit(work, index) => self.lend_unit(now, id, (work, index), false),
            Choice::Straggler(work, index) => self.lend_unit(now, id, (work, index), true),
            Choice::LeftToOthers | Choice::Nothing => {}
        }
        choice
    }

    fn lend_unit(&mut self, now: Millis, id: &WorkerId, (work, index): (WorkId, u32), again: bool) {
        let bits = [self.generator.next_u64(), self.generator.next_u64()].map(u128::from);
        let attempt = AttemptId((bits[0] << 64) | bits[1]);
        let deadline = now + self.settings.lease_ttl_ms;
        let lease = Lease { worker: id.clone(), attempt, since: now, deadline, progress: (0, 0) };
        let Some(state) = self.touch(work) else { return };
        let lent = if again { state.lend_again(index, lease) } else { state.lend(index, lease) };
        let Some((payload, attempt_number)) = lent else { return };
        let unit = state.unit_id(index);
        if let Some(worker) = self.workers.get_mut(id) {
            worker.last_work = Some(work);
            worker.has_asked = false;
            // It has none of the others any more, or would not have been lent this one.
            worker.lent = BTreeSet::from([(work, index)]);
        }
        self.touched_workers.push(id.clone());
        self.watch_lease(work, index, attempt, deadline);
        let (worker, payload) = (id.clone(), Box::new(payload));
        self.effects.push(Effect::Lend { worker, unit, payload, attempt, attempt_number });
        self.bring_in_line(now);
    }

    fn choose(&self, now: Millis, id: &WorkerId, worker: &Worker) -> Choice {
        let mut choice = Choice::Nothing;
        for (.., job) in &self.turns {
            let Some(queue) = self.jobs.get(job).map(|job| &job.queue) else { continue };
            let is_last = |state: &&WorkState| {
                state.is_lendable() && state.jobs.contains(job) && state.fits(&worker.kind)
            };
            let last = worker.last_work.and_then(|last| self.works.get(&last)).filter(is_last);
            let others = queue.open.fitting(&worker.kind).filter_map(|work| self.works.get(&work));
            for state in last.into_iter().chain(others) {
                let mut ready = state.ready().take(LOOKED_AT_MAX);
                match ready.find(|index| !self.is_left_to_others(now, id, state, *index)) {
                    Some(index) => return Choice::Unit(state.work.id, index),
                    None => choice = Choice::LeftToOthers,
                }
            }
        }
        for (.., job) in &self.turns {
            let Some(queue) = self.jobs.get(job).map(|job| &job.queue) else { continue };
            for state in queue.lagging.fitting(&worker.kind).filter_map(|work| self.works.get(&work)) {
                let is_new = |index: &u32| {
                    let unit = state.units.get(index);
                    unit.is_some_and(|unit| !unit.failed_on().contains(id))
                };
                match state.lagging(now).find(is_new) {
                    Some(index) => return Choice::Straggler(state.work.id, index),
                    None => choice = Choice::LeftToOthers,
                }
            }
        }
        choice
    }

    /// Whether a unit has failed on a worker while there is another one for it, on which it has not.
    fn is_left_to_others(&self, now: Millis, id: &WorkerId, state: &WorkState, index: u32) -> bool {
        let Some(unit) = state.units.get(&index) else { return false };
        let failed_on = unit.failed_on();
        let is_patient = unit.failed_at().is_some_and(|at| now.since(at) < policy::PATIENCE_MS);
        if !failed_on.contains(id) || !is_patient {
            return false;
        }
        let n_fitting: usize =
            self.available.iter().filter(|(kind, _)| state.fits(kind)).map(|(_, count)| count).sum();
        let is_fitting = |worker: &&Worker| worker.entry.is_available && state.fits(&worker.kind);
        let known = failed_on.iter().filter_map(|id| self.workers.get(id));
        n_fitting > known.filter(is_fitting).count()
    }

    /// Has the bucket looked through for works that a worker could begin.
    fn look_ahead(&mut self, now: Millis, id: &WorkerId) {
        while self.n_surveying < SURVEYS_AT_ONCE {
            let Some(kind) = self.workers.get(id).map(|worker| &worker.kind) else { return };
            let first = |job| self.jobs.get(job)?.queue.unbound.fitting(kind).next();
            let Some(work) = self.turns.iter().find_map(|(.., job)| first(job)) else { return };
            let profile = kind.profile.to_string();
            self.survey(work, profile);
            self.bring_in_line(now);
        }
    }
}
