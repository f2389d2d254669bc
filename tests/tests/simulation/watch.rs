//! What must hold after every step, judged from outside: from events, effects, views and the bucket.

use std::collections::{BTreeMap, BTreeSet};

use lsa_common::failure::FailureClass;
use lsa_common::id::{AttemptId, Digest, JobId, UnitId, WorkerId};
use lsa_common::record::RunState;
use lsa_common::report::{Damaged, Failure, Outcome};
use lsa_common::unit::Unit;
use lsa_coordinator::plan::{What, Work, WorkId};
use lsa_coordinator::scheduler::ExperimentStatus;
use lsa_coordinator::scheduler::event::{CommitEnd, Departure, Effect, Event, FailedAttempt, Item};

use crate::bucket::{Place, makes, reads};
use crate::jobs::MAX_ATTEMPTS;
use crate::{LEASE_TTL_MS, World};

/// What was seen so far.
#[derive(Default)]
pub struct Watch {
    /// Live leases.
    live: Live,
    /// When an attempt was lent.
    lent_at: BTreeMap<AttemptId, u64>,
    /// When an attempt last gave a sign of life.
    signs: BTreeMap<AttemptId, u64>,
    /// Under which key an attempt was lent.
    keys: BTreeMap<AttemptId, Digest>,
    /// Failures charged to units, and the workers that died of them.
    charges: BTreeMap<UnitId, Charges>,
    charged_attempts: BTreeSet<AttemptId>,
    /// Damage that a live attempt of a work has reported: the generation that it read. Another work that reads the
    /// same rows by way of another extraction meets it by itself.
    damage: BTreeMap<(WorkId, Place), u32>,
    /// Units that were given up for good.
    pub given_up: BTreeSet<UnitId>,
    /// Workers as the coordinator knows them.
    fleet: BTreeMap<WorkerId, Member>,
    /// Who has made what was reported.
    reporters: BTreeMap<AttemptId, WorkerId>,
    /// Units done.
    n_done: u64,
    /// Workers that are to be lent nothing.
    draining: BTreeSet<WorkerId>,
    /// Merges that met trouble.
    pub merge_troubles: u32,
    /// How often each kind of thing happened, over all seeds: a simulation that never meets it shows nothing.
    pub met: BTreeMap<&'static str, u64>,
}

/// Who has what.
type Live = BTreeMap<UnitId, BTreeMap<AttemptId, WorkerId>>;

/// A worker as the coordinator knows it.
#[derive(Default)]
struct Member {
    profile: String,
    memory_bytes: u64,
    connected: bool,
    /// Its lease ran out, or it cannot go on, and nothing was heard of it since.
    silent: bool,
    /// Failures since its last success, and what all had done when the first of them happened.
    n_failed: u32,
    n_done_before: u64,
    rests_until: u64,
}

/// From which failure in a row on a worker rests.
const FAILURES_BEFORE_REST: u32 = 3;
/// How long a unit is left to workers on which it has not failed.
const PATIENCE_MS: u64 = 600_000;
/// How long a unit is lent to one worker before another one may have it as well.
const STRAGGLER_AFTER_MS: u64 = 30_000;
/// The shortest rest.
const REST_MIN_MS: u64 = 24_000;

#[derive(Default)]
struct Charges {
    n: u32,
    failed_on: BTreeSet<WorkerId>,
    failed_at: u64,
    faulted_by: BTreeSet<WorkerId>,
    rejected: bool,
}

impl World {
    /// Another coordinator: it knows nothing, and so does whoever watches it.
    pub fn watch_restart(&mut self) {
        self.watch.live.clear();
        self.watch.charges.clear();
        self.watch.charged_attempts.clear();
        self.watch.damage.clear();
        self.watch.draining.clear();
        self.watch.fleet.clear();
        self.bucket.forget(|_| true);
        self.met("restart");
    }

    /// Counts.
    pub fn met(&mut self, what: &'static str) {
        *self.watch.met.entry(what).or_default() += 1;
    }

    /// Before an event is applied: what it tells.
    pub fn watch_event(&mut self, event: &Event) {
        match event {
            Event::WorkerLeft { worker, departure } => match departure {
                Departure::Disconnected => {
                    if let Some(member) = self.watch.fleet.get_mut(worker) {
                        member.connected = false;
                    }
                }
                Departure::Exited { .. } => drop(self.watch.fleet.remove(worker)),
            },
            Event::WorkerJoined { worker, held, numeric_profile, memory_bytes } => {
                let member = self.watch.fleet.entry(worker.clone()).or_default();
                (member.profile, member.memory_bytes) = (numeric_profile.clone(), *memory_bytes);
                member.connected = true;
                member.silent = false;
                self.watch.draining.remove(worker);
                for (_, attempt) in held {
                    self.watch.signs.insert(*attempt, self.now);
                    // Taken over after its lease ran out, it has a new one.
                    self.watch.charged_attempts.remove(attempt);
                }
                if !held.is_empty() {
                    self.met("rejoined holding a unit");
                }
            }
            Event::WorkerAsked { worker } => self.watch_sign(worker),
            Event::WorkerDraining { worker } | Event::DrainRequested { worker } => {
                self.watch.draining.insert(worker.clone());
            }
            Event::Progressed { worker, attempt, .. } => {
                self.watch_sign(worker);
                self.watch.signs.insert(*attempt, self.now);
            }
            Event::Surveyed { work, survey, .. } => {
                for ((number, item), found) in &survey.found {
                    let place = (survey.key.expect("always bound"), *number, *item);
                    if self.bucket.newest(&place).is_some_and(|(newest, _)| newest == found.generation) {
                        self.bucket.tell(&place, *work);
                    }
                }
            }
            Event::Reported(report) => {
                self.watch_sign(&report.worker);
                self.watch.reporters.insert(report.attempt, report.worker.clone());
                let live = self.watch.live.get(&report.unit).is_some_and(|a| a.contains_key(&report.attempt));
                match &report.outcome {
                    Outcome::Failed(Failure { damaged: Some(damaged), .. }) if live => {
                        let place = match damaged {
                            Damaged::Texts(key) => (*key, 0, Item::Texts),
                            Damaged::Shard { extraction_key, pooling, shard } => {
                                (*extraction_key, *shard, Item::Rows(*pooling))
                            }
                        };
                        // What the attempt has read may have been made again meanwhile.
                        if let (Some((newest, false)), Some((work, _))) =
                            (self.bucket.newest(&place), Work::parse_unit_id(&report.unit))
                        {
                            self.watch.damage.insert((work, place), newest);
                        }
                        self.reopened.insert(place);
                        self.met("damaged input");
                    }
                    Outcome::HandedBack if live => self.met("handed back"),
                    Outcome::Prepared(_)
                    | Outcome::Mirrored
                    | Outcome::Extracted(_)
                    | Outcome::Compared(_)
                        if !live =>
                    {
                        self.met("late report");
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn watch_sign(&mut self, worker: &WorkerId) {
        if let Some(member) = self.watch.fleet.get_mut(worker) {
            member.silent = false;
        }
    }

    /// After an event was applied: everything that must hold.
    pub fn watch_effects(&mut self, event: &Event, effects: &[Effect]) {
        let before = std::mem::take(&mut self.watch.live);
        self.watch.live = self.live_leases();
        self.watch_ends_of_leases(&before, event, effects);
        for effect in effects {
            match effect {
                Effect::Lend { worker, unit, payload, attempt, .. } => {
                    self.watch.signs.insert(*attempt, self.now);
                    self.watch.lent_at.insert(*attempt, self.now);
                    self.watch.keys.insert(*attempt, makes(payload)[0].0);
                    self.watch_loan(worker, unit, payload, *attempt);
                }
                Effect::Commit(commit) => {
                    let key = makes(&commit.payload)[0].0;
                    let lent = self.watch.keys[&commit.report.attempt];
                    assert_eq!(key, lent, "recorded under another key than it was computed for");
                }
                Effect::RecordFailure(failed) => self.watch_charge(failed, event),
                Effect::EndJob { job, state } => self.watch_end(job, *state),
                _ => {}
            }
        }
        let charged = effects.iter().any(|effect| matches!(effect, Effect::RecordFailure(_)));
        match event {
            Event::Reported(report) => {
                let uncharged = match &report.outcome {
                    Outcome::HandedBack => true,
                    Outcome::Failed(failure) => failure.damaged.is_some(),
                    _ => true,
                };
                assert!(!(uncharged && charged), "charged for {:?}", report.outcome);
                let live = before.get(&report.unit).is_some_and(|a| a.contains_key(&report.attempt));
                assert!(!live || uncharged || charged, "not charged for {:?}", report.outcome);
            }
            Event::Committed { attempt, end: CommitEnd::Recorded, .. }
                if effects
                    .iter()
                    .any(|e| matches!(e, Effect::Acknowledge { attempt: a, .. } if a == attempt)) =>
            {
                self.watch.n_done += 1;
                let reporter = self.watch.reporters.get(attempt);
                if let Some(member) = reporter.and_then(|worker| self.watch.fleet.get_mut(worker)) {
                    member.n_failed = 0;
                }
            }
            Event::Tick => {
                let live = self.watch.live.iter();
                for (unit, attempt) in live.flat_map(|(unit, a)| a.keys().map(move |attempt| (unit, attempt)))
                {
                    let silent = self.now - self.watch.signs[attempt];
                    assert!(silent <= LEASE_TTL_MS, "{unit} is lent although silent for {silent} ms");
                }
            }
            Event::JobCancelled { job } => {
                let view = self.state.job_view(job).expect("it was accepted");
                assert!(view.leases.is_empty(), "a cancelled job has leases");
            }
            Event::Committed { unit, end: CommitEnd::StoreTrouble(_), .. } => {
                assert!(!charged, "charged for trouble of the store: {unit}");
                self.met("trouble during a commit");
            }
            _ => {}
        }
        let unwanted = |unit: &&UnitId| !self.running().any(|job| self.state.jobs_of(unit).contains(job));
        assert_eq!(self.watch.live.keys().find(unwanted), None, "lent though nobody wants it");
        let gone: Vec<UnitId> = self.watch.charges.keys().filter(unwanted).cloned().collect();
        for unit in gone {
            self.watch.charges.remove(&unit);
        }
    }

    fn running(&self) -> impl Iterator<Item = &JobId> {
        self.jobs.iter().filter(|job| job.running).map(|job| &job.id)
    }

    /// As the views of running jobs show them; jobs that share a unit must agree on who has it.
    fn live_leases(&self) -> Live {
        let mut live = Live::new();
        for job in self.running() {
            let Some(view) = self.state.job_view(job) else { continue };
            let paused = self.jobs.iter().any(|known| known.id == *job && known.paused);
            assert_eq!(view.paused, paused, "{job}");
            assert!((0.0..=1.0).contains(&view.fraction), "{view:?}");
            assert!(view.units_done <= view.units_total, "{view:?}");
            let mut of_job = Live::new();
            for lease in view.leases {
                let holders = of_job.entry(lease.unit).or_default();
                let known = holders.insert(lease.attempt, lease.worker);
                assert!(known.is_none() && holders.len() <= 2, "lent too often: {holders:?}");
            }
            for (unit, holders) in of_job {
                let known = live.insert(unit, holders.clone());
                assert!(known.is_none_or(|known| known == holders), "jobs do not agree: {holders:?}");
            }
        }
        live
    }

    /// A lease ends by a report, a failure, a stop or the end of its job; never by another loan.
    fn watch_ends_of_leases(&self, before: &Live, event: &Event, effects: &[Effect]) {
        let leases = before.iter().flat_map(|(unit, holders)| holders.iter().map(move |it| (unit, it)));
        for (unit, (attempt, worker)) in leases {
            if self.watch.live.get(unit).is_some_and(|now| now.contains_key(attempt)) {
                continue;
            }
            // Also another attempt's report: while that is recorded, this one runs on out of sight.
            let reported = matches!(event, Event::Reported(report) if report.unit == *unit);
            let rejoined = matches!(event, Event::WorkerJoined { worker: who, .. } if who == worker);
            let told = effects.iter().any(|effect| match effect {
                Effect::Stop { attempt: stopped, .. } => stopped == attempt,
                Effect::RecordFailure(failed) => failed.attempt == *attempt,
                _ => false,
            });
            let drained = self.watch.draining.contains(worker);
            let ended = reported || told || rejoined || drained;
            assert!(ended, "the lease of {unit} vanished after {event:?}");
        }
    }

    fn watch_loan(&mut self, worker: &WorkerId, unit: &UnitId, payload: &Unit, attempt: AttemptId) {
        assert!(self.now >= self.lend_after, "lent while an earlier leader's leases may run");
        let holders = self.watch.live.get(unit).unwrap_or_else(|| panic!("lent out of sight: {unit}"));
        assert_eq!(holders.get(&attempt), Some(worker), "lent out of sight: {unit}");
        let has = |holders: &BTreeMap<AttemptId, WorkerId>| {
            holders.iter().any(|(other, who)| *other != attempt && who == worker)
        };
        assert!(!self.watch.live.values().any(has), "{worker} has a unit already");
        if let Some(first) = holders.keys().find(|other| **other != attempt) {
            let runs_for = self.now - self.watch.lent_at[first];
            assert!(runs_for >= STRAGGLER_AFTER_MS, "lent once more after {runs_for} ms: {unit}");
            self.met("straggler");
        }
        assert!(!self.watch.draining.contains(worker), "{worker} is lent {unit} while it drains");
        let mut active = self.jobs.iter().filter(|job| job.running && !job.paused);
        assert!(
            active.any(|job| self.state.jobs_of(unit).contains(&job.id)),
            "{unit} is lent for paused jobs alone"
        );
        let id = work_of(unit);
        let work = self.work(id);
        let slot = self.slots.iter().find(|slot| slot.name == *worker);
        // A worker that is gone may still be lent something.
        if let Some(slot) = slot {
            assert!(slot.memory_bytes >= work.memory_bytes, "lent to a worker that is too small");
        }
        for place in reads(payload) {
            let (newest, _) = self.bucket.newest(&place).expect("an input without a record");
            if let Some(damaged) = self.watch.damage.get(&(id, place)) {
                assert!(newest > *damaged, "lent before its damaged input {place:?} was made again");
            }
        }
        for place in makes(payload) {
            let intact = self.bucket.newest(&place).is_some_and(|(_, intact)| intact);
            let superfluous = intact && self.bucket.is_known(&place, id) && !self.reopened.contains(&place);
            assert!(!superfluous, "{place:?} is made again though recorded, intact and known");
        }
        let member = &self.watch.fleet[worker];
        assert!(self.now >= member.rests_until, "{worker} is lent {unit} while it rests");
        let patient = |charges: &&Charges| self.now - charges.failed_at < PATIENCE_MS;
        let failed_on = self.watch.charges.get(unit).filter(patient).map(|charges| &charges.failed_on);
        if let Some(failed_on) = failed_on.filter(|failed_on| failed_on.contains(worker)) {
            let other = self.watch.fleet.iter().find(|(other, it)| {
                it.connected
                    && !it.silent
                    && it.n_failed < FAILURES_BEFORE_REST
                    && (!has_profile(&work.what) || it.profile == member.profile)
                    && it.memory_bytes >= work.memory_bytes
                    && !failed_on.contains(*other)
                    && !self.watch.draining.contains(*other)
            });
            assert_eq!(other.map(|(id, _)| id), None, "{unit} has failed on {worker}, not on this one");
        }
        let charges = self.watch.charges.entry(unit.clone()).or_default();
        assert!(charges.n < MAX_ATTEMPTS && !charges.rejected, "lent after it was given up: {unit}");
    }

    fn watch_charge(&mut self, failed: &FailedAttempt, event: &Event) {
        let FailedAttempt { unit, attempt, worker, failure_class, message, .. } = failed;
        assert!(self.watch.charged_attempts.insert(*attempt), "charged twice: {failed:?}");
        let fatal = matches!(event, Event::Reported(report) if matches!(&report.outcome,
            Outcome::Failed(Failure { failure_class: FailureClass::Fatal, .. })));
        if (fatal || message.contains("no sign of life"))
            && let Some(member) = self.watch.fleet.get_mut(worker)
        {
            member.silent = true;
        }
        if message.contains("no sign of life") {
            let silent = self.now - self.watch.signs[attempt];
            assert!(silent > LEASE_TTL_MS, "expired after {silent} ms: {failed:?}");
            self.watch.met.entry("expired").and_modify(|n| *n += 1).or_insert(1);
        }
        let preempted = matches!(event, Event::Tick | Event::WorkerJoined { .. })
            || matches!(event, Event::WorkerLeft { departure: Departure::Exited { faulted: false }, .. });
        assert!(!(preempted && self.watch.draining.contains(worker)), "charged while it drains: {failed:?}");
        if message.contains("refused") {
            self.watch.met.entry("refused").and_modify(|n| *n += 1).or_insert(1);
        }
        let charges = self.watch.charges.entry(unit.clone()).or_default();
        charges.n += 1;
        charges.failed_on.insert(worker.clone());
        charges.failed_at = self.now;
        assert_eq!(charges.n, failed.attempt_number, "{failed:?}");
        assert!(charges.n <= MAX_ATTEMPTS && !charges.rejected, "charged after it was given up");
        let fault = match event {
            Event::Reported(report) => match &report.outcome {
                Outcome::Failed(failure) => {
                    charges.rejected |= failure.failure_class == FailureClass::Reject;
                    failure.panicked
                }
                _ => false,
            },
            Event::WorkerLeft { departure: Departure::Exited { faulted }, .. } => *faulted,
            _ => false,
        };
        if fault {
            charges.faulted_by.insert(worker.clone());
        }
        charges.rejected |= charges.faulted_by.len() >= 2;
        assert_eq!(charges.rejected, *failure_class == FailureClass::Reject, "{failed:?}");
        let rejected = charges.rejected;
        if rejected || charges.n == MAX_ATTEMPTS {
            self.watch.given_up.insert(unit.clone());
        }
        let n_done = self.watch.n_done;
        if let Some(member) = self.watch.fleet.get_mut(worker).filter(|_| !rejected) {
            member.n_failed += 1;
            if member.n_failed == 1 {
                member.n_done_before = n_done;
            }
            if member.n_failed >= FAILURES_BEFORE_REST && n_done > member.n_done_before {
                member.rests_until = self.now + REST_MIN_MS;
                self.met("rested");
            }
        }
    }

    /// A job has ended: what it says of itself is so.
    fn watch_end(&mut self, id: &JobId, state: RunState) {
        let job = self.jobs.iter().find(|job| job.id == *id).expect("it was accepted");
        let view = self.state.job_view(id).expect("it was accepted");
        assert_eq!(view.state, state);
        assert!(view.leases.is_empty());
        let experiments = self.state.experiments(id);
        assert!(experiments.iter().all(|status| *status != ExperimentStatus::Waiting));
        for (status, planned) in experiments.iter().zip(&job.plan.experiments) {
            let ExperimentStatus::Failed(message) = status else { continue };
            let given_up: Vec<WorkId> = self.watch.given_up.iter().map(work_of).collect();
            let excused =
                self.is_reachable(planned.comparison, &given_up) || self.watch.merge_troubles >= MAX_ATTEMPTS;
            assert!(excused, "failed for nothing: {message}");
            let reasons = (1..=MAX_ATTEMPTS).all(|n| message.contains(&format!("attempt {n} by ")));
            assert!(!message.contains(" attempts: ") || reasons, "not every reason is told: {message}");
        }
        let all_done = experiments.iter().all(|status| *status == ExperimentStatus::Done);
        assert_eq!(state == RunState::Done, all_done);
    }

    /// Whether the work, or anything that it depends on for any job, is one.
    fn is_reachable(&self, id: WorkId, ones: &[WorkId]) -> bool {
        let works = self.jobs.iter().flat_map(|job| &job.plan.works).filter(|work| work.id == id);
        let mut below = works.flat_map(|work| &work.depends_on);
        ones.contains(&id) || below.any(|below| self.is_reachable(*below, ones))
    }

    /// A record was there already.
    pub fn watch_foreign_record(&mut self, place: &Place) {
        self.watch.damage.retain(|(_, damaged), _| damaged != place);
    }

    /// A job was accepted: works that had failed for another one begin afresh.
    pub fn watch_acceptance(&mut self) {
        let is_given_up = |charges: &Charges| charges.rejected || charges.n >= MAX_ATTEMPTS;
        let charges = &self.watch.charges;
        let given_up: Vec<WorkId> = charges
            .iter()
            .filter(|(_, charges)| is_given_up(charges))
            .map(|(unit, _)| work_of(unit))
            .collect();
        let afresh: BTreeSet<WorkId> =
            charges.keys().map(work_of).filter(|work| self.is_reachable(*work, &given_up)).collect();
        self.watch.charges.retain(|unit, _| !afresh.contains(&work_of(unit)));
    }
}

fn work_of(unit: &UnitId) -> WorkId {
    Work::parse_unit_id(unit).expect("an id that the scheduler made").0
}

fn has_profile(what: &What) -> bool {
    matches!(what, What::Extract(_) | What::Compare(_))
}
