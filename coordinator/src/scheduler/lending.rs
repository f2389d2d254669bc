//! Which unit to which worker.
//!
//! A job of higher priority goes first; among equals the one that has the fewest units lent, then the older one. Within
//! a job a worker goes on with what it did last, since its model is loaded and its rows are cached; else late stages go
//! first.

use std::collections::BTreeSet;
use std::ops::Bound;

use lsa_common::id::{AttemptId, WorkerId};
use lsa_common::time::Millis;
use rand_core::Rng;

use super::State;
use super::event::Effect;
use super::index::Kind;
use super::work::{Lease, WorkState};
use super::workers::Worker;
use crate::plan::WorkId;

/// How many works the bucket is looked through for at once, for workers that would begin them. More would bind works
/// to the profile of the first worker that asks although others will be idle before they are begun.
const SURVEYS_AT_ONCE: usize = 32;

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
                // What one worker of a kind cannot have, the others cannot either.
                if !self.lend_to(now, &id) {
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
    fn lend_to(&mut self, now: Millis, id: &WorkerId) -> bool {
        self.look_ahead(now, id);
        let Some(worker) = self.workers.get(id).filter(|_| self.may_lend) else { return false };
        let Some((work, index)) = self.choose(worker) else { return false };
        let bits = [self.generator.next_u64(), self.generator.next_u64()].map(u128::from);
        let attempt = AttemptId((bits[0] << 64) | bits[1]);
        let deadline = now + self.settings.lease_ttl_ms;
        let lease = Lease { worker: id.clone(), attempt, deadline, progress: (0, 0) };
        let Some(state) = self.touch(work) else { return false };
        let Some((payload, attempt_number)) = state.lend(index, lease) else { return false };
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
        true
    }

    fn choose(&self, worker: &Worker) -> Option<(WorkId, u32)> {
        self.turns.iter().find_map(|(.., job)| {
            let queue = &self.jobs.get(job)?.queue;
            let is_last = |state: &&WorkState| {
                state.is_lendable() && state.jobs.contains(job) && state.fits(&worker.kind)
            };
            let last = worker.last_work.and_then(|last| self.works.get(&last)).filter(is_last);
            let others = queue.open.fitting(&worker.kind).filter_map(|work| self.works.get(&work));
            last.into_iter().chain(others).find_map(|state| Some((state.work.id, state.ready().next()?)))
        })
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
