//! Who does what: a value, folded over events. Synchronous, in memory, silent.
//!
//! Nothing here reads a clock, draws unseeded randomness, or waits. Leases expire by the caller's time; attempt ids
//! come from a generator that the caller seeds; deeds leave as [`Effect`]s and their ends come back as [`Event`]s.
//!
//! ```text
//! work:  Blocked ──its dependencies done──► Unbound ──a worker of some profile asks──► Surveying ──► Open ──► Done
//!                                                                                                     └────► Failed
//!        Done ──damage was met, or more trials are needed──► Open
//! unit:  Ready ──lent──► Leased ──reported──► Committing ──recorded──► Done
//!          ▲◄──expired, failed──┘  ◄──refused──────┘                     └──damaged──► Ready, next generation
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

use lsa_common::id::{Digest, JobId, UnitId, WorkerId};
use lsa_common::record::RunState;
use lsa_common::time::Millis;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use crate::plan::{Plan, Planned, Side, What, Work, WorkId};
use event::{Effect, Event, Item, JobSettings, MergeEnd, MergeKeys, Survey};
use lease::{Claim, Worker};
use work::{Abandoned, Lease, Remade, WorkState, WorkStatus};

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
    /// Workers that have asked and got nothing yet.
    hungry: BTreeSet<WorkerId>,
    /// What workers said they hold of works that have not been looked through.
    claims: BTreeMap<(WorkId, u32), Claim>,
    n_surveys: u64,
    /// A new leader lends nothing before this: an earlier leader's leases may be running.
    lend_after: Millis,
    effects: Vec<Effect>,
}

#[derive(Debug)]
struct Job {
    settings: JobSettings,
    /// Late stages first: an experiment's results are worth more than another one's beginning.
    works: Vec<WorkId>,
    experiments: Vec<Experiment>,
    ended: Option<RunState>,
    /// What the view said when the job ended; its works may be gone since.
    last_view: Option<view::JobView>,
}

#[derive(Debug)]
struct Experiment {
    planned: Planned,
    status: ExperimentStatus,
    /// How often its merge met trouble that may pass, and when to try again.
    troubles: u32,
    not_before: Millis,
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
            hungry: BTreeSet::new(),
            claims: BTreeMap::new(),
            n_surveys: 0,
            lend_after,
            effects: Vec::new(),
        }
    }

    /// Folds one event into the state and says what must now be done, in order.
    ///
    /// `now` never decreases; lease deadlines are compared with it alone. Jobs that are to be gone on with are
    /// accepted before workers join: what a worker holds of no known work, it is told to stop.
    pub fn apply(&mut self, now: Millis, event: Event) -> Vec<Effect> {
        // Signs of life are the most frequent events by far, and nothing can be lent after one that could not before.
        let may_lend = !matches!(event, Event::Progressed { .. });
        match event {
            Event::JobAccepted { job, plan, settings } => self.accept(now, job, plan, settings),
            Event::JobCancelled { job } => self.end_job(&job, RunState::Cancelled),
            Event::WorkerJoined { worker, numeric_profile, memory_bytes, held } => {
                self.join(now, worker, numeric_profile, memory_bytes, held);
            }
            Event::WorkerAsked { worker } => {
                if self.workers.get(&worker).is_some_and(|known| known.connected) {
                    self.hungry.insert(worker);
                }
            }
            Event::WorkerLeft { worker, departure } => self.leave(now, &worker, departure),
            Event::Progressed { worker, unit, attempt, done, total } => {
                self.renew(now, &worker, &unit, attempt, (done, total));
            }
            Event::Reported(report) => self.report(now, *report),
            Event::Surveyed { work, number, survey } => self.surveyed(now, work, number, survey),
            Event::SurveyFailed { work, number, message } => self.survey_failed(now, work, number, message),
            Event::Committed { unit, attempt, end } => self.committed(now, &unit, attempt, end),
            Event::Merged { job, experiment, end } => self.merged(now, &job, experiment, end),
            Event::Tick => {
                self.expire(now);
                self.try_again(now);
            }
        }
        if may_lend {
            self.lend(now);
        }
        std::mem::take(&mut self.effects)
    }

    fn accept(&mut self, now: Millis, job: JobId, plan: Plan, settings: JobSettings) {
        if self.jobs.get(&job).is_some_and(|known| known.ended.is_none()) {
            return;
        }
        let mut wanted = BTreeSet::new();
        for work in &plan.works {
            let known = self.works.entry(work.id).or_insert_with(|| WorkState::new(work.clone()));
            // An older job may have asked for the same work with other dependencies; those are wanted then.
            wanted.extend(known.work.depends_on.iter().copied().chain([work.id]));
        }
        for work in &wanted {
            let Some(state) = self.works.get_mut(work) else { continue };
            if let WorkStatus::Failed(_) = state.status {
                // It failed for another job, which may still go on with the rest; this one begins afresh.
                state.begin_afresh();
            }
            state.jobs.insert(job.clone());
        }
        let mut works: Vec<WorkId> = wanted.into_iter().collect();
        works.sort_by_key(|work| std::cmp::Reverse(self.works.get(work).map_or(0, WorkState::stage)));
        let waiting =
            |planned| Experiment { planned, status: ExperimentStatus::Waiting, troubles: 0, not_before: now };
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
        self.settle(now);
    }

    /// Moves a work on as far as what it depends on allows.
    fn advance(&mut self, now: Millis, id: WorkId) {
        let Some(state) = self.works.get(&id) else { return };
        let all_ready = self.is_unblocked(state);
        if state.status == WorkStatus::Blocked && all_ready {
            let state = self.works.get_mut(&id).expect("looked up above");
            state.status = WorkStatus::Unbound;
        }
        let Some(state) = self.works.get(&id) else { return };
        if state.status != WorkStatus::Unbound || now < state.not_before || !all_ready {
            return;
        }
        // Texts and files are the same whoever puts them there; anything else waits for a worker that would begin it. A worker
        // that began a unit of it under an earlier coordinator is such a worker.
        if let What::Prepare { .. } | What::Mirror { .. } = state.work.what {
            self.survey(id, String::new());
        } else if let Some(profile) = self.claimant_profile(id) {
            self.survey(id, profile);
        }
    }

    /// Whether everything that a work reads is done.
    fn is_unblocked(&self, state: &WorkState) -> bool {
        let is_done = |work: &WorkId| self.works.get(work).is_some_and(|d| d.status == WorkStatus::Done);
        state.work.depends_on.iter().all(is_done)
    }

    fn claimant_profile(&self, work: WorkId) -> Option<String> {
        let claims = self.claims.range((work, 0)..=(work, u32::MAX)).map(|(_, claim)| &claim.lease.worker);
        let reporter = self.works.get(&work).and_then(WorkState::early_reporter);
        let profile = |worker| self.workers.get(worker).map(|worker| worker.numeric_profile.clone());
        claims.chain(reporter).find_map(profile)
    }

    fn survey(&mut self, id: WorkId, numeric_profile: String) {
        let key_of = |side: &Side| self.works.get(&side.extraction).and_then(|extraction| extraction.key);
        let rows_keys: Vec<Digest> = match &self.works[&id].work.what {
            What::Compare(comparison) => comparison.sides.iter().filter_map(key_of).collect(),
            What::Prepare { .. } | What::Mirror { .. } | What::Extract(_) => Vec::new(),
        };
        let state = self.works.get_mut(&id).expect("callers name a known work");
        self.n_surveys += 1;
        state.status = WorkStatus::Surveying(self.n_surveys);
        state.rows_keys = rows_keys.clone();
        self.effects.push(Effect::Survey {
            work: state.work.clone(),
            number: self.n_surveys,
            jobs: state.jobs.iter().cloned().collect(),
            numeric_profile,
            rows_keys,
        });
    }

    fn surveyed(&mut self, now: Millis, id: WorkId, number: u64, survey: Survey) {
        let Some(state) = self.works.get_mut(&id) else { return };
        if state.status != WorkStatus::Surveying(number) {
            return;
        }
        state.open(survey);
        // Another coordinator has gone further: what its workers have is taken over.
        let claimed = self.claims.range((id, 0)..=(id, u32::MAX)).map(|((_, index), _)| *index);
        if let Some(index) = claimed.chain(state.early_units()).max() {
            state.extend_to_unit(index);
        }
        let early = state.take_early();
        self.honour_claims(id);
        for report in early {
            self.report(now, report);
        }
        self.finish_if_complete(now, id);
    }

    fn survey_failed(&mut self, now: Millis, id: WorkId, number: u64, message: String) {
        let Some(state) = self.works.get_mut(&id) else { return };
        if state.status != WorkStatus::Surveying(number) {
            return;
        }
        let troubles = state.trouble.as_ref().map_or(0, |(_, troubles)| *troubles) + 1;
        state.trouble = Some((message, troubles));
        // Tried again when the time has come, for as long as the job is wanted: its waiting says why.
        state.status = WorkStatus::Unbound;
        state.not_before = now + policy::back_off_ms(troubles, &mut self.generator);
    }

    /// The work of a unit, unless it is bound to another key than the unit is named after.
    fn find(&mut self, unit: &UnitId) -> Option<(&mut WorkState, u32)> {
        let (work, index) = Work::parse_unit_id(unit)?;
        self.works.get_mut(&work).filter(|state| state.may_be(unit, index)).map(|state| (state, index))
    }

    /// Fails a work and all that depends on it.
    fn fail_work(&mut self, now: Millis, id: WorkId, message: &str) {
        let mut failed = vec![id];
        while let Some(id) = failed.pop() {
            let Some(state) = self.works.get_mut(&id) else { continue };
            if matches!(state.status, WorkStatus::Failed(_)) {
                continue;
            }
            state.status = WorkStatus::Failed(message.to_owned());
            self.abandon(id);
            failed.extend(self.works.values().filter(|s| s.work.depends_on.contains(&id)).map(|s| s.work.id));
        }
        self.settle(now);
    }

    /// Tells everybody who works on it, or has reported, that nobody waits for them.
    fn abandon(&mut self, id: WorkId) {
        let Some(state) = self.works.get_mut(&id) else { return };
        let Abandoned { mut leases, reports } = state.abandon();
        let claimed: Vec<_> = self.claims.range((id, 0)..=(id, u32::MAX)).map(|(unit, _)| *unit).collect();
        for unit in claimed {
            leases.extend(self.claims.remove(&unit).map(|claim| (claim.unit, claim.lease)));
        }
        let stop = |(unit, Lease { worker, attempt, .. })| Effect::Stop { worker, unit, attempt };
        self.effects.extend(leases.into_iter().map(stop));
        let acknowledge = |(worker, unit, attempt)| Effect::Acknowledge { worker, unit, attempt };
        self.effects.extend(reports.into_iter().map(acknowledge));
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
        self.settle(now);
    }

    fn merged(&mut self, now: Millis, id: &JobId, number: usize, end: MergeEnd) {
        let Some(job) = self.jobs.get(id) else { return };
        let attempts_max = job.settings.max_attempts;
        let Some(experiment) = job.experiments.get(number) else { return };
        if experiment.status != ExperimentStatus::Merging {
            return;
        }
        let comparison = experiment.planned.comparison;
        let remade = match &end {
            MergeEnd::Damaged { trial } => self.remake_trial(comparison, *trial),
            MergeEnd::DamagedSource(damaged) => {
                let reads = self.works.get(&comparison).map(|state| state.work.depends_on.clone());
                self.remake(&reads.unwrap_or_default(), damaged).map_or(Remade::Unknown, |(_, remade)| remade)
            }
            MergeEnd::TooFew { trials } => {
                if let Some(state) = self.works.get_mut(&comparison) {
                    state.extend(*trials);
                }
                Remade::Unknown
            }
            MergeEnd::Written | MergeEnd::Trouble(_) | MergeEnd::Failed(_) => Remade::Unknown,
        };
        let Some(experiment) = self.jobs.get_mut(id).and_then(|job| job.experiments.get_mut(number)) else {
            return;
        };
        experiment.status = match end {
            MergeEnd::Written => ExperimentStatus::Done,
            MergeEnd::Failed(message) => ExperimentStatus::Failed(message),
            MergeEnd::Trouble(message) => {
                experiment.troubles += 1;
                experiment.not_before = now + policy::back_off_ms(experiment.troubles, &mut self.generator);
                if experiment.troubles < attempts_max {
                    ExperimentStatus::Waiting
                } else {
                    let message =
                        format!("gave up after {attempts_max} attempts to merge; the last one: {message}");
                    ExperimentStatus::Failed(message)
                }
            }
            MergeEnd::TooFew { .. } => ExperimentStatus::Waiting,
            MergeEnd::Damaged { trial } => match remade {
                Remade::Will => ExperimentStatus::Waiting,
                Remade::Unknown | Remade::TooOften => ExperimentStatus::Failed(format!(
                    "trial {trial} was computed again and again, and its object was damaged every time"
                )),
            },
            MergeEnd::DamagedSource(_) => match remade {
                Remade::Will => ExperimentStatus::Waiting,
                Remade::Unknown | Remade::TooOften => ExperimentStatus::Failed(
                    "rows were made again and again, and were damaged every time".to_owned(),
                ),
            },
        };
        // More trials than were asked for may be there already.
        self.finish_if_complete(now, comparison);
        self.settle(now);
    }

    fn remake_trial(&mut self, comparison: WorkId, trial: u32) -> Remade {
        let unit = self.works.get(&comparison).and_then(|state| state.unit_of_trial(trial));
        unit.map_or(Remade::Unknown, |unit| self.reopen(comparison, unit, Item::Trial(trial)))
    }

    /// Brings experiments and jobs in line with their works.
    fn settle(&mut self, now: Millis) {
        let ids: Vec<JobId> = self.order.clone();
        for id in ids {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            if job.ended.is_some() {
                continue;
            }
            for (number, experiment) in job.experiments.iter_mut().enumerate() {
                if experiment.status != ExperimentStatus::Waiting || now < experiment.not_before {
                    continue;
                }
                match self.works.get(&experiment.planned.comparison).map(|state| (&state.status, state)) {
                    Some((WorkStatus::Failed(message), _)) => {
                        experiment.status = ExperimentStatus::Failed(message.clone());
                    }
                    Some((WorkStatus::Done, state)) => {
                        let Some(keys) = merge_keys(state, experiment.planned.side, &self.works) else {
                            continue;
                        };
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
        self.order.retain(|known| known != id);
        for work in std::mem::take(&mut job.works) {
            self.lose_interest(work, id);
        }
        self.effects.push(Effect::EndJob { job: id.clone(), state });
    }

    fn lose_interest(&mut self, work: WorkId, job: &JobId) {
        let Some(state) = self.works.get_mut(&work) else { return };
        state.jobs.remove(job);
        if state.jobs.is_empty() {
            self.abandon(work);
            self.works.remove(&work);
        }
    }

    /// Takes up what has waited for a time: surveys and merges that met trouble.
    fn try_again(&mut self, now: Millis) {
        let unbound: Vec<WorkId> =
            self.works.values().filter(|s| s.status == WorkStatus::Unbound).map(|s| s.work.id).collect();
        for work in unbound {
            self.advance(now, work);
        }
        self.settle(now);
    }
}

/// Where a comparison's results are put together from; none while rows that it read are being made again, since
/// embeddings may be saved as well.
fn merge_keys(comparison: &WorkState, side: usize, works: &BTreeMap<WorkId, WorkState>) -> Option<MergeKeys> {
    let What::Compare(what) = &comparison.work.what else { return None };
    let extraction = works.get(&what.sides.get(side)?.extraction);
    let extraction = extraction.filter(|state| state.status == WorkStatus::Done)?;
    let count = |layers: usize| u32::try_from(layers).expect("layers are counted in u32");
    Some(MergeKeys {
        extraction_key: extraction.key?,
        comparison_key: comparison.key?,
        first_layer: count(what.sides[..side].iter().map(|side| side.layers.len()).sum()),
        n_layers: count(what.n_layers()),
        n_trials: comparison.n_trials,
        extraction_profile: extraction.numeric_profile.clone(),
        comparison_profile: comparison.numeric_profile.clone(),
    })
}
