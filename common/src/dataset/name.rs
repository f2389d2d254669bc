//! What a dataset is called.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::format::kind_of;
use super::{Compression, DatasetError, Format};

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
