//! What would be read of one dataset.

use std::fmt::Write as _;

use lsa_common::dataset::catalogue::Task;
use lsa_common::dataset::files::{FoundFiles, SPLIT_DEFAULT, resolve};
use lsa_common::dataset::{Columns, DatasetName, HubName, Place, SourceFile};
use lsa_common::hub::Hub;
use serde_json::{Value, json};

use super::list::{splits, task_json};
use super::{DatasetsError, ShowArgs};
use crate::forecast;

/// The most files that are listed for a person.
const FILES_LISTED_MAX: usize = 12;

/// Which files, in which order, and which of their columns would be read of a dataset on the hub, as it is printed.
pub fn show(hub: &dyn Hub, args: &ShowArgs) -> Result<String, DatasetsError> {
    let DatasetName::Hub(name) = &args.name else {
        return Err(DatasetsError::NotOnHub(args.name.clone()));
    };
    let split = args.split.as_deref();
    let found = resolve(name, split.unwrap_or(SPLIT_DEFAULT), split.is_some(), hub)?;
    let task = match name {
        HubName::Task(name) => Some(name.task()),
        HubName::C4(_) | HubName::Repo(_) => None,
    };
    Ok(match args.json {
        true => pretty(&shown_json(name, task, &found)),
        false => shown_text(name, task, &found),
    })
}

/// JSON as it is printed.
pub(super) fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("plain JSON values serialise") + "\n"
}

fn shown_json(name: &HubName, task: Option<&Task>, found: &FoundFiles) -> Value {
    json!({
        "dataset": name.to_string(), "task": task.map(task_json), "config": found.config, "split": found.split,
        "revision": found.revision, "bytes": bytes(found), "files": found.files, "warnings": found.warnings,
    })
}

fn shown_text(name: &HubName, task: Option<&Task>, found: &FoundFiles) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let mut line = |line: String| writeln!(text, "{line}").unwrap_or_default();
    line(name.to_string());
    if let Some(task) = task {
        line(format!("  task        {} · {}", task.kind, task.languages.join(", ")));
        let counts = splits(task).into_iter().map(|(split, rows)| match rows {
            Some(rows) => format!("{split} {rows} rows"),
            None => split.to_owned(),
        });
        line(format!("  in MTEB     {}", counts.collect::<Vec<_>>().join(", ")));
        if let Some(by) = task.superseded_by {
            line(format!("  superseded  by {by}"));
        }
    }
    if let Some(Place::Hub { repo, commit, .. }) = found.files.first().map(|file| &file.place) {
        line(format!("  repository  {} at {commit}", repo.id));
    }
    let part = |part: &Option<String>| part.clone().unwrap_or_else(|| "–".to_owned());
    line(format!("  config      {}", part(&found.config)));
    line(format!("  split       {}", part(&found.split)));
    let n_files = found.files.len();
    let files = if n_files == 1 { "file" } else { "files" };
    line(format!("  read        {n_files} {files}, {}", forecast::bytes(bytes(found))));
    for file in found.files.iter().take(FILES_LISTED_MAX) {
        line(format!(
            "    {} · {} · {}",
            path(file),
            forecast::bytes(file.size),
            columns(file.columns.as_ref())
        ));
    }
    if n_files > FILES_LISTED_MAX {
        line(format!("    and {} more", n_files - FILES_LISTED_MAX));
    }
    found.warnings.iter().for_each(|warning| line(format!("  warning     {warning}")));
    text
}

fn path(file: &SourceFile) -> &str {
    match &file.place {
        Place::Hub { path, .. } => path,
        Place::Local { name, .. } => name,
    }
}

fn columns(columns: Option<&Columns>) -> String {
    match columns {
        None => "columns by its first rows".to_owned(),
        Some(Columns { names, joined: true }) => format!("columns {} as one text", names.join(" and ")),
        Some(Columns { names, joined: false }) if names.len() == 1 => format!("column {}", names[0]),
        Some(Columns { names, joined: false }) => format!("columns {}", names.join(", ")),
    }
}

fn bytes(found: &FoundFiles) -> u64 {
    found.files.iter().map(|file| file.size).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::path::PathBuf;

    use lsa_common::hub::{ContentId, HubError, HubFile, Listing, Repo};

    use super::*;

    /// One hub for every name: the same files in each repository.
    struct OneListing(&'static [(&'static str, u64)]);

    impl Hub for OneListing {
        fn list(&self, repo: &Repo, _: &str) -> Result<Listing, HubError> {
            let file = |(path, size): &(&str, u64)| HubFile {
                path: (*path).to_owned(),
                size: *size,
                content: ContentId::GitSha1("0".repeat(40)),
            };
            let files = self.0.iter().map(file).collect();
            Ok(Listing { repo: repo.clone(), commit: "c".repeat(40), files })
        }

        fn open(&self, listing: &Listing, _: &HubFile, _: u64) -> Result<Box<dyn Read + Send>, HubError> {
            Err(HubError::NoRepo { repo: listing.repo.clone(), endpoint: "none".to_owned() })
        }

        fn read_range(&self, listing: &Listing, _: &HubFile, _: u64, _: u64) -> Result<Vec<u8>, HubError> {
            Err(HubError::NoRepo { repo: listing.repo.clone(), endpoint: "none".to_owned() })
        }

        fn fetch(&self, listing: &Listing, _: &HubFile) -> Result<PathBuf, HubError> {
            Err(HubError::NoRepo { repo: listing.repo.clone(), endpoint: "none".to_owned() })
        }
    }

    fn shown(hub: &OneListing, name: &str, split: Option<&str>, json: bool) -> Result<String, DatasetsError> {
        let args = ShowArgs { name: name.parse().expect(name), split: split.map(str::to_owned), json };
        show(hub, &args)
    }

    const BANKING: OneListing = OneListing(&[("test.jsonl", 365_000), ("train.jsonl", 1_250_000)]);

    #[test]
    fn text() {
        let text = shown(&BANKING, "banking77classification", Some("dev"), false).expect("shown");
        for expected in [
            "Banking77Classification\n",
            "repository  mteb/banking77 at cccc",
            "superseded  by Banking77Classification.v2",
            "in MTEB     test 3080 rows, train 10003 rows",
            "split       test\n",
            "read        1 file, ",
            "test.jsonl · ",
            " · column text\n",
            "warning     there is no split \"dev\"; \"test\" is read",
        ] {
            assert!(text.contains(expected), "expected {expected:?} in:\n{text}");
        }
        let text = shown(&BANKING, "hf:a/b", None, false).expect("shown");
        assert!(text.contains("train.jsonl · ") && text.contains("columns by its first rows"), "{text}");
        let corpus = OneListing(&[("corpus.jsonl", 9), ("queries.jsonl", 9)]);
        let text = shown(&corpus, "SciFact", None, false).expect("shown");
        assert!(text.contains("corpus.jsonl · 9 B · columns title and text as one text"), "{text}");
    }

    #[test]
    fn json() {
        let text = shown(&BANKING, "Banking77Classification", None, true).expect("shown");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((&value["split"], &value["bytes"]), (&json!("train"), &json!(1_250_000)));
        assert_eq!(value["files"][0]["place"]["path"], "train.jsonl");
        assert_eq!(value["files"][0]["columns"], json!({ "names": ["text"], "joined": false }));
        assert_eq!(value["warnings"], json!([]));
    }

    #[test]
    fn what_cannot_be_shown() {
        let error = shown(&BANKING, "file:a.txt", None, false).expect_err("a local file").to_string();
        assert!(error.contains("file:a.txt is not on the hub"), "{error}");
        let error = shown(&BANKING, "c4", None, false).expect_err("no shards").to_string();
        assert!(error.contains("no files of config \"en\""), "{error}");
    }
}
