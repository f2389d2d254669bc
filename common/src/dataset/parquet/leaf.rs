//! The columns of a schema by the names that people give them: a list by its own name, a nested field by its path.

use ::parquet::basic::{ConvertedType, LogicalType, Repetition, Type as Physical};
use ::parquet::schema::types::Type;

use super::super::column::Column;

/// A column that holds values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    /// `text`, `answers.text`.
    pub(super) name: String,
    /// Place among the columns of a row group.
    pub(super) place: usize,
    /// Whether its values are declared to be strings.
    pub(super) is_text: bool,
    /// Whether its values can be read as strings.
    pub(super) is_readable: bool,
    /// Whether it has no type, as a column has whose values were all null when it was written.
    pub(super) is_null: bool,
    /// Where it lies in lists.
    pub(super) lists: Option<ListLevels>,
}

/// Definition levels of a column in lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListLevels {
    /// From this level on, the outermost list is there, though it may be empty.
    pub(super) list: i16,
    /// From this level on, there is an item, though it may be null.
    pub(super) item: i16,
}

impl Leaf {
    pub(super) fn column(&self) -> Column {
        Column { name: self.name.clone(), is_text: self.is_text }
    }
}

/// The columns under `root` in the order in which row groups have them.
pub(super) fn leaves(root: &Type) -> Vec<Leaf> {
    let mut walk = Walk { path: Vec::new(), leaves: Vec::new() };
    for field in fields(root) {
        walk.visit(field, Some(field.name()), Levels::default());
    }
    walk.leaves
}

struct Walk<'a> {
    path: Vec<&'a str>,
    leaves: Vec<Leaf>,
}

#[derive(Clone, Copy, Default)]
struct Levels {
    definition: i16,
    lists: Option<ListLevels>,
}

impl Levels {
    fn enter(mut self, node: &Type) -> Self {
        match repetition(node) {
            Repetition::REQUIRED => {}
            Repetition::OPTIONAL => self.definition += 1,
            Repetition::REPEATED => {
                let list = self.lists.map_or(self.definition, |lists| lists.list);
                self.definition += 1;
                self.lists = Some(ListLevels { list, item: self.definition });
            }
        }
        self
    }
}

impl<'a> Walk<'a> {
    /// `name` is what the node adds to the path; nothing where it is only how a list is written.
    fn visit(&mut self, node: &'a Type, name: Option<&'a str>, levels: Levels) {
        let levels = levels.enter(node);
        self.path.extend(name);
        if node.is_primitive() {
            self.leaves.push(self.leaf(node, levels));
        } else if let Some(repeated) = repeated_of_list(node) {
            let is_wrapper = fields(repeated).len() == 1
                && repeated.name() != "array"
                && repeated.name().strip_suffix("_tuple").is_none_or(|rest| rest != node.name());
            if repeated.is_primitive() {
                self.visit(repeated, None, levels);
            } else {
                let levels = levels.enter(repeated);
                for field in fields(repeated) {
                    self.visit(field, (!is_wrapper).then(|| field.name()), levels);
                }
            }
        } else {
            for field in fields(node) {
                self.visit(field, Some(field.name()), levels);
            }
        }
        if name.is_some() {
            self.path.pop();
        }
    }

    fn leaf(&self, node: &Type, levels: Levels) -> Leaf {
        let info = node.get_basic_info();
        let is_readable = node.get_physical_type() == Physical::BYTE_ARRAY;
        let is_declared = matches!(info.logical_type_ref(), Some(LogicalType::String))
            || info.converted_type() == ConvertedType::UTF8;
        Leaf {
            name: self.path.join("."),
            place: self.leaves.len(),
            is_text: is_readable && is_declared,
            is_readable,
            is_null: matches!(info.logical_type_ref(), Some(LogicalType::Unknown)),
            lists: levels.lists,
        }
    }
}

/// The one repeated child of a group that is annotated as a list.
fn repeated_of_list(node: &Type) -> Option<&Type> {
    let info = node.get_basic_info();
    let is_list = matches!(info.logical_type_ref(), Some(LogicalType::List))
        || info.converted_type() == ConvertedType::LIST;
    match fields(node) {
        [only] if is_list && repetition(only) == Repetition::REPEATED => Some(only),
        _ => None,
    }
}

fn fields(node: &Type) -> &[std::sync::Arc<Type>] {
    if node.is_primitive() { &[] } else { node.get_fields() }
}

fn repetition(node: &Type) -> Repetition {
    let info = node.get_basic_info();
    if info.has_repetition() { info.repetition() } else { Repetition::REQUIRED }
}

#[cfg(test)]
mod tests {
    use ::parquet::schema::parser::parse_message_type;

    use super::*;

    #[test]
    fn names_and_levels() {
        let schema = "message m {
            required binary text (UTF8);
            optional binary raw;
            optional int64 id;
            optional group tags (LIST) { repeated group list { optional binary element (UTF8); } }
            required group old (LIST) { repeated binary array (UTF8); }
            repeated binary bare (UTF8);
            optional group meta { optional group a { required binary b (UTF8); } optional int32 c; }
            optional group answers (LIST) { repeated group list { optional group element {
                optional binary text (UTF8); optional int32 start; } } }
            optional group deep (LIST) { repeated group list { optional group element (LIST) {
                repeated group list { optional binary element (UTF8); } } } }
            optional group pairs (LIST) { repeated group pairs_tuple { required binary x (UTF8); } }
        }";
        let schema = parse_message_type(schema).expect("a schema");
        let found: Vec<_> = leaves(&schema)
            .into_iter()
            .map(|leaf| (leaf.name, leaf.is_text, leaf.lists.map(|lists| (lists.list, lists.item))))
            .collect();
        let expected = [
            ("text", true, None),
            ("raw", false, None),
            ("id", false, None),
            ("tags", true, Some((1, 2))),
            ("old", true, Some((0, 1))),
            ("bare", true, Some((0, 1))),
            ("meta.a.b", true, None),
            ("meta.c", false, None),
            ("answers.text", true, Some((1, 2))),
            ("answers.start", false, Some((1, 2))),
            ("deep", true, Some((1, 4))),
            ("pairs.x", true, Some((1, 2))),
        ];
        let expected: Vec<_> =
            expected.into_iter().map(|(name, text, lists)| (name.to_owned(), text, lists)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_column_of_nulls_has_no_type() {
        let schema = parse_message_type("message m { optional int32 title (UNKNOWN); optional int32 id; }");
        let found = leaves(&schema.expect("a schema"));
        let found: Vec<_> = found.iter().map(|leaf| (leaf.name.as_str(), leaf.is_null)).collect();
        assert_eq!(found, [("title", true), ("id", false)]);
    }
}
