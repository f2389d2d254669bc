//! Parquet: encodings, codecs, lists and nulls; and that only what is wanted is read.

use std::sync::atomic::Ordering;

use ::parquet::basic::{BrotliLevel, Compression, Encoding, GzipLevel, ZstdLevel};
use ::parquet::file::properties::{WriterProperties, WriterVersion};

use super::super::testing::{Leaf, Memory, SETTINGS, columns, leaf, parquet, read_all, read_one};
use super::super::{ReadLimits, ReadSettings, SourceFile};

const TEXT: &str = "message m { required binary text (UTF8); }";

#[test]
fn encodings_and_codecs() {
    let texts: Vec<String> =
        (0..300).map(|row| format!("text number {} of this column", row % 120)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let groups: Vec<_> = texts.chunks(70).map(|texts| vec![leaf(texts)]).collect();
    let codecs = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::BROTLI(BrotliLevel::default()),
        Compression::ZSTD(ZstdLevel::default()),
        Compression::LZ4_RAW,
    ];
    let encodings = [
        None,
        Some(Encoding::PLAIN),
        Some(Encoding::DELTA_BYTE_ARRAY),
        Some(Encoding::DELTA_LENGTH_BYTE_ARRAY),
    ];
    for codec in codecs {
        for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
            for encoding in encodings {
                let properties = WriterProperties::builder()
                    .set_compression(codec)
                    .set_writer_version(version)
                    .set_data_page_size_limit(500)
                    .set_write_batch_size(10)
                    .set_dictionary_enabled(encoding.is_none());
                let properties =
                    encoding.into_iter().fold(properties, |p, encoding| p.set_encoding(encoding));
                let bytes = parquet(TEXT, properties.build(), &groups);
                let outcome = read_one("f.parquet", &bytes, None, SETTINGS);
                let outcome =
                    outcome.unwrap_or_else(|error| panic!("{codec} {version:?} {encoding:?}: {error}"));
                assert_eq!(outcome.strings(), texts, "{codec} {version:?} {encoding:?}");
                assert_eq!(outcome.texts[299].row, 299);
            }
        }
    }
    let old = parquet(TEXT, WriterProperties::builder().set_compression(Compression::LZ4).build(), &groups);
    assert!(
        read_one("f.parquet", &old, None, SETTINGS)
            .expect_err("an old codec")
            .contains("deprecated codec LZ4")
    );
}

#[test]
fn nulls_and_lists() {
    let schema = "message m {
        optional binary text (UTF8);
        optional group tags (LIST) { repeated group list { optional binary element (UTF8); } }
        required group old (LIST) { repeated binary array (UTF8); }
    }";
    let text = Leaf { definitions: Some(vec![1, 0, 1, 0]), ..leaf(&["a", "b"]) };
    // [x, null, y], null, [], [z]
    let tags = Leaf {
        definitions: Some(vec![3, 2, 3, 0, 1, 3]),
        repetitions: Some(vec![0, 1, 1, 0, 0, 0]),
        ..leaf(&["x", "y", "z"])
    };
    // [], [p, q], [], [r]
    let old = Leaf {
        definitions: Some(vec![0, 1, 1, 0, 1]),
        repetitions: Some(vec![0, 0, 1, 0, 0]),
        ..leaf(&["p", "q", "r"])
    };
    for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
        let properties = WriterProperties::builder().set_writer_version(version).build();
        let bytes = parquet(schema, properties, &[vec![text.clone(), tags.clone(), old.clone()]]);
        let read = |names: &[&str], joined| {
            read_one("f.parquet", &bytes, columns(names, joined), SETTINGS).expect("texts")
        };
        let outcome = read(&["text"], false);
        assert_eq!((outcome.told(), outcome.tally.n_blank), (vec![(0, 0, 0, "a"), (0, 2, 0, "b")], 2));
        let outcome = read(&["tags"], false);
        assert_eq!(outcome.told(), [(0, 0, 0, "x"), (0, 0, 0, "y"), (0, 3, 0, "z")]);
        assert_eq!(outcome.tally.n_blank, 2, "an item and a list");
        let outcome = read(&["old", "text"], true);
        assert_eq!(outcome.told(), [(0, 0, 0, "a"), (0, 1, 0, "p q"), (0, 2, 0, "b"), (0, 3, 0, "r")]);
    }
}

#[test]
fn a_list_goes_on_over_pages() {
    let schema =
        "message m { required group l (LIST) { repeated group list { required binary element (UTF8); } } }";
    let texts: Vec<String> = (0..600).map(|item| format!("item {item}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    // Lists of one item, of 400 and of 199.
    let repetitions = (0..600).map(|item| i16::from(![0, 1, 401].contains(&item))).collect();
    let list = Leaf { definitions: Some(vec![1; 600]), repetitions: Some(repetitions), ..leaf(&texts) };
    let roomy = ReadSettings { limits: ReadLimits { record_bytes_max: 4000, ..SETTINGS.limits }, ..SETTINGS };
    let properties = || {
        WriterProperties::builder()
            .set_data_page_size_limit(200)
            .set_write_batch_size(16)
            .set_dictionary_enabled(false)
            .build()
    };
    let bytes = parquet(schema, properties(), &[vec![list.clone()]]);
    let outcome = read_one("f.parquet", &bytes, columns(&["l"], false), roomy).expect("texts");
    assert_eq!(outcome.strings(), texts);
    let rows: Vec<u64> = outcome.texts.iter().map(|text| text.row).collect();
    assert_eq!((rows[0], rows[1], rows[400], rows[401], rows[599]), (0, 1, 1, 2, 2));
    let error = read_one("f.parquet", &bytes, columns(&["l"], false), SETTINGS).expect_err("too long");
    assert!(error.contains("row 1") && error.contains("data.record_bytes_max = 256"), "{error}");
}

#[test]
fn only_wanted_columns_and_pages_are_read() {
    let schema = "message m { required binary blob; required binary text (UTF8); }";
    let blob: Vec<Vec<u8>> =
        (0..50u32).map(|row| (0..40_000u32).map(|i| ((i * i * (row + 7)) >> 3) as u8).collect()).collect();
    let group = vec![Leaf { values: blob, ..Leaf::default() }, leaf(&["a short text"; 50])];
    let properties = WriterProperties::builder().set_dictionary_enabled(false).build();
    let bytes = parquet(schema, properties, &[group.clone(), group]);
    assert!(bytes.len() > 3_900_000);
    let mut memory = Memory::default();
    let file = memory.add("f.parquet", &bytes);
    assert_eq!(read_all(&[file], SETTINGS, &memory).expect("texts").texts.len(), 100);
    let n_read = memory.n_read.load(Ordering::Relaxed);
    assert!(n_read < 250_000, "{n_read} of {} bytes were read", bytes.len());

    // A large column of which two texts are wanted: not all of it.
    let text: Vec<Vec<u8>> = (0..3000u32).map(|row| format!("{row}").repeat(300).into_bytes()).collect();
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_data_page_size_limit(50_000)
        .set_write_batch_size(16);
    let bytes = parquet(TEXT, properties.build(), &[vec![Leaf { values: text, ..Leaf::default() }]]);
    let mut memory = Memory::default();
    let file = memory.add("f.parquet", &bytes);
    let two = ReadSettings { num_samples: 2, limits: ReadLimits::default(), ..SETTINGS };
    assert_eq!(read_all(&[file], two, &memory).expect("texts").texts.len(), 2);
    let n_read = memory.n_read.load(Ordering::Relaxed);
    assert!(n_read < 600_000 && bytes.len() > 3_000_000, "{n_read} of {} bytes were read", bytes.len());
}

#[test]
fn faults() {
    let refuse = |bytes: &[u8], wanted: &[&str], settings, expected: &str| {
        let wanted = (!wanted.is_empty()).then(|| columns(wanted, false)).flatten();
        let error = read_one("f.parquet", bytes, wanted, settings).expect_err(expected);
        assert!(error.contains(expected), "expected {expected:?} in {error:?}");
    };
    let schema = "message m { required binary a (UTF8); required binary b; }";
    let bad = Leaf {
        values: vec![b"ok".to_vec(), b"a\xff".to_vec(), vec![b'x'; 70], vec![b'x'; 300]],
        ..Leaf::default()
    };
    let bytes = parquet(schema, Default::default(), &[vec![bad.clone(), leaf(&["1", "2", "3", "4"])]]);
    refuse(&bytes, &["a"], SETTINGS, "f.parquet of dataset a/b at 000000000000, row 1: not UTF-8 at byte 2");
    refuse(&bytes, &["c"], SETTINGS, "has no column \"c\"; its columns are \"a\", \"b\"");
    let skip = ReadSettings { skip_bad_rows: true, ..SETTINGS };
    let outcome = read_one("f.parquet", &bytes, columns(&["a"], false), skip).expect("a text");
    assert_eq!((outcome.strings(), outcome.tally.n_bad), (vec!["ok"], 3));
    assert!(
        outcome.warnings[0].contains("3 unusable rows were skipped, the first at row 1"),
        "{:?}",
        outcome.warnings
    );
    // Without annotation, a column is read where it is asked for.
    assert_eq!(
        read_one("f.parquet", &bytes, columns(&["b"], false), SETTINGS).expect("texts").texts.len(),
        4
    );
    refuse(b"", &[], SETTINGS, "is not readable parquet: it is too short");
    refuse(b"PAR1 and no more", &[], SETTINGS, "it does not end as parquet does");
    refuse(b"PAR1\xff\xff\xff\xffPAR1", &[], SETTINGS, "its footer is longer than the file");
    let tight = ReadLimits { decompressed_bytes_max: 40, ..SETTINGS.limits };
    refuse(
        &bytes,
        &["a"],
        ReadSettings { limits: tight, ..SETTINGS },
        "holds more than 40 bytes decompressed",
    );
}

#[test]
fn local_files_are_digested_to_their_ends() {
    let bytes = parquet(TEXT, Default::default(), &[vec![leaf(&["a", "b"])]]);
    let survey = super::check(".parquet", &bytes, SETTINGS, &[(0, "a"), (1, "b")]);
    let SourceFile { size, content, .. } = &survey.spec.plan.files[0];
    assert_eq!(*size, bytes.len() as u64);
    assert_eq!(*content, Some(crate::hub::ContentId::Sha256(crate::id::Digest::of(&bytes))));
    super::refuse(".parquet#x", &bytes, SETTINGS, "has no column \"x\"");
}
