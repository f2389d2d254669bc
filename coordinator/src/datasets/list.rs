//! The list: c4 and every task of MTEB.

use std::collections::BTreeSet;

use lsa_common::dataset::catalogue::{self, Task, c4};
use lsa_common::suggest;
use serde_json::{Value, json};

use super::{DatasetsError, ListArgs};

/// What a line has to fit, where it is cut.
const COLUMNS_MAX: usize = 80;

/// The cells of a line and the fewest characters of each, however little room there is.
const HEAD: [(&str, usize); 5] = [("NAME", 26), ("TYPE", 14), ("LANGUAGES", 9), ("SPLITS", 10), ("NOTE", 11)];

const GAP: &str = "  ";

/// The list as it is printed: c4, then the tasks by name, those that `args` lets through. `on_terminal` says whether
/// lines are cut.
pub fn list(args: &ListArgs, on_terminal: bool) -> Result<String, DatasetsError> {
    let filter = Filter::new(args)?;
    let tasks: Vec<&Task> = catalogue::tasks().iter().filter(|task| filter.takes(task)).collect();
    let with_c4 = filter.takes_c4();
    if args.json {
        let entries: Vec<Value> =
            with_c4.then(c4_json).into_iter().chain(tasks.into_iter().map(task_json)).collect();
        return Ok(super::show::pretty(&Value::Array(entries)));
    }
    if tasks.is_empty() && !with_c4 {
        return Ok("no dataset is like that; take away a filter\n".to_owned());
    }
    let head = HEAD.map(|(name, _)| name.to_owned());
    let lines: Vec<[String; 5]> = std::iter::once(head)
        .chain(with_c4.then(c4_cells))
        .chain(tasks.into_iter().map(task_cells))
        .collect();
    Ok(table(&lines, (on_terminal && !args.wide).then_some(COLUMNS_MAX)))
}

/// What is asked for, in lower case.
struct Filter<'a> {
    args: &'a ListArgs,
    language: Option<String>,
    words: Vec<String>,
}

impl<'a> Filter<'a> {
    fn new(args: &'a ListArgs) -> Result<Self, DatasetsError> {
        if let Some(kind) = &args.kind {
            let kinds: BTreeSet<&str> = catalogue::tasks().iter().map(|task| task.kind).collect();
            if !kinds.iter().any(|known| known.eq_ignore_ascii_case(kind)) {
                let known = kinds.iter().copied().collect::<Vec<_>>().join(", ");
                let hint = suggest::hint(kind, kinds);
                return Err(DatasetsError::NoKind { kind: kind.clone(), known, hint });
            }
        }
        let filter = Self {
            args,
            language: args.language.as_ref().map(|language| language.to_lowercase()),
            words: args
                .search
                .iter()
                .flat_map(|text| text.split_whitespace())
                .map(str::to_lowercase)
                .collect(),
        };
        if let Some(language) = &args.language {
            let known: BTreeSet<&str> =
                catalogue::tasks().iter().flat_map(|task| &task.languages).copied().collect();
            if !filter.speaks_c4() && !known.iter().any(|code| filter.speaks(code)) {
                let codes = known.iter().map(|code| code.split('-').next().unwrap_or(code));
                let hint = suggest::hint(language, codes);
                return Err(DatasetsError::NoLanguage { language: language.clone(), hint });
            }
        }
        Ok(filter)
    }

    fn takes(&self, task: &Task) -> bool {
        let text = format!("{} {}", task.name, task.path).to_lowercase();
        self.args.kind.as_ref().is_none_or(|kind| kind.eq_ignore_ascii_case(task.kind))
            && (self.language.is_none() || task.languages.iter().any(|code| self.speaks(code)))
            && self.words.iter().all(|word| text.contains(word.as_str()))
            && (!self.args.readable || task.unreadable.is_none())
    }

    /// Whether `deu-Latn` is the language asked for.
    fn speaks(&self, code: &str) -> bool {
        let language = self.language.as_deref().unwrap_or_default();
        code.eq_ignore_ascii_case(language)
            || code.split('-').next().is_some_and(|code| code.eq_ignore_ascii_case(language))
    }

    fn takes_c4(&self) -> bool {
        self.args.kind.is_none()
            && self.speaks_c4()
            && self.words.iter().all(|word| c4::REPO.contains(word.as_str()))
    }

    /// Its configs bear codes of two letters.
    fn speaks_c4(&self) -> bool {
        self.language.as_deref().is_none_or(|language| {
            language == "eng"
                || language == "eng-latn"
                || c4::configs().any(|config| config.eq_ignore_ascii_case(language))
        })
    }
}

fn c4_cells() -> [String; 5] {
    let languages = format!("{} languages", 1 + c4::LANGUAGES.len());
    let note = "the default; c4/CONFIG for another config, such as c4/de".to_owned();
    ["c4".to_owned(), "corpus".to_owned(), languages, "train, validation".to_owned(), note]
}

fn task_cells(task: &Task) -> [String; 5] {
    let codes: BTreeSet<&str> =
        task.languages.iter().map(|code| code.split('-').next().unwrap_or(code)).collect();
    let languages = match codes.len() {
        0..=3 => codes.into_iter().collect::<Vec<_>>().join(","),
        n_codes => format!("{n_codes} languages"),
    };
    let splits = splits(task).into_iter().map(|(split, rows)| match rows {
        Some(rows) => format!("{split} {rows}"),
        None => split.to_owned(),
    });
    let splits = splits.collect::<Vec<_>>().join(", ");
    [task.name.to_owned(), task.kind.to_owned(), languages, splits, note(task)]
}

/// Whether a task can be read, and what MTEB recommends in its place.
fn note(task: &Task) -> String {
    let unreadable = task.unreadable.map(|reason| format!("unreadable: {reason}"));
    let superseded = task.superseded_by.map(|by| format!("superseded by {by}"));
    unreadable.into_iter().chain(superseded).collect::<Vec<_>>().join("; ")
}

/// The splits that are known to be there, with their rows where these are known.
pub(super) fn splits(task: &Task) -> Vec<(&'static str, Option<u64>)> {
    let known = |split: &str| task.known_rows.iter().any(|(known, _)| *known == split);
    let counted = task.known_rows.iter().map(|(split, rows)| (*split, Some(*rows)));
    let others = task.eval_splits.iter().filter(|split| !known(split)).map(|split| (*split, None));
    counted.chain(others).collect()
}

fn c4_json() -> Value {
    json!({
        "name": "c4", "type": "corpus", "repository": c4::REPO, "revision": null, "readable": true, "reason": null,
        "configs": c4::configs().collect::<Vec<_>>(), "splits": { "train": null, "validation": null },
        "superseded_by": null,
    })
}

pub(super) fn task_json(task: &Task) -> Value {
    let splits: serde_json::Map<String, Value> =
        splits(task).into_iter().map(|(split, rows)| (split.to_owned(), json!(rows))).collect();
    json!({
        "name": task.name, "type": task.kind, "repository": task.path, "revision": task.revision,
        "languages": task.languages, "modalities": task.modalities, "splits": splits,
        "n_subsets": task.n_subsets, "subsets": task.subsets, "readable": task.unreadable.is_none(),
        "reason": task.unreadable.map(|reason| reason.to_string()), "superseded_by": task.superseded_by,
    })
}

/// Aligned columns. With a width the widest cells are cut until a line fits.
fn table(lines: &[[String; 5]], columns_max: Option<usize>) -> String {
    let longest = |idx: usize| lines.iter().map(|cells| cells[idx].chars().count()).max().unwrap_or(0);
    let mut widths: [usize; 5] = std::array::from_fn(longest);
    if let Some(columns_max) = columns_max {
        let room = columns_max.saturating_sub(GAP.len() * (widths.len() - 1));
        while widths.iter().sum::<usize>() > room {
            let spare = |idx: &usize| widths[*idx].saturating_sub(HEAD[*idx].1);
            let widest = (0..widths.len()).max_by_key(spare).filter(|idx| spare(idx) > 0);
            let Some(widest) = widest else { break };
            widths[widest] -= 1;
        }
    }
    let mut text = String::new();
    for cells in lines {
        let cells = cells.iter().zip(widths).map(|(cell, width)| format!("{:<width$}", cut(cell, width)));
        text.push_str(cells.collect::<Vec<_>>().join(GAP).trim_end());
        text.push('\n');
    }
    text
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(set: impl FnOnce(&mut ListArgs)) -> ListArgs {
        let mut args = ListArgs::default();
        set(&mut args);
        args
    }

    fn names(args: &ListArgs) -> Vec<String> {
        let text = list(args, false).expect("a list");
        text.lines().skip(1).map(|line| line.split(GAP).next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn all_are_listed_in_order() {
        let all = names(&ListArgs::default());
        assert_eq!((all.len(), all[0].as_str()), (2059, "c4"));
        assert!(all[1..].is_sorted_by_key(|name| name.to_lowercase()));
    }

    #[test]
    fn filters() {
        let search = |text: &str| args(|args| args.search = Some(text.to_owned()));
        assert_eq!(
            names(&search("banking77")),
            ["Banking77Classification", "Banking77Classification.v2", "Banking77VNClassification"]
        );
        assert_eq!(names(&search("BANKING .v2")), ["Banking77Classification.v2"]);
        assert_eq!(names(&search("allenai/c4")), ["c4"]);
        let german = names(&args(|args| {
            args.language = Some("deu".to_owned());
            args.kind = Some("sts".to_owned());
            args.readable = true;
        }));
        assert!(german.contains(&"GermanSTSBenchmark".to_owned()), "{german:?}");
        assert!(!german.contains(&"STSBenchmark".to_owned()) && !german.contains(&"c4".to_owned()));
        assert!(names(&args(|args| args.language = Some("DEU-latn".to_owned()))).len() > 50);
        let nothing = list(&search("zzzz"), true).expect("a sentence");
        assert!(nothing.contains("no dataset is like that"));
    }

    #[test]
    fn filters_that_are_at_fault() {
        let check = |args: ListArgs, expected: &str| {
            let message = list(&args, true).expect_err(expected).to_string();
            assert!(message.contains(expected), "{message}");
        };
        check(args(|args| args.kind = Some("Clasification".to_owned())), "did you mean \"Classification\"?");
        check(args(|args| args.language = Some("klingon".to_owned())), "three letters");
    }

    #[test]
    fn lines_fit_a_terminal_and_are_whole_elsewhere() {
        let cut = list(&ListArgs::default(), true).expect("a list");
        assert!(cut.lines().all(|line| line.chars().count() <= COLUMNS_MAX));
        let whole = list(&ListArgs::default(), false).expect("a list");
        assert!(!whole.contains('…') && whole.lines().all(|line| !line.ends_with(' ')));
        let wide = list(&args(|args| args.wide = true), true).expect("a list");
        assert_eq!(wide, whole);
        let line = whole.lines().find(|line| line.starts_with("Banking77Classification ")).expect("a task");
        for expected in
            ["Classification", "eng", "test 3080, train 10003", "superseded by Banking77Classification.v2"]
        {
            assert!(line.contains(expected), "{line}");
        }
        assert!(whole.contains("unreadable: MTEB loads it by code of its own"));
    }

    #[test]
    fn json() {
        let text = list(&args(|args| args.json = true), true).expect("a list");
        let entries: Vec<Value> = serde_json::from_str(&text).expect("JSON");
        assert_eq!(entries.len(), 2059);
        let banking =
            entries.iter().find(|entry| entry["name"] == "Banking77Classification").expect("a task");
        assert_eq!(banking["splits"], json!({ "test": 3080, "train": 10003 }));
        assert_eq!((&banking["readable"], &banking["reason"]), (&json!(true), &Value::Null));
    }
}
