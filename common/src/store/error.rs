//! What can go wrong with a bucket.

use std::path::PathBuf;

use crate::artifact::STORE_FORMAT;
use crate::failure::FailureClass;

/// What went wrong with the bucket.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Not the address of a bucket.
    #[error(
        "store {url:?}: {reason}; name a folder, file:///folder, s3://bucket/prefix, gs://bucket/prefix or \
         az://container/prefix"
    )]
    Url {
        /// As given, without what could be a secret.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The environment does not say how to reach it, or who asks.
    #[error("store {url}: {reason}")]
    Settings {
        /// Which store.
        url: String,
        /// What is missing or wrong, and how to mend it.
        reason: String,
    },
    /// The directory cannot be made or opened.
    #[error("cannot open store {path:?}; name a directory that you may write to")]
    Open {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The store breaks a promise that everything rests on.
    #[error(
        "store {url} is not safe: {evidence}. Finished work could be lost or mixed there, so it is refused; \
         `lsa-coordinator doctor --store URL` shows what it does, docs/stores.md which stores are known to be safe"
    )]
    Unsafe {
        /// Which store.
        url: String,
        /// What was seen.
        evidence: String,
    },
    /// A request failed.
    #[error("store: cannot {deed} {key:?}")]
    Request {
        /// read, write, list, delete.
        deed: &'static str,
        /// Which object.
        key: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// A file of this machine, to which an object is copied, cannot be written.
    #[error("cannot write {path:?}; free space there, or name another cache folder")]
    Disk {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A committed object is missing or is not what its record says.
    #[error("object {key:?} is damaged: {fault}")]
    Damaged {
        /// Which object.
        key: String,
        /// What is wrong with it.
        fault: String,
    },
    /// A newer version wrote this bucket.
    #[error(
        "the bucket has format {found}, this version reads {STORE_FORMAT}; use a matching version or another bucket"
    )]
    Format {
        /// What `format.json` says.
        found: u32,
    },
}

impl StoreError {
    /// What the failure means for an attempt.
    pub fn failure_class(&self) -> FailureClass {
        match self {
            Self::Request { .. } | Self::Damaged { .. } | Self::Disk { .. } => FailureClass::Retry,
            Self::Url { .. }
            | Self::Settings { .. }
            | Self::Open { .. }
            | Self::Unsafe { .. }
            | Self::Format { .. } => FailureClass::Fatal,
        }
    }

    /// Whether the same request may succeed a little later: the store was busy, or could not be reached.
    pub fn may_pass(&self) -> bool {
        use object_store::Error as E;
        let Self::Request { source, .. } = self else { return false };
        match source {
            E::Generic { .. } | E::JoinError { .. } => true,
            E::NotFound { .. }
            | E::InvalidPath { .. }
            | E::NotSupported { .. }
            | E::AlreadyExists { .. }
            | E::Precondition { .. }
            | E::NotModified { .. }
            | E::NotImplemented { .. }
            | E::PermissionDenied { .. }
            | E::Unauthenticated { .. }
            | E::UnknownConfigurationKey { .. } => false,
            _ => true,
        }
    }
}
