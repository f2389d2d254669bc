//! Which columns are read, and how the cells of a row become texts.

use super::super::testing::{Leaf, Memory, SETTINGS, columns, leaf, parquet, read_all, read_one};
use super::super::{ReadLimits, ReadSettings};

/// Room for the long texts of the rules.
const ROOMY: ReadSettings = ReadSettings {
    limits: ReadLimits {
        text_bytes_max: 1 << 20,
        record_bytes_max: 1 << 20,
        decompressed_bytes_max: 1 << 30,
    },
    ..SETTINGS
};

#[test]
fn several_columns() {
    let lines = b"{\"title\": \" T\", \"text\": \"x \"}\n{\"text\": \"y\"}\n{\"title\": null, \"text\": \"\"}\n{\"title\": \"U\"}\n";
    let joined = read_one("f.jsonl", lines, columns(&["title", "text"], true), SETTINGS).expect("texts");
    assert_eq!(joined.told(), [(0, 0, 0, "T x"), (0, 1, 0, "y"), (0, 3, 0, "U")]);
    assert_eq!(joined.tally.n_blank, 1);
    let apart = read_one("f.jsonl", lines, columns(&["title", "text"], false), SETTINGS).expect("texts");
    assert_eq!(apart.told(), [(0, 0, 0, " T"), (0, 0, 1, "x "), (0, 1, 1, "y"), (0, 3, 0, "U")]);
    assert_eq!(apart.tally.n_blank, 4);
    let error =
        read_one("f.jsonl", b"{\"n\": 1}", columns(&["a", "b"], true), SETTINGS).expect_err("neither");
    assert!(error.contains("there is no field \"a\"; the fields are \"n\""), "{error}");
    let csv = read_one("f.csv", b"a,b,c\n1,2,3\n", columns(&["c", "a"], false), SETTINGS).expect("texts");
    assert_eq!(csv.told(), [(0, 0, 0, "3"), (0, 0, 1, "1")]);
    let two = ReadSettings { num_samples: 1, ..SETTINGS };
    let cut = read_one("f.csv", b"a,b\n1,2\n", columns(&["a", "b"], false), two).expect("a text");
    assert_eq!(cut.told(), [(0, 0, 0, "1")]);
    let bad = columns(&["a", "b"], true);
    let error = read_one(
        "f.tsv",
        format!("a\tb\n{}\t{}\n", "x".repeat(40), "y".repeat(40)).as_bytes(),
        bad,
        SETTINGS,
    );
    assert!(error.expect_err("too long together").contains("81 bytes are more than data.text_bytes_max"));
}

#[test]
fn documents_of_a_corpus_without_titles() {
    let parquet = |schema: &str, leaves: Vec<Leaf>| parquet(schema, Default::default(), &[leaves]);
    let without = "message m { required binary _id (UTF8); required binary text (UTF8); }";
    let files = [
        ("f.parquet", parquet(without, vec![leaf(&["1", "2"]), leaf(&["x", "y"])])),
        ("f.csv", b"_id,text\n1,x\n2,y\n".to_vec()),
        ("f.json", b"{\"_id\": [1, 2], \"text\": [\"x\", \"y\"]}".to_vec()),
        ("f.jsonl", b"{\"_id\": 1, \"text\": \"x\"}\n{\"text\": \"y\"}\n".to_vec()),
    ];
    for (path, bytes) in files {
        let read = |names: &[&str], joined| read_one(path, &bytes, columns(names, joined), SETTINGS);
        let joined = read(&["title", "text"], true).expect(path);
        assert_eq!(joined.told(), [(0, 0, 0, "x"), (0, 1, 0, "y")], "{path}");
        let error = read(&["title", "body"], true).expect_err(path);
        assert!(error.contains("\"title\""), "{path}: {error}");
    }
}

#[test]
fn rules_for_hub_files() {
    let chosen = |path: &str, bytes: &[u8]| {
        let outcome = read_one(path, bytes, None, ROOMY)?;
        Ok::<_, String>(outcome.columns[0].clone().map_or(Vec::new(), |columns| columns.names))
    };
    let check = |path: &str, bytes: &[u8], expected: &[&str]| {
        assert_eq!(chosen(path, bytes).expect(path), expected, "{}", String::from_utf8_lossy(bytes));
    };
    check("f.jsonl", b"{\"title\": \"a\", \"text\": \"b\"}", &["text"]);
    check("f.jsonl", b"{\"sentence2\": \"a\", \"sentence1\": \"b\"}", &["sentence1", "sentence2"]);
    // The first record alone does not say it.
    check("f.jsonl", b"{\"x\": \"a long enough text\", \"text\": null}\n{\"text\": \"b\"}", &["text"]);
    check(
        "f.jsonl",
        b"{\"doc_id\": \"0123456789abc\", \"review\": \"ten letters\", \"label\": \"a long label text\", \"k\": \"short\"}",
        &["review"],
    );
    check("f.csv", b"a,b,lang\nlong enough 1,long enough 2,english text\n", &["a", "b"]);
    check("f.json", b"{\"a\": [\"long enough text\"], \"n\": [1]}", &["a"]);
    check("f.json", b"[{\"headline\": [\"long enough text\", \"another one here\"]}]", &["headline"]);
    let error = chosen("f.tsv", b"a\tb\nshort\t\n").expect_err("nothing is long enough");
    assert!(
        error.contains("no column of texts that are 10 characters long") && error.contains("\"a\", \"b\""),
        "{error}"
    );
    // Only the first hundred records count.
    let late = format!(
        "{}{{\"other\": \"long enough text\"}}\n",
        "{\"k\": \"x\", \"body\": \"some longer text\"}\n".repeat(100)
    );
    let skip = ReadSettings { skip_bad_rows: true, ..ROOMY };
    let outcome = read_one("f.jsonl", late.as_bytes(), None, skip).expect("texts");
    assert_eq!(outcome.columns[0], columns(&["body"], false));
    assert_eq!((outcome.tally.n_bad, outcome.tally.n_texts), (1, 100));

    let schema = "message m { required binary id (UTF8); optional binary body (UTF8); required binary raw; }";
    let body = Leaf { definitions: Some(vec![1, 0]), ..leaf(&["a text of some length"]) };
    let bytes = parquet(
        schema,
        Default::default(),
        &[vec![leaf(&["0123456789", "0123456789"]), body, leaf(&["", ""])]],
    );
    check("f.parquet", &bytes, &["body"]);
}

#[test]
fn each_file_has_columns_of_its_own() {
    let mut memory = Memory::default();
    let files = [
        memory.add("a.jsonl", b"{\"text\": \"a\"}\n"),
        memory.add("b.csv", b"sentence\nb\n"),
        memory.add("c.txt", b"c\n"),
    ];
    let outcome = read_all(&files, SETTINGS, &memory).expect("three texts");
    assert_eq!(outcome.told(), [(0, 0, 0, "a"), (1, 0, 0, "b"), (2, 0, 0, "c")]);
    assert_eq!(outcome.columns, [columns(&["text"], false), columns(&["sentence"], false), None]);
    let one = ReadSettings { num_samples: 1, ..SETTINGS };
    let outcome = read_all(&files, one, &memory).expect("a text");
    assert_eq!(outcome.columns, [columns(&["text"], false), None, None], "the others are not opened");
}
