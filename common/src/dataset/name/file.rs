//! `file:PATH[#column]`

use std::fmt;
use std::path::Path;

use super::NameError;
use crate::dataset::format::kind_of;
use crate::dataset::{Compression, Format};

/// One file or, by a pattern, several: `file:PATH` or `file:PATH#column`.
///
/// A `#` starts a column only where a known file ending precedes it, so that `file:notes#2.txt` is one path.
/// Relative paths are relative to the folder in which the command runs, as on any command line.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileName {
    path: String,
    column: Option<String>,
}

/// What makes a path a pattern.
const WILD: [char; 3] = ['*', '?', '['];

impl FileName {
    pub(super) fn parse(text: &str, rest: &str) -> Result<Self, NameError> {
        let (path, column) = match rest.rsplit_once('#') {
            Some((path, column)) if kind_of(path).is_some() => (path, Some(column)),
            _ => (rest, None),
        };
        let form = "file:PATH or file:PATH#column";
        let malformed = |reason| NameError::Malformed { name: text.to_owned(), reason, form };
        if path.is_empty() {
            return Err(malformed("the path is missing"));
        }
        if path.contains('\0') {
            return Err(malformed("a path cannot contain the character U+0000"));
        }
        let Some((format, _)) = kind_of(path) else {
            return Err(NameError::UnknownFormat { name: text.to_owned() });
        };
        if column == Some("") {
            return Err(malformed("the column after '#' is missing"));
        }
        if column.is_some() && format == Format::Text {
            return Err(malformed("a .txt file has no columns; leave out the '#' and what follows"));
        }
        Ok(Self { path: path.to_owned(), column: column.map(str::to_owned) })
    }

    /// The file or the pattern, as the user typed it.
    pub fn path(&self) -> &Path {
        Path::new(&self.path)
    }

    /// The pattern, where the path is one: `*`, `?` and `[…]` stand for characters of a name, `**` for folders. A
    /// file that bears that very name is what is meant, if there is one.
    pub fn pattern(&self) -> Option<&str> {
        self.path.contains(WILD).then_some(self.path.as_str())
    }

    /// The column asked for, if one was.
    pub fn column(&self) -> Option<&str> {
        self.column.as_deref()
    }

    /// The file's name without folder and endings: `reviews` for `file:data/reviews.jsonl.gz`. Of a pattern what is
    /// fixed in its last part, or else in the parts above: `data` for `file:data/*.jsonl`.
    pub fn stem(&self) -> String {
        let (format, compression) = self.kind();
        let endings = format.ending().len() + compression.ending().len();
        let path = &self.path[..self.path.len() - endings];
        let name = path.rsplit('/').next().unwrap_or(path);
        if self.pattern().is_none() {
            return name.to_owned();
        }
        let fixed = |part: &str| {
            let part: String = part.chars().filter(|c| !WILD.contains(c) && *c != ']').collect();
            part.trim_matches(|c: char| !c.is_alphanumeric()).to_owned()
        };
        path.rsplit('/').map(fixed).find(|part| !part.is_empty()).unwrap_or_else(|| "files".to_owned())
    }

    /// The name of the folder that holds the file, where the path says it.
    pub fn folder(&self) -> Option<&str> {
        Path::new(&self.path).parent()?.file_name()?.to_str()
    }

    /// The format and the compression that the ending stands for.
    pub fn kind(&self) -> (Format, Compression) {
        kind_of(&self.path).expect("a parsed name has a known ending")
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file:{}", self.path)?;
        self.column.iter().try_for_each(|column| write!(f, "#{column}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<FileName, NameError> {
        FileName::parse(text, text.strip_prefix("file:").expect("a file's name"))
    }

    #[test]
    fn names_and_what_they_stand_for() {
        let check =
            |text: &str, path: &str, column: Option<&str>, stem: &str, kind: (Format, Compression)| {
                let name = parse(text).expect(text);
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
        check("file:a.parquet", "a.parquet", None, "a", (F::Parquet, C::None));
        check("file:a.json.xz", "a.json.xz", None, "a", (F::Json, C::Xz));
        check("file:d/*.jsonl.gz", "d/*.jsonl.gz", None, "d", (F::Jsonl, C::Gzip));
        check("file:d/part-*.csv#t", "d/part-*.csv", Some("t"), "part", (F::Csv, C::None));
        check("file:d/**/[ab]?.txt", "d/**/[ab]?.txt", None, "ab", (F::Text, C::None));
        check("file:**/*.txt", "**/*.txt", None, "files", (F::Text, C::None));
    }

    #[test]
    fn names_that_are_refused() {
        let check = |text: &str, expected: &str| {
            let message = parse(text).expect_err(text).to_string();
            assert!(message.contains(expected), "{text}: {message}");
        };
        check("file:", "the path is missing");
        check("file:#text", "unknown ending");
        check("file:a.pdf", "unknown ending");
        check("file:data/**", "unknown ending");
        check("file:a.csv#", "column after '#' is missing");
        check("file:a.txt#text", "no columns");
        check("file:dir/.txt", "unknown ending");
        check("file:a\0.txt", "U+0000");
    }

    #[test]
    fn folders() {
        let folder = |text: &str| parse(text).expect(text).folder().map(str::to_owned);
        assert_eq!(folder("file:a/b/c.txt").as_deref(), Some("b"));
        assert_eq!(folder("file:c.txt"), None);
        assert_eq!(folder("file:../c.txt"), None);
    }
}
