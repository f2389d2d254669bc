//! The text of a grid file → its tree: TOML, YAML or JSON, with bounds on size and depth.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Faults, Place};
use super::tree::{Entry, Node, Value};

/// The deepest nesting: the schema needs 4.
const DEPTH_MAX: usize = 32;

/// The most values in a YAML or JSON file, aliases written out: a grid of the largest allowed size needs fewer.
const NODES_MAX: usize = 100_000;

/// The most syntax errors told of one file: further ones mostly follow from the first.
const SYNTAX_ERRORS_MAX: usize = 10;

/// The languages a grid file may be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// `.toml`
    Toml,
    /// `.yaml`, `.yml`
    Yaml,
    /// `.json`
    Json,
}

impl Language {
    /// The language by the ending of the file's name.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "toml" => Some(Self::Toml),
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// The tree of `text`; none where its syntax is at fault.
pub(crate) fn parse(text: &str, language: Language, faults: &mut Faults) -> Option<Node> {
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    match language {
        Language::Toml => parse_toml(text, faults),
        Language::Yaml => parse_yaml(text, "YAML", faults),
        Language::Json => parse_json(text, faults),
    }
}

/// A single TOML value as typed after `--set key=`; what is no TOML is a text.
pub(crate) fn parse_value(text: &str, place: &Place) -> Node {
    match DeValue::parse(text) {
        Ok(value) => toml_node(value.get_ref(), place.clone(), 0, &|_| place.clone()),
        Err(_) => Node { value: Value::Text(text.to_owned()), place: place.clone() },
    }
}

fn parse_toml(text: &str, faults: &mut Faults) -> Option<Node> {
    let lines = LineIndex::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors.iter().take(SYNTAX_ERRORS_MAX) {
        let place = error.span().map(|span| lines.place(span.start));
        faults.add(place.as_ref(), format!("not valid TOML: {}", error.message()));
    }
    let start = Place::File { line: 1, column: 1 };
    errors.is_empty().then(|| toml_table(table.get_ref(), start, 0, &|offset| lines.place(offset)))
}

fn toml_table(table: &DeTable<'_>, place: Place, depth: usize, at: &dyn Fn(usize) -> Place) -> Node {
    let mut entries: Vec<(usize, Entry)> = Vec::with_capacity(table.len());
    for (key, value) in table.iter() {
        let start = key.span().start;
        // The span of a table under a header or a dotted key says where its header is, which the key says better.
        let place = if value.get_ref().is_table() { at(start) } else { at(value.span().start) };
        let node = toml_node(value.get_ref(), place, depth + 1, at);
        entries.push((start, Entry { key: key.get_ref().to_string(), place: at(start), node }));
    }
    entries.sort_by_key(|(start, _)| *start);
    Node { value: Value::Table(entries.into_iter().map(|(_, entry)| entry).collect()), place }
}

fn toml_node(value: &DeValue<'_>, place: Place, depth: usize, at: &dyn Fn(usize) -> Place) -> Node {
    let value = match value {
        // The parser bounds brackets and the parts of a key at 80 each, so their product still fits a stack.
        _ if depth > DEPTH_MAX => Value::Odd("something nested too deep"),
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => {
            let parsed = i128::from_str_radix(number.as_str(), number.radix());
            parsed.map_or(Value::Odd("a number that is too large"), Value::Int)
        }
        DeValue::Float(number) => number.as_str().parse().map_or(Value::Odd("an odd number"), Value::Float),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(_) => Value::Odd("a date"),
        DeValue::Array(items) => {
            let item =
                |item: &Spanned<DeValue<'_>>| toml_node(item.get_ref(), at(item.span().start), depth + 1, at);
            Value::List(items.iter().map(item).collect())
        }
        DeValue::Table(table) => return toml_table(table, place, depth, at),
    };
    Node { value, place }
}

/// Byte offsets → lines and columns.
struct LineIndex {
    starts: Vec<usize>,
    /// Characters that begin before each byte: a file may be one long line.
    n_chars: Vec<usize>,
}

impl LineIndex {
    fn new(text: &str) -> Self {
        let mut starts = vec![0];
        let mut n_chars = vec![0];
        for (offset, byte) in text.bytes().enumerate() {
            let continues = byte & 0xC0 == 0x80;
            n_chars.push(n_chars[offset] + usize::from(!continues));
            if byte == b'\n' {
                starts.push(offset + 1);
            }
        }
        Self { starts, n_chars }
    }

    fn place(&self, offset: usize) -> Place {
        let offset = offset.min(self.n_chars.len() - 1);
        let line_idx = self.starts.partition_point(|start| *start <= offset).saturating_sub(1);
        place(line_idx + 1, self.n_chars[offset] - self.n_chars[self.starts[line_idx]] + 1)
    }
}

fn place(line: usize, column: usize) -> Place {
    // Both are bounded by the size of a grid file.
    let narrow = |number| u32::try_from(number).unwrap_or(u32::MAX);
    Place::File { line: narrow(line), column: narrow(column) }
}

fn parse_json(text: &str, faults: &mut Faults) -> Option<Node> {
    // JSON is read by the YAML reader, which knows places; this makes sure that it is JSON.
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        let said = error.to_string();
        let said = said.split(" at line ").next().unwrap_or(&said);
        faults.add(Some(&place(error.line(), error.column().max(1))), format!("not valid JSON: {said}"));
        return None;
    }
    parse_yaml(text, "JSON", faults)
}

fn parse_yaml(text: &str, language: &str, faults: &mut Faults) -> Option<Node> {
    match YamlTree::new().build(text, language) {
        Ok(node) => Some(node),
        Err((place, message)) => {
            faults.add(Some(&place), message);
            None
        }
    }
}

/// Builds the tree from the parser's events with a stack of its own: no recursion that a file could drive deep.
struct YamlTree {
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    n_nodes: usize,
}

/// A list or table that is not closed yet.
struct Open {
    node: Node,
    anchor: usize,
    /// The key that waits for its value.
    key: Option<(String, Place)>,
    keys: HashSet<String>,
}

type YamlFault = (Place, String);

impl YamlTree {
    fn new() -> Self {
        Self { open: Vec::new(), root: None, anchors: HashMap::new(), n_nodes: 0 }
    }

    fn build(mut self, text: &str, language: &str) -> Result<Node, YamlFault> {
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| {
                (yaml_place(error.marker()), format!("not valid {language}: {}", error.info()))
            })?;
            self.take(event, yaml_place(&span.start))?;
        }
        let start = Place::File { line: 1, column: 1 };
        Ok(self.root.unwrap_or(Node { value: Value::Null, place: start }))
    }

    fn take(&mut self, event: Event<'_>, place: Place) -> Result<(), YamlFault> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) if self.root.is_some() => {
                Err((place, "a second document starts here; put one grid in one file".to_owned()))
            }
            Event::DocumentStart(_) => Ok(()),
            Event::Scalar(text, style, anchor, tag) => {
                refuse_tag(tag.as_deref(), &place)?;
                let value =
                    if style == ScalarStyle::Plain { plain_scalar(&text) } else { Value::Text(text.into()) };
                self.place_node(Node { value, place }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_tag(tag.as_deref(), &place)?;
                self.open_node(Node { value: Value::List(Vec::new()), place }, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                refuse_tag(tag.as_deref(), &place)?;
                self.open_node(Node::empty_table(place), anchor)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { node, anchor, .. }) = self.open.pop() else {
                    return Err((place, "not valid YAML: an end without a start".to_owned()));
                };
                self.place_node(node, anchor)
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err((place, "this alias stands inside of what it names".to_owned()));
                };
                self.count(&node, &place)?;
                self.place_node(Node { place, ..node }, 0)
            }
        }
    }

    fn open_node(&mut self, node: Node, anchor: usize) -> Result<(), YamlFault> {
        if self.open.len() >= DEPTH_MAX {
            return Err((node.place, format!("nested more than {DEPTH_MAX} deep; no setting is")));
        }
        self.open.push(Open { node, anchor, key: None, keys: HashSet::new() });
        Ok(())
    }

    /// Puts a finished node where it belongs.
    fn place_node(&mut self, node: Node, anchor: usize) -> Result<(), YamlFault> {
        let place = node.place.clone();
        self.n_nodes += 1;
        if anchor > 0 {
            self.count(&node, &place)?;
            self.anchors.insert(anchor, node.clone());
        }
        if self.n_nodes > NODES_MAX {
            return Err((place, format!("the file holds more than {NODES_MAX} values; split it")));
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut parent.node.value, parent.key.take()) {
            (Value::Table(entries), Some((key, place))) => entries.push(Entry { key, place, node }),
            (Value::Table(_), None) => {
                let Some(key) = key_text(&node.value) else {
                    return Err((place, "a key must be a plain word".to_owned()));
                };
                if !parent.keys.insert(key.clone()) {
                    return Err((place, format!("{} is given twice; keep one", super::fault::shown(&key))));
                }
                parent.key = Some((key, place));
            }
            (Value::List(items), _) => items.push(node),
            _ => {}
        }
        Ok(())
    }

    /// Adds the values of a copy of `node` to those of the file: an alias of aliases grows without end.
    fn count(&mut self, node: &Node, place: &Place) -> Result<(), YamlFault> {
        self.n_nodes += n_values(node);
        if self.n_nodes > NODES_MAX {
            return Err((
                place.clone(),
                format!("aliases unfold to more than {NODES_MAX} values; write them out"),
            ));
        }
        Ok(())
    }
}

/// The values in a tree. Aliases make it deeper than [`DEPTH_MAX`], but each level costs a copy of all below it, so
/// that [`NODES_MAX`] bounds the depth to some hundreds.
fn n_values(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(n_values).sum(),
        Value::Table(entries) => entries.iter().map(|entry| n_values(&entry.node)).sum(),
        _ => 0,
    }
}

fn key_text(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.clone()),
        Value::Null => Some("null".to_owned()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Int(value) => Some(value.to_string()),
        Value::Float(value) => Some(value.to_string()),
        Value::List(_) | Value::Table(_) | Value::Odd(_) => None,
    }
}

fn refuse_tag(tag: Option<&Tag>, place: &Place) -> Result<(), YamlFault> {
    match tag {
        Some(tag) => Err((place.clone(), format!("the tag {} has no meaning here; remove it", tag))),
        None => Ok(()),
    }
}

/// A plain scalar by the core schema of YAML 1.2, which makes `yes` and `no` texts.
fn plain_scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let looks_like_number = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    if !looks_like_number {
        return Value::Text(text.to_owned());
    }
    let based =
        |prefix, radix| text.strip_prefix(prefix).and_then(|rest| i128::from_str_radix(rest, radix).ok());
    if let Some(number) = based("0x", 16).or_else(|| based("0o", 8)).or_else(|| text.parse().ok()) {
        return Value::Int(number);
    }
    let number = text.chars().any(|c| c.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    number.map_or_else(|| Value::Text(text.to_owned()), Value::Float)
}

fn yaml_place(marker: &Marker) -> Place {
    place(marker.line().max(1), marker.col() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree as one line: `{key@1:1=value@1:7}`.
    fn show(node: &Node) -> String {
        let at = |place: &Place| match place {
            Place::File { line, column } => format!("@{line}:{column}"),
            Place::Flag(flag) => format!("@{flag}"),
        };
        let value = match &node.value {
            Value::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
            Value::Table(entries) => {
                let entry =
                    |entry: &Entry| format!("{}{}={}", entry.key, at(&entry.place), show(&entry.node));
                format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(" "))
            }
            other => other.kind(),
        };
        format!("{value}{}", at(&node.place))
    }

    fn check(language: Language, text: &str, expected: &str) {
        let mut faults = Faults::default();
        let tree = parse(text, language, &mut faults).unwrap_or_else(|| panic!("{text}: {faults:?}"));
        assert_eq!(show(&tree), expected, "{text}");
    }

    fn refuse(language: Language, text: &str, expected: &str) {
        let mut faults = Faults::default();
        assert!(parse(text, language, &mut faults).is_none());
        let message = faults.into_errors(None).to_string();
        assert!(message.contains(expected), "expected {expected:?} in {message:?}");
    }

    #[test]
    fn toml_trees() {
        check(Language::Toml, "", "{}@1:1");
        check(Language::Toml, "b = 1\na = \"ä\" # x\n", "{b@1:1=1@1:5 a@2:1=\"ä\"@2:5}@1:1");
        check(Language::Toml, "[t]\nx = [true,\n 2.5]\n", "{t@1:2={x@2:1=[true@2:6 2.5@3:2]@2:5}@1:2}@1:1");
        check(
            Language::Toml,
            "[[e]]\na.b = 1\na.c = 2\n",
            "{e@1:3=[{a@2:1={b@2:3=1@2:7 c@3:3=2@3:7}@2:1}@1:1]@1:1}@1:1",
        );
        check(Language::Toml, "d = 2020-01-01\n", "{d@1:1=a date@1:5}@1:1");
    }

    #[test]
    fn yaml_trees() {
        check(Language::Yaml, "", "nothing@1:1");
        check(
            Language::Yaml,
            "# x\nb: 1\na: [yes, '2', 2.5, ~]\n",
            "{b@2:1=1@2:4 a@3:1=[\"yes\"@3:5 \"2\"@3:10 2.5@3:15 nothing@3:20]@3:4}@2:1",
        );
        check(Language::Yaml, "a: &x [1]\nb: *x\n", "{a@1:1=[1@1:8]@1:4 b@2:1=[1@1:8]@2:4}@1:1");
        check(
            Language::Yaml,
            "n: [0x10, -1, 1e-3, ., file:a.txt]",
            "{n@1:1=[16@1:5 -1@1:11 0.001@1:15 \".\"@1:21 \"file:a.txt\"@1:24]@1:4}@1:1",
        );
    }

    #[test]
    fn json_trees() {
        check(
            Language::Json,
            "{\n\t\"a\": [1, \"x\\u00e9\\/\"],\n\t\"b\": null}",
            "{a@2:2=[1@2:8 \"xé/\"@2:11]@2:7 b@3:2=nothing@3:7}@1:1",
        );
    }

    #[test]
    fn faults_of_syntax() {
        refuse(Language::Toml, "a = \nb = [1\n", "1:5: not valid TOML");
        refuse(Language::Toml, "a = 1\na = 2\n", "2:1: not valid TOML: duplicate key");
        refuse(Language::Yaml, "a: 1\na: 2\n", "2:1: \"a\" is given twice");
        refuse(Language::Yaml, "a: [1\n", "not valid YAML");
        refuse(Language::Yaml, "a: 1\n---\nb: 2\n", "2:1: a second document");
        refuse(Language::Yaml, "a: !!python/object:os.system x\n", "1:4: the tag");
        refuse(Language::Yaml, "? [a]\n: b\n", "1:3: a key must be a plain word");
        refuse(Language::Json, "{\"a\": 1,}", "1:9: not valid JSON: key must be a string");
        refuse(Language::Json, "a: 1", "1:1: not valid JSON");
        refuse(Language::Json, "{\"a\": 1, \"a\": 2}", "1:10: \"a\" is given twice");
    }

    #[test]
    fn bombs_are_refused() {
        let deep = "[".repeat(500_000);
        refuse(Language::Yaml, &deep, "not valid YAML: recursion limit");
        refuse(Language::Yaml, &"- ".repeat(100_000), "nested more than 32 deep");
        let closed = format!("{deep}{}", "]".repeat(deep.len()));
        refuse(Language::Json, &closed, "not valid JSON: recursion limit");
        refuse(Language::Toml, &format!("a = {deep}"), "not valid TOML");
        let dotted = "a.".repeat(200_000);
        refuse(Language::Toml, &format!("{dotted}a = 1"), "not valid TOML: recursion limit");
        refuse(Language::Toml, &format!("[{dotted}a]"), "not valid TOML: recursion limit");
        // As deep as the parser allows: read, and cut off by the validator.
        let dotted = "a.".repeat(78);
        let level = format!("{{{dotted}a = ");
        let deep = format!("{dotted}a = {}1{}", level.repeat(79), "}".repeat(79));
        let tree = parse(&deep, Language::Toml, &mut Faults::default()).expect("valid TOML");
        assert!(show(&tree).contains("something nested too deep"));
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..20 {
            let below = vec![format!("*a{}", level - 1); 10].join(", ");
            laughs += &format!("a{level}: &a{level} [{below}]\n");
        }
        refuse(Language::Yaml, &laughs, "aliases unfold to more than");
        refuse(Language::Yaml, "a: &a [*a]", "inside of what it names");
    }

    /// Whatever the file: a tree or faults, never a panic.
    #[test]
    fn mangled_files_end_in_order() {
        let toml = "name = \"x\"\n[grid]\nmodels = [\"a\", 'b']\n[[experiment]]\na.b = {c = 1.5, d = -1}\n";
        let yaml =
            "name: x\ngrid: &g\n  models: [a, \"b\"]\n  x: {a: 1, ? b : c}\nexperiment:\n- *g\n- |\n  t\n";
        let json = "{\"name\": \"x\", \"grid\": {\"models\": [\"a\", 1.5e3, null, true]}}";
        let odd = [
            "[", "]", "{", "}", "\"", "'", ":", "-", "&", "*", "!", "\n", "\t", "#", ".", "=", "\u{85}", "é",
            "?", "|", "%",
        ];
        for (language, text) in [(Language::Toml, toml), (Language::Yaml, yaml), (Language::Json, json)] {
            for (at, _) in text.char_indices() {
                parse(&text[..at], language, &mut Faults::default());
                for piece in odd {
                    let mangled = format!("{}{piece}{}", &text[..at], &text[at..]);
                    parse(&mangled, language, &mut Faults::default());
                }
            }
        }
    }
}
