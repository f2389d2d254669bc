//! Tasks whose texts lie in a corpus and its queries.

use lsa_tests::test_hub::{TestHub, TestRepo};

use super::parquet::Cells::{Lists, Nulls, Texts};
use super::{Case, check, check_from, gzip, parquet, readme, repo};

/// The tasks that are read here.
pub const TASKS: [&str; 10] = [
    "SciFact",
    "NFCorpus",
    "AILAStatutes",
    "AILACasedocs",
    "MIRACLRetrieval",
    "AskUbuntuDupQuestions",
    "IFIRAila",
    "InstructIR",
    "Core17InstructionRetrieval",
    "WebQAT2TRetrieval",
];

/// What most of the repositories declare.
const DECLARED: &str =
    "corpus corpus corpus/corpus-*\ndefault test data/test-*\nqueries queries queries/queries-*";
const CORPUS: &str = "corpus/corpus-00000-of-00001.parquet";
const QUERIES: &str = "queries/queries-00000-of-00001.parquet";
const QRELS: &str = "data/test-00000-of-00001.parquet";

/// What is read of a corpus and its queries, each in one split of its name.
fn case<'a>(name: &'a str, texts: &'a [&'a str]) -> Case<'a> {
    Case { name, split: None, chosen: "corpus, queries of corpus, queries", texts, warnings: &[] }
}

/// A repository of Parquet files with that corpus, two queries, and judgements.
fn declared(name: &str, corpus: Vec<u8>) -> TestRepo {
    let queries = parquet::file(&[("_id", Texts(&["q1", "q2"])), ("text", Texts(&["who?", "why?"]))]);
    let qrels = parquet::file(&[("query-id", Texts(&["q1"])), ("corpus-id", Texts(&["d1"]))]);
    repo(name)
        .file("README.md", readme(DECLARED))
        .file(CORPUS, corpus)
        .file(QUERIES, queries)
        .file(QRELS, qrels)
}

#[test]
fn retrieval_in_lines() {
    let readme = readme(
        "corpus corpus corpus.jsonl\ndefault train qrels/train.jsonl\ndefault test qrels/test.jsonl\n\
                         queries queries queries.jsonl",
    );
    let corpus = "{\"_id\": \"4983\", \"title\": \"Cells\", \"text\": \"They divide. \", \"metadata\": {}}\n\
                  {\"_id\": \"5836\", \"title\": \"\", \"text\": \"They rest.\", \"metadata\": {}}\n\
                  {\"_id\": \"7912\", \"title\": \"Only a title\", \"text\": \"\", \"metadata\": {}}\n\
                  {\"_id\": \"7913\", \"title\": \" \", \"text\": null, \"metadata\": {}}\n";
    let hub = TestHub::start([repo("SciFact")
        .file("README.md", readme)
        .large_file("corpus.jsonl", corpus)
        .file("queries.jsonl", "{\"_id\": \"0\", \"text\": \"Do cells rest?\", \"metadata\": {}}\n")
        .file("qrels/train.jsonl", "{\"query-id\": \"0\", \"corpus-id\": \"31715818\", \"score\": 1}\n")
        .file("qrels/test.jsonl", "{\"query-id\": \"1\", \"corpus-id\": \"14717500\", \"score\": 1}\n")]);
    let texts = [
        "corpus.jsonl 0 title+text: Cells They divide.",
        "corpus.jsonl 1 title+text: They rest.",
        "corpus.jsonl 2 title+text: Only a title",
        "queries.jsonl 0 text: Do cells rest?",
    ];
    check(&hub, case("SciFact", &texts));
    check(&hub, Case { split: Some("test"), ..case("SciFact", &texts) });
    assert!(hub.requests_for("/qrels/").is_empty());
}

#[test]
fn retrieval_in_parquet() {
    let corpus = parquet::file(&[
        ("_id", Texts(&["d1", "d2"])),
        ("text", Texts(&["grows.", "falls."])),
        ("title", Texts(&["Corn", ""])),
    ]);
    let hub = TestHub::start([declared("NFCorpus", corpus)]);
    let texts = [
        "corpus/corpus-00000-of-00001.parquet 0 title+text: Corn grows.",
        "corpus/corpus-00000-of-00001.parquet 1 title+text: falls.",
        "queries/queries-00000-of-00001.parquet 0 text: who?",
        "queries/queries-00000-of-00001.parquet 1 text: why?",
    ];
    check(&hub, case("NFCorpus", &texts));
}

#[test]
fn corpora_without_titles() {
    let lines = "{\"_id\": \"S1\", \"text\": \"Of theft\"}\n{\"_id\": \"S2\", \"title\": \"Arson\", \"text\": \"is a crime\"}\n";
    let untitled = parquet::file(&[("_id", Texts(&["d1"])), ("text", Texts(&["Of theft"]))]);
    let nulls =
        parquet::file(&[("_id", Texts(&["d1"])), ("text", Texts(&["Of theft"])), ("title", Nulls(1))]);
    let hub = TestHub::start([
        repo("AILAStatutes")
            .file("corpus.jsonl.gz", gzip(lines))
            .file("queries.jsonl.gz", gzip("{\"_id\": \"Q1\", \"text\": \"Who stole?\"}\n"))
            .file("aila.py", "raise SystemExit")
            .file("qrels/test.tsv", "query-id\tcorpus-id\tscore\nQ1\tS1\t1\n"),
        declared("AILACasedocs", untitled),
        declared("WebQAT2TRetrieval", nulls),
    ]);
    let texts = [
        "corpus.jsonl.gz 0 title+text: Of theft",
        "corpus.jsonl.gz 1 title+text: Arson is a crime",
        "queries.jsonl.gz 0 text: Who stole?",
    ];
    check(&hub, Case { chosen: "train of corpus, queries", ..case("AILAStatutes", &texts) });
    let texts = [
        "corpus/corpus-00000-of-00001.parquet 0 title+text: Of theft",
        "queries/queries-00000-of-00001.parquet 0 text: who?",
        "queries/queries-00000-of-00001.parquet 1 text: why?",
    ];
    check(&hub, case("AILACasedocs", &texts));
    check(&hub, case("WebQAT2TRetrieval", &texts));
}

#[test]
fn retrieval_in_several_languages() {
    let with = |repo: TestRepo, part: &&str| {
        let columns = [("_id", Texts(&["1"])), ("title", Texts(&[""])), ("text", Texts(&[*part]))];
        repo.file(&format!("{part}/dev-00000-of-00001.parquet"), parquet::file(&columns))
    };
    let parts = ["de-corpus", "de-queries", "en-corpus", "en-queries"];
    let hub = TestHub::start([parts.iter().fold(repo("MIRACLRetrieval"), with)]);
    let german = Case {
        name: "MIRACLRetrieval/de",
        split: Some("dev"),
        chosen: "dev of de-corpus, de-queries",
        texts: &[
            "de-corpus/dev-00000-of-00001.parquet 0 title+text: de-corpus",
            "de-queries/dev-00000-of-00001.parquet 0 text: de-queries",
        ],
        warnings: &[],
    };
    check(&hub, german);
    let english = Case {
        name: "MIRACLRetrieval",
        split: None,
        chosen: "dev of en-corpus, en-queries",
        texts: &[
            "en-corpus/dev-00000-of-00001.parquet 0 title+text: en-corpus",
            "en-queries/dev-00000-of-00001.parquet 0 text: en-queries",
        ],
        warnings: &["\"MIRACLRetrieval/en\" is read (there are: ar, bn, de"],
    };
    check(&hub, english);
}

#[test]
fn reranking_and_instructions() {
    let corpus = || {
        parquet::file(&[("_id", Texts(&["d1"])), ("title", Texts(&["Boot"])), ("text", Texts(&["fails"]))])
    };
    let ranked = parquet::file(&[("query-id", Texts(&["q1"])), ("corpus-ids", Lists(&[&["d1"]]))]);
    let instructions =
        || parquet::file(&[("query-id", Texts(&["q1"])), ("instruction", Texts(&["Be brief"]))]);
    let more = "\ntop_ranked test top_ranked/*\ninstruction instruction instruction/*";
    let with = |name: &str| {
        declared(name, corpus())
            .file("README.md", readme(&format!("{DECLARED}{more}")))
            .file("top_ranked/test-00000-of-00001.parquet", ranked.clone())
            .file("instruction/instruction-00000-of-00001.parquet", instructions())
    };
    let names = ["AskUbuntuDupQuestions", "InstructIR", "Core17InstructionRetrieval"];
    let hub = TestHub::start(names.map(with));
    let texts = [
        "corpus/corpus-00000-of-00001.parquet 0 title+text: Boot fails",
        "queries/queries-00000-of-00001.parquet 0 text: who?",
        "queries/queries-00000-of-00001.parquet 1 text: why?",
    ];
    for name in names {
        check(&hub, case(name, &texts));
    }
}

#[test]
fn a_commit_that_mteb_shortens() {
    let readme = readme("corpus corpus corpus.jsonl\nqueries queries queries.jsonl");
    let task = super::task("IFIRAila");
    assert_eq!(task.revision.len(), 7);
    let hub = TestHub::start([TestRepo::dataset(task.path)
        .file("README.md", readme)
        .file("corpus.jsonl", "{\"_id\": \"1\", \"text\": \"A case\"}\n")
        .file("queries.jsonl", "{\"_id\": \"1\", \"text\": \"Which case?\"}\n")
        .tag(task.revision)
        .file("corpus.jsonl", "{\"_id\": \"1\", \"text\": \"of main\"}\n")]);
    let texts = ["corpus.jsonl 0 title+text: A case", "queries.jsonl 0 text: Which case?"];
    check_from(&hub, task.path, &hub.commit(task.path, task.revision), case("IFIRAila", &texts));
}
