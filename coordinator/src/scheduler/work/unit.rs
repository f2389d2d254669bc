//! One unit of a work: what it lacks, who has it, what befell it. A million of them fit in memory: what few units
//! have is kept aside.

use std::collections::BTreeSet;
use std::sync::Arc;

use lsa_common::id::{AttemptId, UnitId, WorkerId};
use lsa_common::time::Millis;

use crate::scheduler::event::{Commit, Item, Reported};

/// A unit with something missing, or one that was done here.
#[derive(Debug)]
pub struct Unit {
    /// What is missing, ascending; nothing once it is done.
    pub items: Box<[Item]>,
    /// How far it is.
    pub status: UnitStatus,
    /// Attempts that count against the limit.
    pub charged: u32,
    /// All attempts.
    pub attempts: u32,
    /// Whose data are on record: not to be recorded again once they turn out damaged.
    pub(super) recorded: Option<AttemptId>,
    aside: Option<Box<Aside>>,
}

/// What few units have.
#[derive(Debug, Default)]
pub(super) struct Aside {
    /// Attempts that were charged, in order.
    pub failures: Vec<PastFailure>,
    /// Workers that died of it.
    pub faulted_by: BTreeSet<WorkerId>,
    /// Reports of other attempts, while one is being committed.
    pub waiting: Vec<Reported>,
    /// What turned out damaged while other items of the unit were being made.
    pub also: BTreeSet<Item>,
    /// How often it was made again.
    pub remakes: u32,
}

/// An attempt that was charged.
#[derive(Debug)]
pub(super) struct PastFailure {
    pub at: Millis,
    pub worker: WorkerId,
    pub message: String,
}

/// How far a unit is.
#[derive(Debug)]
pub enum UnitStatus {
    /// To be lent, now or after a while.
    Ready,
    /// A worker has it, or two of them where the first one lags: the longest loan first.
    Leased(Vec<Lease>),
    /// Its record is being written.
    Committing(Box<Committing>),
    /// Every item has a record.
    Done,
}

/// A report that is being recorded.
#[derive(Clone, Debug)]
pub struct Committing {
    /// What is recorded.
    pub commit: Arc<Commit>,
    /// The live leases when the report came: the reporter's own, and others' that run on until the record stands.
    pub leases: Vec<Lease>,
    /// How long the attempt ran; not known of a late one.
    pub ran_ms: Option<u64>,
    /// How often the store has failed, and how at last.
    pub troubles: u32,
    /// See `troubles`.
    pub trouble: String,
    /// When to try again; nothing while a try is under way.
    pub retry_at: Option<Millis>,
}

/// A loan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// To whom.
    pub worker: WorkerId,
    /// Under which attempt.
    pub attempt: AttemptId,
    /// Since when.
    pub since: Millis,
    /// Until when, unless renewed.
    pub deadline: Millis,
    /// Done, of a total.
    pub progress: (u64, u64),
}

/// What becomes of something damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remade {
    /// It will be made again.
    Will,
    /// There is no such thing here.
    Unknown,
    /// It was made again too often.
    TooOften,
}

/// What a work has in the air when it is given up.
#[derive(Debug, Default)]
pub struct Abandoned {
    /// Units that workers may stop.
    pub leases: Vec<(UnitId, Lease)>,
    /// Reports that nobody waits for any more.
    pub reports: Vec<(WorkerId, UnitId, AttemptId)>,
}

impl Unit {
    pub(super) fn new(items: impl IntoIterator<Item = Item>) -> Self {
        Self {
            items: items.into_iter().collect(),
            status: UnitStatus::Ready,
            charged: 0,
            attempts: 0,
            recorded: None,
            aside: None,
        }
    }

    /// One of which everything was found.
    pub(super) fn found_done() -> Self {
        Self { status: UnitStatus::Done, ..Self::new([]) }
    }

    /// Live leases, unless a report is being recorded.
    pub fn leases(&self) -> &[Lease] {
        match &self.status {
            UnitStatus::Leased(leases) => leases,
            UnitStatus::Ready | UnitStatus::Committing(_) | UnitStatus::Done => &[],
        }
    }

    /// Workers whose attempts at it were charged, each once.
    pub(in crate::scheduler) fn failed_on(&self) -> BTreeSet<&WorkerId> {
        self.aside().into_iter().flat_map(|aside| &aside.failures).map(|failure| &failure.worker).collect()
    }

    /// When the last attempt was charged.
    pub(in crate::scheduler) fn failed_at(&self) -> Option<Millis> {
        self.aside()?.failures.last().map(|failure| failure.at)
    }

    pub(super) fn aside(&self) -> Option<&Aside> {
        self.aside.as_deref()
    }

    pub(super) fn aside_mut(&mut self) -> &mut Aside {
        self.aside.get_or_insert_default()
    }

    /// What has been put aside, if anything was.
    pub(super) fn known_aside_mut(&mut self) -> Option<&mut Aside> {
        self.aside.as_deref_mut()
    }
}

impl UnitStatus {
    /// Leases under which workers are busy with the unit: not that of a worker that has reported.
    pub(super) fn held(&self) -> impl Iterator<Item = &Lease> {
        let (leases, reported) = match self {
            Self::Leased(leases) => (leases.as_slice(), None),
            Self::Committing(committing) => {
                (committing.leases.as_slice(), Some(committing.commit.report.attempt))
            }
            Self::Ready | Self::Done => (Default::default(), None),
        };
        leases.iter().filter(move |lease| Some(lease.attempt) != reported)
    }

    /// Since when a unit has been lent to one worker alone.
    pub(super) fn alone_since(&self) -> Option<Millis> {
        match self {
            Self::Leased(leases) if leases.len() == 1 => leases.first().map(|lease| lease.since),
            Self::Leased(_) | Self::Ready | Self::Committing(_) | Self::Done => None,
        }
    }
}

impl Committing {
    /// The reporter's own lease; nothing where the report is late.
    pub fn own_lease(&self) -> Option<&Lease> {
        self.leases.iter().find(|lease| lease.attempt == self.commit.report.attempt)
    }
}
