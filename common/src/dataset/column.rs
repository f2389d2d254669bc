//! Which column holds the texts.

use std::path::Path;

use super::DatasetError;

/// Columns that hold the text wherever they exist, in this order.
const USUAL: [&str; 3] = ["text", "sentence", "content"];

/// A column of a file's first record.
pub(super) struct Column {
    pub(super) name: String,
    /// Whether it can hold texts: a string or a list of strings.
    pub(super) is_text: bool,
}

/// The column asked for; else `text`, `sentence` or `content`, the first that exists; else the only text column.
pub(super) fn choose(path: &Path, asked: Option<&str>, columns: &[Column]) -> Result<String, DatasetError> {
    if let Some(asked) = asked {
        if columns.iter().any(|column| column.name == asked) {
            return Ok(asked.to_owned());
        }
        let columns = listing(columns.iter().map(|column| column.name.as_str()));
        return Err(DatasetError::NoColumn { path: path.to_owned(), column: asked.to_owned(), columns });
    }
    let texts = || columns.iter().filter(|column| column.is_text).map(|column| column.name.as_str());
    if let Some(usual) = USUAL.into_iter().find(|usual| texts().any(|name| name == *usual)) {
        return Ok(usual.to_owned());
    }
    match (texts().next(), texts().nth(1)) {
        (Some(only), None) => Ok(only.to_owned()),
        (Some(_), Some(_)) => {
            Err(DatasetError::AmbiguousColumn { path: path.to_owned(), columns: listing(texts()) })
        }
        (None, _) => {
            let columns = listing(columns.iter().map(|column| column.name.as_str()));
            Err(DatasetError::NoColumn { path: path.to_owned(), column: USUAL[0].to_owned(), columns })
        }
    }
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
    use super::*;

    fn columns(names: &[(&str, bool)]) -> Vec<Column> {
        names.iter().map(|(name, is_text)| Column { name: (*name).to_owned(), is_text: *is_text }).collect()
    }

    #[test]
    fn rules() {
        let check = |asked: Option<&str>, names: &[(&str, bool)], expected: Result<&str, &str>| {
            let chosen = choose(Path::new("f"), asked, &columns(names)).map_err(|error| error.to_string());
            match expected {
                Ok(column) => assert_eq!(chosen.as_deref(), Ok(column), "{names:?}"),
                Err(part) => {
                    assert!(chosen.as_ref().is_err_and(|e| e.contains(part)), "{names:?}: {chosen:?}")
                }
            }
        };
        check(None, &[("id", true), ("text", true)], Ok("text"));
        check(None, &[("content", true), ("sentence", true)], Ok("sentence"));
        check(None, &[("text", false), ("body", true)], Ok("body"));
        check(None, &[("id", false), ("review", true)], Ok("review"));
        check(None, &[("a", true), ("b", true)], Err("\"a\", \"b\""));
        check(None, &[("id", false)], Err("has no column \"text\"; its columns are \"id\""));
        check(Some("b"), &[("a", true), ("b", false)], Ok("b"));
        check(
            Some("c"),
            &[("a", true), ("b", true)],
            Err("has no column \"c\"; its columns are \"a\", \"b\""),
        );
    }
}
