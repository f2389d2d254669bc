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
//! Invariants, checked by the simulation in `tests/`: a unit has at most one live lease, or two where the first lags;
//! an item is recorded before anything that reads it is lent; a late report is never believed and never dropped: it is
//! committed like any other, and the record decides; a worker that drains and a job that is paused are lent nothing.
//!
//! No event looks at all works, units or workers: see `index` for who is asked instead, and `timer` for what a tick
//! does. `examples/scheduler_bench.rs` measures it.

pub mod event;
mod index;
mod jobs;
mod lending;
pub mod policy;
mod progress;
mod reports;
mod timer;
pub mod view;
pub mod work;
mod workers;

use std::collections::{BTreeMap, BTreeSet};

use lsa_common::id::{Digest, JobId, UnitId, WorkerId};
use lsa_common::record::RunState;
use lsa_common::time::Millis;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use crate::plan::{Work, WorkId};
use event::{Effect, Event};
use index::{Kind, Turn};
pub use jobs::ExperimentStatus;
use jobs::Job;
use timer::Due;
use work::WorkState;
use workers::{Claim, Worker};

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
    works: BTreeMap<WorkId, WorkState>,
    workers: BTreeMap<WorkerId, Worker>,
    /// What workers said they hold of works that have not been looked through.
    claims: BTreeMap<(WorkId, u32), Claim>,
    n_accepted: u64,
    n_surveys: u64,
    /// Units that workers have had done.
    n_done: u64,
    /// False for a new leader at first: an earlier leader's leases may be running.
    may_lend: bool,
    timers: BTreeSet<(Millis, Due)>,

    // Indexes; `index.rs` alone writes to them, but for the experiments that `jobs.rs` keeps.
    /// Works that read a work.
    readers: BTreeMap<WorkId, BTreeSet<WorkId>>,
    /// Works whose objects are under a key.
    by_key: BTreeMap<Digest, BTreeSet<WorkId>>,
    /// Open experiments by their comparison.
    awaited: BTreeMap<WorkId, BTreeSet<(JobId, usize)>>,
    /// Jobs of which something could be done.
    turns: BTreeSet<Turn>,
    n_surveying: usize,
    /// Workers that have asked and could be lent something.
    idle: BTreeMap<Kind, BTreeSet<WorkerId>>,
    /// Workers that may be lent something once they ask, and are expected to ask, counted.
    available: BTreeMap<Kind, usize>,

    // What the event at hand has changed; empty between events.
    touched: Vec<WorkId>,
    touched_workers: Vec<WorkerId>,
    /// Comparisons that are done or have failed, and that experiments wait for.
    ended: BTreeSet<WorkId>,
    newly_idle: BTreeSet<WorkerId>,
    /// Something can be lent that could not be before: whoever is idle is asked again.
    retry_idle: bool,
    effects: Vec<Effect>,
}

impl State {
    /// Nothing known yet. `seed` drives attempt ids and jitter; `lend_after` is 0 where no other leader came before.
    pub fn new(settings: Settings, seed: [u8; 32], lend_after: Millis) -> Self {
        Self {
            settings,
            generator: ChaCha8Rng::from_seed(seed),
            jobs: BTreeMap::new(),
            works: BTreeMap::new(),
            workers: BTreeMap::new(),
            claims: BTreeMap::new(),
            n_accepted: 0,
            n_surveys: 0,
            n_done: 0,
            may_lend: lend_after == Millis(0),
            timers: BTreeSet::from([(lend_after, Due::Lending)]),
            readers: BTreeMap::new(),
            by_key: BTreeMap::new(),
            awaited: BTreeMap::new(),
            turns: BTreeSet::new(),
            n_surveying: 0,
            idle: BTreeMap::new(),
            available: BTreeMap::new(),
            touched: Vec::new(),
            touched_workers: Vec::new(),
            ended: BTreeSet::new(),
            newly_idle: BTreeSet::new(),
            retry_idle: false,
            effects: Vec::new(),
        }
    }

    /// Folds one event into the state and says what must now be done, in order.
    ///
    /// `now` never decreases; lease deadlines are compared with it alone. Jobs that are to be gone on with are
    /// accepted before workers join: what a worker holds of no known work, it is told to stop.
    pub fn apply(&mut self, now: Millis, event: Event) -> Vec<Effect> {
        match event {
            Event::JobAccepted { job, plan, settings } => self.accept(now, job, plan, settings),
            Event::JobCancelled { job } => self.end_job(&job, RunState::Cancelled),
            Event::JobPaused { job } => self.pause(&job, true),
            Event::JobResumed { job } => self.pause(&job, false),
            Event::WorkerJoined { worker, numeric_profile, memory_bytes, held } => {
                self.join(now, worker, numeric_profile, memory_bytes, held);
            }
            Event::WorkerAsked { worker } => self.asked(worker),
            Event::DrainRequested { worker } => {
                if self.drain(&worker) {
                    self.effects.push(Effect::Drain { worker });
                }
            }
            Event::WorkerDraining { worker } => drop(self.drain(&worker)),
            Event::WorkerLeft { worker, departure } => self.leave(now, &worker, departure),
            Event::Progressed { worker, unit, attempt, done, total } => {
                self.renew(now, &worker, &unit, attempt, (done, total));
            }
            Event::Reported(report) => self.report(now, *report),
            Event::Surveyed { work, number, survey } => self.surveyed(now, work, number, survey),
            Event::SurveyFailed { work, number, message } => self.survey_failed(now, work, number, message),
            Event::Committed { unit, attempt, end } => self.committed(now, &unit, attempt, end),
            Event::Merged { job, experiment, end } => self.merged(now, &job, experiment, end),
            Event::Tick => self.tick(now),
        }
        self.bring_in_line(now);
        self.lend(now);
        std::mem::take(&mut self.effects)
    }

    /// The work of a unit, to be changed, unless it is bound to another key than the unit is named after.
    fn find(&mut self, unit: &UnitId) -> Option<(&mut WorkState, u32)> {
        let (work, index) = Work::parse_unit_id(unit)?;
        self.works.get(&work).filter(|state| state.may_be(unit, index))?;
        self.touch(work).map(|state| (state, index))
    }
}
