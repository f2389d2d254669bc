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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lsa_common::id::{Digest, JobId};
    use lsa_common::job::Trials;

    use super::super::Settings;
    use super::super::event::{Event, JobSettings, Survey};
    use super::*;
    use crate::plan::{Comparison, Plan, Planned, What, Work};

    fn job(number: usize) -> JobId {
        format!("job-{number}").parse().expect("a plain name")
    }

    fn worker(number: usize) -> WorkerId {
        format!("worker-{number}").parse().expect("a plain name")
    }

    fn work(number: usize) -> WorkId {
        WorkId(Digest::of(&[u8::try_from(number).expect("few")]))
    }

    /// One comparison of four units that reads nothing.
    fn plan(number: usize) -> Plan {
        let what = What::Compare(Comparison::of_trials(Trials::Fixed(8)));
        let comparison = work(number);
        let work = Work { id: comparison, what, depends_on: Vec::new(), memory_bytes: 0, flop: 0 };
        Plan { works: vec![Arc::new(work)], experiments: vec![Planned { comparison, side: 0 }] }
    }

    /// A job for each priority, and workers that have asked for the units of its one work.
    fn state(priorities: &[i32], n_workers: usize) -> (State, Vec<WorkId>) {
        let mut state = State::new(Settings { lease_ttl_ms: 60_000 }, [1; 32], Millis(0));
        let mut surveys = Vec::new();
        for (number, priority) in priorities.iter().enumerate() {
            let settings = JobSettings {
                continue_on_error: false,
                max_attempts: 4,
                priority: *priority,
                some_unresolved: false,
            };
            state.apply(Millis(0), Event::JobAccepted { job: job(number), plan: plan(number), settings });
        }
        for number in 0..n_workers {
            let joined = Event::WorkerJoined {
                worker: worker(number),
                numeric_profile: "cpu".to_owned(),
                memory_bytes: 1,
                held: Vec::new(),
            };
            state.apply(Millis(0), joined);
            surveys.extend(state.apply(Millis(0), Event::WorkerAsked { worker: worker(number) }));
        }
        let mut lent = Vec::new();
        // Every work is looked through before anybody is lent anything.
        state.may_lend = false;
        for effect in surveys {
            let Effect::Survey { work, number, rows_keys, .. } = effect else { continue };
            assert_eq!(rows_keys, []);
            state.works.get_mut(&work.id).expect("surveyed").rows_keys = vec![Digest::of(b"rows")];
            let survey = Survey {
                numeric_profile: "cpu".to_owned(),
                key: Some(Digest::of(b"key")),
                ..Survey::default()
            };
            state.apply(Millis(0), Event::Surveyed { work: work.id, number, survey });
        }
        lent.extend(lent_works(&state.apply(Millis(1), Event::Tick)));
        (state, lent)
    }

    fn lent_works(effects: &[Effect]) -> Vec<WorkId> {
        let work = |effect: &Effect| match effect {
            Effect::Lend { unit, .. } => Work::parse_unit_id(unit).map(|(work, _)| work),
            _ => None,
        };
        effects.iter().filter_map(work).collect()
    }

    #[test]
    fn jobs_of_one_priority_take_turns_and_a_higher_one_goes_first() {
        let check = |priorities: &[i32], expected: &[usize]| {
            let (_, lent) = state(priorities, 4);
            let of_job = |number| lent.iter().filter(|id| **id == work(number)).count();
            let counts: Vec<usize> = (0..priorities.len()).map(of_job).collect();
            assert_eq!(counts, expected, "{priorities:?}");
        };
        check(&[0, 0], &[2, 2]);
        check(&[0, 0, 0], &[2, 1, 1]);
        check(&[0, 1], &[0, 4]);
        check(&[2, 1], &[4, 0]);
    }

    #[test]
    fn a_paused_job_is_lent_nothing_until_it_is_resumed() {
        let (mut state, lent) = state(&[0], 1);
        assert_eq!(lent, [work(0)]);
        state.apply(Millis(1), Event::JobPaused { job: job(0) });
        let joined = |number| Event::WorkerJoined {
            worker: worker(number),
            numeric_profile: "cpu".to_owned(),
            memory_bytes: 1,
            held: Vec::new(),
        };
        state.apply(Millis(1), joined(7));
        assert_eq!(lent_works(&state.apply(Millis(1), Event::WorkerAsked { worker: worker(7) })), []);
        assert_eq!(lent_works(&state.apply(Millis(2), Event::JobResumed { job: job(0) })), [work(0)]);
    }

    #[test]
    fn a_worker_that_drains_is_lent_nothing_until_it_joins_anew() {
        let (mut state, _) = state(&[0], 0);
        let joined = Event::WorkerJoined {
            worker: worker(0),
            numeric_profile: "cpu".to_owned(),
            memory_bytes: 1,
            held: Vec::new(),
        };
        state.apply(Millis(1), joined.clone());
        let told = state.apply(Millis(1), Event::DrainRequested { worker: worker(0) });
        assert!(matches!(told.as_slice(), [Effect::Drain { .. }]));
        assert!(state.apply(Millis(1), Event::WorkerAsked { worker: worker(0) }).is_empty());
        let waiting = state.job_view(&job(0)).and_then(|view| view.waiting).unwrap_or_default();
        assert!(waiting.contains("draining"), "{waiting}");
        state.apply(Millis(2), joined);
        let effects = state.apply(Millis(2), Event::WorkerAsked { worker: worker(0) });
        assert!(matches!(effects.as_slice(), [Effect::Survey { .. }]));
        assert!(state.apply(Millis(3), Event::DrainRequested { worker: worker(9) }).is_empty(), "unknown");
    }
}
