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
    /// One JSON document, an array of objects as in [`Format::Jsonl`].
    Json,
    /// Comma-separated with a header row and quotes (RFC 4180).
    Csv,
    /// Tab-separated; header row and quotes as in [`Format::Csv`].
    Tsv,
    /// Apache Parquet.
    Parquet,
}

impl Format {
    const ALL: [Self; 6] = [Self::Text, Self::Jsonl, Self::Json, Self::Csv, Self::Tsv, Self::Parquet];

    pub(super) fn ending(self) -> &'static str {
        match self {
            Self::Text => ".txt",
            Self::Jsonl => ".jsonl",
            Self::Json => ".json",
            Self::Csv => ".csv",
            Self::Tsv => ".tsv",
            Self::Parquet => ".parquet",
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
    /// bzip2, of one or several streams.
    Bzip2,
    /// xz, of one or several streams.
    Xz,
}

impl Compression {
    const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Zstd, Self::Bzip2, Self::Xz];

    pub(super) fn ending(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
            Self::Bzip2 => ".bz2",
            Self::Xz => ".xz",
        }
    }
}

/// Format and compression by the ending of `path`, where they are known and something precedes them.
pub(super) fn kind_of(path: &str) -> Option<(Format, Compression)> {
    let compression =
        |compression: &Compression| *compression != Compression::None && path.ends_with(compression.ending());
    let compression = Compression::ALL.into_iter().find(compression).unwrap_or(Compression::None);
    let rest = path.strip_suffix(compression.ending())?;
    let named = |format: &Format| {
        rest.strip_suffix(format.ending()).is_some_and(|stem| !stem.is_empty() && !stem.ends_with('/'))
    };
    Format::ALL.into_iter().find(named).map(|format| (format, compression))
}
