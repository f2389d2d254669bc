//! Workers that ask, progress and report as real ones do, and that die, stall, vanish and lose their streams.

use lsa_common::failure::FailureClass;
use lsa_common::id::{AttemptId, UnitId, WorkerId};
use lsa_common::record::ExtractNotes;
use lsa_common::report::{Damaged, Extracted, Failure, Outcome, Prepared};
use lsa_common::trial_matrices::TrialMatrices;
use lsa_common::unit::Unit;
use lsa_coordinator::scheduler::event::{Departure, Event, Item, Reported};

use crate::bucket::{Place, reads};
use crate::{CALM_FROM_MS, Happening, World};

/// How long a worker that leaves waits for its reports to be dealt with.
const LEAVE_AFTER_MS: u64 = 30_000;

/// A place where worker processes follow each other.
pub struct Slot {
    /// The process that is there now.
    pub name: WorkerId,
    /// Of all processes of this slot.
    pub life: u64,
    /// What it computes with.
    pub profile: String,
    /// What its units may use.
    pub memory_bytes: u64,
    /// The process is there.
    pub alive: bool,
    /// Its stream is up.
    pub connected: bool,
    /// Of all its streams.
    pub session: u64,
    /// What it computes.
    pub running: Option<Running>,
    /// It takes nothing more and ends once its reports are dealt with.
    pub leaving: bool,
    /// Reports that nobody has acknowledged.
    pub unacknowledged: Vec<Reported>,
}

/// An attempt in progress.
pub struct Running {
    /// Which unit.
    pub unit: UnitId,
    /// Which attempt.
    pub attempt: AttemptId,
    payload: Unit,
    fate: Fate,
}

/// What a worker hears.
#[derive(Clone, Debug)]
pub enum Heard {
    /// Work.
    Lease(UnitId, AttemptId, Box<Unit>),
    /// To give an attempt up.
    Stop(AttemptId),
    /// To finish what it has and to leave.
    Drain,
    /// That a report has been dealt with.
    Acknowledged(AttemptId),
}

/// How an attempt will end.
#[derive(Clone, Debug)]
enum Fate {
    Done,
    /// Done, after a silence longer than a lease.
    Stalls,
    /// Done, much later than others would be, and with signs of life all the time.
    Lags,
    /// It reports data that never arrived in the bucket.
    Loses,
    Fails(FailureClass),
    Panics,
    Meets(Damaged),
    HandsBack,
    Exits {
        faulted: bool,
    },
    /// The machine is gone; nobody tells.
    Vanishes,
}

/// A unit that no worker can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poison {
    /// Every worker says so.
    Rejects,
    /// Every worker panics on it.
    Panics,
    /// Every worker process dies of it.
    Crashes,
}

impl World {
    /// Tells the coordinator something over the slot's stream, now and then twice.
    fn tell(&mut self, slot: usize, event: Event) {
        let at = self.now + 2 + self.below(100);
        let tell = Happening::Tell {
            epoch: self.epoch,
            slot,
            life: self.slots[slot].life,
            session: self.slots[slot].session,
            event,
        };
        if self.fault(5) {
            let again = at + self.below(5_000);
            self.schedule(again, tell.clone());
        }
        self.schedule(at, tell);
    }

    /// Opens a stream: says what it holds, sends what is unacknowledged, asks if it is idle.
    pub fn connect(&mut self, slot: usize) {
        let at = self.now + 1;
        let it = &mut self.slots[slot];
        if !it.alive || it.connected {
            return;
        }
        it.session += 1;
        it.connected = true;
        let running = it.running.iter().map(|running| (running.unit.clone(), running.attempt));
        let reported = it.unacknowledged.iter().map(|report| (report.unit.clone(), report.attempt));
        let joined = Event::WorkerJoined {
            worker: it.name.clone(),
            numeric_profile: it.profile.clone(),
            memory_bytes: it.memory_bytes,
            held: running.chain(reported).collect(),
        };
        let reports = it.unacknowledged.clone();
        let idle = it.running.is_none() && !it.leaving;
        let leaving = it.leaving;
        let (life, session, worker) = (it.life, it.session, it.name.clone());
        self.schedule(at, Happening::Tell { epoch: self.epoch, slot, life, session, event: joined });
        if leaving {
            self.tell(slot, Event::WorkerDraining { worker: worker.clone() });
        }
        for report in reports {
            self.tell(slot, Event::Reported(Box::new(report)));
        }
        if idle {
            self.tell(slot, Event::WorkerAsked { worker });
        }
    }

    /// The stream breaks. The coordinator learns of it sooner or later, and the worker comes back.
    pub fn disconnect(&mut self, slot: usize) {
        let it = &mut self.slots[slot];
        if !it.connected {
            return;
        }
        it.connected = false;
        let life = it.life;
        let event = Event::WorkerLeft { worker: it.name.clone(), departure: Departure::Disconnected };
        self.tell(slot, event);
        let long = self.fault(10);
        let wait = 200 + self.below(if long { 100_000 } else { 10_000 });
        self.schedule(self.now + wait, Happening::Reconnect { slot, life });
    }

    /// A worker hears something.
    pub fn hear(&mut self, slot: usize, heard: Heard) {
        let it = &mut self.slots[slot];
        match heard {
            Heard::Lease(unit, attempt, payload) => {
                // Not asked for: a real worker leaves it alone, too.
                if it.running.is_none() && !it.leaving {
                    self.begin(slot, unit, attempt, *payload);
                }
            }
            Heard::Stop(attempt) => {
                it.unacknowledged.retain(|report| report.attempt != attempt);
                let life = it.life;
                if let Some(running) = it.running.as_mut().filter(|running| running.attempt == attempt) {
                    running.fate = Fate::HandsBack;
                    let at = self.now + self.below(2_000);
                    self.schedule(at, Happening::Finish { slot, life, attempt });
                }
            }
            Heard::Acknowledged(attempt) => it.unacknowledged.retain(|report| report.attempt != attempt),
            Heard::Drain => it.leaving = true,
        }
        self.leave_if_idle(slot);
    }

    /// A worker that was told to leave, or is made to, does so once nothing of it is in the air, or after a while.
    fn leave_if_idle(&mut self, slot: usize) {
        let it = &self.slots[slot];
        if !it.leaving || it.running.is_some() {
            return;
        }
        if it.connected && it.unacknowledged.is_empty() {
            self.vanish(slot);
        } else {
            let life = it.life;
            self.schedule(self.now + LEAVE_AFTER_MS, Happening::Leave { slot, life });
        }
    }

    /// The machine is taken away: the worker hands back what it has, or does not live to do so.
    pub fn preempt(&mut self, slot: usize) {
        let it = &mut self.slots[slot];
        if !it.alive || !it.connected {
            return;
        }
        it.leaving = true;
        let (life, worker) = (it.life, it.name.clone());
        self.met("preempted");
        self.tell(slot, Event::WorkerDraining { worker });
        let survives = self.below(3) != 0;
        let at = self.now + self.below(4_000);
        if let Some(running) = &mut self.slots[slot].running {
            running.fate = if survives { Fate::HandsBack } else { Fate::Vanishes };
            let attempt = running.attempt;
            self.schedule(at, Happening::Finish { slot, life, attempt });
        }
        self.leave_if_idle(slot);
    }

    fn begin(&mut self, slot: usize, unit: UnitId, attempt: AttemptId, payload: Unit) {
        let fate = self.fate(slot, &payload);
        let lasts = match fate {
            Fate::Stalls => 65_000 + self.below(90_000),
            Fate::Lags => 100_000 + self.below(200_000),
            _ => 500 + self.below(30_000),
        };
        let life = self.slots[slot].life;
        self.slots[slot].running = Some(Running { unit, attempt, payload, fate });
        self.schedule(self.now + lasts, Happening::Finish { slot, life, attempt });
        self.schedule(self.now + 10_000, Happening::Progress { slot, life, attempt });
    }

    fn fate(&mut self, slot: usize, payload: &Unit) -> Fate {
        if let Some(damaged) = self.damage_met(payload) {
            return Fate::Meets(damaged);
        }
        match self.poison(payload) {
            Some(Poison::Rejects) => return Fate::Fails(FailureClass::Reject),
            Some(Poison::Panics) => return Fate::Panics,
            Some(Poison::Crashes) => return Fate::Exits { faulted: true },
            None => {}
        }
        if self.cursed == Some(slot) && self.now < CALM_FROM_MS {
            return Fate::Fails(FailureClass::Retry);
        }
        if !self.fault(35) {
            return Fate::Done;
        }
        match self.below(11) {
            0 | 1 => Fate::Stalls,
            2 => Fate::Loses,
            3 => Fate::Fails(FailureClass::Retry),
            4 => Fate::Fails(FailureClass::Fatal),
            5 | 6 => Fate::HandsBack,
            8 | 9 => Fate::Lags,
            7 => Fate::Exits { faulted: false },
            _ => Fate::Vanishes,
        }
    }

    fn damage_met(&self, payload: &Unit) -> Option<Damaged> {
        let damaged = |place: &Place| self.bucket.newest(place).is_some_and(|(_, intact)| !intact);
        let (key, number, item) = reads(payload).into_iter().find(damaged)?;
        Some(match item {
            Item::Rows(pooling) => Damaged::Shard { extraction_key: key, pooling, shard: number },
            // Files are read from beside the bucket's books: a reader checks their digests.
            Item::Texts | Item::Files | Item::Trial(_) => Damaged::Texts(key),
        })
    }

    /// A sign of life, with now and then the end of the stream.
    pub fn progress(&mut self, slot: usize, attempt: AttemptId) {
        let it = &self.slots[slot];
        let Some(running) = it.running.as_ref().filter(|running| running.attempt == attempt) else { return };
        let life = it.life;
        let silent = matches!(running.fate, Fate::Stalls);
        let event = Event::Progressed {
            worker: it.name.clone(),
            unit: running.unit.clone(),
            attempt,
            done: 1,
            total: 2,
        };
        if it.connected && !silent {
            self.tell(slot, event);
        }
        self.schedule(self.now + 10_000, Happening::Progress { slot, life, attempt });
        if self.fault(15) {
            self.disconnect(slot);
        }
    }

    /// An attempt ends as it must.
    pub fn finish(&mut self, slot: usize, attempt: AttemptId) {
        let it = &mut self.slots[slot];
        let Some(running) = it.running.take_if(|running| running.attempt == attempt) else { return };
        let failure = |failure_class, damaged, panicked| {
            Outcome::Failed(Failure {
                failure_class,
                message: "as fate has it".to_owned(),
                damaged,
                panicked,
            })
        };
        let outcome = match running.fate {
            Fate::Done | Fate::Stalls | Fate::Lags => data(&running.payload),
            Fate::Loses => {
                self.bucket.lost.insert(attempt);
                data(&running.payload)
            }
            Fate::Fails(class) => failure(class, None, false),
            Fate::Panics => failure(FailureClass::Retry, None, true),
            Fate::Meets(damaged) => failure(FailureClass::Retry, Some(damaged), false),
            Fate::HandsBack => Outcome::HandedBack,
            Fate::Exits { faulted } => return self.exit(slot, faulted),
            Fate::Vanishes => return self.vanish(slot),
        };
        let fatal = matches!(outcome, Outcome::Failed(Failure { failure_class: FailureClass::Fatal, .. }));
        let it = &mut self.slots[slot];
        let report =
            Reported { worker: it.name.clone(), unit: running.unit, attempt, elapsed_ms: 1, outcome };
        it.unacknowledged.push(report.clone());
        if it.connected {
            let worker = it.name.clone();
            self.tell(slot, Event::Reported(Box::new(report)));
            if fatal {
                return self.vanish(slot);
            }
            if !self.slots[slot].leaving {
                self.tell(slot, Event::WorkerAsked { worker });
            }
        }
        self.leave_if_idle(slot);
    }

    fn exit(&mut self, slot: usize, faulted: bool) {
        self.end_process(slot);
        let it = &self.slots[slot];
        let event = Event::WorkerLeft { worker: it.name.clone(), departure: Departure::Exited { faulted } };
        let at = self.now + 2 + self.below(200);
        self.schedule(at, Happening::Deliver { epoch: self.epoch, event });
        let at = at + 1 + self.below(2_000);
        self.schedule(at, Happening::Respawn { slot, same_name: false });
    }

    pub fn vanish(&mut self, slot: usize) {
        let told = self.below(2) == 0;
        if told {
            let worker = self.slots[slot].name.clone();
            self.tell(slot, Event::WorkerLeft { worker, departure: Departure::Disconnected });
        }
        self.end_process(slot);
        let at = self.now + 1_000 + self.below(100_000);
        let same_name = self.below(2) == 0;
        self.schedule(at, Happening::Respawn { slot, same_name });
    }

    fn end_process(&mut self, slot: usize) {
        let it = &mut self.slots[slot];
        it.alive = false;
        it.connected = false;
        it.running = None;
        it.unacknowledged.clear();
    }

    /// A new process in place of one that ended.
    pub fn respawn(&mut self, slot: usize, same_name: bool) {
        let it = &mut self.slots[slot];
        it.life += 1;
        it.alive = true;
        it.leaving = false;
        if !same_name {
            it.name = format!("worker-{slot}-{}", it.life).parse().expect("a plain name");
        }
        self.connect(slot);
    }
}

/// What a unit asks for, as a report.
fn data(unit: &Unit) -> Outcome {
    match unit {
        Unit::Mirror(_) => Outcome::Mirrored,
        Unit::Prepare(_) => Outcome::Prepared(Prepared {
            parts: Vec::new(),
            n_texts: 0,
            n_blank: 0,
            n_bad: 0,
            n_duplicates: 0,
            columns: Vec::new(),
            warnings: Vec::new(),
        }),
        Unit::Extract(unit) => Outcome::Extracted(Extracted {
            poolings: unit.poolings.iter().map(|pooling| (*pooling, Vec::new())).collect(),
            notes: ExtractNotes::default(),
        }),
        Unit::Compare(unit) => {
            let empty = || TrialMatrices {
                n_layers: 0,
                matrices: Vec::new(),
                nulls: Vec::new(),
                layer_metrics: Vec::new(),
                undefined: Default::default(),
            };
            Outcome::Compared(unit.trials.iter().map(|trial| (*trial, empty())).collect())
        }
    }
}
