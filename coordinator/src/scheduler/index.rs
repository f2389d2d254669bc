//! Indexes over works, jobs and workers, so that no event looks at all of them.
//!
//! Whoever changes a work or a worker says so with `touch`; before an event ends, everything touched is brought in
//! line: works that can move on do, and the indexes say again who could be lent what. Nothing else writes to them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lsa_common::id::{Digest, JobId, WorkerId};
use lsa_common::time::Millis;

use super::timer::Due;
use super::work::{WorkState, WorkStatus};
use super::{State, jobs::Job};
use crate::plan::WorkId;

/// What a unit needs of a worker, or what a worker has to offer. Units that any profile can run need the empty one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    pub profile: Arc<str>,
    pub memory_bytes: u64,
}

/// Late stages first: an experiment's results are worth more than another one's beginning.
pub(super) type Rank = (Reverse<u8>, WorkId);

/// Works by what their units need.
#[derive(Debug, Default)]
pub(super) struct Shelf(BTreeMap<Kind, BTreeSet<Rank>>);

/// The works of a job of which something could be done.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// With a unit that is ready.
    pub open: Shelf,
    /// With nothing ready, and a unit with which its worker lags.
    pub lagging: Shelf,
    /// That wait for a worker to bind them to its profile.
    pub unbound: Shelf,
}

/// Where a job stands among those that have something to be done: by priority, then by the units lent for it, then by
/// age.
pub(super) type Turn = (Reverse<i32>, u64, u64, JobId);

/// What the indexes say of a work.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// Works that it reads and that are not done.
    pub n_unmet: usize,
    is_done: bool,
    is_surveying: bool,
    key: Option<Digest>,
    n_ready: usize,
    /// When it will be looked at for units that lag.
    looked_at: Option<Millis>,
    n_leased: u64,
    place: Option<Place>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    on: On,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    Open,
    Lagging,
    Unbound,
}

impl Shelf {
    /// Works that a worker could run, the best first.
    pub fn fitting<'a>(&'a self, worker: &Kind) -> impl Iterator<Item = WorkId> + 'a {
        let of = |profile: Arc<str>| {
            let least = Kind { profile: profile.clone(), memory_bytes: 0 };
            self.0.range(least..=Kind { profile, memory_bytes: worker.memory_bytes })
        };
        let kinds = of("".into()).chain(of(worker.profile.clone()));
        let mut heads: Vec<_> = kinds.map(|(_, works)| works.iter().peekable()).collect();
        std::iter::from_fn(move || {
            let best = heads.iter_mut().filter_map(|head| Some((*head.peek()?, head)));
            let (_, head) = best.min_by_key(|(rank, _)| *rank)?;
            head.next().map(|(_, work)| *work)
        })
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn insert(&mut self, kind: &Kind, rank: Rank) {
        self.0.entry(kind.clone()).or_default().insert(rank);
    }

    fn remove(&mut self, kind: &Kind, rank: Rank) {
        let Some(works) = self.0.get_mut(kind) else { return };
        works.remove(&rank);
        if works.is_empty() {
            self.0.remove(kind);
        }
    }
}

impl Queue {
    fn shelf(&mut self, on: On) -> &mut Shelf {
        match on {
            On::Open => &mut self.open,
            On::Lagging => &mut self.lagging,
            On::Unbound => &mut self.unbound,
        }
    }

    fn is_empty(&self) -> bool {
        self.open.is_empty() && self.lagging.is_empty() && self.unbound.is_empty()
    }
}

impl WorkState {
    fn rank(&self) -> Rank {
        (Reverse(self.stage()), self.work.id)
    }

    /// Whether it has a unit that could be lent.
    pub(super) fn is_lendable(&self) -> bool {
        self.entry.place.as_ref().is_some_and(|place| place.on == On::Open)
    }

    /// Whether a worker could run its units.
    pub(super) fn fits(&self, worker: &Kind) -> bool {
        let bound = self.numeric_profile.is_empty() || self.numeric_profile == worker.profile;
        bound && self.work.memory_bytes <= worker.memory_bytes
    }

    fn place(&self, now: Millis) -> Option<Place> {
        let on = match self.status {
            _ if self.entry.n_unmet > 0 => return None,
            WorkStatus::Open if self.has_ready() => On::Open,
            WorkStatus::Open if self.lags_at().is_some_and(|at| at <= now) => On::Lagging,
            WorkStatus::Unbound if self.binds_profile() && now >= self.not_before => On::Unbound,
            _ => return None,
        };
        let profile = self.numeric_profile.clone();
        Some(Place { on, kind: Kind { profile, memory_bytes: self.work.memory_bytes } })
    }
}

impl State {
    /// A work, to be changed.
    pub(super) fn touch(&mut self, id: WorkId) -> Option<&mut WorkState> {
        let state = self.works.get_mut(&id)?;
        if self.touched.last() != Some(&id) {
            self.touched.push(id);
        }
        Some(state)
    }

    /// Adds a work, unless it is known.
    pub(super) fn add_work(&mut self, work: &Arc<crate::plan::Work>) {
        if self.works.contains_key(&work.id) {
            return;
        }
        let reads: BTreeSet<WorkId> = work.depends_on.iter().copied().collect();
        let mut state = WorkState::new(work.clone());
        let is_met = |read: &&WorkId| self.works.get(read).is_some_and(|state| state.entry.is_done);
        state.entry.n_unmet = reads.len() - reads.iter().filter(is_met).count();
        self.works.insert(work.id, state);
        for read in reads {
            self.readers.entry(read).or_default().insert(work.id);
        }
        self.touched.push(work.id);
    }

    /// Forgets a work that nobody wants any more.
    pub(super) fn remove_work(&mut self, id: WorkId) {
        self.withdraw(id);
        let Some(mut state) = self.works.remove(&id) else { return };
        self.touched_workers.extend(state.take_freed());
        self.n_surveying -= usize::from(state.entry.is_surveying);
        if let Some(key) = state.entry.key {
            remove_from(&mut self.by_key, &key, &id);
        }
        for read in &state.work.depends_on {
            remove_from(&mut self.readers, read, &id);
        }
        if state.entry.is_done {
            self.set_met(id, false);
        }
    }

    /// Brings everything that was touched in line, and whatever follows from that.
    pub(super) fn bring_in_line(&mut self, now: Millis) {
        loop {
            if let Some(work) = self.touched.pop() {
                self.advance(now, work);
                self.index_work(now, work);
            } else if let Some(work) = self.ended.pop_first() {
                self.settle(now, work);
            } else if let Some(worker) = self.touched_workers.pop() {
                self.index_worker(now, &worker);
            } else {
                return;
            }
        }
    }

    fn index_work(&mut self, now: Millis, id: WorkId) {
        let Some(state) = self.works.get_mut(&id) else { return };
        self.touched_workers.extend(state.take_freed());

        let is_surveying = matches!(state.status, WorkStatus::Surveying(_));
        self.n_surveying =
            self.n_surveying + usize::from(is_surveying) - usize::from(state.entry.is_surveying);
        // There is room for another survey.
        self.retry_idle |= state.entry.is_surveying && !is_surveying;
        state.entry.is_surveying = is_surveying;

        if state.entry.key != state.key {
            if let Some(key) = state.entry.key {
                remove_from(&mut self.by_key, &key, &id);
            }
            if let Some(key) = state.key {
                self.by_key.entry(key).or_default().insert(id);
            }
            state.entry.key = state.key;
        }

        let lags_at = state.lags_at().filter(|at| state.status == WorkStatus::Open && *at > now);
        // The time moves with every unit that is done, mostly to later: one look waits, and sees then.
        if let Some(at) = lags_at.filter(|at| state.entry.looked_at.is_none_or(|waits| *at < waits)) {
            state.entry.looked_at = Some(at);
            self.timers.insert((at, Due::Straggler(id)));
        }

        let place = state.place(now);
        let n_ready = state.ready().len();
        // Somebody who could not have the others may have this one.
        self.retry_idle |= n_ready > std::mem::replace(&mut state.entry.n_ready, n_ready) && place.is_some();
        if place != state.entry.place {
            self.withdraw(id);
            self.enter(id, place);
        } else {
            self.count_leases(id);
        }

        let Some(state) = self.works.get_mut(&id) else { return };
        let is_done = state.status == WorkStatus::Done;
        if matches!(state.status, WorkStatus::Done | WorkStatus::Failed(_)) && self.awaited.contains_key(&id)
        {
            self.ended.insert(id);
        }
        if std::mem::replace(&mut state.entry.is_done, is_done) != is_done {
            self.set_met(id, is_done);
        }
    }

    /// Looks at a work for units that lag: the time has come that was waited for.
    pub(super) fn look_for_stragglers(&mut self, id: WorkId) {
        if let Some(state) = self.touch(id) {
            state.entry.looked_at = None;
        }
    }

    /// Tells the works that read this one whether it is done.
    fn set_met(&mut self, id: WorkId, is_met: bool) {
        for reader in self.readers.get(&id).cloned().unwrap_or_default() {
            let Some(state) = self.touch(reader) else { continue };
            let n_unmet = &mut state.entry.n_unmet;
            *n_unmet = if is_met { n_unmet.saturating_sub(1) } else { *n_unmet + 1 };
        }
    }

    /// Takes a work out of the queues of its jobs; touched, it is entered again.
    pub(super) fn withdraw(&mut self, id: WorkId) {
        let Some(state) = self.works.get_mut(&id) else { return };
        let place = state.entry.place.take();
        let n_leased = std::mem::take(&mut state.entry.n_leased);
        let rank = state.rank();
        for name in &state.jobs {
            let Some(job) = self.jobs.get_mut(name) else { continue };
            job.n_lent -= n_leased;
            if let Some(Place { on, kind }) = &place {
                job.queue.shelf(*on).remove(kind, rank);
            }
            take_turn(&mut self.turns, name, job);
        }
    }

    fn enter(&mut self, id: WorkId, place: Option<Place>) {
        let Some(state) = self.works.get_mut(&id) else { return };
        let (rank, n_leased) = (state.rank(), state.n_leased());
        for name in &state.jobs {
            let Some(job) = self.jobs.get_mut(name) else { continue };
            job.n_lent += n_leased;
            if let Some(Place { on, kind }) = &place {
                job.queue.shelf(*on).insert(kind, rank);
            }
            take_turn(&mut self.turns, name, job);
        }
        self.retry_idle |= place.is_some();
        state.entry.place = place;
        state.entry.n_leased = n_leased;
    }

    /// Counts anew what workers have of a work that stays where it is.
    fn count_leases(&mut self, id: WorkId) {
        let Some(state) = self.works.get_mut(&id) else { return };
        let n_leased = state.n_leased();
        let before = std::mem::replace(&mut state.entry.n_leased, n_leased);
        if n_leased == before {
            return;
        }
        for name in &state.jobs {
            let Some(job) = self.jobs.get_mut(name) else { continue };
            job.n_lent = job.n_lent + n_leased - before;
            take_turn(&mut self.turns, name, job);
        }
    }

    fn index_worker(&mut self, now: Millis, id: &WorkerId) {
        let Some(worker) = self.workers.get(id) else { return };
        let kind = worker.kind.clone();
        let may_be_lent = worker.may_be_lent(now);
        let is_available = may_be_lent && !worker.silent;
        let is_idle = may_be_lent && worker.has_asked && !self.has_unit(id, worker);
        let Some(worker) = self.workers.get_mut(id) else { return };
        let was_available = std::mem::replace(&mut worker.entry.is_available, is_available);
        let was_idle = std::mem::replace(&mut worker.entry.is_idle, is_idle);
        self.count_available(&kind, was_available, is_available);
        match (was_idle, is_idle) {
            (false, true) => {
                self.idle.entry(kind).or_default().insert(id.clone());
                self.newly_idle.insert(id.clone());
            }
            (true, false) => {
                remove_from(&mut self.idle, &kind, id);
                self.newly_idle.remove(id);
            }
            (true, true) | (false, false) => {}
        }
    }

    /// Takes a worker that is gone, or comes anew, out of the indexes.
    pub(super) fn withdraw_worker(&mut self, id: &WorkerId, worker: &super::workers::Worker) {
        self.count_available(&worker.kind, worker.entry.is_available, false);
        remove_from(&mut self.idle, &worker.kind, id);
        self.newly_idle.remove(id);
    }

    fn count_available(&mut self, kind: &Kind, was: bool, is: bool) {
        if was == is {
            return;
        }
        // Units that were left to this worker may be lent to others now.
        self.retry_idle |= was;
        let count = self.available.entry(kind.clone()).or_default();
        *count = *count + usize::from(is) - usize::from(was);
        if *count == 0 {
            self.available.remove(kind);
        }
    }
}

/// Puts a job where it belongs among those that have something to be done.
pub(super) fn take_turn(turns: &mut BTreeSet<Turn>, name: &JobId, job: &mut Job) {
    let has_turn = job.ended.is_none() && !job.paused && !job.queue.is_empty();
    let turn = has_turn.then(|| (Reverse(job.settings.priority), job.n_lent, job.number, name.clone()));
    if job.turn == turn {
        return;
    }
    if let Some(before) = &job.turn {
        turns.remove(before);
    }
    turns.extend(turn.clone());
    job.turn = turn;
}

fn remove_from<K: Ord, V: Ord>(sets: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    let Some(set) = sets.get_mut(key) else { return };
    set.remove(value);
    if set.is_empty() {
        sets.remove(key);
    }
}
