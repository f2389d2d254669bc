//! The YAML at the head of a repository's `README.md` → a tree, with bounds: its author is a stranger.

use saphyr_parser::{Event, Parser};

/// The deepest nesting: front matter of the hub needs about 8.
const DEPTH_MAX: usize = 32;

/// The most values: a repository of a thousand configs needs about 50,000.
const NODES_MAX: usize = 300_000;

/// A value. Numbers, booleans and nothing at all are texts as they are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Yaml {
    Text(String),
    List(Vec<Yaml>),
    Map(Vec<(String, Yaml)>),
    /// An alias. It is not followed: what it names may be large, and a few of them nested are too large for any machine.
    Alias,
}

impl Yaml {
    /// The first value of that key, if this is a map that has one.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::List(_) | Self::Map(_) | Self::Alias => None,
        }
    }
}

/// The tree of the first document in `text`, or what is wrong with it.
///
/// The stack of open lists and maps is its own, so that no nesting drives a recursion.
pub(super) fn parse(text: &str) -> Result<Yaml, String> {
    let mut parser = Parser::new_from_str(text);
    let mut open: Vec<Open> = Vec::new();
    let mut n_nodes = 0;
    while let Some(event) = parser.next_event() {
        let (event, span) =
            event.map_err(|error| format!("line {}: {}", error.marker().line(), error.info()))?;
        let node = match event {
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) => continue,
            Event::StreamEnd | Event::DocumentEnd => break,
            Event::Scalar(text, ..) => Yaml::Text(text.into()),
            Event::Alias(_) => Yaml::Alias,
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() >= DEPTH_MAX => {
                return Err(format!("line {}: nested more than {DEPTH_MAX} deep", span.start.line()));
            }
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Map(Vec::new(), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(items)) => Yaml::List(items),
                Some(Open::Map(entries, _)) => Yaml::Map(entries),
                None => return Err(format!("line {}: an end without a start", span.start.line())),
            },
        };
        n_nodes += 1;
        if n_nodes > NODES_MAX {
            return Err(format!("more than {NODES_MAX} values"));
        }
        match open.last_mut() {
            None => return Ok(node),
            Some(Open::List(items)) => items.push(node),
            Some(Open::Map(entries, key)) => match key.take() {
                Some(key) => entries.push((key, node)),
                // A key that is no text can be asked for by nobody.
                None => *key = Some(node.text().unwrap_or_default().to_owned()),
            },
        }
    }
    Ok(Yaml::Map(Vec::new()))
}

/// A list or map that is not closed yet; a map with the key that waits for its value.
enum Open {
    List(Vec<Yaml>),
    Map(Vec<(String, Yaml)>, Option<String>),
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn trees() {
        let text = |text: &str| Yaml::Text(text.to_owned());
        let yaml =
            parse("a: 1\nb: [x, 'y z', {c: true}]\n? [k]\n: v\nno: &n null\nalias: *n\n").expect("valid");
        assert_eq!(yaml.get("a"), Some(&text("1")));
        let map = Yaml::Map(vec![("c".to_owned(), text("true"))]);
        assert_eq!(yaml.get("b"), Some(&Yaml::List(vec![text("x"), text("y z"), map])));
        assert_eq!(yaml.get("no").and_then(Yaml::text), Some("null"));
        assert_eq!(yaml.get("alias"), Some(&Yaml::Alias));
        assert_eq!(parse(""), Ok(Yaml::Map(Vec::new())));
        assert_eq!(parse("just a text"), Ok(text("just a text")));
    }

    #[test]
    fn hostile_texts_end_soon_and_without_harm() {
        const SIZE: usize = 1 << 20;
        let bomb: String = (0..40)
            .map(|level| format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 9].join(",")))
            .skip(1)
            .collect();
        let texts = [
            format!("a0: &a0 x\n{bomb}"),
            "[".repeat(SIZE),
            "{".repeat(SIZE),
            "- ".repeat(SIZE / 2),
            "? ".repeat(SIZE / 2),
            "a:\n".repeat(SIZE / 3),
            "- a\n".repeat(SIZE / 4),
            "&a ".repeat(SIZE / 3),
            "!!x ".repeat(SIZE / 4),
            "'".repeat(SIZE),
            "\"\\x".repeat(SIZE / 3),
            "a: |\n  x\n".repeat(SIZE / 9),
            "a".repeat(SIZE),
            "\u{0}\u{FFFD}\r\t".repeat(SIZE / 6),
            "--- ".repeat(SIZE / 4),
            "%YAML 1.2\n".repeat(SIZE / 10),
            "#".repeat(SIZE),
        ];
        for text in texts {
            let begin = Instant::now();
            let _ = parse(&text);
            assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", text.get(..20));
        }
    }
}
