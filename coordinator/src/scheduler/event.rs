//! What the scheduler is told, and what it asks for: two closed enums.

use std::collections::BTreeMap;
use std::sync::Arc;

use lsa_common::id::{AttemptId, Digest, JobId, UnitId, WorkerId};
use lsa_common::model::Pooling;
use lsa_common::record::RunState;
use lsa_common::report::{Damaged, Outcome};
use lsa_common::shard_records::Generations;
use lsa_common::unit::Unit;

use crate::plan::{Plan, Work, WorkId};

/// Something that a unit commits with a record of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    /// The texts of a prepare unit.
    Texts,
    /// The files of a mirror unit.
    Files,
    /// The rows of one pooling of a shard.
    Rows(Pooling),
    /// The matrices of one trial.
    Trial(u32),
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A job is to be run.
    JobAccepted {
        /// Which.
        job: JobId,
        /// Its works.
        plan: Plan,
        /// How it is run.
        settings: JobSettings,
    },
    /// A user wants no more of a job.
    JobCancelled {
        /// Which.
        job: JobId,
    },
    /// A user wants nothing more of a job lent for now; what is lent goes on.
    JobPaused {
        /// Which.
        job: JobId,
    },
    /// A user wants a paused job to go on.
    JobResumed {
        /// Which.
        job: JobId,
    },
    /// A worker has registered, for the first time or again. It is not draining, whatever was said of it before.
    WorkerJoined {
        /// Which.
        worker: WorkerId,
        /// What it computes with.
        numeric_profile: String,
        /// What its units may use.
        memory_bytes: u64,
        /// What it still works on, or has a report for.
        held: Vec<(UnitId, AttemptId)>,
    },
    /// A worker has room for one unit.
    WorkerAsked {
        /// Which.
        worker: WorkerId,
    },
    /// A user wants a worker to finish what it has and to leave.
    DrainRequested {
        /// Which.
        worker: WorkerId,
    },
    /// A worker says that it is stopping: it finishes or hands back what it has.
    WorkerDraining {
        /// Which.
        worker: WorkerId,
    },
    /// A worker's process is gone, or its stream.
    WorkerLeft {
        /// Which.
        worker: WorkerId,
        /// How.
        departure: Departure,
    },
    /// A lease's holder is alive.
    Progressed {
        /// Who.
        worker: WorkerId,
        /// On what.
        unit: UnitId,
        /// Under which attempt.
        attempt: AttemptId,
        /// Of `total`.
        done: u64,
        /// Rows of a shard, layers of trials.
        total: u64,
    },
    /// An attempt has ended.
    Reported(Box<Reported>),
    /// The bucket was looked through for a work.
    Surveyed {
        /// Which.
        work: WorkId,
        /// The survey's number.
        number: u64,
        /// What was found.
        survey: Survey,
    },
    /// The bucket could not be looked through.
    SurveyFailed {
        /// For which work.
        work: WorkId,
        /// The survey's number.
        number: u64,
        /// Why.
        message: String,
    },
    /// A commit has ended.
    Committed {
        /// Of which unit.
        unit: UnitId,
        /// Whose data.
        attempt: AttemptId,
        /// How.
        end: CommitEnd,
    },
    /// A merge has ended.
    Merged {
        /// Whose.
        job: JobId,
        /// Its number in the job.
        experiment: usize,
        /// How.
        end: MergeEnd,
    },
    /// Time has passed.
    Tick,
}

/// How a job is run, as far as scheduling goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobSettings {
    /// Go on with other experiments when one fails.
    pub continue_on_error: bool,
    /// Attempts of a unit before it fails.
    pub max_attempts: u32,
    /// Higher goes first.
    pub priority: i32,
    /// Experiments failed before the job began: it can be done in part only.
    pub some_unresolved: bool,
}

/// How a worker left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// Its stream dropped; it may come back, so its leases run on.
    Disconnected,
    /// Its process ended; its leases end with it.
    Exited {
        /// The process died of its own fault: a panic, a segmentation fault.
        faulted: bool,
    },
}

/// An attempt's end, as its worker tells it.
#[derive(Clone, Debug)]
pub struct Reported {
    /// Who.
    pub worker: WorkerId,
    /// On what.
    pub unit: UnitId,
    /// Under which attempt.
    pub attempt: AttemptId,
    /// How long it took.
    pub elapsed_ms: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// What the bucket holds of a work.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey {
    /// The profile that the work is bound to; empty for texts, which no profile changes.
    pub numeric_profile: String,
    /// The key under which its objects are.
    pub key: Option<Digest>,
    /// Items with a record, by unit number (trials: by trial number).
    pub found: BTreeMap<(u32, Item), Found>,
}

/// The newest record of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its generation.
    pub generation: u32,
    /// Whether what it names is there.
    pub intact: bool,
}

/// How a commit ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitEnd {
    /// Every item has a record; this attempt's or an earlier one's.
    Recorded,
    /// The report is not what the unit asked for, or names objects that are not there.
    Refused(String),
    /// The store failed.
    StoreTrouble(String),
}

/// How a merge ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MergeEnd {
    /// The results are written.
    Written,
    /// A trial's object is missing or corrupt.
    Damaged {
        /// Which trial.
        trial: u32,
    },
    /// The trials that are there do not say enough: more are to be made.
    TooFew {
        /// How many, those that are there included.
        trials: u32,
    },
    /// Rows that are saved as embeddings are missing or corrupt.
    DamagedSource(Damaged),
    /// It did not work, and may work later: the store failed.
    Trouble(String),
    /// It cannot be done.
    Failed(String),
}

/// The keys under which an experiment's results lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeKeys {
    /// Of its embeddings.
    pub extraction_key: Digest,
    /// Of its trials.
    pub comparison_key: Digest,
    /// The place of its first layer in the matrices of the trials.
    pub first_layer: u32,
    /// The layers that those matrices compare, its own and those of other models.
    pub n_layers: u32,
    /// The trials that are there: 0 to so many.
    pub n_trials: u32,
    /// The profile of the extraction.
    pub extraction_profile: String,
    /// The profile of the comparison.
    pub comparison_profile: String,
}

/// What must be done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Look through the bucket for a work; bind it to the profile first, unless it is texts.
    Survey {
        /// Which work.
        work: Arc<Work>,
        /// To be told with what is found.
        number: u64,
        /// The jobs in whose runs the binding is kept.
        jobs: Vec<JobId>,
        /// The profile of the worker that would begin it.
        numeric_profile: String,
        /// The keys of the extractions that a comparison reads, in its order.
        rows_keys: Vec<Digest>,
    },
    /// Send a lease.
    Lend {
        /// To whom.
        worker: WorkerId,
        /// What.
        unit: UnitId,
        /// In full.
        payload: Box<Unit>,
        /// Under which attempt.
        attempt: AttemptId,
        /// How many attempts so far.
        attempt_number: u32,
    },
    /// Tell a worker to give up an attempt.
    Stop {
        /// Whom.
        worker: WorkerId,
        /// What.
        unit: UnitId,
        /// Which attempt.
        attempt: AttemptId,
    },
    /// Tell a worker to finish what it has and to leave.
    Drain {
        /// Whom.
        worker: WorkerId,
    },
    /// Check what an attempt has written and record it.
    Commit(Arc<Commit>),
    /// Roll up the records of a block of shards, so that nobody has to read them one by one.
    RollUp(Block),
    /// Tell a worker that its report has been dealt with.
    Acknowledge {
        /// Whom.
        worker: WorkerId,
        /// Of which unit.
        unit: UnitId,
        /// Which attempt.
        attempt: AttemptId,
    },
    /// Keep the failure of an attempt for the user.
    RecordFailure(Box<FailedAttempt>),
    /// Merge the trials of an experiment and write its results.
    Merge {
        /// Whose.
        job: JobId,
        /// Its number in the job.
        experiment: usize,
        /// Where its data lie.
        keys: MergeKeys,
    },
    /// Nothing of a job is left to do.
    EndJob {
        /// Which.
        job: JobId,
        /// How it ended.
        state: RunState,
    },
}

/// A commit to be made.
#[derive(Clone, Debug)]
pub struct Commit {
    /// What the attempt was asked to do.
    pub payload: Unit,
    /// What to record, and under which generation.
    pub generations: BTreeMap<Item, u32>,
    /// How many attempts the unit has had.
    pub attempt_number: u32,
    /// The profile that the work is bound to.
    pub numeric_profile: String,
    /// What the worker says.
    pub report: Reported,
}

/// Neighbouring shards of an extraction, every one of which has a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Of which extraction.
    pub extraction_key: Digest,
    /// The records of which pooling.
    pub pooling: Pooling,
    /// The newest record of each shard.
    pub generations: Generations,
}

/// An attempt that failed.
#[derive(Clone, Debug)]
pub struct FailedAttempt {
    /// The jobs that want the unit.
    pub jobs: Vec<JobId>,
    /// What the unit was to do.
    pub what: String,
    /// Which unit.
    pub unit: UnitId,
    /// Which attempt.
    pub attempt: AttemptId,
    /// How many attempts so far.
    pub attempt_number: u32,
    /// Who.
    pub worker: WorkerId,
    /// What it means.
    pub failure_class: lsa_common::failure::FailureClass,
    /// Why.
    pub message: String,
}
