//! Why objects cannot be read.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use object_store::client::HttpError;

use crate::dataset::KNOWN_ENDINGS;
use crate::failure::FailureClass;

/// Longer reasons are cut.
const REASON_CHARS_MAX: usize = 200;

/// Why objects cannot be read. What a server says is not repeated but for its code: a refusal may hold what was signed,
/// and a session token with it.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// A name that is no key, or one that would not be shown as it is.
    #[error("{name:?} cannot be read: {reason}; give the object another name")]
    BadName {
        /// Of the prefix or the object.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The environment contradicts itself.
    #[error(
        "{name} cannot be reached: {reason}; check AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and \
         AWS_SECRET_ACCESS_KEY"
    )]
    Settings {
        /// The dataset.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Nobody to ask as.
    #[error(
        "there are no credentials for {name} ({reason}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, with temporary \
         ones AWS_SESSION_TOKEN too, or AWS_SKIP_SIGNATURE=true where everybody may read"
    )]
    NoCredentials {
        /// The dataset.
        name: String,
        /// What was tried last.
        reason: String,
    },
    /// The server says no.
    #[error(
        "access to {name} is refused ({reason}); check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and \
         AWS_REGION, and that they may list the bucket and read its objects"
    )]
    Refused {
        /// The dataset or the object.
        name: String,
        /// What it said.
        reason: String,
    },
    /// No bucket, or an object that is gone.
    #[error("{name} does not exist ({reason}); check the bucket's name, AWS_ENDPOINT_URL and AWS_REGION")]
    NotFound {
        /// The dataset or the object.
        name: String,
        /// What the server said.
        reason: String,
    },
    /// No data files.
    #[error(
        "no object is called {name} or lies below it and ends in {KNOWN_ENDINGS} ({n_seen} looked at); check the prefix: \
         it is the whole name of an object, or of a folder"
    )]
    Nothing {
        /// The dataset.
        name: String,
        /// Objects below it, with other endings or empty.
        n_seen: usize,
    },
    /// Too many of them.
    #[error("more than {limit} objects lie below {name}; name a prefix closer to those that are meant")]
    TooMany {
        /// The dataset.
        name: String,
        /// How many may.
        limit: usize,
    },
    /// No answer, or none that can be believed.
    #[error("{name} cannot be read: {reason}; check AWS_ENDPOINT_URL and AWS_REGION, and try again")]
    Request {
        /// The dataset or the object.
        name: String,
        /// Why.
        reason: String,
    },
    /// It is another version than was listed.
    #[error("{name} has changed while it was fetched; try again")]
    Changed {
        /// The object.
        name: String,
    },
    /// It broke off, or went on.
    #[error("{name} came with {size} bytes instead of {listed}; try again")]
    Size {
        /// The object.
        name: String,
        /// Bytes that came.
        size: u64,
        /// Bytes that were announced.
        listed: u64,
    },
    /// The cache cannot be written.
    #[error(
        "cannot write {} of the cache; free space, or set XDG_CACHE_HOME to a folder that you may write to",
        path.display()
    )]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ObjectsError {
    /// What a server's answer about `name` means.
    pub(super) fn of(name: &str, error: &object_store::Error) -> Self {
        use object_store::Error as E;
        let (name, reason) = (name.to_owned(), reason(error));
        let answer = Answer::of(error);
        match (error, answer.status, answer.code.as_deref()) {
            (E::InvalidPath { .. }, ..) => {
                let reason =
                    "a key below it has an empty part, one that is '.' or '..', or a control character";
                Self::BadName { name, reason: reason.to_owned() }
            }
            (E::PermissionDenied { .. } | E::Unauthenticated { .. }, ..)
            | (_, Some(401 | 403), _)
            | (_, _, Some("ExpiredToken" | "InvalidToken")) => Self::Refused { name, reason },
            (E::NotFound { .. }, ..) | (_, Some(404), _) => Self::NotFound { name, reason },
            (E::Precondition { .. }, ..) => Self::Changed { name },
            _ => Self::Request { name, reason },
        }
    }

    /// Whether the same question may be answered later.
    pub fn failure_class(&self) -> FailureClass {
        match self {
            Self::Request { .. } | Self::Changed { .. } | Self::Size { .. } => FailureClass::Retry,
            Self::BadName { .. }
            | Self::Settings { .. }
            | Self::NoCredentials { .. }
            | Self::Refused { .. }
            | Self::NotFound { .. }
            | Self::Nothing { .. }
            | Self::TooMany { .. }
            | Self::Disk { .. } => FailureClass::Reject,
        }
    }

    /// Whether the server wants to know who asks.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::NoCredentials { .. } | Self::Refused { .. })
    }
}

/// What a server answered, where one did.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    status: Option<u16>,
    code: Option<String>,
}

impl Answer {
    /// The library gives the answer as text alone.
    fn of(error: &object_store::Error) -> Self {
        let text = error.to_string();
        let status = text.split_once("status code: ").and_then(|(_, rest)| rest.get(..3)?.parse().ok());
        let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
        let is_code = |code: &&str| code.len() <= 64 && code.chars().all(|c| c.is_ascii_alphanumeric());
        Self { status, code: code.map(|(code, _)| code).filter(is_code).map(str::to_owned) }
    }
}

/// What went wrong, without the words of the server.
pub(super) fn reason(error: &object_store::Error) -> String {
    match Answer::of(error) {
        Answer { status: Some(status), code: Some(code) } => format!("HTTP {status}, {code}"),
        Answer { status: Some(status), code: None } => format!("HTTP {status}"),
        Answer { status: None, code: Some(code) } => code,
        Answer { status: None, code: None } => {
            let mut deepest: &dyn Error = error;
            let mut is_http = false;
            while let Some(cause) = deepest.source() {
                is_http |= cause.is::<HttpError>();
                deepest = cause;
            }
            let text = if is_http { format!("no answer: {deepest}") } else { deepest.to_string() };
            text.chars().take(REASON_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_by_their_codes() {
        let answer =
            |text: &str| object_store::Error::Generic { store: "S3", source: text.to_owned().into() };
        let body = "<Error><Code>SignatureDoesNotMatch</Code><CanonicalRequest>x-amz-security-token:hunter2";
        let text = format!("Server returned non-2xx status code: 403 Forbidden: {body}");
        let refused = ObjectsError::of("s3://b/k.txt", &answer(&text));
        let message = refused.to_string();
        assert!(refused.is_refused() && message.contains("(HTTP 403, SignatureDoesNotMatch)"), "{message}");
        assert!(!message.contains("hunter2") && message.contains("AWS_SECRET_ACCESS_KEY"), "{message}");

        let expired = answer("status code: 400 Bad Request: <Code>ExpiredToken</Code>");
        assert!(ObjectsError::of("s3://b/k.txt", &expired).is_refused());
        let gone =
            ObjectsError::of("s3://b/k", &answer("status code: 404 Not Found: <Code>NoSuchBucket</Code>"));
        assert!(
            matches!(&gone, ObjectsError::NotFound { reason, .. } if reason.contains("NoSuchBucket")),
            "{gone}"
        );
        let broken = ObjectsError::of("s3://b/k", &answer("connection\u{1b}[31m reset"));
        assert_eq!(broken.failure_class(), FailureClass::Retry);
        assert!(broken.to_string().contains("connection [31m reset"), "{broken}");
    }
}
