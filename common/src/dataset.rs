//! Where texts come from: the name of a dataset, the file behind it, and a streaming reader per format.
//!
//! A file is read front to back, once, with bounded memory; nothing in it is ever executed. Reading depends on
//! the file's bytes and the settings alone, so that every worker that reads the same file sees the same texts.

pub mod catalogue;
mod column;
mod delimited;
mod error;
pub mod files;
mod format;
mod jsonl;
mod lines;
mod name;
mod reader;
mod source;
mod spec;
mod stream;

pub use error::{BadRow, DatasetError};
pub use format::{Compression, Format};
pub use name::{BucketName, C4Name, DatasetName, FileName, HubName, NameError, RepoName, TaskName};
pub use reader::{Survey, Tally, TextReader, read_texts, survey};
pub use source::{Columns, Place, SourceFile};
pub use spec::{READER_VERSION, ReadLimits, ReadSettings, TextsIdentity, TextsSpec};
