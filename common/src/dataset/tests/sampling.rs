//! First, shuffle and streams over several files and formats.

use std::collections::HashSet;

use super::super::testing::{Memory, SETTINGS, leaf, parquet, read_all};
use super::super::{ReadSettings, Sampling, SourceFile};
use crate::seed::{RowKeys, file_order};

/// The same rows as text, JSON lines and Parquet with row groups of ten; a row is its file and number, every fifth is blank.
fn files(memory: &mut Memory, ending: &str, n_files: u32, n_rows: u64) -> Vec<SourceFile> {
    let rows = |file: u32| -> Vec<String> {
        (0..n_rows).map(|row| if row % 5 == 4 { String::new() } else { format!("{file}:{row}") }).collect()
    };
    let make = |file: u32| {
        let rows = rows(file);
        let path = format!("{file}{ending}");
        let bytes = match ending {
            ".txt" => rows.iter().map(|row| format!("{row}\n")).collect::<String>().into_bytes(),
            ".jsonl" => {
                rows.iter().map(|row| format!("{{\"text\": \"{row}\"}}\n")).collect::<String>().into_bytes()
            }
            _ => {
                let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
                let groups: Vec<_> = rows.chunks(10).map(|rows| vec![leaf(rows)]).collect();
                parquet("message m { required binary text (UTF8); }", Default::default(), &groups)
            }
        };
        memory.add(&path, &bytes)
    };
    (0..n_files).map(make).collect()
}

fn sampled(ending: &str, n_files: u32, n_rows: u64, settings: ReadSettings) -> Vec<String> {
    let mut memory = Memory::default();
    let files = files(&mut memory, ending, n_files, n_rows);
    let outcome = read_all(&files, settings, &memory).expect("texts");
    outcome.strings().into_iter().map(str::to_owned).collect()
}

#[test]
fn shuffles_are_the_same_for_all_formats() {
    let shuffle =
        |num_samples, seed| ReadSettings { num_samples, sampling: Sampling::Shuffle { seed }, ..SETTINGS };
    let mut expected = Vec::new();
    for file in 0..3 {
        let mut keys = RowKeys::new(42, file);
        expected.extend((0..200).map(|row| (keys.key(row), file, row)).filter(|(_, _, row)| row % 5 != 4));
    }
    expected.sort_unstable();
    for n in [1, 7, 100, 480] {
        let mut places: Vec<(u32, u64)> = expected[..n].iter().map(|(_, file, row)| (*file, *row)).collect();
        places.sort_unstable();
        let texts: Vec<String> = places.iter().map(|(file, row)| format!("{file}:{row}")).collect();
        for ending in [".txt", ".jsonl", ".parquet"] {
            assert_eq!(sampled(ending, 3, 200, shuffle(n as u32, 42)), texts, "{n} of {ending}");
        }
    }
    assert_eq!(sampled(".txt", 3, 200, shuffle(1000, 1)).len(), 480);
    assert_ne!(sampled(".txt", 3, 200, shuffle(7, 1)), sampled(".txt", 3, 200, shuffle(7, 2)));
}

#[test]
fn a_small_shuffle_of_parquet_reads_few_row_groups() {
    let mut memory = Memory::default();
    let files = files(&mut memory, ".parquet", 1, 20_000);
    let shuffle = ReadSettings { num_samples: 3, sampling: Sampling::Shuffle { seed: 1 }, ..SETTINGS };
    let roomy = ReadSettings { limits: Default::default(), ..shuffle };
    read_all(&files, roomy, &memory).expect("three texts");
    let n_read = memory.n_read.load(std::sync::atomic::Ordering::Relaxed);
    let n_footers = 5 * footer_bytes(&memory, &files[0]);
    assert!(
        n_read < n_footers + 100_000,
        "{n_read} bytes of {} were read, footers {n_footers}",
        files[0].size
    );
}

fn footer_bytes(memory: &Memory, file: &SourceFile) -> u64 {
    use super::super::FileOpener as _;
    let tail = memory.read_at(file, file.size - 8, 4).expect("inside the file");
    u32::from_le_bytes(tail.try_into().expect("four bytes")).into()
}

#[test]
fn a_shuffle_without_duplicates() {
    let mut memory = Memory::default();
    let lines: String = (0..100).map(|row| format!("{}\n", row % 10)).collect();
    let files = [memory.add("a.txt", lines.as_bytes()), memory.add("b.txt", lines.as_bytes())];
    let shuffle =
        ReadSettings { num_samples: 50, sampling: Sampling::Shuffle { seed: 7 }, dedupe: true, ..SETTINGS };
    let outcome = read_all(&files, shuffle, &memory).expect("ten texts");
    let strings: HashSet<&str> = outcome.strings().into_iter().collect();
    assert_eq!((outcome.texts.len(), strings.len(), outcome.tally.n_duplicates), (10, 10, 190));
    let mut smallest = [(u64::MAX, 0, 0); 10];
    for file in 0..2 {
        let mut keys = RowKeys::new(7, file);
        for row in 0..100 {
            let slot = &mut smallest[(row % 10) as usize];
            *slot = (*slot).min((keys.key(row), file, row));
        }
    }
    let mut expected = smallest.map(|(_, file, row)| (file, row));
    expected.sort_unstable();
    let found: Vec<_> = outcome.texts.iter().map(|text| (text.file, text.row)).collect();
    assert_eq!(found, expected);
    let outcome = read_all(&files, ReadSettings { dedupe: false, ..shuffle }, &memory).expect("fifty texts");
    let strings: HashSet<&str> = outcome.strings().into_iter().collect();
    assert_eq!((outcome.texts.len(), outcome.tally.n_duplicates), (50, 50 - strings.len() as u64));
}

#[test]
fn a_shuffle_counts_bad_rows_once() {
    let mut memory = Memory::default();
    let files = [memory.add("a.jsonl", b"{\"text\": \"a\"}\n7\n{\"text\": [\"b\", \" \", \"c\"]}\n")];
    let shuffle = ReadSettings {
        num_samples: 50,
        sampling: Sampling::Shuffle { seed: 7 },
        skip_bad_rows: true,
        ..SETTINGS
    };
    let outcome = read_all(&files, shuffle, &memory).expect("three texts");
    assert_eq!(outcome.told(), [(0, 0, 0, "a"), (0, 2, 0, "b"), (0, 2, 0, "c")]);
    assert_eq!((outcome.tally.n_bad, outcome.tally.n_blank, outcome.warnings.len()), (1, 1, 1));
    let error = read_all(&files, ReadSettings { skip_bad_rows: false, ..shuffle }, &memory);
    assert!(error.expect_err("a bad row").contains("line 2: a JSON object is expected"));
}

#[test]
fn streams_take_equal_shares_of_permuted_files() {
    let streams = |streams, num_samples| ReadSettings {
        num_samples,
        sampling: Sampling::Streams { streams, seed: 42 },
        ..SETTINGS
    };
    let order = file_order(42, 5);
    // Eight texts a file: the first of three streams needs its second file for the ninth and tenth.
    let mut expected: Vec<String> = Vec::new();
    for (files, quota) in [(vec![order[0], order[3]], 10), (vec![order[1], order[4]], 9), (vec![order[2]], 8)]
    {
        let texts = files
            .iter()
            .flat_map(|file| (0..10).filter(|row| row % 5 != 4).map(move |row| format!("{file}:{row}")));
        expected.extend(texts.take(quota));
    }
    for ending in [".txt", ".parquet"] {
        // The third stream runs dry.
        assert_eq!(sampled(ending, 5, 10, streams(3, 28)), expected, "{ending}");
    }
    assert_eq!(sampled(".txt", 5, 10, streams(16, 5)).len(), 5, "no more streams than files");
    assert_eq!(sampled(".txt", 5, 10, streams(16, 2)).len(), 2);
}
