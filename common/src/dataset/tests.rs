//! Every reader over local files, from the ending of a name to the texts.

mod columns;
mod hostile;
mod hub;
mod json;
mod parquet;
mod patterns;
mod sampling;

use std::io::Write;

use super::testing::{SETTINGS, file_name};
use super::*;
use crate::texts::Text;

struct File {
    folder: tempfile::TempDir,
    name: FileName,
}

fn file(ending: &str, bytes: &[u8]) -> File {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (ending, column) =
        ending.split_once('#').map_or((ending, String::new()), |(e, c)| (e, format!("#{c}")));
    let path = folder.path().join(format!("f{ending}"));
    std::fs::write(&path, bytes).expect("write the file");
    let name = file_name(format!("{}{column}", path.display()));
    File { folder, name }
}

fn survey_name(name: &FileName, settings: ReadSettings) -> Result<Survey, DatasetError> {
    survey(local_plan(name, settings)?, &LocalFiles::default())
}

fn read_again(spec: &TextsSpec) -> Result<Vec<Text>, DatasetError> {
    read_texts(&spec.plan, Some(spec.n_texts), &LocalFiles::default())?.collect()
}

/// Surveys and reads; texts and rows, and the survey.
fn read(ending: &str, bytes: &[u8], settings: ReadSettings) -> Result<(Vec<(u64, String)>, Survey), String> {
    let file = file(ending, bytes);
    let strip = |error: DatasetError| {
        let source = std::error::Error::source(&error).map_or(String::new(), |source| format!(" ({source})"));
        format!("{error}{source}").replace(&file.folder.path().display().to_string(), "")
    };
    let survey = survey_name(&file.name, settings).map_err(strip)?;
    let texts = read_again(&survey.spec).map_err(strip)?;
    assert_eq!(texts.len(), survey.spec.n_texts as usize);
    assert_eq!(texts.iter().map(|t| t.text.len() as u64).sum::<u64>(), survey.tally.n_bytes);
    Ok((texts.into_iter().map(|text| (text.row, text.text)).collect(), survey))
}

fn check(ending: &str, bytes: &[u8], settings: ReadSettings, expected: &[(u64, &str)]) -> Survey {
    let (texts, survey) = read(ending, bytes, settings).expect(ending);
    let texts: Vec<(u64, &str)> = texts.iter().map(|(row, text)| (*row, text.as_str())).collect();
    assert_eq!(texts, expected, "{ending} {:?}", String::from_utf8_lossy(bytes));
    survey
}

fn refuse(ending: &str, bytes: &[u8], settings: ReadSettings, expected: &str) {
    let message = read(ending, bytes, settings).map(|(texts, _)| texts).expect_err(expected);
    assert!(message.contains(expected), "expected {expected:?} in {message:?}");
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::new(6));
    encoder.write_all(bytes).expect("write to memory");
    encoder.finish().expect("write to memory")
}

/// "a\\nb", as `xz -1` writes it.
const XZ_A: &[u8] = &[
    0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x04, 0xe6, 0xd6, 0xb4, 0x46, 0x02, 0x00, 0x21, 0x01, 0x10,
    0x00, 0x00, 0x00, 0xa8, 0x70, 0x8e, 0x86, 0x01, 0x00, 0x02, 0x61, 0x0a, 0x62, 0x00, 0x00, 0x0b, 0x72,
    0xee, 0xec, 0xd2, 0x60, 0x4d, 0x4e, 0x00, 0x01, 0x1b, 0x03, 0x0b, 0x2f, 0xb9, 0x10, 0x1f, 0xb6, 0xf3,
    0x7d, 0x01, 0x00, 0x00, 0x00, 0x00, 0x04, 0x59, 0x5a,
];
/// "c\\nd\\n", as `xz` writes it.
const XZ_B: &[u8] = &[
    0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x04, 0xe6, 0xd6, 0xb4, 0x46, 0x02, 0x00, 0x21, 0x01, 0x16,
    0x00, 0x00, 0x00, 0x74, 0x2f, 0xe5, 0xa3, 0x01, 0x00, 0x03, 0x63, 0x0a, 0x64, 0x0a, 0x00, 0x57, 0xf5,
    0x99, 0x94, 0x57, 0x0e, 0xbf, 0xff, 0x00, 0x01, 0x1c, 0x04, 0x6f, 0x2c, 0x9c, 0xc1, 0x1f, 0xb6, 0xf3,
    0x7d, 0x01, 0x00, 0x00, 0x00, 0x00, 0x04, 0x59, 0x5a,
];
/// "a\\n", with a window of 512 MiB.
const XZ_WIDE: &[u8] = &[
    0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x04, 0xe6, 0xd6, 0xb4, 0x46, 0x02, 0x00, 0x21, 0x01, 0x22,
    0x00, 0x00, 0x00, 0x82, 0x40, 0xac, 0xdc, 0x01, 0x00, 0x01, 0x61, 0x0a, 0x00, 0x00, 0x00, 0x13, 0x47,
    0x3f, 0xb8, 0x93, 0x9d, 0x45, 0xd4, 0x00, 0x01, 0x1a, 0x02, 0xdc, 0x2e, 0xa5, 0x7e, 0x1f, 0xb6, 0xf3,
    0x7d, 0x01, 0x00, 0x00, 0x00, 0x00, 0x04, 0x59, 0x5a,
];
/// A million line ends.
const XZ_BOMB: &[u8] = &[
    0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x04, 0xe6, 0xd6, 0xb4, 0x46, 0x02, 0x00, 0x21, 0x01, 0x16,
    0x00, 0x00, 0x00, 0x74, 0x2f, 0xe5, 0xa3, 0xef, 0x42, 0x3f, 0x00, 0xd1, 0x5d, 0x00, 0x05, 0x6f, 0xfb,
    0xbf, 0xfe, 0xa3, 0xb1, 0x5e, 0xe5, 0xf8, 0x3f, 0xb2, 0xaa, 0x26, 0x55, 0xf8, 0x68, 0x70, 0x41, 0x70,
    0x15, 0x0f, 0x8d, 0xfd, 0x1e, 0x4c, 0x1b, 0x8a, 0x42, 0xb7, 0x19, 0xf4, 0x69, 0x18, 0x71, 0xae, 0x66,
    0x23, 0x8a, 0x8a, 0x4d, 0x2f, 0xa3, 0x0d, 0xd9, 0x7f, 0xa6, 0xe3, 0x8c, 0x23, 0x11, 0x53, 0xe0, 0x59,
    0x18, 0xc5, 0x75, 0x8a, 0xe2, 0x77, 0xf8, 0xb6, 0x94, 0x7f, 0x0c, 0x6a, 0xc0, 0xde, 0x74, 0x49, 0x64,
    0xe2, 0xe9, 0x5c, 0x53, 0xb2, 0x04, 0xd8, 0xf7, 0x44, 0x0c, 0xab, 0x5f, 0x0d, 0x6d, 0x46, 0xe9, 0xe5,
    0xc3, 0x76, 0x88, 0xb7, 0x96, 0x57, 0xac, 0xb6, 0x4d, 0xe1, 0x69, 0x1d, 0x6f, 0xfb, 0x4b, 0x88, 0x10,
    0x6c, 0x42, 0xcb, 0x88, 0x3f, 0x5c, 0x00, 0x8f, 0xd0, 0x4e, 0xaf, 0x26, 0x28, 0x94, 0x71, 0x1f, 0x3d,
    0x8f, 0x24, 0xe1, 0x70, 0x9e, 0xa7, 0x23, 0x5f, 0xec, 0x28, 0xcb, 0x85, 0xd1, 0x95, 0x98, 0x8a, 0x7e,
    0x2a, 0x91, 0xf2, 0x27, 0x75, 0xf7, 0x19, 0xc0, 0x06, 0x98, 0x4d, 0x98, 0xfd, 0xd8, 0xaf, 0xd5, 0x90,
    0x0f, 0xc4, 0x25, 0x53, 0xf8, 0xf5, 0x91, 0x36, 0x31, 0x05, 0xa5, 0xb0, 0xee, 0x6f, 0xc1, 0x70, 0x4d,
    0x47, 0x0c, 0xd1, 0x91, 0x11, 0xaa, 0xad, 0x60, 0x1d, 0xba, 0xce, 0xb1, 0x27, 0x18, 0x5c, 0x59, 0x86,
    0xe9, 0x66, 0x52, 0x58, 0xbe, 0xe9, 0x76, 0xac, 0x59, 0xe4, 0xe5, 0x5b, 0x05, 0x08, 0xf9, 0x93, 0xc3,
    0x3f, 0x36, 0x00, 0x00, 0x00, 0x00, 0x06, 0xcb, 0xca, 0xb0, 0x54, 0xc9, 0xe7, 0x23, 0x00, 0x01, 0xed,
    0x01, 0xc0, 0x84, 0x3d, 0x00, 0xd5, 0xe0, 0x76, 0xae, 0xb1, 0xc4, 0x67, 0xfb, 0x02, 0x00, 0x00, 0x00,
    0x00, 0x04, 0x59, 0x5a,
];

fn column(survey: &Survey) -> Option<&str> {
    survey.columns[0].as_ref().map(|columns| columns.names[0].as_str())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("write to memory");
    encoder.finish().expect("write to memory")
}

#[test]
fn lines_of_text() {
    let survey = check(".txt", b" a \n\n\t \nb\r\nc", SETTINGS, &[(0, " a "), (3, "b\r"), (4, "c")]);
    assert_eq!(survey.tally.n_blank, 2);
    assert!(survey.warnings[0].contains("1 lines end in a carriage return"), "{:?}", survey.warnings);
    let survey = check(".txt", b"\xEF\xBB\xBFa\n\xEF\xBB\xBFb\n", SETTINGS, &[(0, "a"), (1, "\u{FEFF}b")]);
    assert!(survey.warnings[0].contains("byte order mark"));
    check(
        ".txt",
        "one\u{2028}two\u{85}three\rfour\n".as_bytes(),
        SETTINGS,
        &[(0, "one\u{2028}two\u{85}three\rfour")],
    );
    check(".txt", b"a", ReadSettings { num_samples: 1, ..SETTINGS }, &[(0, "a")]);
}

#[test]
fn faults_of_text() {
    refuse(".txt", b"", SETTINGS, "holds no texts (0 blank");
    refuse(".txt", b"\n \n", SETTINGS, "holds no texts (2 blank");
    refuse(".txt", b"good\nbad \xff\n", SETTINGS, "/f.txt, line 2: not UTF-8 at byte 5");
    refuse(".txt", &[b'x'; 65], SETTINGS, "line 1: 65 bytes are more than data.text_bytes_max = 64");
    let skip = ReadSettings { skip_bad_rows: true, ..SETTINGS };
    let survey = check(".txt", &[b"\xff\n".as_slice(), &[b'x'; 65], b"\nok"].concat(), skip, &[(2, "ok")]);
    assert_eq!(survey.tally.n_bad, 2);
    assert!(survey.warnings[0].contains("2 unusable rows were skipped, the first at line 1"));
    // The fault lies behind the texts that are wanted.
    check(".txt", b"a\n\xff", ReadSettings { num_samples: 1, ..SETTINGS }, &[(0, "a")]);
}

#[test]
fn records_of_json() {
    let lines =
        b"{\"id\": 1, \"text\": \"a\\u00e9\\n\"}\n\n{\"text\":[\"b\",\" \",\"c\"],\"x\":{\"y\":[null]}}\n";
    let survey = check(".jsonl", lines, SETTINGS, &[(0, "aé\n"), (2, "b"), (2, "c")]);
    assert_eq!((survey.tally.n_blank, column(&survey)), (2, Some("text")));
    check(".jsonl#b", b"{\"a\":\"x\",\"b\":\"y\"}", SETTINGS, &[(0, "y")]);
    check(".jsonl", b"{\"n\":1,\"body\":\"y\"}", SETTINGS, &[(0, "y")]);
    refuse(
        ".jsonl",
        b"{\"a\":\"x\",\"b\":\"y\"}",
        SETTINGS,
        "name one as file:PATH#column out of \"a\", \"b\"",
    );
    refuse(
        ".jsonl",
        b"{\"n\":1}",
        SETTINGS,
        "line 1: no field holds a string or a list of strings; the fields are \"n\"",
    );
    refuse(".jsonl#c", b"{\"a\":\"x\"}", SETTINGS, "line 1: there is no field \"c\"; the fields are \"a\"");
    refuse(
        ".jsonl",
        b"{\"text\":\"x\"}\n{\"text\":7}",
        SETTINGS,
        "line 2: field \"text\" is neither a string",
    );
    refuse(
        ".jsonl",
        b"{\"text\":\"x\"}\n{\"text\":[\"a\",7]}",
        SETTINGS,
        "line 2: field \"text\" is neither",
    );
    refuse(".jsonl", b"{\"text\":\"x\"}\n{\"text\":\"x\"", SETTINGS, "line 2: not valid JSON: EOF");
    refuse(".jsonl", b"{\"text\":\"x\"} {}", SETTINGS, "line 1: not valid JSON: trailing characters");
    refuse(".jsonl", b"[\"x\"]", SETTINGS, "line 1: a JSON object is expected");
    refuse(".jsonl", b"{\"text\":\"\xff\"}", SETTINGS, "line 1: not UTF-8 at byte 10");
    refuse(".jsonl", b"{\"text\":\"\\ud800\"}", SETTINGS, "line 1: not valid JSON");
    let long = format!("{{\"text\":\"{}\"}}", "x".repeat(65));
    refuse(".jsonl", long.as_bytes(), SETTINGS, "data.text_bytes_max");
    let long = format!("{{\"text\":\"x\",\"y\":\"{}\"}}", "x".repeat(256));
    refuse(".jsonl", long.as_bytes(), SETTINGS, "data.record_bytes_max");
    let deep = format!("{{\"text\":\"x\",\"y\":{}", "[".repeat(200));
    refuse(".jsonl", deep.as_bytes(), SETTINGS, "line 1: not valid JSON: recursion limit");
    let skip = ReadSettings { skip_bad_rows: true, ..SETTINGS };
    let survey = check(".jsonl", b"7\n{\"text\":1}\n{\"text\":\"x\"}\n{", skip, &[(2, "x")]);
    assert_eq!(survey.tally.n_bad, 3);
}

#[test]
fn records_of_csv_and_tsv() {
    let survey =
        check(".csv", b"id,text\r\n1,\"a, \"\"b\"\"\nc\"\n2,d\n", SETTINGS, &[(0, "a, \"b\"\nc"), (1, "d")]);
    assert_eq!(column(&survey), Some("text"));
    check(".csv", b"\xEF\xBB\xBFreview\nx\n", SETTINGS, &[(0, "x")]);
    check(".tsv#b", b"a\tb\nx,y\t\"p\tq\"\n", SETTINGS, &[(0, "p\tq")]);
    let survey = check(".csv", b"id,text\n1,\n2,x\n", SETTINGS, &[(1, "x")]);
    assert_eq!(survey.tally.n_blank, 1);
    refuse(".csv", b"", SETTINGS, "holds no texts");
    refuse(".csv", b"a,b\nx,y\n", SETTINGS, "name one as file:PATH#column out of \"a\", \"b\"");
    refuse(".csv#c", b"a,b\nx,y\n", SETTINGS, "has no column \"c\"; its columns are \"a\", \"b\"");
    refuse(".csv", b"text,text\nx,y\n", SETTINGS, "not clear which column");
    refuse(".csv", b"id,text\n1,x\n2,y,z\n", SETTINGS, "line 3: 3 fields where the header has 2");
    refuse(".csv", b"text\nx\n\xff\n", SETTINGS, "line 3: not UTF-8");
    let open = [b"text\nx\n\"".as_slice(), &[b'y'; 100_000]].concat();
    refuse(".csv", &open, SETTINGS, "line 3: the record that starts here is longer");
    let skip = ReadSettings { skip_bad_rows: true, ..SETTINGS };
    check(".csv", b"id,text\n1\n2,y\n", skip, &[(1, "y")]);
}

#[test]
fn compressed_files() {
    let two_members = [gzip(b"a\nb"), gzip(b"c\nd\n")].concat();
    check(".txt.gz", &two_members, SETTINGS, &[(0, "a"), (1, "bc"), (2, "d")]);
    let zstd = zstd::encode_all(b"text\na\n".as_slice(), 3).expect("compress in memory");
    check(".csv.zst", &zstd, SETTINGS, &[(0, "a")]);
    let bzip2 = [bzip2(b"a\nb"), bzip2(b"c\nd\n")].concat();
    check(".txt.bz2", &bzip2, SETTINGS, &[(0, "a"), (1, "bc"), (2, "d")]);
    check(".txt.xz", &[XZ_A, XZ_B].concat(), SETTINGS, &[(0, "a"), (1, "bc"), (2, "d")]);
    refuse(".txt.bz2", &bzip2[..bzip2.len() - 9], SETTINGS, "is damaged");
    refuse(".txt.bz2", b"plain text", SETTINGS, "is damaged");
    refuse(".txt.xz", &XZ_A[..50], SETTINGS, "is damaged");
    refuse(".txt.xz", b"plain text", SETTINGS, "is damaged");
    refuse(".txt.xz", XZ_WIDE, SETTINGS, "is damaged: it does not decompress as its ending says");
    refuse(".txt.gz", b"plain text", SETTINGS, "/f.txt.gz is damaged: it does not decompress");
    refuse(".txt.zst", b"plain text", SETTINGS, "is damaged");
    let whole = gzip(&(0..2000).flat_map(|i| format!("{i}\n").into_bytes()).collect::<Vec<_>>());
    let all = ReadSettings { num_samples: u32::MAX, ..SETTINGS };
    refuse(".txt.gz", &whole[..whole.len() - 20], all, "is damaged");
    refuse(".csv.gz", &gzip(b"text\na\n")[..12], all, "is damaged");
    let bomb = gzip(&vec![b'\n'; 1_000_000]);
    refuse(".txt.gz", &bomb, SETTINGS, "holds more than 100000 bytes decompressed");
    refuse(".txt.xz", XZ_BOMB, SETTINGS, "holds more than 100000 bytes decompressed");
    let bomb = vec![b'\n'; 1_000_000];
    refuse(".json.bz2", &self::bzip2(&bomb), SETTINGS, "holds more than 100000 bytes decompressed");
    let bomb = zstd::encode_all(&bomb[..], 3).expect("compress in memory");
    refuse(".jsonl.zst", &bomb, SETTINGS, "holds more than 100000 bytes decompressed");
}

#[test]
fn selection() {
    let first = ReadSettings { num_samples: 2, ..SETTINGS };
    check(".txt", b"a\n\nb\nc\n", first, &[(0, "a"), (2, "b")]);
    let dedupe = ReadSettings { dedupe: true, num_samples: 3, ..SETTINGS };
    let survey = check(".txt", b"a\nb\na\na \nc\n", dedupe, &[(0, "a"), (1, "b"), (3, "a ")]);
    assert_eq!(survey.tally.n_duplicates, 1);
    let survey = check(".txt", b"a\na\nb\n", SETTINGS, &[(0, "a"), (1, "a"), (2, "b")]);
    assert_eq!(survey.tally.n_duplicates, 1, "counted though they stay");
    check(".jsonl", b"{\"text\":[\"a\",\"b\",\"c\"]}", first, &[(0, "a"), (0, "b")]);
}

#[test]
fn identity_holds_content_and_settings_only() {
    let a = survey_name(&file(".txt", b"a\n").name, SETTINGS).expect("a survey").spec.plan;
    let b = survey_name(&file(".txt", b"a\n").name, SETTINGS).expect("a survey").spec.plan;
    assert_ne!(a.files[0].place, b.files[0].place);
    assert_eq!(a.identity(), b.identity());
    let c = survey_name(&file(".txt", b"b\n").name, SETTINGS).expect("a survey").spec.plan;
    assert_ne!(a.identity(), c.identity());
    let mut settings = SETTINGS;
    settings.num_samples += 1;
    assert_ne!(a.identity(), TextsPlan { settings, ..a.clone() }.identity());
    let text = serde_json::to_string(&a).expect("a spec is plain data");
    assert_eq!(serde_json::from_str::<TextsPlan>(&text).expect("what was written"), a);
}

#[test]
fn a_file_that_changed_is_refused() {
    let file = file(".txt", b"a\nb\n");
    let spec = survey_name(&file.name, SETTINGS).expect("a survey").spec;
    let check = |bytes: &[u8], expected: &str| {
        std::fs::write(file.name.path(), bytes).expect("write the file");
        let message = read_again(&spec).expect_err(expected).to_string();
        assert!(message.contains("has changed") && message.contains(expected), "{message}");
    };
    check(b"a\nb\nc\n", "6 bytes instead of 4");
    check(b"a\nc\n", "sha256 ");
    check(b"a\n\xff\n", "sha256 ");
    let mut older = spec;
    older.plan.reader_version = 0;
    assert!(matches!(read_again(&older), Err(DatasetError::OtherReader { found: 0 })));
}

#[test]
fn only_regular_files_are_opened() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("d.txt");
    let name = file_name(path.display());
    assert!(matches!(survey_name(&name, SETTINGS), Err(DatasetError::Io { .. })));
    std::fs::create_dir(&path).expect("make a folder");
    assert!(matches!(survey_name(&name, SETTINGS), Err(DatasetError::NotAFile { .. })));
}
