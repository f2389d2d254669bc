//! Where texts come from: the name of a dataset, the file behind it, and a streaming reader per format.
//!
//! A file is read front to back, once, with bounded memory; nothing in it is ever executed. Reading depends on
//! the file's bytes and the settings alone, so that every worker that reads the same file sees the same texts.

mod column;
mod delimited;
mod jsonl;
mod lines;
mod reader;
mod spec;
mod stream;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use reader::{Survey, Tally, TextReader, read_texts, survey};
pub use spec::{READER_VERSION, ReadLimits, ReadSettings, TextsIdentity, TextsSpec};

/// What a dataset is called: `file:PATH` or `file:PATH#column`.
///
/// A `#` starts a column only where a known file ending precedes it, so that `file:notes#2.txt` is one path.
/// Relative paths are relative to the folder in which the command runs, as on any command line.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DatasetName {
    path: String,
    column: Option<String>,
}

impl DatasetName {
    /// The file, as the user typed it.
    pub fn path(&self) -> &Path {
        Path::new(&self.path)
    }

    /// The column asked for, if one was.
    pub fn column(&self) -> Option<&str> {
        self.column.as_deref()
    }

    /// The file's name without folder and endings: `reviews` for `file:data/reviews.jsonl.gz`.
    pub fn stem(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or(&self.path);
        match kind_of(name) {
            Some((format, compression)) => {
                let endings = format.ending().len() + compression.ending().len();
                &name[..name.len() - endings]
            }
            None => name,
        }
    }

    /// The name of the folder that holds the file, where the path says it.
    pub fn folder(&self) -> Option<&str> {
        Path::new(&self.path).parent()?.file_name()?.to_str()
    }

    /// The format and the compression that the file's ending stands for.
    pub fn kind(&self) -> (Format, Compression) {
        kind_of(&self.path).expect("a parsed name has a known ending")
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file:{}", self.path)?;
        self.column.iter().try_for_each(|column| write!(f, "#{column}"))
    }
}

impl FromStr for DatasetName {
    type Err = DatasetError;

    fn from_str(text: &str) -> Result<Self, DatasetError> {
        let Some(rest) = text.strip_prefix("file:") else {
            if kind_of(text).is_some() && !text.contains(':') {
                return Err(DatasetError::NoScheme { name: text.to_owned() });
            }
            return Err(DatasetError::NotAvailable { name: text.to_owned() });
        };
        let (path, column) = match rest.rsplit_once('#') {
            Some((path, column)) if kind_of(path).is_some() => (path, Some(column)),
            _ => (rest, None),
        };
        let malformed = |reason| DatasetError::Malformed { name: text.to_owned(), reason };
        if path.is_empty() {
            return Err(malformed("the path is missing"));
        }
        if path.contains('\0') {
            return Err(malformed("a path cannot contain the character U+0000"));
        }
        let Some((format, _)) = kind_of(path) else {
            return Err(DatasetError::UnknownFormat { name: text.to_owned() });
        };
        if column == Some("") {
            return Err(malformed("the column after '#' is missing"));
        }
        if column.is_some() && format == Format::Text {
            return Err(malformed("a .txt file has no columns; leave out the '#' and what follows"));
        }
        Ok(Self { path: path.to_owned(), column: column.map(str::to_owned) })
    }
}

impl Serialize for DatasetName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DatasetName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// How a file is divided into texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One text a line, split at `\n` only; nothing is trimmed.
    Text,
    /// One JSON object a line; one field holds the text, or a list of texts.
    Jsonl,
    /// Comma-separated with a header row and quotes (RFC 4180).
    Csv,
    /// Tab-separated; header row and quotes as in [`Format::Csv`].
    Tsv,
}

impl Format {
    const ALL: [Self; 4] = [Self::Text, Self::Jsonl, Self::Csv, Self::Tsv];

    fn ending(self) -> &'static str {
        match self {
            Self::Text => ".txt",
            Self::Jsonl => ".jsonl",
            Self::Csv => ".csv",
            Self::Tsv => ".tsv",
        }
    }
}

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, of one or several members.
    Gzip,
    /// Zstandard, of one or several frames.
    Zstd,
}

impl Compression {
    fn ending(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }
}

/// Format and compression by the ending of `path`, where they are known and something precedes them.
fn kind_of(path: &str) -> Option<(Format, Compression)> {
    let (rest, compression) = match (path.strip_suffix(".gz"), path.strip_suffix(".zst")) {
        (Some(rest), _) => (rest, Compression::Gzip),
        (_, Some(rest)) => (rest, Compression::Zstd),
        _ => (path, Compression::None),
    };
    let named = |format: &Format| {
        rest.strip_suffix(format.ending()).is_some_and(|stem| !stem.is_empty() && !stem.ends_with('/'))
    };
    Format::ALL.into_iter().find(named).map(|format| (format, compression))
}

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
    #[error(
        "dataset {name:?} has an unknown ending; known are .txt, .jsonl, .csv and .tsv, each also with .gz or .zst"
    )]
    UnknownFormat {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_what_they_stand_for() {
        let check =
            |text: &str, path: &str, column: Option<&str>, stem: &str, kind: (Format, Compression)| {
                let name: DatasetName = text.parse().expect(text);
                assert_eq!(name.path(), Path::new(path), "{text}");
                assert_eq!(name.column(), column, "{text}");
                assert_eq!(name.stem(), stem, "{text}");
                assert_eq!(name.kind(), kind, "{text}");
                assert_eq!(name.to_string(), text);
            };
        use Compression as C;
        use Format as F;
        check("file:a.txt", "a.txt", None, "a", (F::Text, C::None));
        check("file:/d/a.b.jsonl.gz", "/d/a.b.jsonl.gz", None, "a.b", (F::Jsonl, C::Gzip));
        check("file:r.csv#body", "r.csv", Some("body"), "r", (F::Csv, C::None));
        check("file:c#.jsonl", "c#.jsonl", None, "c#", (F::Jsonl, C::None));
        check("file:c#.jsonl#t.x", "c#.jsonl", Some("t.x"), "c#", (F::Jsonl, C::None));
    }

    #[test]
    fn names_that_are_refused() {
        let check = |text: &str, expected: &str| {
            let message = text.parse::<DatasetName>().expect_err(text).to_string();
            assert!(message.contains(expected), "{text}: {message}");
        };
        check("c4", "not available yet; use file:PATH");
        check("Banking77Classification", "not available yet");
        check("hf:stanford/imdb", "not available yet");
        check("s3://bucket/x.txt", "not available yet");
        check("reviews.txt", "write file:reviews.txt");
        check("file:", "the path is missing");
        check("file:#text", "unknown ending");
        check("file:a.parquet", "unknown ending");
        check("file:a.csv#", "column after '#' is missing");
        check("file:a.txt#text", "no columns");
        check("file:dir/.txt", "unknown ending");
    }

    #[test]
    fn folders() {
        let folder = |text: &str| text.parse::<DatasetName>().expect(text).folder().map(str::to_owned);
        assert_eq!(folder("file:a/b/c.txt").as_deref(), Some("b"));
        assert_eq!(folder("file:c.txt"), None);
        assert_eq!(folder("file:../c.txt"), None);
    }
}
