//! What is to happen when its time has come: one queue, so that a tick looks at nothing that is not due.

use lsa_common::failure::FailureClass;
use lsa_common::id::{AttemptId, JobId, WorkerId};
use lsa_common::time::Millis;

use super::State;
use super::event::Effect;
use super::work::WorkStatus;
use crate::plan::WorkId;

/// What may be due. It is looked at anew then: what has changed meanwhile is not due any more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// The leases of an earlier leader have run out.
    Lending,
    /// A lease, unless it was renewed.
    Lease(WorkId, u32, AttemptId),
    /// A claim, unless it was renewed.
    Claim(WorkId, u32),
    /// A record that could not be written.
    Commit(WorkId, u32),
    /// A unit that rested after a failure.
    Unit(WorkId, u32),
    /// A unit that was left to workers on which it has not failed.
    Patience,
    /// A work of which a unit lags.
    Straggler(WorkId),
    /// A work of which the bucket could not be looked through.
    Work(WorkId),
    /// An experiment whose merge met trouble.
    Experiment(JobId, usize),
    /// A worker that rested.
    Worker(WorkerId),
}

impl State {
    /// Has something looked at on the first tick at or after `when`.
    pub(super) fn schedule(&mut self, when: Millis, due: Due) {
        self.timers.insert((when, due));
    }

    /// Has a lease end, unless it is renewed by then: a moment after its last.
    pub(super) fn watch_lease(&mut self, work: WorkId, index: u32, attempt: AttemptId, deadline: Millis) {
        self.schedule(deadline + 1, Due::Lease(work, index, attempt));
    }

    /// Takes up everything whose time has come.
    pub(super) fn tick(&mut self, now: Millis) {
        while self.timers.first().is_some_and(|(when, _)| *when <= now) {
            let Some((_, due)) = self.timers.pop_first() else { return };
            self.take_up(now, due);
        }
    }

    fn take_up(&mut self, now: Millis, due: Due) {
        match due {
            Due::Lending => {
                self.may_lend = true;
                self.retry_idle = true;
            }
            Due::Patience => self.retry_idle = true,
            Due::Lease(work, index, attempt) => self.expire(now, work, index, attempt),
            Due::Claim(work, index) => {
                let deadline = self.claims.get(&(work, index)).map(|claim| claim.lease.deadline);
                match deadline {
                    Some(deadline) if deadline >= now => self.schedule(deadline + 1, Due::Claim(work, index)),
                    Some(_) => drop(self.take_claim((work, index))),
                    None => {}
                }
            }
            Due::Commit(work, index) => {
                let state = self.works.get_mut(&work);
                let commit = state.and_then(|state| state.due_commit(now, index));
                self.effects.extend(commit.map(Effect::Commit));
            }
            Due::Unit(work, index) => {
                if let Some(state) = self.touch(work) {
                    state.wake(now, index);
                }
            }
            Due::Work(work) => drop(self.touch(work)),
            Due::Straggler(work) => self.look_for_stragglers(work),
            Due::Experiment(job, number) => {
                let experiment = self.jobs.get(&job).and_then(|job| job.experiments.get(number));
                if let Some(comparison) = experiment.map(|experiment| experiment.planned.comparison) {
                    self.touch(comparison);
                }
            }
            Due::Worker(worker) => self.touched_workers.push(worker),
        }
    }

    /// Ends a lease that was not renewed.
    fn expire(&mut self, now: Millis, work: WorkId, index: u32, attempt: AttemptId) {
        let Some(state) = self.works.get(&work).filter(|state| state.status == WorkStatus::Open) else {
            return;
        };
        let Some(deadline) = state.deadline_of(index, attempt) else { return };
        if deadline >= now || state.is_committing(index) {
            // While another attempt's report is recorded, this one may run on.
            self.watch_lease(work, index, attempt, deadline.max(now));
            return;
        }
        let Some(state) = self.touch(work) else { return };
        let Some(lease) = state.end_lease(index, attempt) else { return };
        let unit = state.unit_id(index);
        self.fall_silent(&lease.worker);
        if self.is_draining(&lease.worker) {
            // Preempted: it said that it was stopping, and did not live to hand the unit back.
            return;
        }
        let message = format!("worker {} gave no sign of life for a whole lease", lease.worker);
        self.fail_attempt(now, &unit, lease, FailureClass::Retry, message);
    }
}
