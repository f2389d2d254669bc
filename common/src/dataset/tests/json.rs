//! JSON documents of every layout.

use super::super::testing::{SETTINGS, columns, read_one};
use super::{ReadSettings, check, refuse};

#[test]
fn layouts() {
    check(
        ".json",
        b"[{\"text\": \"a\"}, {\"text\": [\"b\", null, \"c\"]} ]\n",
        SETTINGS,
        &[(0, "a"), (1, "b"), (1, "c")],
    );
    check(".json", b"\xEF\xBB\xBF [\r\n{\"id\": 1,\r\n \"text\": \"a\"}\r\n]", SETTINGS, &[(0, "a")]);
    let wrapped = b"{\"version\": \"v\", \"tags\": [\"x\"], \"data\": [{\"text\": \"a\"},{\"text\": \"b\"}], \"more\": [{}]}";
    check(".json", wrapped, SETTINGS, &[(0, "a"), (1, "b")]);
    let pretty = b"{\n  \"data\": [\n    {\n      \"text\": \"a\"\n    }\n  ]\n}\n";
    check(".json", pretty, SETTINGS, &[(0, "a")]);
    check(".json", b"{\"id\": [1, 2], \"text\": [\"a\", \"b\"]}", SETTINGS, &[(0, "a"), (1, "b")]);
    check(
        ".json#u",
        b"{\"id\": [1, 2],\n\"t\": [\"x\", \"y\"], \"u\": [[\"a\"], null]}",
        SETTINGS,
        &[(0, "a")],
    );
    // JSON lines, as the hub and C4 call them.
    check(".json", b"{\"text\": \"a\"}\n{\"text\": \"b\"}\n", SETTINGS, &[(0, "a"), (1, "b")]);
    check(
        ".json",
        b"{\"text\": [\"a\", \"b\"]}\n{\"text\": \"c\"}",
        SETTINGS,
        &[(0, "a"), (0, "b"), (1, "c")],
    );
    check(".json", b"{\"text\": \"a\", \"n\": {\"x\": [1]}}", SETTINGS, &[(0, "a")]);
    check(
        ".json.gz",
        &super::gzip(b"{\"text\": \"a\"}\n{\"text\": \"b\"}\n"),
        SETTINGS,
        &[(0, "a"), (1, "b")],
    );
}

#[test]
fn faults() {
    refuse(".json", b"", SETTINGS, "holds no texts");
    refuse(".json", b" [ ] ", SETTINGS, "holds no texts");
    refuse(
        ".json",
        b"[{\"text\": \"a\"}",
        SETTINGS,
        "line 1: the JSON document breaks off: it ends inside an array",
    );
    refuse(
        ".json",
        b"[\n{\"text\": \"a\"},\n{\"text\": \"",
        SETTINGS,
        "line 3: the JSON document breaks off: it ends inside a value",
    );
    refuse(".json", b"[{\"text\": \"a\"} {\"text\": \"b\"}]", SETTINGS, "a comma or the end of the array");
    refuse(".json", b"[{\"text\": \"a\"},]", SETTINGS, "a value is missing");
    refuse(".json", b"[{\"text\": \"a\"}] x", SETTINGS, "something follows the end");
    refuse(".json", b"{\"n\":\n1}", SETTINGS, "there is no array of objects in it, and no column");
    refuse(".json", b"{\"n\"\n1}", SETTINGS, "a colon is expected");
    refuse(".json", b"[\n{\"text\": \"a\"},\n{\"text\": nope}]", SETTINGS, "line 3: not valid JSON");
    refuse(".json", b"[\n7, {\"text\": \"a\"}]", SETTINGS, "line 2: a JSON object is expected");
    refuse(".json", b"[{\"text\": \"\\ud800\"}]", SETTINGS, "line 1: not valid JSON");
    refuse(".json", b"[{\"text\": \"\xff\"}]", SETTINGS, "line 1: not UTF-8");
    refuse(
        ".json#c",
        b"{\"a\": [\"x\"],\n\"b\": [1]}",
        SETTINGS,
        "has no column \"c\"; its columns are \"a\", \"b\"",
    );
    refuse(".json", b"{\"text\": [\"a\", 7]}", SETTINGS, "row 1: field \"text\" is neither a string");
    let deep = format!("[{{\"text\": \"x\", \"y\": {}{}}}]", "[".repeat(100), "]".repeat(100));
    check(".json", deep.as_bytes(), SETTINGS, &[(0, "x")]);
    let deep = format!("[{{\"y\": {}", "[".repeat(50_000));
    refuse(".json", deep.as_bytes(), SETTINGS, "it ends inside a value");
    let long = format!("[{{\"text\": \"a\"}}, {{\"y\": \"{}\"}}]", "x".repeat(300));
    refuse(".json", long.as_bytes(), SETTINGS, "data.record_bytes_max = 256");
    let skip = ReadSettings { skip_bad_rows: true, ..SETTINGS };
    let long = format!("[{{\"y\": \"{}\"}}, 8, {{\"text\": }}, {{\"text\": \"a\"}}]", "x".repeat(300));
    let survey = check(".json", long.as_bytes(), skip, &[(3, "a")]);
    assert_eq!(survey.tally.n_bad, 3);
}

#[test]
fn columns_of_a_document() {
    let bytes = b"{\"a\": [\"1\", \"2\", \"3\"], \"n\": [0, 0], \"b\": [\"x\", \"y\"]}";
    let skip = ReadSettings { skip_bad_rows: true, ..SETTINGS };
    let outcome = read_one("f.json", bytes, columns(&["b", "a"], false), skip).expect("two rows");
    assert_eq!(outcome.told(), [(0, 0, 0, "x"), (0, 0, 1, "1"), (0, 1, 0, "y"), (0, 1, 1, "2")]);
    assert_eq!(outcome.tally.n_bad, 1);
    let error = read_one("f.json", bytes, columns(&["b", "a"], true), SETTINGS).expect_err("b ends");
    assert!(error.contains("row 2: column \"b\" has no such row"), "{error}");
}
