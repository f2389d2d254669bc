//! Generated types of `proto/v1` and every conversion between them and the crate's own types.
//!
//! Nothing outside this module and the `rpc` files sees a generated type. Conversions from the wire name the faulty
//! field and never panic on what a peer sent.

pub mod convert;

/// What workers speak.
pub mod work {
    #![expect(missing_docs, reason = "generated from proto/v1/work.proto, which holds the comments")]
    tonic::include_proto!("lsa.work.v1");
}

/// What clients speak.
pub mod job {
    #![expect(missing_docs, reason = "generated from proto/v1/job.proto, which holds the comments")]
    tonic::include_proto!("lsa.job.v1");
}

/// Raised when an older peer could misread a message.
pub const PROTOCOL_VERSION: u32 = 2;

/// The largest message that either side takes: a report of some trials of a deep model fits with room to spare.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// What a peer sent is not what the field may hold.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{field}: {fault}")]
pub struct WireError {
    /// Path of the field.
    pub field: &'static str,
    /// What is wrong with it.
    pub fault: String,
}

impl WireError {
    /// A field that had to be there.
    pub fn missing(field: &'static str) -> Self {
        Self { field, fault: "missing".to_owned() }
    }

    /// A field whose value is not allowed.
    pub fn invalid(field: &'static str, fault: impl ToString) -> Self {
        Self { field, fault: fault.to_string() }
    }
}

impl From<WireError> for tonic::Status {
    fn from(error: WireError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}
