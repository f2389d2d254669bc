//! A grid file of any format as one tree, each value with its place.

use super::fault::Place;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) place: Place,
}

/// What a value is. Integers are wide enough for every format.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Table(Vec<Entry>),
    /// Something that no setting takes, in words: "a date".
    Odd(&'static str),
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) node: Node,
}

impl Value {
    /// What it is, for messages.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Text(text) => super::fault::shown(text),
            Self::List(_) => "a list".to_owned(),
            Self::Table(_) => "a table".to_owned(),
            Self::Odd(what) => (*what).to_owned(),
        }
    }
}

impl Node {
    pub(crate) fn empty_table(place: Place) -> Self {
        Self { value: Value::Table(Vec::new()), place }
    }

    /// The value under `key`, where this is a table that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        let Value::Table(entries) = &self.value else {
            return None;
        };
        entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        let Value::Table(entries) = &mut self.value else {
            return None;
        };
        entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.node)
    }

    /// Puts `node` at `path` of tables, which are made where they are missing. What is no table on the way is
    /// left as it is: the validator complains of it.
    pub(crate) fn set(&mut self, path: &[&str], node: Node) {
        let Some((key, rest)) = path.split_first() else {
            *self = node;
            return;
        };
        // A section without settings, as YAML allows: `data:`.
        if self.value == Value::Null {
            self.value = Value::Table(Vec::new());
        }
        let Value::Table(entries) = &mut self.value else {
            return;
        };
        let entry_idx = entries.iter().position(|entry| entry.key == *key).unwrap_or_else(|| {
            let place = node.place.clone();
            let empty = Self::empty_table(place.clone());
            entries.push(Entry { key: (*key).to_owned(), place, node: empty });
            entries.len() - 1
        });
        let entry = &mut entries[entry_idx];
        if rest.is_empty() {
            entry.place = node.place.clone();
            entry.node = node;
        } else {
            entry.node.set(rest, node);
        }
    }

    /// Takes away what stands at `path` of tables.
    pub(crate) fn unset(&mut self, path: &[&str]) {
        match path {
            [] => {}
            [key] => {
                if let Value::Table(entries) = &mut self.value {
                    entries.retain(|entry| entry.key != *key);
                }
            }
            [key, rest @ ..] => self.get_mut(key).into_iter().for_each(|node| node.unset(rest)),
        }
    }

    /// Takes away what stands at `path` in every table of the list under `key`.
    pub(crate) fn unset_in_list(&mut self, key: &str, path: &[&str]) {
        if let Some(Node { value: Value::List(items), .. }) = self.get_mut(key) {
            items.iter_mut().for_each(|item| item.unset(path));
        }
    }
}
