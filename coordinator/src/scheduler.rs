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
mod lease;
pub mod policy;
pub mod view;
pub mod work;

use std::collections::{BTreeMap, BTreeSet};

use lsa_common::id::{AttemptId, JobId, UnitId, WorkerId};
use lsa_common::record::RunState;
use lsa_common::time::Millis;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use crate::plan::{Plan, What, Work, WorkId};
use event::{Effect, Event, JobSettings, MergeEnd, MergeKeys, Reported, Survey};
use work::{Lease, WorkState, WorkStatus};

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
