//! What files hold: every compression, and rows that cannot be used.

use lsa_common::dataset::ReadSettings;
use lsa_tests::test_hub::{TestHub, TestRepo};

use super::{Case, SETTINGS, check_from, gzip, read, refusal};

/// `{"text": "of xz"}` and a line end, as `xz -1` writes it.
const XZ: &[u8] = &[
    253, 55, 122, 88, 90, 0, 0, 4, 230, 214, 180, 70, 2, 0, 33, 1, 16, 0, 0, 0, 168, 112, 142, 134, 1, 0, 17,
    123, 34, 116, 101, 120, 116, 34, 58, 32, 34, 111, 102, 32, 120, 122, 34, 125, 10, 0, 0, 0, 212, 161, 133,
    57, 239, 61, 51, 182, 0, 1, 42, 18, 75, 8, 84, 188, 31, 182, 243, 125, 1, 0, 0, 0, 0, 4, 89, 90,
];
/// `{"text": "of bzip2"}` and a line end, as `bzip2` writes it.
const BZIP2: &[u8] = &[
    66, 90, 104, 57, 49, 65, 89, 38, 83, 89, 96, 96, 165, 210, 0, 0, 9, 217, 128, 0, 16, 80, 0, 16, 16, 19,
    32, 196, 90, 32, 0, 34, 131, 106, 52, 50, 126, 168, 83, 0, 4, 208, 79, 8, 121, 219, 41, 27, 197, 192,
    199, 197, 220, 145, 78, 20, 36, 24, 24, 41, 116, 128,
];

const ID: &str = "owner/name";

#[test]
fn compressed_files() {
    let zstd = zstd::encode_all(&b"{\"text\": \"of zstd\"}\n"[..], 3).expect("memory takes all");
    let files = [
        ("train.jsonl.xz", XZ.to_vec(), "of xz"),
        ("train.jsonl.bz2", BZIP2.to_vec(), "of bzip2"),
        ("train.jsonl.zst", zstd, "of zstd"),
        ("train.jsonl.gz", gzip("{\"text\": \"of gzip\"}\n"), "of gzip"),
        ("train.csv.gz", gzip("id,text\n1,of gzip\n"), "of gzip"),
        ("train.jsonl", b"{\"text\": \"plain\"}".to_vec(), "plain"),
        ("train.json", b"[{\"text\": \"of an array\"}]".to_vec(), "of an array"),
        ("train.tsv", b"text\tn\nof tabs\t1\n".to_vec(), "of tabs"),
    ];
    for (path, bytes, text) in files {
        let repos =
            [TestRepo::dataset(ID).file(path, bytes.clone()), TestRepo::dataset(ID).large_file(path, bytes)];
        for repo in repos {
            let hub = TestHub::start([repo]);
            let text = format!("{path} 0 text: {text}");
            let texts = &[text.as_str()];
            let chosen = "train of default";
            let case = Case { name: "hf:owner/name", split: None, chosen, texts, warnings: &[] };
            check_from(&hub, ID, &hub.commit(ID, "main"), case);
        }
    }
    let lines = TestRepo::dataset(ID).file("train.txt", "of\nlines\n");
    let hub = TestHub::start([lines]);
    let case = Case {
        name: "hf:owner/name",
        split: None,
        chosen: "train of default",
        texts: &["train.txt 0 -: of", "train.txt 1 -: lines"],
        warnings: &[],
    };
    check_from(&hub, ID, &hub.commit(ID, "main"), case);
}

#[test]
fn rows_that_cannot_be_used() {
    let good = "{\"text\": \"good\"}\n";
    let faulty = format!("{good}{{\"text\": 7}}\n{{\"label\": 1}}\nno JSON\n{good}");
    let hub = TestHub::start([TestRepo::dataset(ID).file("a.jsonl", good).file("b.jsonl.gz", gzip(&faulty))]);
    let commit = hub.commit(ID, "main");
    let error = refusal(&hub, "hf:owner/name", SETTINGS);
    let place = format!("b.jsonl.gz of dataset owner/name at {}, line 2: ", &commit[..12]);
    assert!(error.contains(&place), "{error}");
    let reason = "field \"text\" is neither a string nor a list of strings";
    assert!(error.contains(reason) && error.contains("data.bad_rows = \"skip\""), "{error}");

    let skipping = ReadSettings { skip_bad_rows: true, ..SETTINGS };
    let outcome = read(&hub, "hf:owner/name", None, skipping).expect("the good rows");
    let texts = ["a.jsonl 0 text: good", "b.jsonl.gz 0 text: good", "b.jsonl.gz 4 text: good"];
    assert_eq!(outcome.texts, texts);
    assert_eq!((outcome.tally.n_texts, outcome.tally.n_bad, outcome.tally.n_duplicates), (3, 3, 2));
    let [warning] = &outcome.warnings[..] else { panic!("{:?}", outcome.warnings) };
    assert!(
        warning.contains("3 unusable rows were skipped, the first at line 2: ") && warning.contains(reason),
        "{warning}"
    );
}
