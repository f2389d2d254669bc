//! Jobs and their experiments: accepted, merged, settled, ended.

use std::collections::BTreeSet;

use lsa_common::id::JobId;
use lsa_common::record::RunState;
use lsa_common::time::Millis;

use super::event::{Effect, Item, JobSettings, MergeEnd, MergeKeys};
use super::index::{Queue, Turn, take_turn};
use super::timer::Due;
use super::work::{Remade, WorkState, WorkStatus};
use super::{State, policy, view};
use crate::plan::{Plan, Planned, What, WorkId};

#[derive(Debug)]
pub(super) struct Job {
    pub settings: JobSettings,
    /// Jobs are numbered as they are accepted.
    pub number: u64,
    /// Late stages first.
    pub works: Vec<WorkId>,
    pub experiments: Vec<Experiment>,
    tally: Tally,
    /// Nothing more is lent for it as yet.
    pub paused: bool,
    pub ended: Option<RunState>,
    /// What the view said when the job ended; its works may be gone since.
    pub last_view: Option<view::JobView>,
    /// Units of its works that workers have.
    pub n_lent: u64,
    pub queue: Queue,
    /// Where it is found among those that have something to be done.
    pub turn: Option<Turn>,
}

/// Experiments by how far they are.
#[derive(Debug, Default)]
struct Tally {
    open: usize,
    done: usize,
    failed: usize,
}

#[derive(Debug)]
pub(super) struct Experiment {
    pub planned: Planned,
    pub status: ExperimentStatus,
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

impl Tally {
    fn count(&mut self, status: &ExperimentStatus) -> Option<&mut usize> {
        match status {
            ExperimentStatus::Waiting | ExperimentStatus::Merging => Some(&mut self.open),
            ExperimentStatus::Done => Some(&mut self.done),
            ExperimentStatus::Failed(_) => Some(&mut self.failed),
            ExperimentStatus::Cancelled => None,
        }
    }
}

impl State {
    pub(super) fn accept(&mut self, now: Millis, id: JobId, plan: Plan, settings: JobSettings) {
        if self.jobs.get(&id).is_some_and(|known| known.ended.is_none()) {
            return;
        }
        for work in &plan.works {
            self.add_work(work);
        }
        // An older job may have asked for the same work with other dependencies; those are wanted then.
        let mut wanted = BTreeSet::new();
        let mut found: Vec<WorkId> = plan.works.iter().map(|work| work.id).collect();
        while let Some(work) = found.pop() {
            if wanted.insert(work) {
                found.extend(self.works.get(&work).iter().flat_map(|state| &state.work.depends_on));
            }
        }
        for work in &wanted {
            self.withdraw(*work);
            let Some(state) = self.touch(*work) else { continue };
            if let WorkStatus::Failed(_) = state.status {
                // It failed for another job, which may still go on with the rest; this one begins afresh.
                state.begin_afresh();
            }
            state.jobs.insert(id.clone());
        }
        let mut works: Vec<WorkId> = wanted.into_iter().collect();
        works.sort_by_key(|work| std::cmp::Reverse(self.works.get(work).map_or(0, WorkState::stage)));
        for (number, planned) in plan.experiments.iter().enumerate() {
            self.awaited.entry(planned.comparison).or_default().insert((id.clone(), number));
        }
        let waiting =
            |planned| Experiment { planned, status: ExperimentStatus::Waiting, troubles: 0, not_before: now };
        let experiments: Vec<Experiment> = plan.experiments.into_iter().map(waiting).collect();
        self.n_accepted += 1;
        let job = Job {
            settings,
            number: self.n_accepted,
            works,
            tally: Tally { open: experiments.len(), ..Tally::default() },
            experiments,
            paused: false,
            ended: None,
            last_view: None,
            n_lent: 0,
            queue: Queue::default(),
            turn: None,
        };
        self.jobs.insert(id.clone(), job);
        self.end_if_settled(&id);
    }

    /// What the job shares with others goes on for them.
    pub(super) fn pause(&mut self, id: &JobId, paused: bool) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.paused = paused;
        take_turn(&mut self.turns, id, job);
        self.retry_idle |= !paused;
    }

    pub(super) fn merged(&mut self, now: Millis, id: &JobId, number: usize, end: MergeEnd) {
        let Some(job) = self.jobs.get(id) else { return };
        let attempts_max = job.settings.max_attempts;
        let Some(experiment) = job.experiments.get(number) else { return };
        if experiment.status != ExperimentStatus::Merging {
            return;
        }
        let comparison = experiment.planned.comparison;
        let again = |remade, otherwise: String| match remade {
            Remade::Will => ExperimentStatus::Waiting,
            Remade::Unknown | Remade::TooOften => ExperimentStatus::Failed(otherwise),
        };
        let status = match end {
            MergeEnd::Written => ExperimentStatus::Done,
            MergeEnd::Failed(message) => ExperimentStatus::Failed(message),
            MergeEnd::Trouble(message) => self.merge_trouble(now, id, number, attempts_max, &message),
            MergeEnd::TooFew { trials } => {
                if let Some(state) = self.works.get_mut(&comparison) {
                    state.extend(trials);
                }
                ExperimentStatus::Waiting
            }
            MergeEnd::Damaged { trial } => again(
                self.remake_trial(comparison, trial),
                format!("trial {trial} was computed again and again, and its object was damaged every time"),
            ),
            MergeEnd::DamagedSource(damaged) => {
                let reads = self.works.get(&comparison).map(|state| state.work.depends_on.clone());
                let remade = self.remake(&reads.unwrap_or_default(), &damaged);
                again(
                    remade.map_or(Remade::Unknown, |(_, remade)| remade),
                    "rows were made again and again, and were damaged every time".to_owned(),
                )
            }
        };
        self.set_experiment(id, number, status);
        // More trials than were asked for may be there already.
        self.touch(comparison);
        self.end_if_settled(id);
    }

    /// The status of an experiment whose merge met trouble that may pass.
    fn merge_trouble(
        &mut self,
        now: Millis,
        id: &JobId,
        number: usize,
        attempts_max: u32,
        message: &str,
    ) -> ExperimentStatus {
        let Some(experiment) = self.jobs.get_mut(id).and_then(|job| job.experiments.get_mut(number)) else {
            return ExperimentStatus::Waiting;
        };
        experiment.troubles += 1;
        experiment.not_before = now + policy::back_off_ms(experiment.troubles, &mut self.generator);
        let (troubles, not_before) = (experiment.troubles, experiment.not_before);
        if troubles < attempts_max {
            self.schedule(not_before, Due::Experiment(id.clone(), number));
            return ExperimentStatus::Waiting;
        }
        ExperimentStatus::Failed(format!(
            "gave up after {attempts_max} attempts to merge; the last one: {message}"
        ))
    }

    fn remake_trial(&mut self, comparison: WorkId, trial: u32) -> Remade {
        let unit = self.works.get(&comparison).and_then(|state| state.unit_of_trial(trial));
        unit.map_or(Remade::Unknown, |unit| self.reopen(comparison, unit, Item::Trial(trial)))
    }

    /// Brings the experiments that wait for a comparison in line with it.
    pub(super) fn settle(&mut self, now: Millis, comparison: WorkId) {
        for (id, number) in self.awaited.get(&comparison).cloned().unwrap_or_default() {
            let Some(experiment) = self.jobs.get(&id).and_then(|job| job.experiments.get(number)) else {
                continue;
            };
            let is_waiting = experiment.status == ExperimentStatus::Waiting && now >= experiment.not_before;
            let Some(state) = self.works.get(&comparison).filter(|_| is_waiting) else { continue };
            match &state.status {
                WorkStatus::Failed(message) => {
                    let failed = ExperimentStatus::Failed(message.clone());
                    self.set_experiment(&id, number, failed);
                    self.end_if_settled(&id);
                }
                WorkStatus::Done => {
                    let Some(keys) = self.merge_keys(state, experiment.planned.side) else { continue };
                    self.set_experiment(&id, number, ExperimentStatus::Merging);
                    self.effects.push(Effect::Merge { job: id, experiment: number, keys });
                }
                WorkStatus::Blocked | WorkStatus::Unbound | WorkStatus::Surveying(_) | WorkStatus::Open => {}
            }
        }
    }

    /// Where a comparison's results are put together from; none while rows that it read are being made again, since
    /// embeddings may be saved as well.
    fn merge_keys(&self, comparison: &WorkState, side: usize) -> Option<MergeKeys> {
        let What::Compare(what) = &comparison.work.what else { return None };
        let extraction = self.works.get(&what.sides.get(side)?.extraction);
        let extraction = extraction.filter(|state| state.status == WorkStatus::Done)?;
        let count = |layers: usize| u32::try_from(layers).expect("layers are counted in u32");
        Some(MergeKeys {
            extraction_key: extraction.key?,
            comparison_key: comparison.key?,
            first_layer: count(what.sides[..side].iter().map(|side| side.layers.len()).sum()),
            n_layers: count(what.n_layers()),
            n_trials: comparison.n_trials,
            extraction_profile: extraction.numeric_profile.to_string(),
            comparison_profile: comparison.numeric_profile.to_string(),
        })
    }

    fn set_experiment(&mut self, id: &JobId, number: usize, status: ExperimentStatus) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let Some(experiment) = job.experiments.get_mut(number) else { return };
        if let Some(count) = job.tally.count(&experiment.status) {
            *count -= 1;
        }
        if let Some(count) = job.tally.count(&status) {
            *count += 1;
        }
        if !status.is_open()
            && let Some(awaiting) = self.awaited.get_mut(&experiment.planned.comparison)
        {
            awaiting.remove(&(id.clone(), number));
            if awaiting.is_empty() {
                self.awaited.remove(&experiment.planned.comparison);
            }
        }
        experiment.status = status;
    }

    /// Ends a job of which nothing is left to do.
    fn end_if_settled(&mut self, id: &JobId) {
        let Some(job) = self.jobs.get(id) else { return };
        let failed = job.settings.some_unresolved || job.tally.failed > 0;
        let end = match (failed, job.tally.open > 0) {
            (false, false) => RunState::Done,
            (true, false) if job.tally.done > 0 => RunState::Partial,
            (true, false) => RunState::Failed,
            (true, true) if !job.settings.continue_on_error => RunState::Failed,
            (_, true) => return,
        };
        self.end_job(id, end);
    }

    pub(super) fn end_job(&mut self, id: &JobId, state: RunState) {
        if self.jobs.get(id).is_none_or(|job| job.ended.is_some()) {
            return;
        }
        let last_view = self.job_view(id);
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.last_view = last_view;
        job.ended = Some(state);
        let works = std::mem::take(&mut job.works);
        let is_open = |(_, experiment): &(usize, &Experiment)| experiment.status.is_open();
        let open: Vec<usize> =
            job.experiments.iter().enumerate().filter(is_open).map(|(number, _)| number).collect();
        for number in open {
            self.set_experiment(id, number, ExperimentStatus::Cancelled);
        }
        for work in works {
            self.lose_interest(work, id);
        }
        if let Some(job) = self.jobs.get_mut(id) {
            take_turn(&mut self.turns, id, job);
        }
        self.effects.push(Effect::EndJob { job: id.clone(), state });
    }

    fn lose_interest(&mut self, work: WorkId, job: &JobId) {
        self.withdraw(work);
        let Some(state) = self.touch(work) else { return };
        state.jobs.remove(job);
        if state.jobs.is_empty() {
            self.abandon(work);
            self.remove_work(work);
        }
    }
}
