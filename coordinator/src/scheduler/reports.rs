//! Attempts that end: what is recorded of them, what they are charged with, what is made again.

use lsa_common::failure::FailureClass;
use lsa_common::id::{AttemptId, UnitId};
use lsa_common::report::{Damaged, Failure, Outcome};
use lsa_common::time::Millis;
use lsa_common::unit::Unit;

use super::event::{CommitEnd, Effect, FailedAttempt, Item, Reported};
use super::timer::Due;
use super::work::{Lease, Remade, WorkState, WorkStatus};
use super::{State, policy};
use crate::plan::{What, Work, WorkId};

/// What a unit does, with the texts among which the one is that it fails on.
fn in_full(unit: &Unit) -> String {
    let what = unit.describe();
    let Unit::Extract(extract) = unit else { return what };
    let rows = extract.rows();
    format!("{what} (texts {} to {}, counted from 0)", rows.start, rows.end.saturating_sub(1))
}

impl State {
    pub(super) fn report(&mut self, now: Millis, report: Reported) {
        let acknowledge = Effect::Acknowledge {
            worker: report.worker.clone(),
            unit: report.unit.clone(),
            attempt: report.attempt,
        };
        self.hear_from(&report.worker);
        let unit = report.unit.clone();
        if let Some(unit) = Work::parse_unit_id(&unit)
            && self.claims.get(&unit).is_some_and(|claim| claim.lease.attempt == report.attempt)
        {
            self.take_claim(unit);
        }
        let Some((state, index)) = self.find(&unit) else {
            self.effects.push(acknowledge);
            return;
        };
        let has_data = !matches!(report.outcome, Outcome::Failed(_) | Outcome::HandedBack);
        match (&state.status, has_data) {
            (WorkStatus::Open, true) => {
                if state.is_committing(index) {
                    if !state.keep_waiting(index, report) {
                        self.effects.push(acknowledge);
                    }
                    return;
                }
                let commit = state.begin_commit(now, index, report);
                self.effects.push(commit.map_or(acknowledge, Effect::Commit));
            }
            (WorkStatus::Open, false) => {
                self.effects.push(acknowledge);
                self.failed(now, report);
            }
            (WorkStatus::Blocked | WorkStatus::Unbound | WorkStatus::Surveying(_), true) => {
                if !state.keep_early(index, report) {
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
                self.fail_work(maker, &format!("made again and again, and damaged every time: {message}"));
            }
            return;
        }
        let Some((state, index)) = self.find(&unit) else { return };
        if panicked {
            state.fault(index, &report.worker);
        }
        let class = match failure_class {
            FailureClass::Reject => FailureClass::Reject,
            FailureClass::Retry | FailureClass::Fatal => state.class_of_crash(index),
        };
        if failure_class == FailureClass::Fatal {
            // It leaves by itself; the unit is as good as before for any other.
            self.fall_silent(&report.worker);
        }
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
        let of_key = key.and_then(|key| self.by_key.get(&key)).into_iter().flatten();
        let same_key = of_key.filter_map(|work| self.works.get(work));
        let next = same_key.filter_map(|state| state.next_generation(index, item)).max();
        let Some(state) = self.touch(maker) else { return Remade::Unknown };
        if let Some(next) = next {
            state.skip_generations(index, item, next);
        }
        state.reopen(index, item)
    }

    pub(super) fn fail_attempt(
        &mut self,
        now: Millis,
        unit: &UnitId,
        lease: Lease,
        class: FailureClass,
        message: String,
    ) {
        let Some((work, index)) = Work::parse_unit_id(unit) else { return };
        self.touch(work);
        let Some(state) = self.works.get_mut(&work) else { return };
        let attempts_max =
            state.jobs.iter().filter_map(|job| self.jobs.get(job)).map(|job| job.settings.max_attempts).max();
        let attempts_max = attempts_max.unwrap_or(1);
        let Some(charged) = state.charge(now, index, &lease.worker, &message) else { return };
        let worker = lease.worker.clone();
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
        // What no worker can do says nothing of this one.
        if class != FailureClass::Reject {
            self.count_failure(now, &worker);
        }
        let Some(state) = self.works.get_mut(&work) else { return };
        if class == FailureClass::Reject {
            self.fail_work(work, &message);
        } else if charged >= attempts_max {
            let what = state.payload(index).map(|payload| in_full(&payload)).unwrap_or_default();
            let reasons = state.reasons(index);
            self.fail_work(work, &format!("{what}: gave up after {charged} attempts: {reasons}"));
        } else {
            let due = now + policy::back_off_ms(charged, &mut self.generator);
            if state.delay(index, due) {
                self.schedule(due, Due::Unit(work, index));
                self.schedule(now + policy::PATIENCE_MS, Due::Patience);
            }
        }
    }

    pub(super) fn committed(&mut self, now: Millis, unit: &UnitId, attempt: AttemptId, end: CommitEnd) {
        let refused = match end {
            CommitEnd::Recorded => None,
            CommitEnd::Refused(message) => Some(message),
            CommitEnd::StoreTrouble(message) => return self.commit_later(now, unit, attempt, message),
        };
        let Some((state, index)) = self.find(unit) else { return };
        let Some((committing, waiting)) = state.end_commit(index, attempt) else { return };
        let worker = committing.commit.report.worker.clone();
        if refused.is_none() {
            if let Some(ran_ms) = committing.ran_ms {
                state.count_pace(ran_ms);
            }
            let pointless = state.done(index, attempt);
            let blocks = state.whole_blocks(index);
            let stop = |Lease { worker, attempt, .. }| Effect::Stop { worker, unit: unit.clone(), attempt };
            self.effects.extend(pointless.into_iter().map(stop));
            self.effects.extend(blocks.into_iter().map(Effect::RollUp));
            self.count_success(&worker);
        }
        self.effects.push(Effect::Acknowledge { worker: worker.clone(), unit: unit.clone(), attempt });
        for report in waiting {
            self.report(now, report);
        }
        // The attempt is charged if its lease ran and no other report has taken its place.
        if let (Some(message), Some(lease), Some((state, index))) =
            (refused, committing.own_lease(), self.find(unit))
            && !state.is_committing(index)
        {
            let problem = format!("the report of worker {worker} was refused: {message}");
            self.fail_attempt(now, unit, lease.clone(), FailureClass::Retry, problem);
        }
    }

    /// What the worker wrote is there; only the record is missing, so it alone is tried again, for as long as the job is
    /// wanted: its waiting says why.
    fn commit_later(&mut self, now: Millis, unit: &UnitId, attempt: AttemptId, message: String) {
        let Some((state, index)) = self.find(unit) else { return };
        let Some(troubles) = state.commit_trouble(index, attempt, message) else { return };
        let work = state.work.id;
        let retry_at = now + policy::back_off_ms(troubles, &mut self.generator);
        if let Some(state) = self.works.get_mut(&work) {
            state.retry_commit(index, retry_at);
        }
        self.schedule(retry_at, Due::Commit(work, index));
    }
}
