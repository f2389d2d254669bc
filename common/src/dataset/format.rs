//! How a file is divided into rows and how it is compressed, by the ending of its name.

use serde::{Deserialize, Serialize};

/// The endings of files that can be read, for messages.
pub const KNOWN_ENDINGS: &str =
    ".txt, .jsonl, .json, .csv, .tsv (each also .gz, .zst, .bz2 or .xz) and .parquet";

/// How a file is divided into rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One text a line, split at `\n` only; nothing is trimmed.
    Text,
    /// One JSON object a line; a field holds a text, or a list of texts.
    Jsonl,
    /// One JSON document: an array of objects, an object with such an array in it, or an object of columns. A file
    /// whose first line is a whole object and not its last one is read as [`Format::Jsonl`].
    Json,
    /// Comma-separated with a header row and quotes (RFC 4180).
    Csv,
    /// Tab-separated; header row and quotes as in [`Format::Csv`].
    Tsv,
    /// Apache Parquet: columns of strings, and of lists of strings.
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
    /// Not at all, or, as in Parquet, inside.
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
    const ALL: [Self; 5] = [Self::Gzip, Self::Zstd, Self::Bzip2, Self::Xz, Self::None];

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
    let strip = |compression: Compression| Some((path.strip_suffix(compression.ending())?, compression));
    let (rest, compression) = Compression::ALL.into_iter().find_map(strip)?;
    let named = |format: &Format| {
        rest.strip_suffix(format.ending()).is_some_and(|stem| !stem.is_empty() && !stem.ends_with('/'))
    };
    let format = Format::ALL.into_iter().find(named)?;
    // The footer of a Parquet file stands at its end: around it no compression makes sense.
    (format != Format::Parquet || compression == Compression::None).then_some((format, compression))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings() {
        let check = |path: &str, expected| assert_eq!(kind_of(path), expected, "{path}");
        check("a.txt", Some((Format::Text, Compression::None)));
        check("d/a.b.json.gz", Some((Format::Json, Compression::Gzip)));
        check("a.jsonl.zst", Some((Format::Jsonl, Compression::Zstd)));
        check("a.csv.bz2", Some((Format::Csv, Compression::Bzip2)));
        check("a.tsv.xz", Some((Format::Tsv, Compression::Xz)));
        check("a.parquet", Some((Format::Parquet, Compression::None)));
        for unknown in ["a.parquet.gz", "a.gz", ".txt", "d/.json", "a", "a.txt.lz4", ""] {
            check(unknown, None);
        }
    }
}
