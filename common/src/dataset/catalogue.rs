//! The tasks of MTEB, as a table that this program carries: which repository, which columns, and whether they can be read.
//!
//! The table is written by `scripts/mteb-table.py` from an installed `mteb` package; nothing here reads a dataset.

use std::sync::OnceLock;

pub mod c4;

/// The table: a line with the version, a line with the columns, a line per task.
const TABLE: &str = include_str!("mteb_tasks.tsv");

/// How a task's texts lie in its repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// In columns of the rows of a split.
    Columns,
    /// In two configs, `corpus` and `queries`.
    Retrieval,
    /// In the rows of a split, a column for each language.
    BitextParallel,
    /// Nowhere: the task has no dataset of its own.
    None,
}

/// How MTEB makes a task's texts of what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loader {
    /// It takes them as they are.
    Plain,
    /// It calls columns otherwise.
    Rename,
    /// It takes some of them.
    Subsample,
    /// It does more than that, by code.
    Transform,
    /// It loads them by code of its own.
    Custom,
    /// It joins other tasks.
    Aggregate,
}

/// Why a task's texts cannot be read by this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It joins other tasks.
    #[error("it joins other tasks and has no dataset of its own")]
    Aggregate,
    /// None of its modalities is text.
    #[error("it holds no text")]
    NoText,
    /// It pairs texts with something else, and which documents are texts is not known.
    #[error("its documents or queries are not texts alone")]
    Mixed,
    /// It has text among its modalities, but stores none.
    #[error("no column of its dataset holds texts")]
    NoTextColumn,
    /// Its texts are made by code.
    #[error("MTEB loads it by code of its own, and this program runs none")]
    OwnCode,
}

/// One task of MTEB.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its name, as MTEB spells it.
    pub name: &'static str,
    /// Its type, such as `Classification`.
    pub kind: &'static str,
    /// Its repository.
    pub path: &'static str,
    /// The commit that MTEB pins; for a few tasks a short hash or a branch.
    pub revision: &'static str,
    /// The config that it always takes.
    pub config: Option<&'static str>,
    /// The splits that MTEB evaluates.
    pub eval_splits: Vec<&'static str>,
    /// The split on which MTEB fits classifiers.
    pub train_split: Option<&'static str>,
    /// Splits whose number of rows is known, after what MTEB does to them.
    pub known_rows: Vec<(&'static str, u64)>,
    /// How many subsets, that is configs of the repository, it has.
    pub n_subsets: usize,
    /// Their names, where there are several; the first ones, where there are very many.
    pub subsets: Vec<&'static str>,
    /// How its texts lie in the repository.
    pub layout: Layout,
    /// The columns that hold its texts, as they are stored; nothing where the layout says it or nobody knows.
    pub columns: Option<Vec<&'static str>>,
    /// How MTEB makes its texts of what is stored.
    pub loader: Loader,
    /// `text`, `image`, `audio`, `video`.
    pub modalities: Vec<&'static str>,
    /// Languages with scripts, such as `deu-Latn`.
    pub languages: Vec<&'static str>,
    /// The task that MTEB recommends in its place.
    pub superseded_by: Option<&'static str>,
    /// Why its texts cannot be read, where they cannot.
    pub unreadable: Option<Unreadable>,
}

impl Task {
    /// Whether [`Task::subsets`] names all of them.
    pub fn knows_all_subsets(&self) -> bool {
        self.subsets.is_empty() || self.subsets.len() == self.n_subsets
    }

    fn parse(line: &'static str) -> Option<Self> {
        let cells: Vec<&'static str> = line.split('\t').collect();
        let [
            name,
            kind,
            path,
            revision,
            config,
            eval_splits,
            train_split,
            known_rows,
            n_subsets,
            subsets,
            layout,
            text_columns,
            loader,
            modalities,
            languages,
            superseded_by,
        ] = cells[..]
        else {
            return None;
        };
        let layout = match layout {
            "columns" => Layout::Columns,
            "retrieval" => Layout::Retrieval,
            "bitext-parallel" => Layout::BitextParallel,
            "none" => Layout::None,
            _ => return None,
        };
        let loader = match loader {
            "plain" => Loader::Plain,
            "rename" => Loader::Rename,
            "subsample" => Loader::Subsample,
            "transform" => Loader::Transform,
            "custom" => Loader::Custom,
            "aggregate" => Loader::Aggregate,
            _ => return None,
        };
        let rows = |cell: &'static str| {
            let (split, rows) = cell.split_once('=')?;
            Some((split, rows.parse().ok()?))
        };
        let modalities = list(modalities);
        let subsets = list(subsets).into_iter().filter(|subset| *subset != "...").collect();
        // A cell that holds a list is told by its type when it is read, not by its name.
        let columns = || list(text_columns).into_iter().map(|column| column.trim_end_matches("[]")).collect();
        Some(Self {
            name,
            kind,
            path,
            revision,
            config: filled(config),
            eval_splits: list(eval_splits),
            train_split: filled(train_split),
            known_rows: list(known_rows).into_iter().map(rows).collect::<Option<_>>()?,
            n_subsets: n_subsets.parse().ok()?,
            subsets,
            layout,
            columns: (layout == Layout::Columns && !matches!(text_columns, "?" | "-")).then(columns),
            loader,
            unreadable: unreadable(layout, loader, &modalities, text_columns),
            modalities,
            languages: list(languages),
            superseded_by: filled(superseded_by),
        })
    }
}

fn unreadable(layout: Layout, loader: Loader, modalities: &[&str], columns: &str) -> Option<Unreadable> {
    match layout {
        Layout::None => Some(Unreadable::Aggregate),
        _ if !modalities.contains(&"text") => Some(Unreadable::NoText),
        _ if matches!(loader, Loader::Custom) => Some(Unreadable::OwnCode),
        Layout::Retrieval if modalities != ["text"] => Some(Unreadable::Mixed),
        Layout::Columns if columns == "-" => Some(Unreadable::NoTextColumn),
        Layout::Columns | Layout::Retrieval | Layout::BitextParallel => None,
    }
}

fn filled(cell: &'static str) -> Option<&'static str> {
    (cell != "-").then_some(cell)
}

fn list(cell: &'static str) -> Vec<&'static str> {
    filled(cell).map_or(Vec::new(), |cell| cell.split(',').collect())
}

/// All tasks, sorted by name without regard to case.
pub fn tasks() -> &'static [Task] {
    static TASKS: OnceLock<Vec<Task>> = OnceLock::new();
    TASKS.get_or_init(|| {
        let parse = |line| Task::parse(line).expect("a test reads every row of the table");
        TABLE.lines().skip(2).map(parse).collect()
    })
}

/// The task of that name, whatever its case.
pub fn find(name: &str) -> Option<&'static Task> {
    let name = name.to_lowercase();
    let tasks = tasks();
    tasks.binary_search_by(|task| task.name.to_lowercase().cmp(&name)).ok().map(|idx| &tasks[idx])
}

/// The version of mteb that the table was made from.
pub fn mteb_version() -> &'static str {
    TABLE.lines().next().and_then(|line| line.strip_prefix("# mteb ")).unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The columns that [`Task::parse`] takes apart, in this order.
    const HEAD: &str = "name\ttype\tpath\trevision\tconfig\teval_splits\ttrain_split\tknown_rows\tn_subsets\tsubsets\t\
                        layout\ttext_columns\tloader\tmodalities\tlanguages\tsuperseded_by";

    #[test]
    fn every_row_is_read_and_holds_what_the_rest_relies_on() {
        assert_eq!(TABLE.lines().nth(1), Some(HEAD));
        assert_eq!(mteb_version(), "2.26.24");
        assert_eq!(tasks().len(), 2058);
        let mut odd = BTreeSet::new();
        for task in tasks() {
            let name = task.name;
            let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            assert!(plain(name) && !name.eq_ignore_ascii_case("c4"), "{name}");
            assert!(task.n_subsets >= 1 && task.subsets.len() <= task.n_subsets, "{name}");
            assert!(task.subsets.iter().all(|subset| !subset.contains(['/', '#'])), "{name}");
            assert_eq!(task.subsets.len(), task.subsets.iter().collect::<BTreeSet<_>>().len(), "{name}");
            assert!(!task.modalities.is_empty() && !task.languages.is_empty(), "{name}");
            let by = task.superseded_by;
            assert!(by.is_none_or(|by| find(by).is_some_and(|other| other.name == by)), "{name} {by:?}");
            if task.unreadable.is_none() {
                assert!(!task.eval_splits.is_empty(), "{name}");
                assert!(task.path.split('/').count() == 2 && task.path.split('/').all(plain), "{name}");
                let is_hash = |text: &str| text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit());
                if !is_hash(task.revision) {
                    odd.insert(name);
                }
            }
            if task.layout == Layout::BitextParallel {
                assert!(task.subsets.iter().all(|subset| subset.matches('-').count() == 1), "{name}");
            }
        }
        // MTEB pins these by seven digits, and the first one by 41.
        let known =
            "BIRCO-DorisMae BarExamQA IFIRAila IFIRCds IFIRFiQA IFIRFire IFIRNFCorpus IFIRPm IFIRScifact";
        assert_eq!(odd.into_iter().collect::<Vec<_>>().join(" "), known);
    }

    #[test]
    fn names_are_found_in_any_case() {
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(find(name).map(|task| task.name), expected, "{name}");
        };
        tasks().iter().for_each(|task| check(&task.name.to_uppercase(), Some(task.name)));
        check("banking77classification", Some("Banking77Classification"));
        check("Banking77Classification.V2", Some("Banking77Classification.v2"));
        check("Banking77", None);
        check("", None);
    }

    #[test]
    fn known_tasks() {
        let task = |name: &str| find(name).expect(name);
        let banking = task("Banking77Classification");
        assert_eq!(
            (banking.path, banking.kind, banking.layout),
            ("mteb/banking77", "Classification", Layout::Columns)
        );
        assert_eq!(banking.columns.as_deref(), Some(&["text"][..]));
        assert_eq!(banking.known_rows, [("test", 3080), ("train", 10_003)]);
        assert_eq!((banking.train_split, &banking.eval_splits[..]), (Some("train"), &["test"][..]));
        assert_eq!(task("SciFact").layout, Layout::Retrieval);
        assert_eq!(task("SciFact").columns, None);
        let legacy = task("ArxivClusteringS2S");
        assert_eq!(legacy.columns.as_deref(), Some(&["sentences"][..]));
        assert_eq!(task("STSBenchmark").columns.as_deref(), Some(&["sentence1", "sentence2"][..]));
        assert_eq!(task("TwitterURLCorpus").columns.as_deref(), Some(&["sent1", "sent2"][..]));
        assert_eq!(task("XNLI").columns.as_deref(), Some(&["premise", "hypothesis"][..]));
        assert_eq!(task("MassiveIntentClassification").subsets.len(), 51);
        let flores = task("FloresBitextMining");
        assert_eq!((flores.layout, flores.n_subsets), (Layout::BitextParallel, 41_412));
        assert!(!flores.knows_all_subsets() && flores.unreadable.is_none());
    }

    #[test]
    fn what_cannot_be_read_and_why() {
        let check = |name: &str, expected: Option<Unreadable>| {
            assert_eq!(find(name).expect(name).unreadable, expected, "{name}");
        };
        check("Banking77Classification", None);
        check("NTREXBitextMining", None);
        check("ClusTREC-Covid", None);
        check("CQADupstackRetrieval", Some(Unreadable::Aggregate));
        check("AESDD", Some(Unreadable::NoText));
        check("BrightBiologyRetrieval", Some(Unreadable::OwnCode));
        check("CIFAR10ZeroShot", Some(Unreadable::NoTextColumn));
        check("VQA2IT2TRetrieval", Some(Unreadable::Mixed));
        let n_readable = tasks().iter().filter(|task| task.unreadable.is_none()).count();
        assert_eq!(n_readable, 1197);
    }
}
