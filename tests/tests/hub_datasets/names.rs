//! Names that lead to a repository in other ways: by its own name, under a new one, by a conversion, and C4.

use lsa_tests::test_hub::{TestHub, TestRepo};

use super::parquet::Cells::Texts;
use super::{Case, SETTINGS, check_from, gzip, parquet, readme, refusal, repo, task};

const CONVERTED: &str = "refs/convert/parquet";

#[test]
fn a_script_alone_and_the_conversion() {
    let name = "Banking77Classification";
    let path = task(name).path;
    let texts = |texts| parquet::file(&[("text", Texts(texts)), ("label_text", Texts(&["a label"]))]);
    let hub = TestHub::start([repo(name)
        .file("README.md", "# Banking77\n")
        .file("banking77.py", "raise SystemExit")
        .branch(CONVERTED)
        .file("default/partial-train/0000.parquet", texts(&["converted"]))
        .file("default/test/0000.parquet", texts(&["converted, too"]))]);
    let commit = hub.commit(path, CONVERTED);
    let follows = "follows the branch main and not that commit";
    let train = Case {
        name,
        split: None,
        chosen: "train of default",
        texts: &["default/partial-train/0000.parquet 0 text: converted"],
        warnings: &[follows, "only the beginning of split \"train\""],
    };
    check_from(&hub, path, &commit, train);
    let test = Case {
        name,
        split: Some("test"),
        chosen: "test of default",
        texts: &["default/test/0000.parquet 0 text: converted, too"],
        warnings: &[follows],
    };
    check_from(&hub, path, &commit, test);
    assert!(hub.requests_for(".py").is_empty());

    let hub = TestHub::start([repo(name).file("banking77.py", "raise SystemExit")]);
    let error = refusal(&hub, name, SETTINGS);
    assert!(
        error.contains("mteb/banking77 at 0fd18e25b25c") && error.contains("no file that can be read"),
        "{error}"
    );
}

#[test]
fn a_repository_under_a_new_name() {
    let line = "{\"text\": \"i feel fine\"}\n";
    let task = task("EmotionClassification");
    let moved = TestRepo::dataset("new-owner/emotion").file("train.jsonl", line).commit_is(task.revision);
    let hub = TestHub::start([moved.renamed_from(task.path)]);
    for name in ["EmotionClassification", "hf:mteb/emotion"] {
        let case = Case {
            name,
            split: None,
            chosen: "train of default",
            texts: &["train.jsonl 0 text: i feel fine"],
            warnings: &["dataset mteb/emotion is now called new-owner/emotion"],
        };
        check_from(&hub, "new-owner/emotion", task.revision, case);
    }
}

#[test]
fn a_repository_by_its_name() {
    let declared = readme("en train en/train.csv\nen test en/test.csv\nfr train fr/train.csv");
    let rows = |text: &str| format!("id,body,summary\n1,\"{text}, whole\",{text}\n");
    let id = "owner/name";
    let hub = TestHub::start([TestRepo::dataset(id)
        .file("README.md", declared)
        .file("en/train.csv", rows("old"))
        .file("en/test.csv", rows("old test"))
        .file("fr/train.csv", rows("vieux"))
        .tag("v1")
        .file("en/train.csv", rows("new"))]);
    let (v1, main) = (hub.commit(id, "v1"), hub.commit(id, "main"));
    assert_ne!(v1, main);
    let case = |name, split, chosen, texts, warnings| Case { name, split, chosen, texts, warnings };
    let texts = ["en/test.csv 0 body: old test, whole"];
    check_from(&hub, id, &v1, case("hf:owner/name@v1#en/test/body", None, "test of en", &texts, &[]));
    // What the name says goes first.
    check_from(
        &hub,
        id,
        &v1,
        case("hf:owner/name@v1#en/test/body", Some("train"), "test of en", &texts, &[]),
    );
    let texts = ["fr/train.csv 0 summary: vieux"];
    check_from(&hub, id, &v1, case("hf:owner/name@v1#fr//summary", None, "train of fr", &texts, &[]));
    let texts = ["en/train.csv 0 summary: new"];
    let said = ["no config was named; \"en\" is read (there are: en, fr)"];
    check_from(&hub, id, &main, case("hf:owner/name#//summary", None, "train of en", &texts, &said));
    // Of columns that nobody names, those that hold long texts.
    let texts = ["en/train.csv 0 body: new, whole"];
    check_from(&hub, id, &main, case("hf:owner/name#en", None, "train of en", &texts, &[]));
    let by_commit = format!("hf:owner/name@{v1}#en//body");
    let texts = ["en/train.csv 0 body: old, whole"];
    check_from(&hub, id, &v1, case(&by_commit, None, "train of en", &texts, &[]));

    for (name, parts) in [
        ("hf:owner/name#fra", ["no config \"fra\"", "en, fr"]),
        ("hf:owner/name@v2", ["owner/name", "v2"]),
        ("hf:owner/other", ["there is no dataset owner/other", "check the name"]),
        ("hf:owner/name#en/train/text", ["has no column \"text\"", "\"id\", \"body\", \"summary\""]),
    ] {
        let error = refusal(&hub, name, SETTINGS);
        assert!(parts.iter().all(|part| error.contains(part)), "{name}: {error}");
    }
}

#[test]
fn c4_by_config() {
    let line = |text: &str| {
        gzip(&format!(
            "{{\"text\":\"{text}\",\"timestamp\":\"2019-04-25T12:57:54Z\",\"url\":\"https://x/\"}}\n"
        ))
    };
    let id = "allenai/c4";
    let paths = [
        "en/c4-train.00000-of-01024.json.gz",
        "realnewslike/c4-train.00001-of-00002.json.gz",
        "realnewslike/c4-train.00000-of-00002.json.gz",
        "realnewslike/c4-validation.00000-of-00001.json.gz",
        "multilingual/c4-de.tfrecord-00000-of-00001.json.gz",
        "multilingual/c4-de-validation.tfrecord-00000-of-00001.json.gz",
    ];
    let with = |repo: TestRepo, path: &&str| repo.large_file(path, line(path));
    let hub = TestHub::start([paths.iter().fold(TestRepo::dataset(id).file("c4.py", ""), with)]);
    let text = |path: &str| format!("{path} 0 text: {path}");
    let check = |name, split, chosen, paths: &[&str], warnings| {
        let texts: Vec<String> = paths.iter().map(|path| text(path)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        check_from(&hub, id, &hub.commit(id, "main"), Case { name, split, chosen, texts: &texts, warnings });
    };
    let news = [paths[2], paths[1]];
    check("c4/realnewslike", None, "train of realnewslike", &news, &[]);
    check("c4/realnewslike", Some("validation"), "validation of realnewslike", &paths[3..4], &[]);
    check("c4/de", None, "train of de", &paths[4..5], &[]);
    let said = ["there is no split \"test\"; \"validation\" is read"];
    check("c4/DE", Some("test"), "validation of de", &paths[5..], &said);
    check("c4", None, "train of en", &paths[..1], &["1 of the 1024 files of train of C4 en are there"]);
    let error = refusal(&hub, "c4/fr", SETTINGS);
    assert!(error.contains("has no files of config \"fr\""), "{error}");
}
