//! Names → files, for the layouts of repositories that there are.

use super::fake::FakeHub;
use super::*;
use crate::dataset::{DatasetName, Place};

/// A name, a split, whether that is asked for, and what is expected: `split of config`, then the files with their
/// columns, then parts of the warnings, all of which must be accounted for.
struct Case<'a> {
    name: &'a str,
    split: Option<&'a str>,
    chosen: &'a str,
    files: &'a [&'a str],
    warnings: &'a [&'a str],
}

fn found(hub: &dyn Hub, name: &str, split: Option<&str>) -> Result<FoundFiles, FilesError> {
    let name: DatasetName = name.parse().expect(name);
    let DatasetName::Hub(name) = name else { panic!("{name} is not on the hub") };
    resolve(&name, split.unwrap_or(SPLIT_DEFAULT), split.is_some(), hub)
}

/// `path (column column)`, joined columns with a plus.
fn shown(found: &FoundFiles) -> Vec<String> {
    let file = |file: &SourceFile| {
        let Place::Hub { path, commit, .. } = &file.place else { panic!("a file on the hub") };
        assert!(commit.len() == 40 && file.content.is_some() && file.size > 0);
        match &file.columns {
            None => path.clone(),
            Some(columns) => {
                format!("{path} ({})", columns.names.join(if columns.joined { "+" } else { " " }))
            }
        }
    };
    found.files.iter().map(file).collect()
}

fn check(hub: &dyn Hub, case: Case<'_>) {
    let Case { name, split, chosen, files, warnings } = case;
    let found = found(hub, name, split).expect(name);
    assert_eq!(shown(&found), files, "{name} {split:?}");
    let said = |text: &Option<String>| text.clone().unwrap_or_default();
    assert_eq!(format!("{} of {}", said(&found.split), said(&found.config)), chosen, "{name} {split:?}");
    assert_eq!(found.warnings.len(), warnings.len(), "{name} {split:?}: {:#?}", found.warnings);
    for (warning, expected) in found.warnings.iter().zip(warnings) {
        assert!(warning.contains(expected), "{name}: {expected:?} in {warning:?}");
    }
}

/// The repository of a task at the commit that the table pins.
fn task_hub(task: &str, head: &str, paths: &[&str]) -> FakeHub {
    FakeHub::default().with_task(task, head, paths)
}

impl FakeHub {
    fn with_task(self, task: &str, head: &str, paths: &[&str]) -> Self {
        let task = crate::dataset::catalogue::find(task).expect(task);
        self.with(task.path, task.revision, head, paths)
    }

    fn with_conversion(self, task: &str, paths: &[&str]) -> Self {
        let task = crate::dataset::catalogue::find(task).expect(task);
        self.with(task.path, converted::REVISION, "", paths)
    }
}

#[test]
fn classification_by_the_names_of_files() {
    let task = "Banking77Classification";
    let hub = task_hub(task, "", &["train.jsonl", "test.jsonl", "prepare_data.py", "README.txt"]);
    let case = |split, chosen, files, warnings| Case { name: task, split, chosen, files, warnings };
    check(&hub, case(None, "train of default", &["train.jsonl (text)"], &[]));
    check(&hub, case(Some("test"), "test of default", &["test.jsonl (text)"], &[]));
    let said = "there is no split \"validation\"; \"test\" is read (there are: test, train)";
    check(&hub, case(Some("validation"), "test of default", &["test.jsonl (text)"], &[said]));
}

#[test]
fn shards_keep_their_order() {
    let paths: Vec<String> = (0..12).rev().map(|n| format!("data/train-{n:05}-of-00012.parquet")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let hub = task_hub("ImdbClassification", "", &paths);
    let expected: Vec<String> = paths.iter().rev().map(|path| format!("{path} (text)")).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    let case = Case {
        name: "imdbclassification",
        split: None,
        chosen: "train of default",
        files: &expected,
        warnings: &[],
    };
    check(&hub, case);
}

#[test]
fn clustering_without_a_train_split() {
    let hub = task_hub("ArxivClusteringS2S", "", &["test.jsonl.gz"]);
    let said = "no split was asked for, and there is no split \"train\"; \"test\"";
    check(
        &hub,
        Case {
            name: "ArxivClusteringS2S",
            split: None,
            chosen: "test of default",
            files: &["test.jsonl.gz (sentences)"],
            warnings: &[said],
        },
    );
}

#[test]
fn sentence_pairs_are_separate_texts() {
    let head = "configs:\n- config_name: default\n  data_files:\n  - {split: train, path: train.jsonl.gz}\n  \
                - {split: validation, path: dev.jsonl.gz}\n  - {split: test, path: test.jsonl.gz}";
    let hub = task_hub("STSBenchmark", head, &["train.jsonl.gz", "dev.jsonl.gz", "test.jsonl.gz"]);
    let case = |split, chosen, files| Case { name: "STSBenchmark", split, chosen, files, warnings: &[] };
    check(&hub, case(None, "train of default", &["train.jsonl.gz (sentence1 sentence2)"]));
    check(&hub, case(Some("dev"), "validation of default", &["dev.jsonl.gz (sentence1 sentence2)"]));
}

#[test]
fn columns_that_nobody_knows_are_left_to_the_reader() {
    let hub = task_hub("HALClusteringS2S", "", &["test.jsonl"]);
    let case = Case {
        name: "HALClusteringS2S",
        split: Some("test"),
        chosen: "test of default",
        files: &["test.jsonl"],
        warnings: &["read as they are stored"],
    };
    check(&hub, case);
}

#[test]
fn retrieval_as_declared() {
    let head = "configs:\n- config_name: default\n  data_files:\n  - {split: train, path: qrels/train.jsonl}\n  \
                - {split: test, path: qrels/test.jsonl}\n- config_name: corpus\n  data_files:\n  \
                - {split: corpus, path: corpus.jsonl}\n- config_name: queries\n  data_files:\n  \
                - {split: queries, path: queries.jsonl}";
    let paths = ["corpus.jsonl", "queries.jsonl", "qrels/train.jsonl", "qrels/test.jsonl"];
    let hub = task_hub("SciFact", head, &paths).with("mteb/scifact", "main", head, &paths);
    let files = ["corpus.jsonl (title+text)", "queries.jsonl (text)"];
    let chosen = "corpus, queries of corpus, queries";
    let case = |name, split| Case { name, split, chosen, files: &files, warnings: &[] };
    check(&hub, case("SciFact", None));
    check(&hub, case("SciFact", Some("test")));
    check(&hub, case("hf:mteb/scifact", None));
    let qrels = Case {
        name: "hf:mteb/scifact#default/test",
        split: None,
        chosen: "test of default",
        files: &["qrels/test.jsonl"],
        warnings: &[],
    };
    check(&hub, qrels);
}

#[test]
fn retrieval_by_the_names_of_files() {
    let case = |chosen, files| Case { name: "SciFact", split: None, chosen, files, warnings: &[] };
    let hub =
        task_hub("SciFact", "", &["corpus.jsonl.gz", "queries.jsonl.gz", "scifact.py", "qrels/test.tsv"]);
    let files = ["corpus.jsonl.gz (title+text)", "queries.jsonl.gz (text)"];
    check(&hub, case("train of corpus, queries", &files));
    let hub = task_hub(
        "SciFact",
        "",
        &[
            "corpus/corpus-00000-of-00001.parquet",
            "queries/test-00000-of-00001.parquet",
            "data/test-00000-of-00001.parquet",
        ],
    );
    let files =
        ["corpus/corpus-00000-of-00001.parquet (title+text)", "queries/test-00000-of-00001.parquet (text)"];
    check(&hub, case("train, test of corpus, queries", &files));
}

#[test]
fn retrieval_with_several_splits_and_a_config_called_query() {
    let head = "configs:\n- config_name: corpus\n  data_files: [{split: dev, path: c/dev*}, {split: test, path: c/test*}]\n\
                - config_name: query\n  data_files: [{split: dev, path: q/dev*}, {split: test, path: q/test*}]\n\
                - config_name: queries\n  data_files: [{split: test, path: no/test*}]";
    let paths = ["c/dev.parquet", "c/test.parquet", "q/dev.parquet", "q/test.parquet", "no/test.parquet"];
    let hub = task_hub("SciFact", head, &paths);
    let case = |split, chosen, files, warnings| Case { name: "SciFact", split, chosen, files, warnings };
    let files = ["c/dev.parquet (title+text)", "q/dev.parquet (text)"];
    check(&hub, case(Some("dev"), "dev of corpus, query", &files, &[]));
    let files = ["c/test.parquet (title+text)", "q/test.parquet (text)"];
    let said =
        ["corpus: no split was asked for, and there is no split \"train\"", "query: no split was asked for"];
    check(&hub, case(None, "test of corpus, query", &files, &said));
}

#[test]
fn retrieval_in_several_languages() {
    let declared = |subset: &str, part: &str| {
        format!(
            "- config_name: {subset}-{part}\n  data_files: [{{split: dev, path: {subset}-{part}/dev*}}]\n"
        )
    };
    let mut head = "configs:\n".to_owned();
    let mut paths = Vec::new();
    for subset in ["ar", "de", "en"] {
        for part in ["corpus", "queries", "qrels"] {
            head += &declared(subset, part);
            paths.push(format!("{subset}-{part}/dev-00000-of-00001.parquet"));
        }
    }
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let hub = task_hub("MIRACLRetrieval", &head, &paths);
    let files = |subset: &str| {
        ["corpus", "queries"].map(|part| {
            let columns = if part == "corpus" { "title+text" } else { "text" };
            format!("{subset}-{part}/dev-00000-of-00001.parquet ({columns})")
        })
    };
    let german = files("de");
    check(
        &hub,
        Case {
            name: "MIRACLRetrieval/de",
            split: Some("dev"),
            chosen: "dev of de-corpus, de-queries",
            files: &german.each_ref().map(String::as_str),
            warnings: &[],
        },
    );
    let english = files("en");
    check(
        &hub,
        Case {
            name: "MIRACLRetrieval",
            split: Some("dev"),
            chosen: "dev of en-corpus, en-queries",
            files: &english.each_ref().map(String::as_str),
            warnings: &["\"MIRACLRetrieval/en\" is read (there are: ar, bn, de"],
        },
    );
    let error = found(&hub, "MIRACLRetrieval/fr", None).expect_err("no files").to_string();
    assert!(
        error.contains("has no config \"fr-corpus\"") && error.contains("ar-corpus, ar-queries"),
        "{error}"
    );
}

#[test]
fn subsets_are_configs() {
    let task = "MassiveIntentClassification";
    let hub = task_hub(
        task,
        "",
        &["en/test.jsonl.gz", "en/train.jsonl.gz", "de/test.jsonl.gz", "de/train.jsonl.gz"],
    );
    let english = Case {
        name: task,
        split: None,
        chosen: "train of en",
        files: &["en/train.jsonl.gz (text)"],
        warnings: &["/en\" is read"],
    };
    check(&hub, english);
    let german = Case {
        name: "MassiveIntentClassification/de",
        split: Some("test"),
        chosen: "test of de",
        files: &["de/test.jsonl.gz (text)"],
        warnings: &[],
    };
    check(&hub, german);
    // As names of files instead of folders.
    let hub = task_hub(task, "", &["test/en.jsonl", "test/de.jsonl"]);
    let german = Case {
        name: "MassiveIntentClassification/de",
        split: Some("test"),
        chosen: "test of de",
        files: &["test/de.jsonl (text)"],
        warnings: &[],
    };
    check(&hub, german);
}

#[test]
fn bitext_pairs_and_parallel_texts() {
    let hub = task_hub("Tatoeba", "", &["test/ara-eng.jsonl.gz", "test/deu-eng.jsonl.gz"]);
    let pair = Case {
        name: "Tatoeba/deu-eng",
        split: Some("test"),
        chosen: "test of deu-eng",
        files: &["test/deu-eng.jsonl.gz (sentence1 sentence2)"],
        warnings: &[],
    };
    check(&hub, pair);
    let hub = task_hub("NTREXBitextMining", "", &["test.parquet"]);
    let pair = Case {
        name: "NTREXBitextMining/deu_Latn-eng_Latn",
        split: Some("test"),
        chosen: "test of default",
        files: &["test.parquet (deu_Latn eng_Latn)"],
        warnings: &[],
    };
    check(&hub, pair);
    let any = Case {
        name: "NTREXBitextMining",
        split: Some("test"),
        chosen: "test of default",
        files: &["test.parquet (afr_Latn eng_Latn)"],
        warnings: &["\"NTREXBitextMining/afr_Latn-eng_Latn\" is read"],
    };
    check(&hub, any);
}

#[test]
fn a_config_that_the_table_fixes() {
    let hub = task_hub(
        "KLUE-NLI",
        "",
        &["sts/validation-00000-of-00001.parquet", "nli/validation-00000-of-00001.parquet"],
    );
    let case = Case {
        name: "KLUE-NLI",
        split: Some("validation"),
        chosen: "validation of nli",
        files: &["nli/validation-00000-of-00001.parquet (premise hypothesis)"],
        warnings: &["by code"],
    };
    check(&hub, case);
}

#[test]
fn summaries() {
    let hub = task_hub("SummEval", "", &["test.jsonl.gz"]);
    let case = Case {
        name: "SummEval",
        split: Some("test"),
        chosen: "test of default",
        files: &["test.jsonl.gz (text human_summaries machine_summaries)"],
        warnings: &[],
    };
    check(&hub, case);
}

#[test]
fn scripts_alone_and_the_conversion() {
    let task = "Banking77Classification";
    let hub = task_hub(task, "", &["banking77.py", "README.md"])
        .with_conversion(task, &["default/test/0000.parquet", "default/partial-train/0000.parquet"]);
    let case = |split, chosen, files, warnings| Case { name: task, split, chosen, files, warnings };
    let follows = "follows the branch main";
    let converted = [follows];
    check(&hub, case(Some("test"), "test of default", &["default/test/0000.parquet (text)"], &converted));
    let files = ["default/partial-train/0000.parquet (text)"];
    check(&hub, case(None, "train of default", &files, &[follows, "only the beginning of split \"train\""]));
    let error = found(&task_hub(task, "", &["banking77.py"]), task, None).expect_err("nothing to read");
    assert!(matches!(&error, FilesError::NoData { .. }), "{error}");
    let empty = task_hub(task, "", &["banking77.py"]).with_conversion(task, &["x"]);
    assert!(matches!(found(&empty, task, None), Err(FilesError::Empty { .. })));
    assert!(matches!(found(&FakeHub::default(), task, None), Err(FilesError::Hub(_))));
}

#[test]
fn renamed_repositories_and_faulty_heads() {
    let hub = task_hub("Banking77Classification", "a: [", &["train.csv"])
        .with_old_name("old/name", "new/name")
        .with("new/name", "main", "", &["train.csv"]);
    let case = Case {
        name: "Banking77Classification",
        split: None,
        chosen: "train of default",
        files: &["train.csv (text)"],
        warnings: &["README.md of dataset mteb/banking77 is not used: line"],
    };
    check(&hub, case);
    let case = Case {
        name: "hf:old/name",
        split: None,
        chosen: "train of default",
        files: &["train.csv"],
        warnings: &["dataset old/name is now called new/name"],
    };
    check(&hub, case);
    let place = found(&hub, "hf:old/name", None).expect("files").files.remove(0).place;
    assert!(matches!(place, Place::Hub { repo, .. } if repo.id == "new/name"));
}

#[test]
fn repositories_by_name() {
    let head = "configs:\n- {config_name: plain, default: true, data_files: [{split: train, path: p/train*}, {split: dev, path: p/dev*}]}\n\
                - {config_name: de, data_files: [{split: x, path: de/x*}]}";
    let hub = FakeHub::default()
        .with("a/b", "main", head, &["p/train.csv", "p/dev.csv", "de/x.csv"])
        .with("a/b", "v1", "", &["en/test.csv", "fr/test.csv"])
        .with("imdb", "main", "", &["train.txt"]);
    let case = |name, split, chosen, files, warnings| Case { name, split, chosen, files, warnings };
    check(&hub, case("hf:a/b", None, "train of plain", &["p/train.csv"], &[]));
    check(&hub, case("hf:a/b#/validation", None, "dev of plain", &["p/dev.csv"], &[]));
    check(&hub, case("hf:a/b#/validation", Some("train"), "dev of plain", &["p/dev.csv"], &[]));
    check(&hub, case("hf:a/b#//body", Some("dev"), "dev of plain", &["p/dev.csv (body)"], &[]));
    check(&hub, case("hf:a/b#de", None, "x of de", &["de/x.csv"], &["no split was asked for"]));
    check(&hub, case("hf:a/b#de/test", None, "x of de", &["de/x.csv"], &["there is no split \"test\""]));
    check(
        &hub,
        case("hf:a/b@v1#/test", None, "test of en", &["en/test.csv"], &["no config was named; \"en\""]),
    );
    check(&hub, case("hf:imdb", None, "train of default", &["train.txt"], &[]));
    let error = found(&hub, "hf:a/b#dee", None).expect_err("no such config").to_string();
    assert!(error.contains("there are plain, de") && error.contains("did you mean \"de\"?"), "{error}");
}

#[test]
fn c4_by_config() {
    let paths = [
        "README.md",
        "en/c4-train.00001-of-00002.json.gz",
        "en/c4-train.00000-of-00002.json.gz",
        "en/c4-validation.00000-of-00001.json.gz",
        "en.noclean/c4-train.00000-of-07168.json.gz",
        "multilingual/c4-de.tfrecord-00000-of-00002.json.gz",
        "multilingual/c4-de.tfrecord-00001-of-00002.json.gz",
        "multilingual/c4-de-validation.tfrecord-00000-of-00001.json.gz",
        "multilingual/c4-zh-Latn.tfrecord-00000-of-00001.json.gz",
    ];
    let hub = FakeHub::default().with("allenai/c4", "main", "", &paths);
    let case = |name, split, chosen, files, warnings| Case { name, split, chosen, files, warnings };
    let train = ["en/c4-train.00000-of-00002.json.gz (text)", "en/c4-train.00001-of-00002.json.gz (text)"];
    check(&hub, case("c4", None, "train of en", &train, &[]));
    let validation = ["en/c4-validation.00000-of-00001.json.gz (text)"];
    check(&hub, case("c4/en", Some("validation"), "validation of en", &validation, &[]));
    check(&hub, case("c4", Some("test"), "validation of en", &validation, &["there is no split \"test\""]));
    let one = ["en.noclean/c4-train.00000-of-07168.json.gz (text)"];
    check(&hub, case("c4/en.noclean", None, "train of en.noclean", &one, &["1 of the 7168 files"]));
    let german = [
        "multilingual/c4-de.tfrecord-00000-of-00002.json.gz (text)",
        "multilingual/c4-de.tfrecord-00001-of-00002.json.gz (text)",
    ];
    check(&hub, case("c4/de", None, "train of de", &german, &[]));
    let german = ["multilingual/c4-de-validation.tfrecord-00000-of-00001.json.gz (text)"];
    check(&hub, case("c4/de", Some("dev"), "validation of de", &german, &[]));
    let latin = ["multilingual/c4-zh-Latn.tfrecord-00000-of-00001.json.gz (text)"];
    check(&hub, case("c4/zh-latn", None, "train of zh-Latn", &latin, &[]));
    assert!(matches!(found(&hub, "c4/zh", None), Err(FilesError::NoShards { .. })));
    let file = found(&hub, "c4", None).expect("files").files.remove(0);
    use crate::dataset::{Compression, Format};
    assert_eq!((file.format, file.compression), (Format::Jsonl, Compression::Gzip));
}
