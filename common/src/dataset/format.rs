//! How a file is divided into texts and how it is compressed, by the ending of its name.

use serde::{Deserialize, Serialize};

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

    pub(super) fn ending(self) -> &'static str {
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
    pub(super) fn ending(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }
}

/// Format and compression by the ending of `path`, where they are known and something precedes them.
pub(super) fn kind_of(path: &str) -> Option<(Format, Compression)> {
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
