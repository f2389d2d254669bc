//! Datasets as they lie on the hub: a small repository of every type of MTEB task that holds text, and of every layout,
//! from the name of a dataset to its texts.
//!
//! Repositories of tasks have the ids and commits of the catalogue, and the file names and columns of the real ones.

#[path = "hub_datasets/columns.rs"]
mod columns;
#[path = "hub_datasets/contents.rs"]
mod contents;
#[path = "hub_datasets/documents.rs"]
mod documents;
#[path = "hub_datasets/names.rs"]
mod names;
#[path = "hub_datasets/parquet.rs"]
mod parquet;

use std::collections::BTreeSet;
use std::error::Error;
use std::io::Write as _;
use std::time::Duration;

use flate2::write::GzEncoder;
use lsa_common::dataset::catalogue::{self, Task};
use lsa_common::dataset::files::{FoundFiles, SPLIT_DEFAULT, resolve};
use lsa_common::dataset::{
    DatasetName, HubFiles, Place, ReadLimits, ReadSettings, Sampling, SourceFile, Tally, TextReader,
    TextsPlan, read_texts,
};
use lsa_common::hub::{HfHub, HubCache, HubSettings, RetryPolicy};
use lsa_common::texts::Text;
use lsa_tests::test_hub::{TestHub, TestRepo};

const SETTINGS: ReadSettings = ReadSettings {
    num_samples: 100,
    sampling: Sampling::First,
    dedupe: false,
    skip_bad_rows: false,
    limits: ReadLimits {
        text_bytes_max: 1 << 16,
        record_bytes_max: 1 << 18,
        decompressed_bytes_max: 1 << 20,
    },
};

/// A name, the split asked for if one is, and what is expected.
struct Case<'a> {
    name: &'a str,
    split: Option<&'a str>,
    /// `split of config`.
    chosen: &'a str,
    /// `file row column: text`; columns that are joined with a plus.
    texts: &'a [&'a str],
    /// A part of each warning, in order.
    warnings: &'a [&'a str],
}

/// What a name led to.
struct Outcome {
    /// The repositories and commits of the files, each once.
    sources: BTreeSet<(String, String)>,
    chosen: String,
    texts: Vec<String>,
    warnings: Vec<String>,
    tally: Tally,
}

/// Reads the texts of `name`, each step as a job takes it.
fn read(
    hub: &TestHub,
    name: &str,
    split: Option<&str>,
    settings: ReadSettings,
) -> Result<Outcome, Box<dyn Error>> {
    let cache = tempfile::tempdir()?;
    let mut of_hub = HubSettings::new(hub.url(), HubCache::at(cache.path()))?;
    of_hub.retry = RetryPolicy {
        attempts_max: 1,
        pause_first: Duration::ZERO,
        pause_max: Duration::ZERO,
        retry_after_max: Duration::ZERO,
    };
    let client = HfHub::new(of_hub)?;
    let DatasetName::Hub(parsed) = name.parse()? else { panic!("{name} is not on the hub") };
    let found = resolve(&parsed, split.unwrap_or(SPLIT_DEFAULT), split.is_some(), &client)?;
    let plan = TextsPlan::new(name.to_owned(), found.files.clone(), settings);
    let files = HubFiles::new(&client);
    let mut reader = read_texts(&plan, None, &files)?;
    let texts: Vec<Text> = reader.by_ref().collect::<Result<_, _>>()?;
    let said = |text: &Option<String>| text.clone().unwrap_or_default();
    Ok(Outcome {
        sources: found.files.iter().map(source_of).collect(),
        chosen: format!("{} of {}", said(&found.split), said(&found.config)),
        texts: texts.iter().map(|text| told(text, &found, &reader)).collect(),
        warnings: [&found.warnings[..], reader.warnings()].concat(),
        tally: reader.tally(),
    })
}

fn source_of(file: &SourceFile) -> (String, String) {
    let Place::Hub { repo, commit, .. } = &file.place else { panic!("a file on the hub") };
    (repo.id.clone(), commit.clone())
}

fn told(text: &Text, found: &FoundFiles, reader: &TextReader<'_>) -> String {
    let file = text.file as usize;
    let Place::Hub { path, .. } = &found.files[file].place else { panic!("a file on the hub") };
    let column = match &reader.columns()[file] {
        None => "-".to_owned(),
        Some(columns) if columns.joined => columns.names.join("+"),
        Some(columns) => columns.names[usize::from(text.column)].clone(),
    };
    format!("{path} {} {column}: {}", text.row, text.text)
}

/// Reads and compares; the repository and the commit that were read are those given.
fn check_from(hub: &TestHub, id: &str, commit: &str, case: Case<'_>) {
    let Case { name, split, chosen, texts, warnings } = case;
    let outcome =
        read(hub, name, split, SETTINGS).unwrap_or_else(|error| panic!("{name}: {}", chain(&*error)));
    assert_eq!(outcome.texts, texts, "{name} {split:?}");
    assert_eq!(outcome.chosen, chosen, "{name} {split:?}");
    assert_eq!(outcome.sources, BTreeSet::from([(id.to_owned(), commit.to_owned())]), "{name} {split:?}");
    assert_eq!(outcome.warnings.len(), warnings.len(), "{name} {split:?}: {:#?}", outcome.warnings);
    for (warning, part) in outcome.warnings.iter().zip(warnings) {
        assert!(warning.contains(part), "{name} {split:?}: {part:?} in {warning:?}");
    }
}

/// As [`check_from`], for a task whose repository is read at the commit that MTEB pins.
fn check(hub: &TestHub, case: Case<'_>) {
    let task = task(case.name);
    check_from(hub, task.path, task.revision, case);
}

/// The error that reading ends with, with its causes.
fn refusal(hub: &TestHub, name: &str, settings: ReadSettings) -> String {
    match read(hub, name, None, settings) {
        Ok(outcome) => panic!("{name}: {:?}", outcome.texts),
        Err(error) => chain(&*error),
    }
}

fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The task of a name, which may have a subset.
fn task(name: &str) -> &'static Task {
    let name = name.split('/').next().unwrap_or_default();
    catalogue::find(name).unwrap_or_else(|| panic!("there is no task {name}"))
}

/// The repository of a task. The commit that MTEB pins is not that of `main`, which has gone on.
fn repo(task_name: &str) -> TestRepo {
    let task = task(task_name);
    let newer = TestRepo::dataset(task.path).file("train.jsonl", "{\"text\": \"of main\"}\n");
    newer.branch("pinned").commit_is(task.revision)
}

/// A `README.md` that declares configs: `config split pattern` a line, the lines of a config together.
fn readme(declared: &str) -> String {
    let mut configs = String::new();
    let mut last = "";
    for line in declared.lines() {
        let [config, split, pattern] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{line:?}")
        };
        if config != last {
            configs.push_str(&format!("- config_name: {config}\n  data_files:\n"));
            last = config;
        }
        configs.push_str(&format!("  - split: {split}\n    path: {pattern}\n"));
    }
    format!("---\nlanguage:\n- en\nconfigs:\n{configs}tags:\n- mteb\n---\n# A dataset\n")
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}

#[test]
fn every_type_that_can_be_read_is_here() {
    let readable = catalogue::tasks().iter().filter(|task| task.unreadable.is_none());
    let kinds: BTreeSet<&str> = readable.map(|task| task.kind).collect();
    let covered = columns::TASKS.iter().chain(&documents::TASKS).map(|name| task(name).kind);
    assert_eq!(covered.collect::<BTreeSet<_>>(), kinds);
}
