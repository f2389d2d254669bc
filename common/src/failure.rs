//! What a failure means for whoever asked: all that retry logic reads.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the caller of something that failed should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureClass {
    /// Another attempt may succeed: a lost worker, a store that did not answer, a lack of memory.
    Retry,
    /// No attempt can succeed: the input itself is at fault.
    Reject,
    /// This process cannot go on: its device is lost.
    Fatal,
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Retry => "retry",
            Self::Reject => "reject",
            Self::Fatal => "fatal",
        })
    }
}

/// The innermost cause, for errors whose layers between say the same over again.
pub fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// An error and all its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors end with their cause's words.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
