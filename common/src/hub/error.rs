//! Why a hub gave no answer, or none that can be believed.
//!
//! No message holds a token, nor the query of an address: those of a CDN are signed.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Repo;
use crate::failure::FailureClass;

/// Why a hub gave no answer, or none that can be believed.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// What stands between us and the hub failed.
    #[error("{source}")]
    Other {
        /// What the failure means for the caller.
        class: FailureClass,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A setting from the environment that makes no sense.
    #[error("{name} cannot be used: {reason}")]
    Setting {
        /// The variable.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The HTTP client did not start.
    #[error("cannot set up HTTP; does this machine have root certificates (package ca-certificates)?")]
    Start(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Not the name of a repository.
    #[error("{0:?} is no hub id (owner/name)")]
    MalformedId(String),
    /// Not the name of a branch, tag or commit.
    #[error("{revision:?} is no revision of {repo}: give a branch, a tag or a commit")]
    MalformedRevision {
        /// Of which repository.
        repo: Repo,
        /// What was given.
        revision: String,
    },
    /// There is no such repository, or it is private and no token is set.
    #[error("there is no {repo} at {endpoint}, or it is private; check the name, or set HF_TOKEN")]
    NoRepo {
        /// Which.
        repo: Repo,
        /// Where it was looked for.
        endpoint: String,
    },
    /// The repository is there, but not at that revision.
    #[error("{repo} at {endpoint} has no branch, tag or commit {revision:?}; see its files there")]
    NoRevision {
        /// Which repository.
        repo: Repo,
        /// What was asked for.
        revision: String,
        /// Where.
        endpoint: String,
    },
    /// The repository does not have the file.
    #[error("{repo} at {endpoint} has no file {path:?} at commit {commit}")]
    NoFile {
        /// Which repository.
        repo: Repo,
        /// At which commit.
        commit: String,
        /// Which file.
        path: String,
        /// Where.
        endpoint: String,
    },
    /// The repository has terms that nobody has accepted with this token.
    #[error(
        "{repo} is gated: accept its terms at {page}, then set HF_TOKEN to a token of the same account{}",
        if *.has_token { " (the present token may not read it)" } else { "" }
    )]
    Gated {
        /// Which repository.
        repo: Repo,
        /// Where its terms are.
        page: String,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// The hub wants another token, or one at all.
    #[error(
        "{endpoint} refuses access to {repo} ({status}): {}",
        if *.has_token {
            "the token may not read it, or is no longer valid; set HF_TOKEN to another one"
        } else {
            "set HF_TOKEN"
        }
    )]
    Denied {
        /// Which repository.
        repo: Repo,
        /// Where.
        endpoint: String,
        /// 401 or 403.
        status: u16,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// An answer that says no.
    #[error("{url} answered with status {status}")]
    Status {
        /// Who.
        url: String,
        /// What.
        status: u16,
    },
    /// The connection did not come about, or broke.
    #[error("no connection with {url}")]
    Network {
        /// With whom.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// Nothing came for too long.
    #[error("{url} sent nothing for {} s", .after.as_secs_f32())]
    Silent {
        /// Who.
        url: String,
        /// How long.
        after: Duration,
    },
    /// The connection ended before the file did.
    #[error("the connection with {url} ended at byte {at} of {size}")]
    Broken {
        /// With whom.
        url: String,
        /// How many bytes of the file had come.
        at: u64,
        /// How many it has.
        size: u64,
    },
    /// The same failure again and again.
    #[error("gave up after {attempts} attempts; check the network, or try again later")]
    GaveUp {
        /// How many.
        attempts: u32,
        /// The last one.
        #[source]
        source: Box<HubError>,
    },
    /// An answer that no hub gives.
    #[error("cannot understand the answer of {url}: {reason}; is HF_ENDPOINT a hub?")]
    Answer {
        /// Who.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file whose name would leave the folder it belongs to.
    #[error("{repo} has a file with the malformed name {name:?} at commit {commit}; nothing of it is used")]
    FileName {
        /// Which repository.
        repo: Repo,
        /// At which commit.
        commit: String,
        /// The name.
        name: String,
    },
    /// Bytes asked for that the file does not have.
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
    /// Another number of bytes than the listing says.
    #[error(
        "{url} sends {found} bytes of {path:?}, which has {expected}; is something between us and the hub?"
    )]
    OtherSize {
        /// Which file.
        path: String,
        /// As listed.
        expected: u64,
        /// As sent.
        found: u64,
        /// By whom.
        url: String,
    },
    /// Other bytes than the listing says, twice.
    #[error(
        "{url} sends {path:?} with digest {found}, listed as {expected}; is something between us and the hub?"
    )]
    OtherContent {
        /// Which file.
        path: String,
        /// As listed.
        expected: String,
        /// As computed.
        found: String,
        /// Who sent it.
        url: String,
    },
    /// Not on this machine, and no request may be made.
    #[error(
        "{repo} at revision {revision:?} is not in the cache {}, and HF_HUB_OFFLINE is set; \
         unset it, or fetch the repository on a machine with network",
        .cache.display()
    )]
    NotCached {
        /// Which repository.
        repo: Repo,
        /// At which revision.
        revision: String,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// A file that is not on this machine, and no request may be made.
    #[error(
        "{path:?} of {repo} at commit {commit} is not in the cache {}, and HF_HUB_OFFLINE is set; \
         unset it, or fetch the file on a machine with network",
        .cache.display()
    )]
    FileNotCached {
        /// Which repository.
        repo: Repo,
        /// At which commit.
        commit: String,
        /// Which file.
        path: String,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// No room for the file.
    #[error(
        "no room for {path:?} ({size} bytes) in {}; free some, or set HF_HUB_CACHE to another disk",
        .folder.display()
    )]
    DiskFull {
        /// Which file.
        path: String,
        /// Its size.
        size: u64,
        /// Where there is no room.
        folder: PathBuf,
    },
    /// The cache cannot be read or written.
    #[error("cannot {doing} {}; if the cache cannot be used, set HF_HUB_CACHE to another folder", .path.display())]
    Disk {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The Xet protocol failed; the caller goes on without it.
    #[error("the Xet download failed: {0}")]
    Xet(String),
    /// The thread behind the client has ended.
    #[error("the hub client has stopped")]
    Stopped,
}

impl HubError {
    /// Trouble on the way, or with this machine's disk, may pass; what the hub says stays so.
    pub fn failure_class(&self) -> FailureClass {
        match self {
            Self::Other { class, .. } => *class,
            Self::Network { .. }
            | Self::Silent { .. }
            | Self::Broken { .. }
            | Self::GaveUp { .. }
            | Self::DiskFull { .. }
            | Self::Disk { .. }
            | Self::Xet(_)
            | Self::Stopped => FailureClass::Retry,
            Self::Status { status, .. } if is_passing(*status) => FailureClass::Retry,
            Self::Setting { .. }
            | Self::Start(_)
            | Self::MalformedId(_)
            | Self::MalformedRevision { .. }
            | Self::NoRepo { .. }
            | Self::NoRevision { .. }
            | Self::NoFile { .. }
            | Self::Gated { .. }
            | Self::Denied { .. }
            | Self::Status { .. }
            | Self::Answer { .. }
            | Self::FileName { .. }
            | Self::OutsideFile { .. }
            | Self::OtherSize { .. }
            | Self::OtherContent { .. }
            | Self::NotCached { .. }
            | Self::FileNotCached { .. } => FailureClass::Reject,
        }
    }

    /// Whether the user's rights do not suffice: there is one, but not for this token.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Gated { .. } | Self::Denied { .. })
    }

    pub(super) fn disk(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Disk { doing, path: path.to_owned(), source }
    }
}

/// A reader's error carries what the hub's was.
impl From<HubError> for io::Error {
    fn from(error: HubError) -> Self {
        io::Error::other(error)
    }
}

/// Whether a request that got this status may get another one later.
pub(super) fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::RepoKind;

    #[test]
    fn errors_say_whether_to_try_again_and_what_to_do() {
        let repo = || Repo { kind: RepoKind::Dataset, id: "a/b".to_owned() };
        let check = |error: HubError, class: FailureClass, is_refused: bool, words: &str| {
            assert_eq!(error.failure_class(), class, "{error}");
            assert_eq!(error.is_refused(), is_refused, "{error}");
            assert!(error.to_string().contains(words), "{error}");
        };
        let (url, endpoint) = (|| "http://h/x".to_owned(), || "http://h".to_owned());
        let page = "http://h/datasets/a/b".to_owned();
        let gated = HubError::Gated { repo: repo(), page, has_token: false };
        check(
            gated,
            FailureClass::Reject,
            true,
            "accept its terms at http://h/datasets/a/b, then set HF_TOKEN",
        );
        let denied = HubError::Denied { repo: repo(), endpoint: endpoint(), status: 401, has_token: true };
        check(denied, FailureClass::Reject, true, "set HF_TOKEN to another one");
        let missing = HubError::NoRepo { repo: repo(), endpoint: endpoint() };
        check(missing, FailureClass::Reject, false, "no dataset a/b at http://h");
        for (status, class) in
            [(503, FailureClass::Retry), (429, FailureClass::Retry), (403, FailureClass::Reject)]
        {
            check(HubError::Status { url: url(), status }, class, false, "http://h/x answered with status");
        }
        let silent = HubError::Silent { url: url(), after: Duration::from_secs(30) };
        let gave_up = HubError::GaveUp { attempts: 8, source: Box::new(silent) };
        assert!(crate::failure::chain(&gave_up).contains("sent nothing for 30 s"));
        check(gave_up, FailureClass::Retry, false, "8 attempts");
        let full = HubError::DiskFull { path: "w".to_owned(), size: 7, folder: "/c".into() };
        check(full, FailureClass::Retry, false, "set HF_HUB_CACHE");
    }
}
