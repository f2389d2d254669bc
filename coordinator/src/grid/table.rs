//! Typed access to a table of the tree: every miss is a fault with its place.

use std::ops::RangeInclusive;

use super::fault::{Faults, Place, shown};
use super::schema::belongs;
use super::tree::{Entry, Node, Value};
use lsa_common::metric::Number;
use lsa_common::suggest;

/// A table with the keys that it may have.
pub(super) struct Table<'t> {
    /// How messages call it: `similarity`, or empty for the whole file.
    path: String,
    entries: &'t [Entry],
}

impl<'t> Table<'t> {
    /// `node` as a table; every key that is not `known` is a fault. An empty value is an empty table.
    pub(super) fn open(node: &'t Node, path: &str, known: &[&str], faults: &mut Faults) -> Option<Self> {
        let entries: &[Entry] = match &node.value {
            Value::Table(entries) => entries,
            Value::Null => &[],
            other => {
                let what = if path.is_empty() { "a grid file" } else { path };
                faults.add(
                    Some(&node.place),
                    format!("{what} must be a table of settings, got {}", other.kind()),
                );
                return None;
            }
        };
        let table = Self { path: path.to_owned(), entries };
        for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let within = if path.is_empty() { String::new() } else { format!(" in {path}") };
            let hint = match belongs(&entry.key) {
                Some(section) if section != path => format!("; it belongs in [{section}]"),
                _ => suggest::hint(&entry.key, known.iter().copied()),
            };
            faults.add(Some(&entry.place), format!("unknown key {}{within}{hint}", shown(&entry.key)));
        }
        Some(table)
    }

    /// The value under `key`.
    pub(super) fn node(&self, key: &str) -> Option<&'t Node> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// How messages call `key`.
    pub(super) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// A whole number of `range`.
    pub(super) fn whole<T: TryFrom<i128>>(
        &self,
        key: &str,
        range: RangeInclusive<i128>,
        faults: &mut Faults,
    ) -> Option<T> {
        let node = self.node(key)?;
        if let Value::Int(number) = node.value
            && range.contains(&number)
            && let Ok(number) = T::try_from(number)
        {
            return Some(number);
        }
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.refuse(key, node, &expected, faults);
        None
    }

    /// A number for which `holds`, as `expected` says.
    pub(super) fn number(
        &self,
        key: &str,
        expected: &str,
        holds: impl Fn(f64) -> bool,
        faults: &mut Faults,
    ) -> Option<Number> {
        let node = self.node(key)?;
        let value = match node.value {
            Value::Float(value) => Some(value),
            // A whole number where any number will do; the large ones are refused anyway.
            Value::Int(value) => i32::try_from(value).ok().map(f64::from),
            _ => None,
        };
        let number = value.filter(|value| holds(*value)).and_then(Number::new);
        if number.is_none() {
            self.refuse(key, node, &format!("a number {expected}"), faults);
        }
        number
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, key: &str, faults: &mut Faults) -> Option<bool> {
        let node = self.node(key)?;
        match node.value {
            Value::Bool(value) => Some(value),
            _ => {
                self.refuse(key, node, "true or false", faults);
                None
            }
        }
    }

    /// A text.
    pub(super) fn text(&self, key: &str, faults: &mut Faults) -> Option<(&'t str, &'t Place)> {
        let node = self.node(key)?;
        match &node.value {
            Value::Text(text) => Some((text, &node.place)),
            _ => {
                self.refuse(key, node, "a text in quotes", faults);
                None
            }
        }
    }

    /// One of `names`.
    pub(super) fn choice(&self, key: &str, names: &[&str], faults: &mut Faults) -> Option<&'t str> {
        let node = self.node(key)?;
        match &node.value {
            Value::Text(text) if names.contains(&text.as_str()) => Some(text),
            other => {
                let hint = if let Value::Text(text) = other {
                    suggest::hint(text, names.iter().copied())
                } else {
                    String::new()
                };
                let message =
                    format!("{} must be {}, got {}{hint}", self.name(key), one_of(names), other.kind());
                faults.add(Some(&node.place), message);
                None
            }
        }
    }

    /// The items of a list that is not empty; a single text counts as a list of one.
    pub(super) fn list(&self, key: &str, faults: &mut Faults) -> Option<&'t [Node]> {
        let node = self.node(key)?;
        match &node.value {
            Value::List(items) if items.is_empty() => {
                let message = format!("{} is empty; name at least one, or leave the key out", self.name(key));
                faults.add(Some(&node.place), message);
                None
            }
            Value::List(items) => Some(items),
            Value::Text(_) => Some(std::slice::from_ref(node)),
            _ => {
                self.refuse(key, node, "a list such as [\"…\", \"…\"]", faults);
                None
            }
        }
    }

    fn refuse(&self, key: &str, node: &Node, expected: &str, faults: &mut Faults) {
        let message = format!("{} must be {expected}, got {}", self.name(key), node.value.kind());
        faults.add(Some(&node.place), message);
    }
}

/// `"a", "b" or "c"`.
pub(super) fn one_of(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => format!("{only:?}"),
        [rest @ .., last] => {
            let rest: Vec<String> = rest.iter().map(|name| format!("{name:?}")).collect();
            format!("{} or {last:?}", rest.join(", "))
        }
    }
}
