//! `mirror --models … --datasets …`: files of the hub into the bucket.
//!
//! Calls block, as those of a hub do. Which files of a dataset are taken is for the caller to say: see [`add_repo`].

use std::cell::RefCell;

use clap::Args;
use lsa_common::dataset::files::FilesError;
use lsa_common::hub::{Hub, HubError, HubFile, Listing, Repo, RepoKind};
use lsa_common::mirror::{Added, MirrorError, MirroredHub, Told};
use lsa_common::model_source;
use lsa_common::model_source::remote::{self, RemoteModelError};
use serde::Serialize;

use super::BucketArgs;
use crate::forecast;
use crate::prepared::PreparedError;

/// Which repositories to mirror, and where.
#[derive(Args, Clone, Debug)]
pub struct FillArgs {
    /// Hub ids of models, each perhaps with @REVISION
    #[arg(long, visible_alias = "model", value_name = "MODEL", num_args = 1.., value_delimiter = ',')]
    pub models: Vec<String>,
    /// Names of datasets
    #[arg(long, visible_alias = "dataset", value_name = "DATASET", num_args = 1.., value_delimiter = ',')]
    pub datasets: Vec<String>,
    /// The split that is read of a dataset
    #[arg(long, value_name = "SPLIT")]
    pub split: Option<String>,
    /// Texts that are taken of a dataset, as a job would take them
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub num_samples: u32,
    /// The seed with which a job draws them
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// The bucket
    #[command(flatten)]
    pub bucket: BucketArgs,
}

/// What was done for one repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Filled {
    /// What it holds.
    pub kind: RepoKind,
    /// The repository, as it was asked for.
    pub id: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// The commit.
    pub commit: String,
    /// Files that the bucket has of it now, as far as they were chosen.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were not there before.
    pub files_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
}

/// What was done for all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FillSummary {
    /// Those that are in the bucket.
    pub filled: Vec<Filled>,
    /// Those that are not, or not whole.
    pub failed: Vec<Failed>,
}

/// What could not be mirrored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// As it was named.
    pub name: String,
    /// Why, and how to mend it.
    pub reason: String,
    /// Whether the rights of whoever asked the hub did not suffice.
    pub is_refused: bool,
}

/// Why a repository was not mirrored.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// A folder of this machine.
    #[error("{0:?} is a folder; only hub ids (owner/name) are mirrored, local models go along with a job")]
    Folder(String),
    /// A dataset of this machine.
    #[error("dataset {0:?} is on no hub; local files go along with a job")]
    Local(String),
    /// The hub failed.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The repository is no model that can be used.
    #[error(transparent)]
    Model(#[from] RemoteModelError),
    /// The files cannot be chosen.
    #[error(transparent)]
    Choice(Box<dyn std::error::Error + Send + Sync>),
    /// The bucket, or the way into it, failed.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
}

impl FillError {
    fn is_refused(&self) -> bool {
        match self {
            Self::Hub(error)
            | Self::Model(RemoteModelError::Hub(error))
            | Self::Mirror(MirrorError::Hub(error)) => error.is_refused(),
            Self::Choice(error) => {
                error.downcast_ref::<FilesError>().is_some_and(FilesError::is_refused)
                    || error.downcast_ref::<PreparedError>().is_some_and(PreparedError::is_refused)
            }
            Self::Folder(_) | Self::Local(_) | Self::Model(_) | Self::Mirror(_) => false,
        }
    }
}

/// Puts those files of a repository that `choose` names into the bucket. `hub` is the one behind `mirror`: what the
/// revision holds is always asked of the hub itself.
pub fn add_repo(
    hub: &dyn Hub,
    mirror: &MirroredHub,
    repo: &Repo,
    revision: &str,
    choose: &dyn Fn(&Listing) -> Result<Vec<HubFile>, FillError>,
    told: Told<'_>,
) -> Result<Filled, FillError> {
    let listing = hub.list(repo, revision)?;
    let files = choose(&listing)?;
    let added: Added = mirror.add_as(repo, &listing, revision, &files, told)?;
    Ok(Filled {
        kind: repo.kind,
        id: repo.id.clone(),
        revision: revision.to_owned(),
        commit: listing.commit,
        files: added.n_files,
        bytes: added.bytes,
        files_sent: added.n_sent,
        bytes_sent: added.sent_bytes,
    })
}

/// Puts a model into the bucket: config, tokenizer and one form of weights. `name` is a hub id, perhaps with
/// `@revision`.
pub fn add_model(
    hub: &dyn Hub,
    mirror: &MirroredHub,
    name: &str,
    told: Told<'_>,
) -> Result<Filled, FillError> {
    let (id, revision) = model_source::split_revision(name);
    if id.starts_with(['.', '/', '~']) || std::path::Path::new(id).is_dir() {
        return Err(FillError::Folder(name.to_owned()));
    }
    let repo = Repo { kind: RepoKind::Model, id: id.to_owned() };
    let choose = |listing: &Listing| Ok(remote::all_model_files(hub, listing)?);
    add_repo(hub, mirror, &repo, revision.unwrap_or("main"), &choose, told)
}

/// Mirrors a dataset by its name.
pub type FillDataset<'a> = &'a dyn Fn(&str, Told<'_>) -> Result<Vec<Filled>, FillError>;

/// Mirrors all that `args` names; one that fails does not keep the others from it. `dataset` makes
/// as many [`add_repo`] as a dataset takes.
pub fn fill(
    hub: &dyn Hub,
    mirror: &MirroredHub,
    args: &FillArgs,
    dataset: FillDataset<'_>,
    told: Told<'_>,
) -> FillSummary {
    let mut summary = FillSummary::default();
    let models =
        args.models.iter().map(|name| (name, add_model(hub, mirror, name, told).map(|one| vec![one])));
    let datasets = args.datasets.iter().map(|name| (name, dataset(name, told)));
    for (name, filled) in models.chain(datasets) {
        match filled {
            Ok(filled) => summary.filled.extend(filled),
            Err(error) => summary.failed.push(Failed {
                name: name.clone(),
                reason: crate::chain(&error),
                is_refused: error.is_refused(),
            }),
        }
    }
    summary
}

impl FillSummary {
    /// A line for each repository, for a person.
    pub fn to_text(&self) -> String {
        let line = |one: &Filled| {
            let (bytes, sent) = (forecast::bytes(one.bytes), forecast::bytes(one.bytes_sent));
            let commit = one.commit.get(..12).unwrap_or(&one.commit);
            let (id, revision, files, n_sent) = (&one.id, &one.revision, one.files, one.files_sent);
            format!("{id}@{revision}  {commit}  {files} files, {bytes}; {n_sent} of them, {sent}, are new\n")
        };
        self.filled.iter().map(line).collect()
    }
}

/// Lines on standard error: one when a file begins, and one for every further GiB of a large one.
#[derive(Default)]
pub struct Lines {
    last: RefCell<(String, u64)>,
}

impl Lines {
    /// Hears how far a file is; for [`Told`].
    pub fn hear(&self, path: &str, done: u64, size: u64) {
        const STEP_SHIFT: u32 = 30;
        let mut last = self.last.borrow_mut();
        let step = done >> STEP_SHIFT;
        if last.0 != path {
            eprintln!("{path} ({})", forecast::bytes(size));
            *last = (path.to_owned(), step);
        } else if step > last.1 {
            eprintln!("{path}: {} of {}", forecast::bytes(done), forecast::bytes(size));
            last.1 = step;
        }
    }
}
