//! What can be wrong with a dataset, and with one row of it.

use std::fmt;
use std::io;

use super::{KNOWN_ENDINGS, READER_VERSION};
use crate::failure::FailureClass;
use crate::hub::HubError;

/// Where in a file something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// A line, from 1.
    Line(u64),
    /// A row of a file without lines, from 0 as Parquet tools count.
    Row(u64),
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Row(row) => write!(f, "row {row}"),
        }
    }
}

/// What makes one row of a file unusable; with `bad_rows = "skip"` it is counted and left out.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadRow {
    /// The bytes are not UTF-8.
    #[error("not UTF-8 at byte {at}")]
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
    /// The columns of a file have different lengths.
    #[error("column {column:?} has no such row, another column has")]
    ColumnEnds {
        /// The shorter column.
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

/// Why a dataset gives no texts. Each but some of [`DatasetError::Hub`] is the user's to mend: no retry helps.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A path without `file:` in front.
    #[error("dataset {name:?} looks like a path; write file:{name}")]
    NoScheme {
        /// The name as typed.
        name: String,
    },
    /// `file:` with something wrong after it.
    #[error("dataset {name:?} is malformed: {reason}; write file:PATH or file:PATH#column")]
    Malformed {
        /// The name as typed.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// An ending that no reader knows.
    #[error("dataset {name:?} has an unknown ending; known are {KNOWN_ENDINGS}")]
    UnknownFormat {
        /// The name as typed.
        name: String,
    },
    /// The file cannot be opened or read.
    #[error("{file} cannot be read; check the path and its permissions")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A folder, a pipe or a device.
    #[error("{file} is not a regular file; name a file")]
    NotAFile {
        /// What was named.
        file: String,
    },
    /// Compressed data that does not decompress.
    #[error("{file} is damaged: it does not decompress as its ending says; fetch or make it again")]
    Damaged {
        /// The file.
        file: String,
        /// What the decompressor said.
        #[source]
        source: io::Error,
    },
    /// More decompressed data than allowed.
    #[error(
        "{file} holds more than {limit} bytes decompressed; raise data.decompressed_bytes_max if that is meant"
    )]
    TooLarge {
        /// The file.
        file: String,
        /// The value of the setting.
        limit: u64,
    },
    /// A record without an end in sight.
    #[error(
        "{file}, {at}: the record that starts here is longer than data.record_bytes_max = {limit} bytes; \
         close an open quote or raise the limit"
    )]
    RecordTooLong {
        /// The file.
        file: String,
        /// Where the record starts.
        at: At,
        /// The value of the setting.
        limit: u64,
    },
    /// An unusable row, and the settings say that this is an error.
    #[error("{file}, {at}: {reason}; mend it, or leave such rows out with data.bad_rows = \"skip\"")]
    Row {
        /// The file.
        file: String,
        /// Where the row starts.
        at: At,
        /// What is wrong with it.
        reason: BadRow,
    },
    /// A column that the file does not have.
    #[error("{file} has no column {column:?}; its columns are {columns}")]
    NoColumn {
        /// The file.
        file: String,
        /// The column asked for.
        column: String,
        /// The columns that are there, as a list for reading.
        columns: String,
    },
    /// A column that holds something else.
    #[error("{file}: column {column:?} holds neither strings nor lists of strings; name another")]
    NotTextColumn {
        /// The file.
        file: String,
        /// The column asked for.
        column: String,
    },
    /// No rule says which column holds the text.
    #[error(
        "{file}: it is not clear which column holds the text; name one as file:PATH#column out of {columns}"
    )]
    AmbiguousColumn {
        /// The file.
        file: String,
        /// The columns that could be meant, as a list for reading.
        columns: String,
    },
    /// No column of a hub file looks like text.
    #[error(
        "{file} has no column of texts that are 10 characters long on average; name its columns out of {columns}"
    )]
    NoLongColumn {
        /// The file.
        file: String,
        /// The columns that are there, as a list for reading.
        columns: String,
    },
    /// JSON whose structure ends or breaks off.
    #[error("{file}, {at}: the JSON document breaks off: {reason}; fetch or make it again")]
    BrokenJson {
        /// The file.
        file: String,
        /// Where.
        at: At,
        /// What is wrong.
        reason: &'static str,
    },
    /// Parquet that contradicts itself.
    #[error("{file} is not readable parquet: {reason}; fetch or make it again")]
    BrokenParquet {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// The hub gave no answer, or none that can be believed.
    #[error("{file} cannot be read from the hub")]
    Hub {
        /// The file.
        file: String,
        /// What the hub said.
        #[source]
        source: Box<HubError>,
    },
    /// A hub file where no hub is at hand.
    #[error(
        "{file} lies on a hub, which this process was started without; run it where the hub can be reached"
    )]
    NoHub {
        /// The file.
        file: String,
    },
    /// The repository has no such file at that commit.
    #[error("{file} does not exist; resolve the job again")]
    NotInRepo {
        /// The file.
        file: String,
    },
    /// A pattern that cannot be one.
    #[error("file pattern {pattern:?} is malformed: {reason}; write for example data/*.jsonl")]
    BadPattern {
        /// The pattern.
        pattern: String,
        /// What is wrong.
        reason: String,
    },
    /// A pattern that no file matches.
    #[error("no file matches {pattern:?}; check the path")]
    NoMatch {
        /// The pattern.
        pattern: String,
    },
    /// A pattern that would mean walking a whole disk.
    #[error("{pattern:?} means looking at more than {limit} files and folders; name a folder closer to them")]
    TooManyFiles {
        /// The pattern.
        pattern: String,
        /// How many are looked at.
        limit: usize,
    },
    /// Nothing was left after skipping.
    #[error(
        "{file} holds no texts ({n_blank} blank and {n_bad} unusable rows were skipped); name a file with texts"
    )]
    NoTexts {
        /// The file.
        file: String,
        /// Rows of white space only.
        n_blank: u64,
        /// Unusable rows.
        n_bad: u64,
    },
    /// The file is not the one that was surveyed.
    #[error("{file} has changed since the job was planned ({what}); restore it, or submit the job again")]
    Changed {
        /// The file.
        file: String,
        /// What differs.
        what: String,
    },
    /// A file of unknown content in a plan that has to be carried out.
    #[error("{file} was planned without a digest; survey local files first")]
    Unpinned {
        /// The file.
        file: String,
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

impl DatasetError {
    /// What the failure means for an attempt: only what the hub said may pass.
    pub fn failure_class(&self) -> FailureClass {
        match self {
            Self::Hub { source, .. } => source.failure_class(),
            _ => FailureClass::Reject,
        }
    }
}
