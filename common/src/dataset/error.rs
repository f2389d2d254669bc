//! What can be wrong with a dataset, and with one row of it.

use std::io;
use std::path::PathBuf;

use super::READER_VERSION;

/// What makes one row of a file unusable; with `bad_rows = "skip"` it is counted and left out.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadRow {
    /// The bytes are not UTF-8.
    #[error("not UTF-8 at byte {at} of the line")]
    NotUtf8 {
        /// Position of the first faulty byte, from 1.
        at: usize,
    },
    /// The text or the record is longer than allowed.
    #[error("{bytes} bytes are more than data.{limit_name} = {limit} allows")]
    TooLong {
        /// How long it is.
        bytes: u64,
        /// The setting that it breaks.
        limit_name: &'static str,
        /// The value of that setting.
        limit: u64,
    },
    /// Not JSON.
    #[error("not valid JSON: {reason}")]
    NotJson {
        /// What the parser said.
        reason: String,
    },
    /// JSON, but no object.
    #[error("a JSON object is expected, such as {{\"text\": \"…\"}}")]
    NotAnObject,
    /// The record has no such column.
    #[error("there is no field {column:?}; the fields are {columns}")]
    MissingField {
        /// The column wanted.
        column: String,
        /// The fields that are there, as a list for reading.
        columns: String,
    },
    /// No field could hold a text, so that no column could be chosen.
    #[error("no field holds a string or a list of strings; the fields are {columns}")]
    NoTextField {
        /// The fields that are there, as a list for reading.
        columns: String,
    },
    /// The column holds something else than a string or a list of strings.
    #[error("field {column:?} is neither a string nor a list of strings")]
    NotAString {
        /// The column wanted.
        column: String,
    },
    /// A record with more or fewer fields than the header.
    #[error("{found} fields where the header has {expected}")]
    FieldCount {
        /// Fields in the record.
        found: usize,
        /// Fields in the header.
        expected: usize,
    },
}

/// Why a dataset gives no texts. Each is the user's to mend: no retry helps.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A name that needs the hub.
    #[error(
        "dataset {name:?} is not available yet; use file:PATH with a .txt, .jsonl, .csv or .tsv file \
         (each also .gz or .zst)"
    )]
    NotAvailable {
        /// The name as typed.
        name: String,
    },
    /// The file cannot be opened or read.
    #[error("{} cannot be read; check the path and its permissions", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A folder, a pipe or a device.
    #[error("{} is not a regular file; name a file", path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
    },
    /// Compressed data that does not decompress.
    #[error("{} is damaged: it does not decompress as its ending says; fetch or make it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the decompressor said.
        #[source]
        source: io::Error,
    },
    /// More decompressed data than allowed.
    #[error(
        "{} holds more than {limit} bytes decompressed; raise data.decompressed_bytes_max if that is meant",
        path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The value of the setting.
        limit: u64,
    },
    /// A record without an end in sight.
    #[error(
        "{}, line {line}: the record that starts here is longer than data.record_bytes_max = {limit} bytes; \
         close an open quote or raise the limit",
        path.display()
    )]
    RecordTooLong {
        /// The file.
        path: PathBuf,
        /// Where the record starts, from 1.
        line: u64,
        /// The value of the setting.
        limit: u64,
    },
    /// An unusable row, and the settings say that this is an error.
    #[error("{}, line {line}: {reason}; mend it, or leave such rows out with data.bad_rows = \"skip\"", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Where the row starts, from 1.
        line: u64,
        /// What is wrong with it.
        reason: BadRow,
    },
    /// A column that the file does not have.
    #[error("{} has no column {column:?}; its columns are {columns}", path.display())]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// The column asked for.
        column: String,
        /// The columns that are there, as a list for reading.
        columns: String,
    },
    /// No rule says which column holds the text.
    #[error(
        "{}: it is not clear which column holds the text; name one as file:PATH#column out of {columns}",
        path.display()
    )]
    AmbiguousColumn {
        /// The file.
        path: PathBuf,
        /// The columns that could be meant, as a list for reading.
        columns: String,
    },
    /// Nothing was left after skipping.
    #[error("{} holds no texts ({n_blank} blank and {n_bad} unusable rows were skipped); name a file with texts", path.display())]
    NoTexts {
        /// The file.
        path: PathBuf,
        /// Rows of white space only.
        n_blank: u64,
        /// Unusable rows.
        n_bad: u64,
    },
    /// The file is not the one that was surveyed.
    #[error("{} has changed since the job was planned ({what}); restore it, or submit the job again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// A spec from a program with another reader.
    #[error(
        "the texts were planned with reader version {found}, this program has {READER_VERSION}; use one release everywhere"
    )]
    OtherReader {
        /// The version in the spec.
        found: u32,
    },
}
