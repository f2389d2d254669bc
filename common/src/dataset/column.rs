//! Which columns of a file hold its texts, where nobody has said so.

use super::DatasetError;
use super::opener::name_of;
use super::rows::Cell;
use super::source::{Columns, SourceFile};

/// Columns of a local file that hold the text wherever they exist, in this order.
const USUAL: [&str; 3] = ["text", "sentence", "content"];

/// The same for hub files; two names are two texts a row.
const KNOWN: [&[&str]; 8] = [
    &["text"],
    &["sentences"],
    &["sentence"],
    &["sentence1", "sentence2"],
    &["sent1", "sent2"],
    &["query"],
    &["content"],
    &["title"],
];

/// A column of a hub file that nobody knows holds texts where they have so many characters on average.
const MEAN_CHARS_MIN: u64 = 10;

/// A column that a file has.
pub(super) struct Column {
    pub(super) name: String,
    /// Whether it can hold texts: a string or a list of strings.
    pub(super) is_text: bool,
}

/// How long the texts of a column are.
#[derive(Clone, Copy, Default)]
pub(super) struct Lengths {
    pub(super) n_texts: u64,
    pub(super) n_chars: u64,
}

impl Lengths {
    /// Counts what is no white space alone.
    pub(super) fn add(&mut self, cell: &Cell) {
        let mut count = |text: &String| {
            if !text.trim().is_empty() {
                self.n_texts += 1;
                self.n_chars += text.chars().count() as u64;
            }
        };
        match cell {
            Cell::Blank => {}
            Cell::Text(text) => count(text),
            Cell::Texts(texts) => texts.iter().for_each(count),
        }
    }
}

/// For a local file: `text`, `sentence` or `content`, the first that exists; else the only text column.
pub(super) fn choose_local(file: &SourceFile, columns: &[Column]) -> Result<Columns, DatasetError> {
    let texts = || columns.iter().filter(|column| column.is_text).map(|column| column.name.as_str());
    if let Some(usual) = USUAL.into_iter().find(|usual| texts().any(|name| name == *usual)) {
        return Ok(one(usual));
    }
    match (texts().next(), texts().nth(1)) {
        (Some(only), None) => Ok(one(only)),
        (Some(_), Some(_)) => {
            Err(DatasetError::AmbiguousColumn { file: name_of(file), columns: listing(texts()) })
        }
        (None, _) => Err(no_column(file, USUAL[0], columns)),
    }
}

/// For a hub file: the first of the known names whose columns all exist.
pub(super) fn choose_known(columns: &[Column]) -> Option<Columns> {
    let is_there = |name: &&str| columns.iter().any(|column| column.is_text && column.name == *name);
    let known = KNOWN.into_iter().find(|names| names.iter().all(is_there))?;
    Some(Columns { names: known.iter().map(|name| (*name).to_owned()).collect(), joined: false })
}

/// For a hub file without known names: the columns worth measuring.
pub(super) fn candidates(columns: &[Column]) -> Vec<String> {
    let texts = columns.iter().filter(|column| column.is_text && !is_beside(&column.name));
    texts.map(|column| column.name.clone()).collect()
}

/// Of the candidates, those whose texts are long enough.
pub(super) fn choose_long(
    file: &SourceFile,
    columns: &[Column],
    measured: &[(String, Lengths)],
) -> Result<Columns, DatasetError> {
    let is_long = |lengths: &Lengths| {
        lengths.n_texts > 0 && lengths.n_chars >= lengths.n_texts.saturating_mul(MEAN_CHARS_MIN)
    };
    let long = measured.iter().filter(|(_, lengths)| is_long(lengths));
    let names: Vec<String> = long.map(|(name, _)| name.clone()).collect();
    if names.is_empty() {
        let columns = listing(columns.iter().map(|column| column.name.as_str()));
        return Err(DatasetError::NoLongColumn { file: name_of(file), columns });
    }
    Ok(Columns { names, joined: false })
}

/// Whether a column of that name stands beside texts rather than holding them: ids, labels, languages, addresses.
fn is_beside(name: &str) -> bool {
    const NAMES: [&str; 16] = [
        "id",
        "_id",
        "idx",
        "index",
        "guid",
        "uuid",
        "key",
        "url",
        "uri",
        "link",
        "score",
        "scores",
        "date",
        "time",
        "timestamp",
        "split",
    ];
    let last = name.rsplit('.').next().unwrap_or(name).to_lowercase();
    NAMES.contains(&last.as_str())
        || ["label", "lang"].iter().any(|start| last.starts_with(start))
        || ["_id", "-id", "_url"].iter().any(|end| last.ends_with(end))
}

/// The columns out of `wanted` to read of a file that has these: all of them. Of columns that are joined the file may
/// lack some, as a corpus lacks titles, but not all.
pub(super) fn present(
    file: &SourceFile,
    wanted: &Columns,
    columns: &[Column],
) -> Result<Vec<String>, DatasetError> {
    let is_there = |name: &&String| columns.iter().any(|column| column.name == **name);
    let (there, missing): (Vec<&String>, Vec<&String>) = wanted.names.iter().partition(is_there);
    match missing.first() {
        Some(name) if !wanted.joined || there.is_empty() => Err(no_column(file, name, columns)),
        Some(_) | None => Ok(there.into_iter().cloned().collect()),
    }
}

fn one(name: &str) -> Columns {
    Columns { names: vec![name.to_owned()], joined: false }
}

fn no_column(file: &SourceFile, name: &str, columns: &[Column]) -> DatasetError {
    let columns = listing(columns.iter().map(|column| column.name.as_str()));
    DatasetError::NoColumn { file: name_of(file), column: name.to_owned(), columns }
}

/// Names for an error message: quoted, cut at 60 characters, at most 20 of them.
pub(super) fn listing<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 20;
    const CHARS: usize = 60;
    let mut quoted: Vec<String> = Vec::new();
    let mut n_left = 0;
    for name in names {
        if quoted.len() < SHOWN {
            quoted.push(format!("{:?}", name.chars().take(CHARS).collect::<String>()));
        } else {
            n_left += 1;
        }
    }
    match (quoted.is_empty(), n_left) {
        (true, _) => "none".to_owned(),
        (false, 0) => quoted.join(", "),
        (false, _) => format!("{} and {n_left} more", quoted.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::local_file;
    use super::*;

    fn columns(names: &[(&str, bool)]) -> Vec<Column> {
        names.iter().map(|(name, is_text)| Column { name: (*name).to_owned(), is_text: *is_text }).collect()
    }

    #[test]
    fn rules_for_local_files() {
        let check = |names: &[(&str, bool)], expected: Result<&str, &str>| {
            let chosen = choose_local(&local_file("f.jsonl"), &columns(names));
            match (chosen.map_err(|error| error.to_string()), expected) {
                (Ok(chosen), Ok(column)) => assert_eq!(chosen.names, [column], "{names:?}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{names:?}: {error}"),
                (chosen, _) => panic!("{names:?}: {chosen:?}"),
            }
        };
        check(&[("id", true), ("text", true)], Ok("text"));
        check(&[("content", true), ("sentence", true)], Ok("sentence"));
        check(&[("text", false), ("body", true)], Ok("body"));
        check(&[("id", false), ("review", true)], Ok("review"));
        check(&[("a", true), ("b", true)], Err("\"a\", \"b\""));
        check(&[("id", false)], Err("has no column \"text\"; its columns are \"id\""));
    }

    #[test]
    fn columns_that_are_missing() {
        let check = |wanted: &[&str], joined: bool, expected: Result<&[&str], &str>| {
            let names = wanted.iter().map(|name| (*name).to_owned()).collect();
            let there = columns(&[("a", true), ("b", false)]);
            let found = present(&local_file("f.csv"), &Columns { names, joined }, &there);
            let found = found.map_err(|error| error.to_string());
            match (&found, expected) {
                (Ok(found), Ok(names)) => assert_eq!(found, names, "{wanted:?}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{wanted:?}: {error}"),
                _ => panic!("{wanted:?}: {found:?}"),
            }
        };
        check(&["b", "a"], false, Ok(&["b", "a"]));
        check(&["c", "a"], false, Err("has no column \"c\"; its columns are \"a\", \"b\""));
        check(&["c", "a"], true, Ok(&["a"]));
        check(&["c", "d"], true, Err("has no column \"c\""));
    }

    #[test]
    fn rules_for_hub_files() {
        let check = |names: &[(&str, bool)], expected: &[&str]| {
            let chosen = choose_known(&columns(names)).map_or(Vec::new(), |columns| columns.names);
            assert_eq!(chosen, expected, "{names:?}");
        };
        check(&[("title", true), ("text", true)], &["text"]);
        check(&[("text", false), ("sentence", true)], &["sentence"]);
        check(&[("sentence1", true), ("query", true)], &["query"]);
        check(&[("sentence2", true), ("sentence1", true)], &["sentence1", "sentence2"]);
        check(&[("review", true)], &[]);
        let beside = [
            ("id", true),
            ("doc_id", true),
            ("Label_text", true),
            ("lang", true),
            ("meta.url", true),
            ("review", true),
            ("n", false),
        ];
        assert_eq!(candidates(&columns(&beside)), ["review"]);
        let measured = |n_texts, n_chars| ("a".to_owned(), Lengths { n_texts, n_chars });
        let choose = |measured| choose_long(&local_file("f.csv"), &columns(&[("a", true)]), &[measured]);
        assert_eq!(choose(measured(2, 20)).expect("long enough").names, ["a"]);
        assert!(choose(measured(2, 19)).is_err() && choose(measured(0, 0)).is_err());
    }
}
