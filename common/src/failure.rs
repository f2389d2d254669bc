//! What a failure means for whoever asked: all that retry logic reads.

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
