//! `gc`: removes from the bucket what no run can need any more.
//!
//! Always: data that no record names, records and trials that a later generation has replaced, input files that no job
//! and no mirrored repository mentions. With `--unused-days`: texts, embeddings, trials and inputs that no run has used
//! for so long. Never: anything that a run needs which has not ended, and nothing younger than [`GRACE`]. The results of
//! jobs stay.
//!
//! Only the leader of an epoch removes things, records before the objects that they name, so that an interruption
//! leaves unused bytes and never a record of something that is gone. Ages go by the store's clock. A commit refuses data
//! older than [`COMMIT_AGE_MAX`], so that no record can come to name what is being removed.

mod leftovers;
mod uses;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::Args;
use lsa_common::id::Digest;
use lsa_common::layout;
use lsa_common::store::{Store, StoreError};
use lsa_common::wire::job as pb;
use serde::Serialize;

use crate::client::{ClientError, CoordinatorArgs};
use crate::forecast::bytes;
use crate::identity::Identity;
use crate::leader::{Candidate, Deposed, TAKEOVER_AFTER, acquire};
use crate::random_id;
use leftovers::Collector;
use uses::Uses;

/// Nothing younger is removed.
pub const GRACE: Duration = Duration::from_secs(24 * 3600);
/// Data that are older are not committed any more.
pub const COMMIT_AGE_MAX: Duration = Duration::from_secs(GRACE.as_secs() / 2);

const EXAMPLES: &str = "\
Examples:
  lsa-coordinator gc --dry-run                         of the bucket of the coordinator at $LSA_COORDINATOR
  lsa-coordinator gc --store ~/.cache/lsa              of a bucket that no coordinator leads
  lsa-coordinator gc --unused-days 90                  also what no run has used for 90 days";

/// What `gc` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct GcArgs {
    /// Which coordinator's bucket
    #[command(flatten)]
    pub coordinator: CoordinatorArgs,
    /// A bucket that no coordinator leads, instead of a coordinator's
    #[arg(long, value_name = "PATH_OR_URL")]
    pub store: Option<String>,
    /// Also texts, embeddings, trials and inputs that no run has used for so many days
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..))]
    pub unused_days: Option<u32>,
    /// Tell what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// Inputs of which a client was told that the bucket has them.
pub type Promised = tokio::sync::Mutex<BTreeSet<Digest>>;

/// What is to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Also what no run has used for so many days.
    pub unused_days: Option<u32>,
    /// Nothing is; it is only told.
    pub dry_run: bool,
}

/// Why something can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// No record names it: an attempt that was not committed.
    Uncommitted,
    /// A later generation has replaced it.
    Replaced,
    /// An input file that nothing mentions.
    Unmentioned,
    /// No run has used it for as long as was asked for.
    Unused,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Uncommitted, Self::Replaced, Self::Unmentioned, Self::Unused];

    fn as_str(self) -> &'static str {
        match self {
            Self::Uncommitted => "uncommitted",
            Self::Replaced => "replaced",
            Self::Unmentioned => "unmentioned",
            Self::Unused => "unused",
        }
    }
}

/// Objects and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// How many.
    pub objects: u64,
    /// Their sizes together.
    pub bytes: u64,
}

/// What was removed, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Collected(pub BTreeMap<Kind, Amount>);

/// Why nothing was removed, or not all.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A coordinator of the bucket is at work.
    #[error(
        "a coordinator leads that bucket{}; have it do this, with --coordinator instead of --store",
        address.as_ref().map(|address| format!(" at {address}")).unwrap_or_default()
    )]
    Led {
        /// Where it is reached, if it has said so.
        address: Option<String>,
    },
    /// Another coordinator may lead by now.
    #[error(
        "this coordinator cannot say that it leads any more; what was removed so far was garbage, run it again"
    )]
    Deposed,
    /// The last run of a job has not ended, and what it needs is not known.
    #[error(
        "job {job} has not ended and its spec cannot be read ({fault}); cancel it, or use a version that reads it"
    )]
    Unreadable {
        /// Which job.
        job: String,
        /// Why.
        fault: String,
    },
    /// There is no such bucket.
    #[error("there is no bucket at {0}")]
    NoBucket(String),
    /// The coordinator was asked, and did not do it.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl GcError {
    /// Whether the user asked for something that makes no sense.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Led { .. } | Self::NoBucket(_) => true,
            Self::Client(error) => error.is_usage(),
            Self::Store(_) | Self::Deposed | Self::Unreadable { .. } => false,
        }
    }
}

/// Has the coordinator remove what can go, or does so itself under an epoch of its own.
pub async fn run(args: &GcArgs) -> Result<Collected, GcError> {
    let wanted = Wanted { unused_days: args.unused_days, dry_run: args.dry_run };
    match &args.store {
        Some(place) => {
            let none = || GcError::NoBucket(place.clone());
            let store = Store::open_existing(place)?.ok_or_else(none)?;
            if !store.is_prepared().await? {
                return Err(none());
            }
            lead_and_collect(&store, wanted).await
        }
        None => {
            let mut client = args.coordinator.connect().await?;
            let request = pb::GcRequest { unused_days: args.unused_days, dry_run: args.dry_run };
            let reply = client.gc(request).await.map_err(ClientError::from)?.into_inner();
            Ok(Collected::from_pb(&reply))
        }
    }
}

async fn lead_and_collect(store: &Store, wanted: Wanted) -> Result<Collected, GcError> {
    let leader = std::sync::Mutex::new(None);
    let waiting = |led: crate::seat::Leader| *leader.lock().expect("nobody panics with it") = led.address;
    let candidate = Candidate { coordinator: random_id(), address: None };
    let acquired = acquire(store, &candidate, waiting);
    // As long as it takes to know that a leader of old is gone.
    let acquired = tokio::time::timeout(TAKEOVER_AFTER + Duration::from_secs(5), acquired).await;
    let Ok(leadership) = acquired else {
        return Err(GcError::Led { address: leader.into_inner().expect("nobody panics with it") });
    };
    let mut leadership = leadership?;
    let identity = leadership.identity.clone();
    let nothing = Promised::default();
    let collected = tokio::select! {
        Deposed::By(_) | Deposed::Silent = leadership.keep() => Err(GcError::Deposed),
        collected = collect(store, &identity, wanted, &nothing) => collected,
    };
    leadership.resign().await?;
    collected
}

/// Removes what can go, but none of the inputs in `promised`: while one is being removed, none is promised.
pub async fn collect(
    store: &Store,
    identity: &Identity,
    wanted: Wanted,
    promised: &Promised,
) -> Result<Collected, GcError> {
    let beat = store.look(&layout::beat(identity.epoch)).await?.ok_or(GcError::Deposed)?;
    let now_s = beat.modified_s;
    let before = |seconds: u64| now_s.saturating_sub(i64::try_from(seconds).unwrap_or(i64::MAX));
    let unused_before_s = wanted.unused_days.map(|days| before(u64::from(days) * 24 * 3600));
    let uses = Uses::read(store, unused_before_s).await?;
    let mut collector = Collector {
        store,
        identity,
        uses,
        promised,
        young_s: before(GRACE.as_secs()),
        unused_before_s,
        dry_run: wanted.dry_run,
        collected: Collected::default(),
    };
    collector.trials().await?;
    collector.embeddings().await?;
    collector.texts().await?;
    collector.inputs().await?;
    Ok(collector.collected)
}

impl Collected {
    fn add(&mut self, kind: Kind, bytes: u64) {
        let amount = self.0.entry(kind).or_default();
        amount.objects += 1;
        amount.bytes += bytes;
    }

    /// As it is told to a client.
    pub fn to_pb(&self) -> pb::GcReply {
        let amount = |(kind, amount): (&Kind, &Amount)| pb::GcAmount {
            kind: kind.as_str().to_owned(),
            objects: amount.objects,
            bytes: amount.bytes,
        };
        pb::GcReply { amounts: self.0.iter().map(amount).collect() }
    }

    fn from_pb(reply: &pb::GcReply) -> Self {
        let amount = |told: &pb::GcAmount| {
            let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == told.kind)?;
            Some((kind, Amount { objects: told.objects, bytes: told.bytes }))
        };
        Self(reply.amounts.iter().filter_map(amount).collect())
    }

    /// For a person.
    pub fn to_text(&self, dry_run: bool) -> String {
        let mut text = String::new();
        for (kind, amount) in &self.0 {
            let what = match kind {
                Kind::Uncommitted => "data that no record names",
                Kind::Replaced => "replaced by a later generation",
                Kind::Unmentioned => "input files that nothing mentions",
                Kind::Unused => "not used for as long as was asked for",
            };
            text += &format!("{:>9} objects  {:>9}  {what}\n", amount.objects, bytes(amount.bytes));
        }
        let objects: u64 = self.0.values().map(|amount| amount.objects).sum();
        let total = self.0.values().map(|amount| amount.bytes).sum();
        let verb = if dry_run { "would be removed" } else { "removed" };
        text + &format!("{objects} objects, {}, {verb}\n", bytes(total))
    }
}
