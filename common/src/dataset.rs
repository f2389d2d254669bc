//! Where texts come from: the name of a dataset, the files behind it, and a streaming reader per format.
//!
//! Files are read front to back with bounded memory (of Parquet, only the columns that are wanted); nothing in them is
//! ever executed. Reading depends on the files' bytes and the settings alone, so that every worker that reads the same
//! files sees the same texts.
//!
//! ```text
//! DatasetName ─► TextsPlan { files: Vec<SourceFile>, settings } ─► survey (local files) or read_texts ─► Text, Text, …
//!                                    FileOpener: bytes of a file ──┘
//! ```
//! Objects in a bucket are fetched first and are local files from then on.

pub mod catalogue;
mod column;
mod content;
mod delimited;
mod error;
pub mod files;
mod format;
mod json;
mod jsonl;
mod lines;
mod local;
mod name;
mod objects;
mod opener;
mod parquet;
mod reader;
mod record;
mod rows;
mod selection;
mod source;
mod spec;
mod stream;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use error::{At, BadRow, DatasetError};
pub use format::{Compression, Format, KNOWN_ENDINGS};
pub use local::{local_files, local_plan};
pub use name::{BucketName, C4Name, DatasetName, FileName, HubName, NameError, RepoName, TaskName};
pub use objects::{ObjectsError, objects_plan};
pub use opener::{ByPlace, FileOpener, HubFiles, LocalFiles};
pub use reader::{Survey, Tally, TextReader, read_texts, survey};
pub use source::{Columns, Place, SourceFile};
pub use spec::{
    READER_VERSION, ReadLimits, ReadSettings, STREAMS_DEFAULT, Sampling, TextsIdentity, TextsPlan, TextsSpec,
};
