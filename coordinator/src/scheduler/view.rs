//! What a person may know of the state: jobs, leases, why nothing moves.

use lsa_common::id::{AttemptId, JobId, UnitId, WorkerId};
use lsa_common::record::RunState;

use super::work::{Lease, WorkState, WorkStatus};
use super::workers::Worker;
use super::{ExperimentStatus, State};
use crate::plan::Work;

/// A job as its owner sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct JobView {
    /// Running, or how it ended.
    pub state: RunState,
    /// Nothing more is lent for it until it is resumed.
    pub paused: bool,
    /// Why nothing moves, if nothing does.
    pub waiting: Option<String>,
    /// Units needed in all, as far as known: intervals that are too wide ask for more.
    pub units_total: u64,
    /// Units done or found done.
    pub units_done: u64,
    /// Units that this run did itself.
    pub units_run: u64,
    /// Share of the work that is done, from 0 to 1; running units count by their progress.
    pub fraction: f64,
    /// Experiments whose results are written.
    pub experiments_done: usize,
    /// Experiments in all.
    pub experiments_total: usize,
    /// Live leases.
    pub leases: Vec<LeaseView>,
}

/// A live lease.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseView {
    /// On what.
    pub unit: UnitId,
    /// What that is, for a person.
    pub what: String,
    /// Under which attempt.
    pub attempt: AttemptId,
    /// How many attempts so far.
    pub attempt_number: u32,
    /// To whom.
    pub worker: WorkerId,
    /// Done, of a total.
    pub progress: (u64, u64),
}

impl State {
    /// A job as its owner sees it.
    pub fn job_view(&self, id: &JobId) -> Option<JobView> {
        let job = self.jobs.get(id)?;
        let experiments_done =
            job.experiments.iter().filter(|experiment| experiment.status == ExperimentStatus::Done).count();
        if let (Some(state), Some(last)) = (job.ended, &job.last_view) {
            return Some(JobView {
                state,
                experiments_done,
                paused: false,
                waiting: None,
                leases: Vec::new(),
                ..last.clone()
            });
        }
        let mut view = JobView {
            state: job.ended.unwrap_or(RunState::Running),
            paused: job.paused && job.ended.is_none(),
            waiting: None,
            units_total: 0,
            units_done: 0,
            units_run: 0,
            fraction: 0.0,
            experiments_done,
            experiments_total: job.experiments.len(),
            leases: Vec::new(),
        };
        let (mut weight_done, mut weight_total) = (0.0, 0.0);
        for work in job.works.iter().filter_map(|work| self.works.get(work)) {
            let n_units = u64::from(work.n_units());
            // Nobody knows how many trials will be enough: until the results are written, as many as there can be.
            let awaited = self.awaited.get(&work.work.id);
            let may_grow =
                awaited.is_some_and(|a| a.range((id.clone(), 0)..=(id.clone(), usize::MAX)).next().is_some());
            let of_units = if may_grow { u64::from(work.work.n_units_max()) } else { n_units };
            // Every work counts a little, however cheap, so that the share moves from the start.
            let weight = work.work.flop as f64 + 1e9;
            let mut done = work.n_done() as f64;
            for (index, unit) in work.leased() {
                let share = |lease: &Lease| match lease.progress {
                    (_, 0) => 0.0,
                    (part, of) => part.min(of) as f64 / of as f64,
                };
                done += unit.leases().iter().map(share).fold(0.0, f64::max);
                view.leases.extend(unit.leases().iter().map(|lease| LeaseView {
                    unit: work.unit_id(index),
                    what: work.payload(index).map(|payload| payload.describe()).unwrap_or_default(),
                    attempt: lease.attempt,
                    attempt_number: unit.attempts,
                    worker: lease.worker.clone(),
                    progress: lease.progress,
                }));
            }
            view.units_total += n_units;
            view.units_done += work.n_done();
            view.units_run += work.n_run;
            weight_total += weight;
            weight_done += weight * (done / of_units.max(1) as f64).min(1.0);
        }
        view.fraction = if weight_total > 0.0 { weight_done / weight_total } else { 0.0 };
        if view.state == RunState::Running && view.leases.is_empty() {
            view.waiting = self.why_waiting(id);
        }
        Some(view)
    }

    /// How a job's experiments stand, in the spec's order.
    pub fn experiments(&self, id: &JobId) -> Vec<ExperimentStatus> {
        let experiments = self.jobs.get(id).into_iter().flat_map(|job| &job.experiments);
        experiments.map(|experiment| experiment.status.clone()).collect()
    }

    /// The running jobs that need the unit.
    pub fn jobs_of(&self, unit: &UnitId) -> Vec<JobId> {
        let work = Work::parse_unit_id(unit).and_then(|(work, _)| self.works.get(&work));
        work.map(|work| work.jobs.iter().cloned().collect()).unwrap_or_default()
    }

    fn why_waiting(&self, id: &JobId) -> Option<String> {
        let job = self.jobs.get(id)?;
        let works = || job.works.iter().filter_map(|work| self.works.get(work));
        if works().all(|work| work.status == WorkStatus::Done) {
            return None;
        }
        if job.paused {
            return Some("it is paused, and nothing of it is being worked on; resume it to go on".to_owned());
        }
        if let Some((message, troubles)) = works().find_map(|work| work.trouble.as_ref()) {
            return Some(format!("the bucket could not be looked through ({troubles} times): {message}"));
        }
        if let Some((message, tries)) = works().find_map(|work| work.record_trouble()) {
            return Some(format!("a record could not be written ({tries} times): {message}"));
        }
        let mut connected = self.workers.values().filter(|worker| worker.connected).peekable();
        if connected.peek().is_some() && connected.all(|worker| worker.draining) {
            return Some(
                "every connected worker is draining, and takes nothing more; start another one".to_owned(),
            );
        }
        if self.workers.values().all(|worker| !worker.connected) {
            return Some(
                "no worker is connected; start one with `lsa-worker serve --coordinator URL`".to_owned(),
            );
        }
        for work in works().filter(|work| matches!(work.status, WorkStatus::Unbound | WorkStatus::Open)) {
            let bound = &work.numeric_profile;
            let Some(largest) = self.largest_memory(work) else {
                return Some(format!(
                    "it was begun by workers of the profile {bound:?} and none of the connected ones is of it; \
                     connect such a worker, or submit again to begin afresh"
                ));
            };
            let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
            if work.work.memory_bytes > largest {
                let which = if bound.is_empty() { "" } else { " of its profile" };
                return Some(format!(
                    "a unit needs {:.1} GiB, the largest worker{which} has {:.1} GiB; lower batch_size or add a \
                     larger worker",
                    gib(work.work.memory_bytes),
                    gib(largest)
                ));
            }
        }
        let lacks = |work: &&WorkState| matches!(work.status, WorkStatus::Unbound | WorkStatus::Open);
        let has_worker = |work: &WorkState| self.available.keys().any(|kind| work.fits(kind));
        if works().filter(lacks).any(|work| !has_worker(work)) {
            return Some(
                "the workers that could run its units rest after several failures in a row, or give no sign of life"
                    .to_owned(),
            );
        }
        None
    }

    /// The most that a worker of a work's profile may use, of any profile where it is bound to none. Workers that rest
    /// will be back; those that drain will not.
    fn largest_memory(&self, work: &WorkState) -> Option<u64> {
        let stays = self.workers.values().filter(|worker| worker.connected && !worker.draining);
        let bound = &work.numeric_profile;
        let is_of_it = |worker: &&Worker| bound.is_empty() || worker.kind.profile == *bound;
        stays.filter(is_of_it).map(|worker| worker.kind.memory_bytes).max()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lsa_common::id::Digest;
    use lsa_common::job::Trials;
    use lsa_common::time::Millis;

    use super::super::Settings;
    use super::super::event::{Effect, Event, JobSettings, Survey};
    use super::*;
    use crate::plan::{Comparison, Plan, Planned, What, WorkId};

    const GIB: u64 = 1 << 30;

    fn job() -> JobId {
        "job-1".parse().expect("a plain name")
    }

    /// A job of one comparison that needs 16 GiB and reads nothing else.
    fn state() -> State {
        let what = What::Compare(Comparison::of_trials(Trials::Fixed(1)));
        let id = WorkId(Digest::of(b"work"));
        let work = Work { id, what, depends_on: Vec::new(), memory_bytes: 16 * GIB, flop: 0 };
        let plan =
            Plan { works: vec![Arc::new(work)], experiments: vec![Planned { comparison: id, side: 0 }] };
        let settings =
            JobSettings { continue_on_error: false, max_attempts: 4, priority: 0, some_unresolved: false };
        let mut state = State::new(Settings { lease_ttl_ms: 60_000 }, [1; 32], Millis(0));
        state.apply(Millis(0), Event::JobAccepted { job: job(), plan, settings });
        state
    }

    fn join(state: &mut State, name: &str, profile: &str, memory_bytes: u64) -> Vec<Effect> {
        let worker: WorkerId = name.parse().expect("a plain name");
        let numeric_profile = profile.to_owned();
        let joined =
            Event::WorkerJoined { worker: worker.clone(), numeric_profile, memory_bytes, held: Vec::new() };
        state.apply(Millis(1), joined);
        state.apply(Millis(1), Event::WorkerAsked { worker })
    }

    fn waiting(state: &State) -> String {
        state.job_view(&job()).and_then(|view| view.waiting).unwrap_or_default()
    }

    fn survey_of(effects: &[Effect]) -> (WorkId, u64) {
        let survey = effects.iter().find_map(|effect| match effect {
            Effect::Survey { work, number, .. } => Some((work.id, *number)),
            _ => None,
        });
        survey.expect("a worker has asked")
    }

    #[test]
    fn a_job_says_why_it_waits() {
        let mut state = state();
        assert!(waiting(&state).contains("no worker is connected"), "{}", waiting(&state));
        join(&mut state, "small", "gpu", 8 * GIB);
        let expected = "a unit needs 16.0 GiB, the largest worker has 8.0 GiB";
        assert!(waiting(&state).starts_with(expected), "{}", waiting(&state));

        let (work, number) = survey_of(&join(&mut state, "large", "gpu", 32 * GIB));
        let message = "connection reset".to_owned();
        state.apply(Millis(2), Event::SurveyFailed { work, number, message });
        let expected = "the bucket could not be looked through (1 times): connection reset";
        assert_eq!(waiting(&state), expected);
        assert!(state.apply(Millis(100), Event::Tick).is_empty(), "it is left alone for a while");

        let (work, number) = survey_of(&state.apply(Millis(5_000), Event::Tick));
        let survey = Survey {
            numeric_profile: "another".to_owned(),
            key: Some(Digest::of(b"key")),
            found: Default::default(),
        };
        state.apply(Millis(5_001), Event::Surveyed { work, number, survey });
        assert!(waiting(&state).contains("workers of the profile \"another\""), "{}", waiting(&state));
        join(&mut state, "other", "another", 4 * GIB);
        assert!(waiting(&state).contains("largest worker of its profile has 4.0 GiB"), "{}", waiting(&state));
    }

    #[test]
    fn the_end_of_an_older_survey_is_not_believed() {
        let mut state = state();
        let (work, number) = survey_of(&join(&mut state, "large", "gpu", 32 * GIB));
        let survey = Survey { key: Some(Digest::of(b"key")), ..Survey::default() };
        state.apply(Millis(2), Event::Surveyed { work, number: number + 1, survey });
        let message = "late".to_owned();
        state.apply(Millis(2), Event::SurveyFailed { work, number: number + 1, message });
        let view = state.job_view(&job()).expect("it was accepted");
        assert_eq!((view.units_done, view.waiting), (0, None));
    }
}
