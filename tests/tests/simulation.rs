//! The scheduler under seeded faults, with a virtual clock and nothing else: no store, no socket, no thread.
//!
//! Workers ask, progress, report, die, stall past their lease, lag, lose their streams and come back; some are drained or
//! preempted, and in some places every attempt fails; messages are late, repeated and out of order; merges ask for more
//! trials; the bucket fails, loses and spoils data; jobs that share works come, are paused and resumed, are cancelled
//! and come again; coordinators are replaced in mid-air. After every step `watch.rs` judges from outside. Once the
//! faults stop, every job must come to its end. A failure prints its seed; `LSA_SEED=n` runs that seed alone and tells
//! every step.
//!
//! Checked to be found, one at a time: leases that never expire, progress that does not renew, a generation that was
//! found or made used again, a new leader that lends at once, dependencies not looked at, works dropped with the first
//! of their jobs or never, one attempt too many, a single crash that rejects, loans to a worker that drains or rests, or
//! for a paused job, a failed unit lent again to the worker on which it failed, a unit lent twice too early. Not found:
//! that the second worker on a unit is not told to stop once the first one's record stands.

#[path = "simulation/bucket.rs"]
mod bucket;
#[path = "simulation/fleet.rs"]
mod fleet;
#[path = "simulation/jobs.rs"]
mod jobs;
#[path = "simulation/watch.rs"]
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lsa_common::id::{AttemptId, Digest, JobId};
use lsa_common::job::Trials;
use lsa_common::key::digest_of;
use lsa_common::record::RunState;
use lsa_common::report::Damaged;
use lsa_common::time::Millis;
use lsa_common::unit::Unit;
use lsa_coordinator::plan::{Plan, What, Work, WorkId, plan};
use lsa_coordinator::scheduler::event::{
    Commit, CommitEnd, Departure, Effect, Event, Item, JobSettings, MergeEnd, MergeKeys,
};
use lsa_coordinator::scheduler::{ExperimentStatus, Settings, State};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use bucket::{Bucket, Place, Weather, items};
use fleet::{Heard, Poison, Slot};
use watch::Watch;

const SEEDS: u64 = 1_000;
const LEASE_TTL_MS: u64 = 60_000;
/// Faults happen up to here.
const CALM_FROM_MS: u64 = 8 * 60_000;
/// Everything has come to its end by here: the longest silence, lease and back-off after the last fault, and the work
/// itself several times over.
const END_BY_MS: u64 = CALM_FROM_MS + 60 * 60_000;
const TICK_MS: u64 = 1_000;

/// What will happen at some time.
#[derive(Clone, Debug)]
enum Happening {
    Tick,
    /// A worker's message arrives.
    Tell {
        epoch: u64,
        slot: usize,
        life: u64,
        session: u64,
        event: Event,
    },
    /// A coordinator's message arrives.
    Hear {
        slot: usize,
        session: u64,
        heard: Heard,
    },
    Progress {
        slot: usize,
        life: u64,
        attempt: AttemptId,
    },
    Finish {
        slot: usize,
        life: u64,
        attempt: AttemptId,
    },
    Reconnect {
        slot: usize,
        life: u64,
    },
    Respawn {
        slot: usize,
        same_name: bool,
    },
    /// The coordinator looks into the bucket.
    Look {
        epoch: u64,
        work: Arc<Work>,
        number: u64,
        jobs: Vec<JobId>,
        profile: String,
        rows_keys: Vec<Digest>,
    },
    /// A record is written.
    Land {
        epoch: u64,
        life: Option<u64>,
        commit: Arc<Commit>,
        weather: Weather,
    },
    Merge {
        epoch: u64,
        job: JobId,
        run: u32,
        experiment: usize,
        keys: MergeKeys,
    },
    /// The end of something that the coordinator did.
    Deliver {
        epoch: u64,
        event: Event,
    },
    Submit {
        job: usize,
    },
    Cancel {
        job: usize,
    },
    Pause {
        job: usize,
    },
    Resume {
        job: usize,
    },
    /// A user wants a worker to leave.
    Drain {
        slot: usize,
    },
    /// A machine is taken away: its worker says so and has little time.
    Preempt {
        slot: usize,
    },
    /// A worker that leaves waits no longer for its reports to be dealt with.
    Leave {
        slot: usize,
        life: u64,
    },
    Spoil,
    Restart,
}

/// Of how many trials each result was made, and their digest, by comparison and the most trials asked for.
type Results = BTreeMap<(Digest, u32), (u32, Digest)>;

struct Job {
    id: JobId,
    plan: Plan,
    settings: JobSettings,
    run: u32,
    running: bool,
    paused: bool,
}

struct World {
    seed: u64,
    told: bool,
    rng: ChaCha8Rng,
    now: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    n_scheduled: u64,
    state: State,
    epoch: u64,
    lend_after: u64,
    jobs: Vec<Job>,
    bucket: Bucket,
    /// The last survey of each work: one life of it.
    surveys: BTreeMap<WorkId, u64>,
    /// Trials and rows that somebody has found damaged.
    reopened: BTreeSet<Place>,
    slots: Vec<Slot>,
    poison: Option<Poison>,
    /// A place where every attempt fails, while there are faults.
    cursed: Option<usize>,
    watch: Watch,
    /// Nothing goes wrong.
    calm: bool,
    results: Results,
    /// Those of runs in which nothing went wrong.
    without_faults: Results,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "seed {} failed after {} ms; LSA_SEED={} tells its story",
                self.seed, self.now, self.seed
            );
        }
    }
}

impl World {
    fn new(seed: u64, told: bool, without_faults: &Results) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let bits = rng.next_u64();
        let specs = jobs::specs([bits & 1 == 0, bits & 2 == 0, bits & 4 == 0]);
        let job = |spec: &lsa_common::job::JobSpec| Job {
            id: spec.id(),
            plan: plan(spec),
            settings: JobSettings {
                continue_on_error: spec.run.continue_on_error,
                max_attempts: spec.run.max_attempts,
                priority: spec.run.priority,
                some_unresolved: false,
            },
            run: 0,
            running: false,
            paused: false,
        };
        let poison = match rng.next_u64() % 12 {
            0 => Some(Poison::Rejects),
            1 => Some(Poison::Panics),
            2 => Some(Poison::Crashes),
            _ => None,
        };
        let cursed = (rng.next_u64() % 6 == 0).then_some(0);
        let n_slots = 2 + (rng.next_u64() % 5) as usize;
        let two_profiles = rng.next_u64() % 3 == 0;
        let slot = |slot: usize| Slot {
            name: format!("worker-{slot}").parse().expect("a plain name"),
            life: 0,
            profile: if two_profiles && slot % 2 == 1 { "cpu-b" } else { "cpu-a" }.to_owned(),
            // The last of many is too small for anything but preparing texts.
            memory_bytes: if slot == 5 { 0 } else { 1 << 40 },
            alive: true,
            connected: false,
            session: 0,
            running: None,
            leaving: false,
            unacknowledged: Vec::new(),
        };
        Self {
            seed,
            told,
            now: 0,
            queue: BTreeMap::new(),
            n_scheduled: 0,
            state: State::new(Settings { lease_ttl_ms: LEASE_TTL_MS }, [1; 32], Millis(0)),
            epoch: 1,
            lend_after: 0,
            jobs: specs.iter().map(job).collect(),
            bucket: Bucket::default(),
            surveys: BTreeMap::new(),
            reopened: BTreeSet::new(),
            slots: (0..n_slots).map(slot).collect(),
            poison,
            cursed,
            watch: Watch::default(),
            calm: false,
            results: without_faults.clone(),
            without_faults: without_faults.clone(),
            rng,
        }
    }

    /// One where nothing goes wrong, and every worker is of that profile.
    fn calm(profile: &str) -> Self {
        let mut world = Self::new(0, false, &Results::new());
        world.calm = true;
        world.poison = None;
        world.cursed = None;
        for slot in &mut world.slots {
            slot.profile = profile.to_owned();
        }
        world
    }

    /// Schedules what does not follow from anything else.
    fn set_out(&mut self) {
        self.schedule(TICK_MS, Happening::Tick);
        for slot in 0..self.slots.len() {
            let at = self.below(5_000);
            self.schedule(at, Happening::Reconnect { slot, life: 0 });
        }
        for job in 0..self.jobs.len() {
            let at = self.below(CALM_FROM_MS / 2);
            self.schedule(if job == 0 { 0 } else { at }, Happening::Submit { job });
        }
    }

    /// Schedules what goes wrong by itself, and what users do meanwhile.
    fn set_traps(&mut self) {
        for job in 0..self.jobs.len() {
            if self.below(5) == 0 {
                let at = self.below(CALM_FROM_MS);
                self.schedule(at, Happening::Cancel { job });
            }
        }
        for _ in 0..self.below(4) {
            let (at, job) = (self.below(CALM_FROM_MS), self.below(3) as usize);
            self.schedule(at, Happening::Pause { job });
            let at = at + self.below(120_000);
            self.schedule(at, Happening::Resume { job });
        }
        for _ in 0..self.below(6) {
            let (at, slot) = (self.below(CALM_FROM_MS), self.below(self.slots.len() as u64) as usize);
            let drained = self.below(2) == 0;
            self.schedule(at, if drained { Happening::Drain { slot } } else { Happening::Preempt { slot } });
        }
        for _ in 0..self.below(12) {
            let at = self.below(CALM_FROM_MS);
            self.schedule(at, Happening::Spoil);
        }
        for _ in 0..self.below(3) {
            let at = self.below(CALM_FROM_MS);
            self.schedule(at, Happening::Restart);
        }
    }

    fn schedule(&mut self, at: u64, what: Happening) {
        self.n_scheduled += 1;
        self.queue.insert((at.max(self.now), self.n_scheduled), what);
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.rng.next_u64() % bound
    }

    /// Whether a fault of that chance happens here; never once faults have stopped.
    fn fault(&mut self, percent: u64) -> bool {
        self.below(100) < percent && self.now < CALM_FROM_MS && !self.calm
    }

    fn poison(&self, unit: &Unit) -> Option<Poison> {
        match unit {
            Unit::Extract(unit) if unit.model.id == "second" && unit.shard == 1 => self.poison,
            _ => None,
        }
    }

    fn work(&self, id: WorkId) -> Arc<Work> {
        let mut works = self.jobs.iter().flat_map(|job| &job.plan.works);
        works.find(|work| work.id == id).expect("of some job").clone()
    }

    fn run(&mut self) {
        while let Some(((at, _), what)) = self.queue.pop_first() {
            self.now = at;
            self.happen(what);
            if self.now > CALM_FROM_MS && self.is_over() {
                return;
            }
            assert!(self.now < END_BY_MS, "not everything came to its end: {}", self.what_is_left());
        }
    }

    /// Every job has ended, every worker is idle, every report was dealt with.
    fn is_over(&self) -> bool {
        let idle = |slot: &Slot| slot.connected && slot.running.is_none() && slot.unacknowledged.is_empty();
        self.jobs.iter().all(|job| job.run > 0 && !job.running) && self.slots.iter().all(idle)
    }

    fn what_is_left(&self) -> String {
        let mut text = String::new();
        for job in self.jobs.iter().filter(|job| job.running) {
            text += &format!("\n{}: {:#?}", job.id, self.state.job_view(&job.id));
        }
        for slot in &self.slots {
            let running = slot.running.as_ref().map(|running| (&running.unit, running.attempt));
            text += &format!("\n{}: {running:?}, not acknowledged: {:?}", slot.name, slot.unacknowledged);
        }
        text
    }

    fn happen(&mut self, what: Happening) {
        if self.told && !matches!(what, Happening::Tick) {
            println!("{:>8} {what:?}", self.now);
        }
        let lives = |world: &Self, slot: usize, life: u64| world.slots[slot].life == life;
        match what {
            Happening::Tick => {
                self.apply(Event::Tick);
                self.schedule(self.now + TICK_MS, Happening::Tick);
            }
            Happening::Tell { epoch, slot, life, session, event } => {
                // A stream that has a successor is not missed.
                let left = matches!(&event, Event::WorkerLeft { departure: Departure::Disconnected, .. });
                let of_stream = left || matches!(&event, Event::WorkerDraining { .. });
                let old = self.slots[slot].session != session || !lives(self, slot, life);
                if epoch == self.epoch && !(of_stream && old) {
                    self.apply(event);
                }
            }
            Happening::Hear { slot, session, heard } => {
                if self.slots[slot].connected && self.slots[slot].session == session {
                    self.hear(slot, heard);
                }
            }
            Happening::Progress { slot, life, attempt } if lives(self, slot, life) => {
                self.progress(slot, attempt);
            }
            Happening::Finish { slot, life, attempt } if lives(self, slot, life) => {
                self.finish(slot, attempt);
            }
            Happening::Reconnect { slot, life } if lives(self, slot, life) => self.connect(slot),
            Happening::Leave { slot, life } if lives(self, slot, life) && self.slots[slot].alive => {
                self.vanish(slot);
            }
            Happening::Progress { .. }
            | Happening::Finish { .. }
            | Happening::Reconnect { .. }
            | Happening::Leave { .. } => {}
            Happening::Respawn { slot, same_name } => self.respawn(slot, same_name),
            Happening::Look { epoch, work, number, jobs, profile, rows_keys } => {
                if epoch != self.epoch {
                    return;
                }
                let event = if self.fault(15) {
                    Event::SurveyFailed { work: work.id, number, message: "it rains".to_owned() }
                } else {
                    let runs: Vec<_> = self.jobs.iter().filter(|job| jobs.contains(&job.id)).collect();
                    let runs: Vec<_> = runs.iter().map(|job| (job.id.clone(), job.run)).collect();
                    let survey = self.bucket.survey(&work, &runs, &profile, &rows_keys);
                    Event::Surveyed { work: work.id, number, survey }
                };
                self.deliver(event);
            }
            Happening::Land { epoch, life, commit, weather } => {
                // A write that a dead coordinator has sent may arrive.
                if epoch != self.epoch && self.below(2) == 0 {
                    return;
                }
                let newest = |bucket: &Bucket, place: &Place| bucket.newest(place).map(|(newest, _)| newest);
                let places = bucket::makes(&commit.payload);
                let before: Vec<_> = places.iter().map(|place| newest(&self.bucket, place)).collect();
                let end = self.bucket.commit(&commit, weather);
                if epoch == self.epoch {
                    if end == CommitEnd::Recorded
                        && let Some((work, _)) = Work::parse_unit_id(&commit.report.unit)
                    {
                        for (place, before) in places.into_iter().zip(before) {
                            if newest(&self.bucket, &place) == before {
                                let known = self.bucket.is_known(&place, work);
                                assert!(!known, "{place:?} is recorded as a generation that the work knows");
                                // Another one's record ends the matter; if that is damaged, it will be met again.
                                self.watch_foreign_record(&place);
                            } else {
                                self.reopened.remove(&place);
                            }
                            // The end of a commit for an earlier life of the work says nothing to this one.
                            if self.surveys.get(&work).copied() == life {
                                self.bucket.tell(&place, work);
                            }
                        }
                    }
                    let (unit, attempt) = (commit.report.unit.clone(), commit.report.attempt);
                    self.deliver(Event::Committed { unit, attempt, end });
                }
            }
            Happening::Merge { epoch, job, run, experiment, keys } => {
                self.merge(epoch, job, run, experiment, &keys)
            }
            Happening::Deliver { epoch, event } => {
                if epoch == self.epoch {
                    self.apply(event);
                }
            }
            Happening::Submit { job } => self.submit(job),
            Happening::Cancel { job } => {
                if self.jobs[job].running {
                    self.met("cancelled");
                    self.apply(Event::JobCancelled { job: self.jobs[job].id.clone() });
                }
            }
            Happening::Pause { job } => {
                if self.jobs[job].running {
                    self.met("paused");
                    self.jobs[job].paused = true;
                    self.apply(Event::JobPaused { job: self.jobs[job].id.clone() });
                }
            }
            Happening::Resume { job } => {
                self.jobs[job].paused = false;
                self.apply(Event::JobResumed { job: self.jobs[job].id.clone() });
            }
            Happening::Drain { slot } => {
                self.met("drained");
                self.apply(Event::DrainRequested { worker: self.slots[slot].name.clone() });
            }
            Happening::Preempt { slot } => self.preempt(slot),
            Happening::Spoil => {
                let pick = self.below(1 << 30) as usize;
                self.bucket.spoil(pick);
            }
            Happening::Restart => self.restart(),
        }
    }

    fn deliver(&mut self, event: Event) {
        let at = self.now + 1 + self.below(500);
        self.schedule(at, Happening::Deliver { epoch: self.epoch, event });
    }

    fn submit(&mut self, job: usize) {
        let it = &mut self.jobs[job];
        if it.running {
            return;
        }
        it.run += 1;
        self.accept(job);
    }

    fn accept(&mut self, job: usize) {
        let it = &mut self.jobs[job];
        it.running = true;
        it.paused = false;
        let event = Event::JobAccepted { job: it.id.clone(), plan: it.plan.clone(), settings: it.settings };
        self.watch_acceptance();
        self.apply(event);
    }

    /// A coordinator dies; the next one reads what is unfinished and lends nothing for a lease.
    fn restart(&mut self) {
        self.epoch += 1;
        self.lend_after = self.now + LEASE_TTL_MS;
        let seed = [u8::try_from(self.epoch).expect("few"); 32];
        self.state = State::new(Settings { lease_ttl_ms: LEASE_TTL_MS }, seed, Millis(self.lend_after));
        self.watch_restart();
        for slot in 0..self.slots.len() {
            if self.slots[slot].connected {
                self.disconnect(slot);
            }
        }
        for job in 0..self.jobs.len() {
            if self.jobs[job].running {
                self.accept(job);
            }
        }
    }

    /// Reads every trial as a merge does.
    fn merge(&mut self, epoch: u64, job: JobId, run: u32, experiment: usize, keys: &MergeKeys) {
        let known = self.jobs.iter().find(|known| known.id == job && known.run == run);
        let Some(known) = known.filter(|_| epoch == self.epoch) else { return };
        let planned = known.plan.experiments[experiment];
        let comparison = self.work(planned.comparison);
        let What::Compare(what) = &comparison.what else { panic!("experiments end in comparisons") };
        let extraction = self.work(what.sides[planned.side].extraction);
        // Another job's extraction may have other poolings besides.
        let own = |place: &Place| place.2 == Item::Rows(what.pooling);
        for place in items(&extraction, keys.extraction_key).into_iter().filter(own) {
            assert!(self.bucket.newest(&place).is_some(), "merged without {place:?}");
        }
        let is_there = |place: &Place| matches!(place.2, Item::Trial(trial) if trial < keys.n_trials);
        let trials = items(&comparison, keys.comparison_key);
        let broken = trials.iter().copied().filter(is_there).find(|place| {
            let (_, intact) = self.bucket.newest(place).expect("merged without a trial");
            !intact
        });
        let enough = self.enough(keys, what.settings.trials);
        // Experiments that save their rows read them as well.
        let torn = items(&extraction, keys.extraction_key).into_iter().find(|place| {
            place.2 == Item::Rows(what.pooling)
                && self.bucket.newest(place).is_some_and(|(_, intact)| !intact)
        });
        let end = if self.fault(10) {
            self.watch.merge_troubles += 1;
            MergeEnd::Trouble("it rains".to_owned())
        } else if let Some(place @ (_, trial, Item::Trial(_))) = broken {
            self.reopened.insert(place);
            self.met("damaged trial");
            MergeEnd::Damaged { trial }
        } else if let Err(trials) = enough {
            self.met("too few trials");
            MergeEnd::TooFew { trials }
        } else if let Some(place @ (extraction_key, shard, _)) = torn.filter(|_| self.seed.is_multiple_of(2))
        {
            self.reopened.insert(place);
            self.met("damaged rows");
            let pooling = what.pooling;
            MergeEnd::DamagedSource(Damaged::Shard { extraction_key, pooling, shard })
        } else {
            let n_trials = enough.expect("looked at above");
            let used = trials[..n_trials as usize].iter().map(|place| self.bucket.digest(place));
            let digest = digest_of("result", &used.collect::<Vec<_>>());
            let key = (keys.comparison_key, what.settings.trials.at_most());
            if self.without_faults.contains_key(&key) {
                self.met("result compared with the one without faults");
            }
            // Whatever else there is in the bucket, and whoever has asked for it.
            let result = self.results.entry(key).or_insert((n_trials, digest));
            assert_eq!(*result, (n_trials, digest), "another result than before or without faults");
            MergeEnd::Written
        };
        self.deliver(Event::Merged { job, experiment, end });
    }

    /// The trials that the result is made of, or those that it needs: how many depends on nothing but the comparison.
    fn enough(&self, keys: &MergeKeys, trials: Trials) -> Result<u32, u32> {
        let n_looks = u32::from(keys.comparison_key.to_string().as_bytes()[0]) % 4;
        let mut n_trials = trials.at_first();
        for _ in 0..n_looks {
            n_trials = trials.after(n_trials).unwrap_or(n_trials);
            // Each look is at trials that are there.
            if n_trials > keys.n_trials {
                return Err(n_trials);
            }
        }
        assert!(n_trials <= keys.n_trials, "merged without all trials");
        Ok(n_trials)
    }

    fn apply(&mut self, event: Event) {
        self.watch_event(&event);
        let effects = self.state.apply(Millis(self.now), event.clone());
        if self.told {
            for effect in &effects {
                println!("{:>8}   -> {effect:?}", self.now);
            }
        }
        for effect in &effects {
            if let Effect::EndJob { job, .. } = effect {
                let it = self.jobs.iter_mut().find(|it| it.id == *job).expect("it was accepted");
                it.running = false;
            }
        }
        self.watch_effects(&event, &effects);
        for effect in effects {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        let at = self.now + 1 + self.below(400);
        let epoch = self.epoch;
        match effect {
            Effect::Survey { work, number, jobs, numeric_profile, rows_keys } => {
                // From now on the work knows only what it is told.
                let id = work.id;
                self.bucket.forget(|known| *known == id);
                self.surveys.insert(id, number);
                let profile = numeric_profile;
                self.schedule(at, Happening::Look { epoch, work, number, jobs, profile, rows_keys });
            }
            Effect::Lend { worker, unit, payload, attempt, .. } => {
                self.say(&worker, Heard::Lease(unit, attempt, payload));
            }
            Effect::Stop { worker, attempt, .. } => self.say(&worker, Heard::Stop(attempt)),
            Effect::Acknowledge { worker, attempt, .. } => self.say(&worker, Heard::Acknowledged(attempt)),
            Effect::Commit(commit) => {
                let weather = match self.fault(15) {
                    true => Weather::TroubleAfter(self.below(4) as usize),
                    false => Weather::Fair,
                };
                let late = if self.fault(5) { self.below(20_000) } else { 0 };
                let work = Work::parse_unit_id(&commit.report.unit).map(|(work, _)| work);
                let life = work.and_then(|work| self.surveys.get(&work).copied());
                self.schedule(at + late, Happening::Land { epoch, life, commit, weather });
            }
            Effect::Drain { worker } => self.say(&worker, Heard::Drain),
            Effect::RecordFailure(_) => {}
            Effect::RollUp(block) => {
                unreachable!("{} shards are too few for a block", block.generations.len())
            }
            Effect::Merge { job, experiment, keys } => {
                let run = self.jobs.iter().find(|it| it.id == job).expect("it was accepted").run;
                self.schedule(at, Happening::Merge { epoch, job, run, experiment, keys });
            }
            Effect::EndJob { job, state } => {
                if state != RunState::Done {
                    self.met("ended otherwise than done");
                }
                let number = self.jobs.iter().position(|it| it.id == job).expect("it was accepted");
                if self.fault(50) && self.jobs[number].run < 3 {
                    let at = self.now + self.below(60_000);
                    self.schedule(at, Happening::Submit { job: number });
                    self.met("submitted again");
                }
            }
        }
    }

    fn say(&mut self, worker: &lsa_common::id::WorkerId, heard: Heard) {
        let at = self.now + 2 + self.below(100);
        let Some(slot) = self.slots.iter().position(|slot| slot.name == *worker) else { return };
        let session = self.slots[slot].session;
        self.schedule(at, Happening::Hear { slot, session, heard });
    }
}

/// The results of runs in which nothing goes wrong, for each profile that a fleet may be of.
fn results_without_faults() -> Results {
    let results = ["cpu-a", "cpu-b"].map(|profile| {
        let mut world = World::calm(profile);
        world.set_out();
        world.run();
        std::mem::take(&mut world.results)
    });
    results.into_iter().flatten().collect()
}

/// Runs one seed; what it met.
fn simulate(seed: u64, told: bool, without_faults: &Results) -> BTreeMap<&'static str, u64> {
    let mut world = World::new(seed, told, without_faults);
    world.set_out();
    world.set_traps();
    world.run();
    for job in &world.jobs {
        let experiments = world.state.experiments(&job.id);
        let open = |status: &ExperimentStatus| {
            matches!(status, ExperimentStatus::Waiting | ExperimentStatus::Merging)
        };
        assert!(!experiments.iter().any(open));
    }
    std::mem::take(&mut world.watch.met)
}

#[test]
fn every_job_comes_to_its_end_whatever_happens() {
    let without_faults = results_without_faults();
    if let Ok(seed) = std::env::var("LSA_SEED") {
        simulate(seed.parse().expect("LSA_SEED is a number"), true, &without_faults);
        return;
    }
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = &|first: usize| {
        let mut met: BTreeMap<&'static str, u64> = BTreeMap::new();
        for seed in (first as u64..SEEDS).step_by(n_threads) {
            add(&mut met, simulate(seed, false, &without_faults));
        }
        met
    };
    let mut met = BTreeMap::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads).map(|first| scope.spawn(move || share(first))).collect();
        for thread in threads {
            add(&mut met, thread.join().expect("its seed and its reason are printed above"));
        }
    });
    println!("{met:#?}");
    for what in [
        "cancelled",
        "damaged input",
        "damaged rows",
        "damaged trial",
        "drained",
        "ended otherwise than done",
        "expired",
        "handed back",
        "late report",
        "paused",
        "preempted",
        "refused",
        "rejoined holding a unit",
        "rested",
        "restart",
        "result compared with the one without faults",
        "straggler",
        "submitted again",
        "too few trials",
        "trouble during a commit",
    ] {
        assert!(met.get(what).is_some_and(|n| *n >= SEEDS / 20), "{what} was hardly met: {met:?}");
    }
}

fn add(sum: &mut BTreeMap<&'static str, u64>, met: BTreeMap<&'static str, u64>) {
    for (what, n) in met {
        *sum.entry(what).or_default() += n;
    }
}

#[test]
fn a_seed_replays_exactly() {
    let without_faults = results_without_faults();
    assert_eq!(simulate(7, false, &without_faults), simulate(7, false, &without_faults));
}
