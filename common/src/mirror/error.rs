//! Why the mirror does not have something, or could not take it in.

use std::path::PathBuf;

use crate::failure::FailureClass;
use crate::hub::{HubError, Repo, RepoKind};
use crate::store::StoreError;

/// Why the mirror does not have something, or could not take it in.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// No listing in the bucket, and no hub to ask.
    #[error(
        "{repo} at revision {revision:?} is not mirrored in {store}, and the hub is not asked; mirror it where there \
         is internet: lsa-coordinator mirror --store {store} {} {}@{revision}",
        flag(repo), repo.id
    )]
    NotMirrored {
        /// Which repository.
        repo: Repo,
        /// At which branch, tag or commit.
        revision: String,
        /// The bucket.
        store: String,
    },
    /// The listing is in the bucket, the file is not, and there is no hub to ask.
    #[error(
        "{path:?} of {repo} is not mirrored in {store}, and the hub is not asked; mirror it where there is internet: \
         lsa-coordinator mirror --store {store} {} {}@{commit}",
        flag(repo), repo.id
    )]
    FileNotMirrored {
        /// Of which repository.
        repo: Repo,
        /// At which commit.
        commit: String,
        /// Which file.
        path: String,
        /// The bucket.
        store: String,
    },
    /// Something is to be taken from the hub, but none may be asked.
    #[error("{repo} cannot be had: the hub may not be asked here")]
    NoHub {
        /// Which repository.
        repo: Repo,
    },
    /// A name that cannot be one, or is too long to be part of a key.
    #[error("{what} {text:?} is malformed")]
    Malformed {
        /// Of what.
        what: &'static str,
        /// The name.
        text: String,
    },
    /// A file that the listing does not have.
    #[error("{path:?} is not in the listing of {repo}")]
    NotListed {
        /// Which repository.
        repo: Repo,
        /// Which file.
        path: String,
    },
    /// A range outside a file.
    #[error("{path:?} has {file_size} bytes, none from {from} on to {}", .from.saturating_add(*.size))]
    OutsideFile {
        /// Which file.
        path: String,
        /// Its size.
        file_size: u64,
        /// The first byte.
        from: u64,
        /// How many.
        size: u64,
    },
    /// Other bytes than the listing says came from the hub; nothing of them is kept.
    #[error("{path:?} of {repo} came with {found}, but its listing says {expected}; try again")]
    OtherContent {
        /// Of which repository.
        repo: Repo,
        /// Which file.
        path: String,
        /// Size or digest, as listed.
        expected: String,
        /// As they came.
        found: String,
    },
    /// An object of the mirror is not what it should be.
    #[error("object {key:?} is damaged: {fault}; delete it, and mirror what it belongs to again")]
    Damaged {
        /// Which object.
        key: String,
        /// What is wrong with it.
        fault: String,
    },
    /// Other writers were faster each time.
    #[error("others write {key:?} at the same time; try again")]
    Contended {
        /// Where.
        key: String,
    },
    /// The local copies cannot be kept.
    #[error("cannot keep {}; free space, or choose another cache", .path.display())]
    Cache {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Reading from the hub broke off.
    #[error("reading {path:?} of {repo} from the hub broke off")]
    Read {
        /// Of which repository.
        repo: Repo,
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The program is ending.
    #[error("reading {key:?} was interrupted")]
    Interrupted {
        /// Which object.
        key: String,
    },
    /// The bucket failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The hub failed.
    #[error(transparent)]
    Hub(#[from] HubError),
}

impl MirrorError {
    /// What the failure means for an attempt.
    pub fn failure_class(&self) -> FailureClass {
        match self {
            Self::NotMirrored { .. }
            | Self::FileNotMirrored { .. }
            | Self::NoHub { .. }
            | Self::Malformed { .. }
            | Self::NotListed { .. }
            | Self::OutsideFile { .. } => FailureClass::Reject,
            Self::OtherContent { .. }
            | Self::Damaged { .. }
            | Self::Contended { .. }
            | Self::Cache { .. }
            | Self::Interrupted { .. } => FailureClass::Retry,
            Self::Read { source, .. } => {
                let cause = source.get_ref().and_then(|cause| cause.downcast_ref::<HubError>());
                cause.map_or(FailureClass::Retry, HubError::failure_class)
            }
            Self::Store(error) => error.failure_class(),
            Self::Hub(error) => error.failure_class(),
        }
    }
}

impl From<MirrorError> for HubError {
    fn from(error: MirrorError) -> Self {
        match error {
            MirrorError::Hub(error) => error,
            error => Self::Other { class: error.failure_class(), source: Box::new(error) },
        }
    }
}

fn flag(repo: &Repo) -> &'static str {
    match repo.kind {
        RepoKind::Model => "--models",
        RepoKind::Dataset => "--datasets",
    }
}
