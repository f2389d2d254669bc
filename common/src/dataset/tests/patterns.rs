//! Several local files behind one name.

use super::super::testing::{SETTINGS, file_name};
use super::{read_again, survey_name};

#[test]
fn a_pattern_is_all_its_files() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write =
        |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).expect("write a file");
    write("b.jsonl", b"{\"text\": \"b\"}\n");
    write("c.txt", b"c\n");
    let name = |pattern: &str| file_name(format!("{}/{pattern}", folder.path().display()));
    let survey = survey_name(&name("*.jsonl"), SETTINGS).expect("a text");
    assert_eq!(survey.spec.n_texts, 1);
    write("d.jsonl", b"{\"text\": \"d\"}\n{\"text\": \"e\"}\n");
    let survey = survey_name(&name("*.jsonl#text"), SETTINGS).expect("three texts");
    let texts = read_again(&survey.spec).expect("three texts");
    let texts: Vec<_> = texts.iter().map(|text| (text.file, text.row, text.text.as_str())).collect();
    assert_eq!(texts, [(0, 0, "b"), (1, 0, "d"), (1, 1, "e")]);
    write("d.jsonl", b"{\"text\": \"d\"}\n{\"text\": \"f\"}\n");
    let error = read_again(&survey.spec).expect_err("one file is another").to_string();
    assert!(error.contains("d.jsonl has changed"), "{error}");
    let error = survey_name(&name("*.tsv"), SETTINGS).expect_err("no such file").to_string();
    assert!(error.contains("no file matches"), "{error}");
}
