//! Who has what: workers that come and go, what they are lent, how they report.

use std::collections::BTreeMap;

use lsa_common::failure::FailureClass;
use lsa_common::id::{AttemptId, JobId, UnitId, WorkerId};
use lsa_common::report::{Damaged, Failure, Outcome};
use lsa_common::time::Millis;
use rand_core::Rng;

use super::event::{CommitEnd, Departure, Effect, FailedAttempt, Item, Reported};
use super::work::{Lease, Unit, WorkState, WorkStatus};
use super::{State, Worker, policy};
use crate::plan::{What, Work, WorkId};

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
        let worker = Worker { numeric_profile, memory_bytes, connected: true, hungry: false, last_work };
        self.workers.insert(id.clone(), worker);
        for (unit, attempt) in held {
            let deadline = now + self.settings.lease_ttl_ms;
            let lease = Lease { worker: id.clone(), attempt, deadline, progress: (0, 0) };
            match self.find(&unit) {
                Some((state, index)) if state.is_open() => {
                    if !state.adopt(index, lease) {
                        // Done, or lent to somebody else meanwhile.
                        self.effects.push(Effect::Stop { worker: id.clone(), unit, attempt });
                    }
                }
                // A work of a job that this coordinator has not read yet, or that nobody wants: the claim waits.
                Some((state, _)) => {
                    let work = state.work.id;
                    self.claims.insert(unit, (id.clone(), attempt));
                    self.advance(now, work);
                }
                None => {
                    self.claims.insert(unit, (id.clone(), attempt));
                }
            }
        }
    }

    pub(super) fn leave(&mut self, now: Millis, id: &WorkerId, departure: Departure) {
        match departure {
            Departure::Disconnected => {
                if let Some(worker) = self.workers.get_mut(id) {
                    worker.connected = false;
                    worker.hungry = false;
                }
            }
            Departure::Exited { faulted } => {
                self.workers.remove(id);
                self.claims.retain(|_, (worker, _)| worker != id);
                for unit in self.leased_by(id) {
                    let Some((state, index)) = self.find(&unit) else { continue };
                    let Some(lease) = state.end_lease(index) else { continue };
                    let message = if faulted {
                        state.fault(index, id);
                        format!("worker {id} crashed while it ran this unit")
                    } else {
                        format!("worker {id} ended while it ran this unit")
                    };
                    let class = state.class_of_crash(index);
                    self.fail_attempt(now, &unit, lease, class, message);
                }
            }
        }
    }

    fn leased_by(&self, worker: &WorkerId) -> Vec<UnitId> {
        let of_work = |state: &WorkState| {
            let mine = |(index, unit): (&u32, &Unit)| {
                let held = unit.lease().is_some_and(|lease| lease.worker == *worker);
                held.then(|| state.work.unit_id(*index))
            };
            state.units.iter().filter_map(mine).collect::<Vec<_>>()
        };
        self.works.values().flat_map(of_work).collect()
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
        let claimed = self.claims.get(unit).is_some_and(|(_, claimed)| *claimed == attempt);
        if !known && !claimed {
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
        self.claims.retain(|unit, (_, attempt)| *unit != report.unit || *attempt != report.attempt);
        let unit = report.unit.clone();
        let Some((state, index)) = self.find(&unit) else {
            self.effects.push(acknowledge);
            return;
        };
        if !state.is_open() {
            let id = state.work.id;
            if matches!(state.status, WorkStatus::Done | WorkStatus::Failed(_)) {
                self.effects.push(acknowledge);
                return;
            }
            let profile = self.workers.get(&report.worker).map(|worker| worker.numeric_profile.clone());
            self.early_reports.entry(id).or_default().push(report);
            if self.works[&id].status == WorkStatus::Unbound
                && let Some(profile) = profile
            {
                self.survey(id, profile);
            }
            return;
        }
        match report.outcome {
            Outcome::Prepared(_) | Outcome::Extracted(_) | Outcome::Compared(_) => {
                match state.begin_commit(index, report) {
                    Some(commit) => self.effects.push(Effect::Commit(Box::new(commit))),
                    None => self.effects.push(acknowledge),
                }
            }
            Outcome::Failed(Failure { failure_class, message, damaged, panicked }) => {
                self.effects.push(acknowledge);
                let Some((state, index)) = self.find(&unit) else { return };
                let Some(lease) = state.end_lease_of(index, report.attempt) else { return };
                if let Some(damaged) = damaged
                    && self.remake(&damaged)
                {
                    // What it reads is made again first; the unit goes back uncharged.
                    if let Some((state, index)) = self.find(&unit) {
                        state.release(index);
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
            Outcome::HandedBack => {
                self.effects.push(acknowledge);
                if let Some((state, index)) = self.find(&unit)
                    && state.end_lease_of(index, report.attempt).is_some()
                {
                    state.release(index);
                }
            }
        }
    }

    /// Makes something again that is committed but damaged; false where no live work has made it.
    ///
    /// Whatever reads it stays open, but nothing of that is lent before its dependencies are done again.
    fn remake(&mut self, damaged: &Damaged) -> bool {
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
        let Some(state) = self.works.values_mut().find(|state| is_it(state)) else { return false };
        if state.status == WorkStatus::Done {
            state.status = WorkStatus::Open;
        }
        state.reopen(index, item);
        true
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
            self.fail_work(work, &message);
        } else if charged >= attempts_max {
            self.fail_work(work, &format!("gave up after {charged} attempts; the last one: {message}"));
        } else {
            let not_before = now + policy::back_off_ms(charged, &mut self.generator);
            if let Some(state) = self.works.get_mut(&work) {
                state.delay(index, not_before);
            }
        }
    }

    pub(super) fn committed(&mut self, now: Millis, unit: &UnitId, attempt: AttemptId, end: CommitEnd) {
        let Some((state, index)) = self.find(unit) else { return };
        let Some(commit) = state.end_commit(index, attempt) else { return };
        let acknowledge = Effect::Acknowledge { worker: commit.worker.clone(), unit: unit.clone(), attempt };
        match end {
            CommitEnd::Recorded => {
                state.done(index);
                let id = state.work.id;
                self.effects.push(acknowledge);
                self.finish_if_complete(now, id);
            }
            CommitEnd::Refused(message) => {
                self.effects.push(acknowledge);
                let message = format!("the report of worker {} was refused: {message}", commit.worker);
                self.fail_attempt(now, unit, commit, FailureClass::Retry, message);
            }
            CommitEnd::StoreTrouble(message) => {
                self.effects.push(acknowledge);
                let message = format!("the record could not be written: {message}");
                self.fail_attempt(now, unit, commit, FailureClass::Retry, message);
            }
        }
    }

    pub(super) fn expire(&mut self, now: Millis) {
        let overdue: Vec<UnitId> = self.works.values().flat_map(|state| state.overdue(now)).collect();
        for unit in overdue {
            let Some((state, index)) = self.find(&unit) else { continue };
            let Some(lease) = state.end_lease(index) else { continue };
            let message = format!("worker {} gave no sign of life for a whole lease", lease.worker);
            self.fail_attempt(now, &unit, lease, FailureClass::Retry, message);
        }
        let unbound: Vec<WorkId> =
            self.works.values().filter(|s| s.status == WorkStatus::Unbound).map(|s| s.work.id).collect();
        for work in unbound {
            self.advance(now, work);
        }
    }

    /// Lends what is ready to whoever has asked.
    pub(super) fn lend(&mut self, now: Millis) {
        if now < self.lend_after {
            return;
        }
        let hungry: Vec<WorkerId> =
            self.workers.iter().filter(|(_, w)| w.hungry && w.connected).map(|(id, _)| id.clone()).collect();
        for id in hungry {
            let worker = &self.workers[&id];
            let (memory, profile) = (worker.memory_bytes, worker.numeric_profile.clone());
            let order = policy::works_for(&self.order, &self.jobs_works(), worker.last_work);
            for work in order {
                if !self.may_run(work, memory, &profile, now) {
                    continue;
                }
                if self.works[&work].status == WorkStatus::Unbound {
                    self.survey(work, profile.clone());
                    continue;
                }
                let attempt = AttemptId(
                    (u128::from(self.generator.next_u64()) << 64) | u128::from(self.generator.next_u64()),
                );
                let deadline = now + self.settings.lease_ttl_ms;
                let lease = Lease { worker: id.clone(), attempt, deadline, progress: (0, 0) };
                let Some(state) = self.works.get_mut(&work) else { continue };
                let Some((unit, payload, attempt_number)) = state.lend(now, lease) else { continue };
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.hungry = false;
                    worker.last_work = Some(work);
                }
                let payload = Box::new(payload);
                self.effects.push(Effect::Lend {
                    worker: id.clone(),
                    unit,
                    payload,
                    attempt,
                    attempt_number,
                });
                break;
            }
        }
    }

    fn jobs_works(&self) -> BTreeMap<JobId, Vec<WorkId>> {
        let live = self.jobs.iter().filter(|(_, job)| job.ended.is_none());
        live.map(|(id, job)| {
            let mut works: Vec<WorkId> = job.works.iter().copied().collect();
            // Later stages first: an experiment's results are worth more than another one's beginning.
            works.sort_by_key(|work| std::cmp::Reverse(self.works.get(work).map_or(0, |s| s.stage())));
            (id.clone(), works)
        })
        .collect()
    }

    fn may_run(&self, work: WorkId, memory_bytes: u64, profile: &str, now: Millis) -> bool {
        let Some(state) = self.works.get(&work) else { return false };
        let fits = state.work.memory_bytes <= memory_bytes;
        let profile_fits = state.numeric_profile.is_empty() || state.numeric_profile == profile;
        let ready =
            |dependency: &WorkId| self.works.get(dependency).is_some_and(|d| d.status == WorkStatus::Done);
        let open = matches!(state.status, WorkStatus::Open | WorkStatus::Unbound);
        open && fits && profile_fits && now >= state.not_before && state.work.depends_on.iter().all(ready)
    }
}
