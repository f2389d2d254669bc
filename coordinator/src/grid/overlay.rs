//! Flags laid over the tree of a grid file: what was typed on the command line wins.

use super::fault::{Faults, Place};
use super::source;
use super::tree::{Node, Value};

/// The flags that were typed, in order; a later one wins.
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    entries: Vec<(String, Node)>,
}

/// The keys whose flags name experiments rather than settings.
const LISTS: [&str; 3] = ["grid.models", "grid.pooling", "grid.datasets"];

impl Overlay {
    /// A flag whose value is a text.
    pub fn text(&mut self, flag: &str, key: &str, text: &str) {
        self.add(flag, key, Value::Text(text.to_owned()));
    }

    /// A flag whose value should be a number; what is none is a fault that the validator tells.
    pub fn number(&mut self, flag: &str, key: &str, text: &str) {
        self.add(flag, key, number(text));
    }

    /// A flag without a value.
    pub fn switch(&mut self, flag: &str, key: &str) {
        self.add(flag, key, Value::Bool(true));
    }

    /// A flag with a list of texts.
    pub fn texts(&mut self, flag: &str, key: &str, texts: &[String]) {
        self.list(flag, key, texts.iter().map(|text| Value::Text(text.clone())));
    }

    /// A flag with a list of whole numbers.
    pub fn numbers(&mut self, flag: &str, key: &str, texts: &[String]) {
        self.list(flag, key, texts.iter().map(|text| number(text)));
    }

    /// `--set key=value`: the value is TOML, or a text where it is no TOML.
    pub fn set(&mut self, assignment: &str, faults: &mut Vec<super::Fault>) {
        let place = Place::Flag(format!("--set {}", assignment.chars().take(80).collect::<String>()));
        let Some((key, value)) = assignment.split_once('=').filter(|(key, _)| is_key(key.trim())) else {
            let message = "write --set section.key=value, such as --set similarity.trials=3".to_owned();
            faults.push(super::Fault { place: Some(place), message });
            return;
        };
        self.entries.push((key.trim().to_owned(), source::parse_value(value.trim(), &place)));
    }

    /// Lays the flags over `tree`; settings win over those of `[[experiment]]` entries too.
    pub(super) fn lay_over(self, mut tree: Node, from_flags: bool, faults: &mut Faults) -> Node {
        for (key, node) in self.entries {
            let path: Vec<&str> = key.split('.').collect();
            if !from_flags && LISTS.contains(&key.as_str()) && tree.get("experiment").is_some() {
                let message = "the file has [[experiment]] entries, which name their own models, poolings and \
                               datasets; change the file";
                faults.add(Some(&node.place), message);
            }
            tree.unset_in_list("experiment", &path);
            tree.set(&path, node);
        }
        tree
    }

    fn add(&mut self, flag: &str, key: &str, value: Value) {
        self.entries.push((key.to_owned(), Node { value, place: Place::Flag(flag.to_owned()) }));
    }

    fn list(&mut self, flag: &str, key: &str, values: impl Iterator<Item = Value>) {
        let item = |value| Node { value, place: Place::Flag(flag.to_owned()) };
        self.add(flag, key, Value::List(values.map(item).collect()));
    }
}

fn number(text: &str) -> Value {
    let float = || text.parse().ok().filter(|value: &f64| value.is_finite()).map(Value::Float);
    let whole = text.parse().ok().map(Value::Int);
    whole.or_else(float).unwrap_or_else(|| Value::Text(text.to_owned()))
}

/// Plain words between dots, few enough that the tree stays shallow.
fn is_key(text: &str) -> bool {
    let word = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
    };
    text.split('.').count() <= 4 && text.split('.').all(word)
}
