//! Who does what: a value, folded over events. Synchronous, in memory, silent.
//!
//! Nothing here reads a clock, draws unseeded randomness, or waits. Leases expire by the caller's time; attempt ids
//! come from a generator that the caller seeds; deeds leave as [`Effect`]s and their ends come back as [`Event`]s.
//!
//! ```text
//! work:  Blocked ──its dependencies done──► Unbound ──a worker of some profile asks──► Surveying ──► Open ──► Done
//!                                                                                                     └────► Failed
//! unit:  Ready ──lent──► Leased ──reported──► Committing ──recorded──► Done
//!          ▲  ◄──expired, failed, refused──────┘                         └──damaged──► Ready, next generation
//! ```
//!
//! Invariants, checked by the simulation in `tests/`: a unit has at most one live lease; an item is recorded before
//! anything that reads it is lent; a late report is never believed and never dropped: it is committed like any other,
//! and the record decides.

pub mod event;
pub mod policy;
pub mod view;
pub mod work;

use std::collections::{BTreeMap, BTreeSet};

use lsa_common::failure::FailureClass;
use lsa_common::id::{AttemptId, JobId, UnitId, WorkerId};
use lsa_common::record::RunState;
use lsa_common::report::{Damaged, Failure, Outcome};
use lsa_common::time::Millis;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use crate::plan::{Plan, What, Work, WorkId};
use event::{
    CommitEnd, Departure, Effect, Event, FailedAttempt, Item, JobSettings, MergeEnd, MergeKeys, Reported,
    Survey,
};
use work::{Lease, Unit, WorkState, WorkStatus};

/// Times of the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a lease lasts without a sign of life.
    pub lease_ttl_ms: u64,
}

/// Everything that is known of jobs, works, units and workers.
#[derive(Debug)]
pub struct State {
    settings: Settings,
    generator: ChaCha8Rng,
    jobs: BTreeMap<JobId, Job>,
    order: Vec<JobId>,
    works: BTreeMap<WorkId, WorkState>,
    workers: BTreeMap<WorkerId, Worker>,
    /// What workers said they hold before the unit was known here.
    claims: BTreeMap<UnitId, (WorkerId, AttemptId)>,
    /// Reports on units that are not known yet: their works have not been looked through.
    early_reports: BTreeMap<WorkId, Vec<Reported>>,
    /// A new leader lends nothing before this: an earlier leader's leases may be running.
    lend_after: Millis,
    effects: Vec<Effect>,
}

#[derive(Debug)]
struct Job {
    settings: JobSettings,
    works: BTreeSet<WorkId>,
    experiments: Vec<Experiment>,
    ended: Option<RunState>,
    /// What the view said when the job ended; its works may be gone since.
    last_view: Option<view::JobView>,
}

#[derive(Debug)]
struct Experiment {
    comparison: WorkId,
    status: ExperimentStatus,
}

/// How far an experiment is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExperimentStatus {
    /// Its trials are not all there.
    Waiting,
    /// Its results are being written.
    Merging,
    /// Its results are written.
    Done,
    /// It cannot be done.
    Failed(String),
    /// Nobody wants it any more.
    Cancelled,
}

impl ExperimentStatus {
    fn is_open(&self) -> bool {
        matches!(self, Self::Waiting | Self::Merging)
    }
}

#[derive(Debug)]
struct Worker {
    numeric_profile: String,
    memory_bytes: u64,
    connected: bool,
    hungry: bool,
    last_work: Option<WorkId>,
}

impl State {
    /// Nothing known yet. `seed` drives attempt ids and jitter; `lend_after` is 0 where no other leader came before.
    pub fn new(settings: Settings, seed: [u8; 32], lend_after: Millis) -> Self {
        Self {
            settings,
            generator: ChaCha8Rng::from_seed(seed),
            jobs: BTreeMap::new(),
            order: Vec::new(),
            works: BTreeMap::new(),
            workers: BTreeMap::new(),
            claims: BTreeMap::new(),
            early_reports: BTreeMap::new(),
            lend_after,
            effects: Vec::new(),
        }
    }

    /// Folds one event into the state and says what must now be done, in order.
    ///
    /// `now` never decreases; lease deadlines are compared with it alone.
    pub fn apply(&mut self, now: Millis, event: Event) -> Vec<Effect> {
        match event {
            Event::JobAccepted { job, plan, settings } => self.accept(now, job, plan, settings),
            Event::JobCancelled { job } => self.end_job(&job, RunState::Cancelled),
            Event::WorkerJoined { worker, numeric_profile, memory_bytes, held } => {
                self.join(now, worker, numeric_profile, memory_bytes, held);
            }
            Event::WorkerAsked { worker } => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.hungry = true;
                }
            }
            Event::WorkerLeft { worker, departure } => self.leave(now, &worker, departure),
            Event::Progressed { worker, unit, attempt, done, total } => {
                self.renew(now, &worker, &unit, attempt, (done, total));
            }
            Event::Reported(report) => self.report(now, *report),
            Event::Surveyed { work, survey } => self.surveyed(now, work, survey),
            Event::SurveyFailed { work, .. } => {
                if let Some(state) = self.works.get_mut(&work) {
                    // Tried again at the next tick, or when a worker asks.
                    state.status = WorkStatus::Unbound;
                    state.not_before = now + policy::back_off_ms(1, &mut self.generator);
                }
            }
            Event::Committed { unit, attempt, end } => self.committed(now, &unit, attempt, end),
            Event::Merged { job, experiment, end } => self.merged(&job, experiment, end),
            Event::Tick => self.expire(now),
        }
        self.lend(now);
        std::mem::take(&mut self.effects)
    }

    fn accept(&mut self, now: Millis, job: JobId, plan: Plan, settings: JobSettings) {
        if self.jobs.get(&job).is_some_and(|known| known.ended.is_none()) {
            return;
        }
        let mut works = BTreeSet::new();
        for work in &plan.works {
            let depends_on = match self.works.get(&work.id) {
                Some(known) => known.work.depends_on.clone(),
                None => {
                    self.works.insert(work.id, WorkState::new(work.clone()));
                    work.depends_on.clone()
                }
            };
            // An older job may have asked for the same work with other dependencies; those are wanted then.
            works.extend(depends_on.into_iter().chain([work.id]));
        }
        for work in &works {
            if let Some(state) = self.works.get_mut(work) {
                state.jobs.insert(job.clone());
            }
        }
        let waiting = |comparison| Experiment { comparison, status: ExperimentStatus::Waiting };
        let experiments = plan.experiments.into_iter().map(waiting).collect();
        self.order.retain(|known| *known != job);
        self.order.push(job.clone());
        self.order.sort_by_key(|known| {
            let priority = if *known == job { settings.priority } else { self.jobs[known].settings.priority };
            std::cmp::Reverse(priority)
        });
        self.jobs
            .insert(job, Job { settings, works: works.clone(), experiments, ended: None, last_view: None });
        for work in works {
            self.advance(now, work);
        }
        self.settle();
    }

    /// Moves a work on as far as what it depends on allows.
    fn advance(&mut self, now: Millis, id: WorkId) {
        let Some(state) = self.works.get(&id) else { return };
        let ready =
            |dependency: &WorkId| self.works.get(dependency).is_some_and(|d| d.status == WorkStatus::Done);
        let all_ready = state.work.depends_on.iter().all(ready);
        if state.status == WorkStatus::Blocked && all_ready {
            let state = self.works.get_mut(&id).expect("looked up above");
            state.status = WorkStatus::Unbound;
        }
        let Some(state) = self.works.get(&id) else { return };
        if state.status != WorkStatus::Unbound || now < state.not_before {
            return;
        }
        // Texts are the same whoever prepares them; anything else waits for a worker that would begin it. A worker
        // that holds a unit of it already, from before this coordinator started, is such a worker.
        if let What::Prepare { .. } = state.work.what {
            self.survey(id, String::new());
        } else if let Some(profile) = self.claimant_profile(id) {
            self.survey(id, profile);
        }
    }

    fn claimant_profile(&self, work: WorkId) -> Option<String> {
        let mine = |unit: &UnitId| Work::parse_unit_id(unit).is_some_and(|(of, _)| of == work);
        let (_, (worker, _)) = self.claims.iter().find(|(unit, _)| mine(unit))?;
        self.workers.get(worker).map(|worker| worker.numeric_profile.clone())
    }

    fn survey(&mut self, id: WorkId, numeric_profile: String) {
        let extraction_key = match &self.works[&id].work.what {
            What::Compare(comparison) => self.works.get(&comparison.extraction).and_then(|e| e.key),
            What::Prepare { .. } | What::Extract(_) => None,
        };
        let state = self.works.get_mut(&id).expect("callers name a known work");
        state.status = WorkStatus::Surveying;
        state.extraction_key = extraction_key;
        self.effects.push(Effect::Survey {
            work: state.work.clone(),
            jobs: state.jobs.iter().cloned().collect(),
            numeric_profile,
            extraction_key,
        });
    }

    fn surveyed(&mut self, now: Millis, id: WorkId, survey: Survey) {
        let Some(state) = self.works.get_mut(&id) else { return };
        if state.status != WorkStatus::Surveying {
            return;
        }
        state.open(survey);
        let units: Vec<UnitId> = state.units.keys().map(|index| state.work.unit_id(*index)).collect();
        for unit in units {
            let Some((worker, attempt)) = self.claims.remove(&unit) else { continue };
            let deadline = now + self.settings.lease_ttl_ms;
            let Some((state, index)) = self.find(&unit) else { continue };
            state.adopt(index, Lease { worker, attempt, deadline, progress: (0, 0) });
        }
        for report in self.early_reports.remove(&id).unwrap_or_default() {
            self.report(now, report);
        }
        self.finish_if_complete(now, id);
    }

    fn find(&mut self, unit: &UnitId) -> Option<(&mut WorkState, u32)> {
        let (work, index) = Work::parse_unit_id(unit)?;
        self.works.get_mut(&work).map(|state| (state, index))
    }

    fn join(
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

    fn leave(&mut self, now: Millis, id: &WorkerId, departure: Departure) {
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

    fn renew(
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

    fn report(&mut self, now: Millis, report: Reported) {
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

    /// Fails a work and all that depends on it.
    fn fail_work(&mut self, id: WorkId, message: &str) {
        let mut failed = vec![id];
        while let Some(id) = failed.pop() {
            let Some(state) = self.works.get_mut(&id) else { continue };
            if matches!(state.status, WorkStatus::Failed(_)) {
                continue;
            }
            state.status = WorkStatus::Failed(message.to_owned());
            let stops = state.drop_leases();
            self.effects.extend(stops.into_iter().map(|(unit, lease)| Effect::Stop {
                worker: lease.worker,
                unit,
                attempt: lease.attempt,
            }));
            failed.extend(self.works.values().filter(|s| s.work.depends_on.contains(&id)).map(|s| s.work.id));
        }
        self.settle();
    }

    fn committed(&mut self, now: Millis, unit: &UnitId, attempt: AttemptId, end: CommitEnd) {
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

    fn finish_if_complete(&mut self, now: Millis, id: WorkId) {
        let Some(state) = self.works.get_mut(&id) else { return };
        if state.status != WorkStatus::Open || !state.is_complete() {
            return;
        }
        state.status = WorkStatus::Done;
        let dependents: Vec<WorkId> =
            self.works.values().filter(|s| s.work.depends_on.contains(&id)).map(|s| s.work.id).collect();
        for dependent in dependents {
            self.advance(now, dependent);
        }
        self.settle();
    }

    fn merged(&mut self, job: &JobId, number: usize, end: MergeEnd) {
        let Some(known) = self.jobs.get_mut(job) else { return };
        let Some(experiment) = known.experiments.get_mut(number) else { return };
        if experiment.status != ExperimentStatus::Merging {
            return;
        }
        match end {
            MergeEnd::Written => experiment.status = ExperimentStatus::Done,
            MergeEnd::Failed(message) => experiment.status = ExperimentStatus::Failed(message),
            MergeEnd::Damaged { trial } => {
                experiment.status = ExperimentStatus::Waiting;
                if let Some(state) = self.works.get_mut(&experiment.comparison) {
                    state.status = WorkStatus::Open;
                    state.reopen_trial(trial);
                }
            }
            MergeEnd::DamagedSource(damaged) => {
                experiment.status = ExperimentStatus::Waiting;
                if !self.remake(&damaged)
                    && let Some(known) = self.jobs.get_mut(job)
                {
                    let message = "rows are damaged that no work of this job has made".to_owned();
                    known.experiments[number].status = ExperimentStatus::Failed(message);
                }
            }
        }
        self.settle();
    }

    /// Brings experiments and jobs in line with their works.
    fn settle(&mut self) {
        let ids: Vec<JobId> = self.order.clone();
        for id in ids {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            if job.ended.is_some() {
                continue;
            }
            for (number, experiment) in job.experiments.iter_mut().enumerate() {
                if experiment.status != ExperimentStatus::Waiting {
                    continue;
                }
                match self.works.get(&experiment.comparison).map(|state| (&state.status, state)) {
                    Some((WorkStatus::Failed(message), _)) => {
                        experiment.status = ExperimentStatus::Failed(message.clone());
                    }
                    Some((WorkStatus::Done, state)) => {
                        let Some(keys) = merge_keys(state, &self.works) else { continue };
                        experiment.status = ExperimentStatus::Merging;
                        self.effects.push(Effect::Merge { job: id.clone(), experiment: number, keys });
                    }
                    _ => {}
                }
            }
            let failed = job.settings.some_unresolved
                || job.experiments.iter().any(|e| matches!(e.status, ExperimentStatus::Failed(_)));
            let open = job.experiments.iter().any(|e| e.status.is_open());
            let done = job.experiments.iter().any(|e| e.status == ExperimentStatus::Done);
            let end = match (failed, open) {
                (false, false) => Some(RunState::Done),
                (true, false) if done => Some(RunState::Partial),
                (true, false) => Some(RunState::Failed),
                (true, true) if !job.settings.continue_on_error => Some(RunState::Failed),
                (_, true) => None,
            };
            if let Some(end) = end {
                self.end_job(&id, end);
            }
        }
    }

    fn end_job(&mut self, id: &JobId, state: RunState) {
        if self.jobs.get(id).is_none_or(|job| job.ended.is_some()) {
            return;
        }
        let last_view = self.job_view(id);
        let job = self.jobs.get_mut(id).expect("looked up above");
        job.last_view = last_view;
        for experiment in &mut job.experiments {
            if experiment.status.is_open() {
                experiment.status = ExperimentStatus::Cancelled;
            }
        }
        job.ended = Some(state);
        for work in std::mem::take(&mut job.works) {
            self.lose_interest(work, id);
        }
        self.effects.push(Effect::EndJob { job: id.clone(), state });
    }

    fn lose_interest(&mut self, work: WorkId, job: &JobId) {
        let Some(state) = self.works.get_mut(&work) else { return };
        state.jobs.remove(job);
        if !state.jobs.is_empty() {
            return;
        }
        let stops = state.drop_leases();
        self.effects.extend(stops.into_iter().map(|(unit, lease)| Effect::Stop {
            worker: lease.worker,
            unit,
            attempt: lease.attempt,
        }));
        self.works.remove(&work);
        self.early_reports.remove(&work);
    }

    fn expire(&mut self, now: Millis) {
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
    fn lend(&mut self, now: Millis) {
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

/// Where a comparison's results are put together from; none while rows that it read are being made again, since
/// embeddings may be saved as well.
fn merge_keys(comparison: &WorkState, works: &BTreeMap<WorkId, WorkState>) -> Option<MergeKeys> {
    let What::Compare(what) = &comparison.work.what else { return None };
    let extraction = works.get(&what.extraction).filter(|state| state.status == WorkStatus::Done)?;
    Some(MergeKeys {
        extraction_key: extraction.key?,
        comparison_key: comparison.key?,
        extraction_profile: extraction.numeric_profile.clone(),
        comparison_profile: comparison.numeric_profile.clone(),
    })
}
