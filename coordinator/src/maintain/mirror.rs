//! `mirror`: hub files in the bucket, for workers that cannot, or should not, ask the hub themselves.

pub mod dataset;
pub mod fill;
pub mod list;
#[cfg(test)]
mod tests;
pub mod transfer;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use lsa_common::config;
use lsa_common::hub::HubError;
use lsa_common::id::Epoch;
use lsa_common::mirror::{MirrorMode, MirroredHub, Told};
use lsa_common::store::{Store, StoreError};
use tokio::runtime::Handle;

use crate::grid::DataSettings;
use crate::identity::Identity;
use crate::{forecast, hub_access, random_id};

use dataset::{Taken, add_dataset};
use fill::{Failed, FillArgs, Lines, fill};
use list::ListError;
use transfer::{Copied, TransferError};

const EXPORT_EXAMPLES: &str = "\
Examples:
  lsa-coordinator mirror export /media/disk/lsa-mirror --store /shared/lsa
  lsa-coordinator mirror import /media/disk/lsa-mirror --store /inside/lsa";

const FILL_EXAMPLES: &str = "\
Examples:
  lsa-coordinator mirror --models bert-base-uncased BAAI/bge-small-en-v1.5 --datasets c4 --store /shared/lsa
  lsa-coordinator mirror export /media/disk/lsa-mirror --store /shared/lsa";

/// What `mirror` takes.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true, after_help = FILL_EXAMPLES)]
pub struct MirrorArgs {
    /// What to do instead of filling the bucket.
    #[command(subcommand)]
    pub command: Option<MirrorCommand>,
    /// What to put into the bucket.
    #[command(flatten)]
    pub fill: FillArgs,
}

/// Hub files in the bucket: carried to another bucket, listed.
#[derive(Subcommand, Clone, Debug)]
pub enum MirrorCommand {
    /// Copy everything mirrored, and all prepared texts, into a directory that can be carried elsewhere
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(TransferArgs),
    /// Take in what `mirror export` wrote
    #[command(after_help = EXPORT_EXAMPLES)]
    Import(TransferArgs),
    /// What is mirrored
    List(BucketArgs),
}

/// Which bucket, and how to print.
#[derive(Args, Clone, Debug)]
pub struct BucketArgs {
    /// Folder or URL of the bucket [default: $XDG_CACHE_HOME/lsa]
    #[arg(long, value_name = "PATH_OR_URL")]
    pub store: Option<String>,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

impl BucketArgs {
    /// The bucket's place, as typed or by default.
    pub fn place(&self) -> String {
        self.store.clone().unwrap_or_else(|| config::default_store().display().to_string())
    }
}

/// What `export` and `import` take.
#[derive(Args, Clone, Debug)]
pub struct TransferArgs {
    /// The directory outside the bucket
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// The bucket
    #[command(flatten)]
    pub bucket: BucketArgs,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum MirrorCommandError {
    /// `--store` does not name a bucket.
    #[error(transparent)]
    Bucket(StoreError),
    /// There is no bucket to read.
    #[error("there is no bucket at {place:?}; name one with --store")]
    NoBucket {
        /// As typed.
        place: String,
    },
    /// Nothing is named.
    #[error("there is nothing to mirror; name --models or --datasets, or use export, import or list")]
    Nothing,
    /// The settings of the hub are wrong.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The bucket failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The work was broken off.
    #[error("the work was broken off")]
    BrokenOff,
    /// Some of what was named is not there.
    #[error("{}", .0.iter().map(|one| format!("{}: {}", one.name, one.reason)).collect::<Vec<_>>().join("\n"))]
    Failed(Vec<Failed>),
    /// Copying failed.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// Looking failed.
    #[error(transparent)]
    List(#[from] ListError),
}

impl MirrorCommandError {
    /// Whether the rights of whoever asks the hub do not suffice.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Failed(failed) if failed.iter().any(|one| one.is_refused))
    }

    /// Whether the user can mend it before any work.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Bucket(_) | Self::NoBucket { .. } | Self::Nothing | Self::Hub(_) => true,
            Self::Store(_) | Self::BrokenOff | Self::Failed(_) => false,
            Self::Transfer(error) => error.is_usage(),
            Self::List(_) => false,
        }
    }
}

/// Runs one of the commands and prints what it did.
pub async fn run(args: MirrorArgs) -> Result<(), MirrorCommandError> {
    let Some(command) = &args.command else { return fill_bucket(args.fill).await };
    match command {
        MirrorCommand::Export(args) => {
            let store = existing(&args.bucket)?;
            let copied = transfer::export(&store, &args.directory).await?;
            print_copied(&copied, &args.directory.display().to_string(), args.bucket.json);
        }
        MirrorCommand::Import(args) => import(args).await?,
        MirrorCommand::List(args) => {
            let mirrored = list::list(&existing(args)?).await?;
            match args.json {
                true => print_json(&mirrored),
                false => print!("{}", list::to_text(&mirrored)),
            }
        }
    }
    Ok(())
}

async fn import(args: &TransferArgs) -> Result<(), MirrorCommandError> {
    let from = transfer::open_export(&args.directory).await?;
    let store = Store::open(&args.bucket.place()).map_err(MirrorCommandError::Bucket)?;
    let copied = transfer::import(&from, &store).await?;
    print_copied(&copied, store.url(), args.bucket.json);
    Ok(())
}

async fn fill_bucket(args: FillArgs) -> Result<(), MirrorCommandError> {
    if args.models.is_empty() && args.datasets.is_empty() {
        return Err(MirrorCommandError::Nothing);
    }
    let hub = hub_access::hub()?;
    let store = Store::open(&args.bucket.place()).map_err(MirrorCommandError::Bucket)?;
    store.prepare().await?;
    let (runtime, json) = (Handle::current(), args.bucket.json);
    let filling = tokio::task::spawn_blocking(move || {
        let (lines, identity) = (Lines::default(), Identity::new(random_id(), Epoch(0)));
        let cache = config::coordinator_cache();
        let mirror = MirroredHub::new(MirrorMode::Auto, store, runtime.clone(), Some(hub.clone()), cache);
        let data = DataSettings {
            num_samples: args.num_samples,
            split: args.split.clone(),
            ..DataSettings::default()
        };
        let taken = Taken { data, seed: args.seed };
        let dataset =
            |name: &str, told: Told<'_>| add_dataset(&hub, &mirror, name, &taken, &runtime, &identity, told);
        fill(&*hub, &mirror, &args, &dataset, &|path, done, size| lines.hear(path, done, size))
    });
    let summary = filling.await.map_err(|_| MirrorCommandError::BrokenOff)?;
    match json {
        true => print_json(&summary),
        false => print!("{}", summary.to_text()),
    }
    if summary.failed.is_empty() { Ok(()) } else { Err(MirrorCommandError::Failed(summary.failed)) }
}

fn existing(args: &BucketArgs) -> Result<Store, MirrorCommandError> {
    let place = args.place();
    let store = Store::open_existing(&place).map_err(MirrorCommandError::Bucket)?;
    store.ok_or(MirrorCommandError::NoBucket { place })
}

fn print_copied(copied: &Copied, to: &str, json: bool) {
    if json {
        print_json(copied);
        return;
    }
    println!(
        "{} objects, {}, and {} records copied to {to}; {} objects, {}, were there",
        copied.objects,
        forecast::bytes(copied.bytes),
        copied.records,
        copied.skipped_objects,
        forecast::bytes(copied.skipped_bytes),
    );
}

fn print_json(value: &impl serde::Serialize) {
    println!("{}", serde_json::to_string_pretty(value).expect("plain structs serialise"));
}
