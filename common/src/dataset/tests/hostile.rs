//! Files that mean harm, or were damaged on the way: always an error or a skipped row, never a panic or a full memory.

use ::parquet::basic::{Compression, GzipLevel, ZstdLevel};
use ::parquet::file::properties::{WriterProperties, WriterVersion};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::super::testing::{Leaf, SETTINGS, columns, leaf, parquet, read_one};
use super::super::{ReadSettings, Sampling};

/// Files of every format, valid to begin with.
fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let jsonl = b"{\"text\": \"a\\u00e9 \\ud83d\\ude00\", \"n\": 1e99}\r\n{\"text\": [\"b\", \"\"], \"x\": {\"y\": [null]}}\n";
    let array = b"[{\"text\": \"a\", \"n\": [1, {\"m\": []}]},\n {\"text\": \"b\\\\\\\"\"}]";
    let object = b"{\"v\": 1, \"data\": [{\"text\": \"a\"}, {\"text\": \"b\"}], \"w\": []}";
    let by_column = b"{\"text\": [\"a\", \"b\"],\n \"n\": [1, 2]}";
    let csv = b"id,text\r\n1,\"a, \"\"b\"\"\nc\"\n2,d\n";
    let lines: String = (0..200).map(|n| format!("line {n}\n")).collect();
    let schema = "message m {
        optional binary text (UTF8);
        optional group tags (LIST) { repeated group list { optional binary element (UTF8); } }
    }";
    let group = vec![
        Leaf {
            definitions: Some(vec![1, 0, 1, 1]),
            ..leaf(&["a long enough text", "b", "a long enough text"])
        },
        Leaf {
            definitions: Some(vec![3, 2, 3, 0, 1, 3]),
            repetitions: Some(vec![0, 1, 1, 0, 0, 0]),
            ..leaf(&["x", "y", "z"])
        },
    ];
    let properties = |version, codec, dictionary| {
        WriterProperties::builder()
            .set_writer_version(version)
            .set_compression(codec)
            .set_dictionary_enabled(dictionary)
            .build()
    };
    let (v1, v2) = (WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0);
    let groups = [group.clone(), group];
    vec![
        ("f.txt", lines.clone().into_bytes()),
        ("f.jsonl", jsonl.to_vec()),
        ("f.json", array.to_vec()),
        ("f.json", object.to_vec()),
        ("f.json", by_column.to_vec()),
        ("f.json", jsonl.to_vec()),
        ("f.csv", csv.to_vec()),
        ("f.tsv", b"text\tn\na\t1\n\"b\tc\"\t2\n".to_vec()),
        ("f.txt.gz", super::gzip(lines.as_bytes())),
        ("f.txt.zst", zstd::encode_all(lines.as_bytes(), 3).expect("compress in memory")),
        ("f.txt.bz2", super::bzip2(lines.as_bytes())),
        ("f.txt.xz", [super::XZ_A, super::XZ_B].concat()),
        ("f.parquet", parquet(schema, properties(v1, Compression::UNCOMPRESSED, true), &groups)),
        ("f.parquet", parquet(schema, properties(v1, Compression::SNAPPY, false), &groups)),
        ("f.parquet", parquet(schema, properties(v2, Compression::UNCOMPRESSED, false), &groups)),
        (
            "f.parquet",
            parquet(schema, properties(v2, Compression::ZSTD(ZstdLevel::default()), true), &groups),
        ),
        (
            "f.parquet",
            parquet(schema, properties(v2, Compression::GZIP(GzipLevel::default()), true), &groups),
        ),
    ]
}

/// Some bytes changed, cut out, doubled or put in; what matters in these formats is favoured.
fn mutated(bytes: &[u8], generator: &mut ChaCha8Rng) -> Vec<u8> {
    const TELLING: &[u8] = b"\0\xff\"\\{}[],:\n\r\t\xef\x80\x7f01e-u";
    let mut bytes = bytes.to_vec();
    for _ in 0..=generator.next_u32() % 4 {
        let place = generator.next_u32() as usize % (bytes.len() + 1);
        let length = generator.next_u32() as usize % 8;
        let end = (place + length).min(bytes.len());
        let telling = TELLING[generator.next_u32() as usize % TELLING.len()];
        match generator.next_u32() % 6 {
            0 => bytes.truncate(place),
            1 => drop(bytes.drain(place..end)),
            2 => bytes.insert(place, telling),
            3 => {
                let piece = bytes[place..end].to_vec();
                bytes.splice(place..place, piece);
            }
            4 if place < bytes.len() => bytes[place] = telling,
            _ if place < bytes.len() => bytes[place] ^= 1 << (generator.next_u32() % 8),
            _ => {}
        }
    }
    bytes
}

#[test]
fn damaged_files_end_in_order() {
    let mut generator = ChaCha8Rng::seed_from_u64(3);
    let (mut n_read, mut n_refused) = (0, 0);
    for (path, seed) in seeds() {
        for round in 0..1500 {
            let bytes = mutated(&seed, &mut generator);
            let shuffle = Sampling::Shuffle { seed: 1 };
            let settings = ReadSettings {
                skip_bad_rows: round % 2 == 0,
                sampling: if round % 5 == 0 { shuffle } else { Sampling::First },
                ..SETTINGS
            };
            let wanted = match round % 3 {
                0 => None,
                1 => columns(&["text"], false),
                _ => columns(&["text", "tags"], true),
            };
            match read_one(path, &bytes, wanted, settings) {
                Ok(_) => n_read += 1,
                Err(error) => {
                    assert!(error.contains(path), "no file is named in {error:?}");
                    n_refused += 1;
                }
            }
        }
    }
    assert!(n_read > 1000 && n_refused > 1000, "{n_read} read, {n_refused} refused");
}

#[test]
fn every_cut_of_parquet_is_an_error() {
    for (path, seed) in seeds().into_iter().filter(|(path, _)| *path == "f.parquet") {
        for length in 0..seed.len() {
            assert!(
                read_one(path, &seed[..length], None, SETTINGS).is_err(),
                "{length} of {} bytes",
                seed.len()
            );
        }
    }
}

#[test]
fn strange_characters() {
    let check = |path: &str, bytes: &[u8], expected: Result<&[&str], &str>| {
        let outcome = read_one(path, bytes, None, SETTINGS);
        match (&outcome, expected) {
            (Ok(outcome), Ok(texts)) => assert_eq!(outcome.strings(), texts, "{path}"),
            (Err(error), Err(part)) => assert!(error.contains(part), "{path}: {error}"),
            (outcome, _) => panic!("{path}: {outcome:?}"),
        }
    };
    check("f.txt", b"a\0b\n", Ok(&["a\0b"]));
    check("f.jsonl", b"{\"text\": \"a\\u0000b\"}\r\n{\"text\": \"c\"}\r\n", Ok(&["a\0b", "c"]));
    check("f.jsonl", b"{\"text\": \"a\0b\"}", Err("line 1: not valid JSON: control character"));
    check("f.csv", b"text\r\na\0b\r\n", Ok(&["a\0b"]));
    check("f.tsv", b"\xEF\xBB\xBFtext\na\n", Ok(&["a"]));
    check(
        "f.json",
        b"[{\"text\": \"a\", \"n\": 1e999999}]",
        Err("line 1: not valid JSON: number out of range"),
    );
    check("f.json", b"[{\"text\": \"a\", \"n\": 123456789012345678901234567890}]", Ok(&["a"]));
    check("f.json", b"[{\"text\": \"\\udc00\"}]", Err("line 1: not valid JSON: lone"));
    check("f.txt", b"\xff\xfea\0\n\0", Err("line 1: not UTF-8 at byte 1"));
}

/// A page that claims to be small and is not.
#[test]
fn pages_that_unfold_to_more_than_they_say() {
    let schema = "message m { required binary text (UTF8); }";
    for codec in [
        Compression::GZIP(GzipLevel::default()),
        Compression::BROTLI(Default::default()),
        Compression::ZSTD(ZstdLevel::default()),
        Compression::SNAPPY,
        Compression::LZ4_RAW,
    ] {
        let properties = WriterProperties::builder().set_compression(codec).set_dictionary_enabled(false);
        let text = "x".repeat(60_000);
        let mut bytes = parquet(schema, properties.build(), &[vec![leaf(&[&text])]]);
        // type 0 in field 1, then the unfolded size in field 2: 60,004 as a zigzag varint.
        let claim = [0x15, 0x00, 0x15, 0xc8, 0xa9, 0x07];
        let place = bytes.windows(claim.len()).position(|window| window == claim).expect("a page header");
        bytes[place + 3..place + 6].copy_from_slice(&[0xc8, 0xa9, 0x01]);
        let error = read_one("f.parquet", &bytes, None, SETTINGS).expect_err("it claims less");
        assert!(error.contains("is not readable parquet"), "{codec}: {error}");
    }
}
