//! One pass over a file: the survey that pins it, and the reading that gives its texts.

use std::collections::HashSet;
use std::path::Path;
use std::vec;

use super::delimited::Delimited;
use super::jsonl::Jsonl;
use super::lines::Lines;
use super::stream::ByteStream;
use super::{
    BadRow, Compression, DatasetError, DatasetName, Format, READER_VERSION, ReadLimits, ReadSettings,
    TextsSpec,
};
use crate::id::Digest;
use crate::model::PinnedFile;
use crate::texts::Text;

/// What a file holds, found by reading it once.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The texts, pinned.
    pub spec: TextsSpec,
    /// Rows of white space only that were passed over before the last text taken.
    pub n_blank: u64,
    /// Unusable rows that were passed over; 0 unless `skip_bad_rows`.
    pub n_bad: u64,
    /// Texts left out because they were there before; 0 unless `dedupe`.
    pub n_duplicates: u64,
    /// Bytes of the texts taken.
    pub n_bytes: u64,
    /// What a person should hear, one sentence each.
    pub warnings: Vec<String>,
}

/// Reads the file behind `name` once, front to back: which texts it gives, its size and its digest.
///
/// Decompression stops at the last text wanted, the rest of the file is only digested.
pub fn survey(name: &DatasetName, settings: &ReadSettings) -> Result<Survey, DatasetError> {
    let DatasetName::File(name) = name else {
        return Err(DatasetError::NotAvailable { name: name.to_string() });
    };
    let (format, compression) = name.kind();
    let mut reader = TextReader::open(name.path(), (format, compression), name.column(), *settings, None)?;
    for text in reader.by_ref() {
        text?;
    }
    let (size, sha256) = reader.rows.stream_mut().finish()?;
    let tally = reader.tally;
    let path_hint = std::path::absolute(name.path())
        .map_err(|source| DatasetError::Io { path: name.path().into(), source })?;
    if tally.n_texts == 0 {
        return Err(DatasetError::NoTexts {
            path: name.path().into(),
            n_blank: tally.n_blank,
            n_bad: tally.n_bad,
        });
    }
    let spec = TextsSpec {
        dataset: name.to_string(),
        file: PinnedFile { name: name.path().display().to_string(), size, sha256 },
        path_hint,
        format,
        compression,
        column: reader.rows.column().map(str::to_owned),
        settings: *settings,
        reader_version: READER_VERSION,
        n_texts: tally.n_texts,
    };
    let warnings = reader.warnings();
    let Tally { n_blank, n_bad, n_duplicates, n_bytes, .. } = tally;
    Ok(Survey { spec, n_blank, n_bad, n_duplicates, n_bytes, warnings })
}

/// The texts of `spec`, in file order, out of the file at `path`.
///
/// The iterator ends after `n_texts` texts, and only if the whole file has the size and the digest of the spec:
/// what it gave is valid once it has returned `None`. A file with another content gives
/// [`DatasetError::Changed`], whatever else is wrong with it.
pub fn read_texts(spec: &TextsSpec, path: &Path) -> Result<TextReader, DatasetError> {
    if spec.reader_version != READER_VERSION {
        return Err(DatasetError::OtherReader { found: spec.reader_version });
    }
    let found =
        std::fs::metadata(path).map_err(|source| DatasetError::Io { path: path.into(), source })?.len();
    if found != spec.file.size {
        let what = format!("{found} bytes instead of {}", spec.file.size);
        return Err(DatasetError::Changed { path: path.into(), what });
    }
    let kind = (spec.format, spec.compression);
    let expected = Expected { size: spec.file.size, sha256: spec.file.sha256, n_texts: spec.n_texts };
    TextReader::open(path, kind, spec.column.as_deref(), spec.settings, Some(expected))
}

/// An iterator over the texts of a file. Ends for good after its first error.
pub struct TextReader {
    rows: Rows,
    settings: ReadSettings,
    expected: Option<Expected>,
    /// The first 16 bytes of the digest of every text taken; empty unless texts are deduplicated.
    seen: HashSet<[u8; 16]>,
    /// Texts of the row read last that are still to be given.
    pending: vec::IntoIter<String>,
    pending_row: u64,
    tally: Tally,
    first_bad: Option<(u64, BadRow)>,
    done: bool,
}

/// A row of a file.
pub(super) struct Row {
    /// Line (`.txt`, `.jsonl`) or record after the header (`.csv`, `.tsv`), from 0.
    pub(super) row: u64,
    /// The line of the file at which it starts, from 1, for messages.
    pub(super) line: u64,
    pub(super) content: Content,
}

/// What a row holds.
pub(super) enum Content {
    One(String),
    Many(Vec<String>),
    Bad(BadRow),
}

struct Expected {
    size: u64,
    sha256: Digest,
    n_texts: u32,
}

/// What a reader has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Texts given.
    pub n_texts: u32,
    /// Rows of white space only that were passed over.
    pub n_blank: u64,
    /// Unusable rows that were passed over.
    pub n_bad: u64,
    /// Texts left out because they were there before.
    pub n_duplicates: u64,
    /// Bytes of the texts given.
    pub n_bytes: u64,
}

impl TextReader {
    /// What has been counted so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    fn open(
        path: &Path,
        (format, compression): (Format, Compression),
        column: Option<&str>,
        settings: ReadSettings,
        expected: Option<Expected>,
    ) -> Result<Self, DatasetError> {
        let limits = settings.limits;
        let stream = ByteStream::open(path, compression, limits.decompressed_bytes_max)?;
        let rows = Rows::new(stream, format, column, limits)?;
        Ok(Self {
            rows,
            settings,
            expected,
            seen: HashSet::new(),
            pending: Vec::new().into_iter(),
            pending_row: 0,
            tally: Tally::default(),
            first_bad: None,
            done: false,
        })
    }

    fn next_text(&mut self) -> Result<Option<Text>, DatasetError> {
        while self.tally.n_texts < self.settings.num_samples {
            let Some(text) = self.pending.next() else {
                let Some(row) = self.rows.next_row()? else {
                    return Ok(None);
                };
                self.take_row(row)?;
                continue;
            };
            if text.trim().is_empty() {
                self.tally.n_blank += 1;
            } else if self.settings.dedupe && !self.seen.insert(fingerprint(&text)) {
                self.tally.n_duplicates += 1;
            } else {
                self.tally.n_texts += 1;
                self.tally.n_bytes += text.len() as u64;
                return Ok(Some(Text { row: self.pending_row, text }));
            }
        }
        Ok(None)
    }

    fn take_row(&mut self, row: Row) -> Result<(), DatasetError> {
        let texts = match row.content {
            Content::One(text) => vec![text],
            Content::Many(texts) => texts,
            Content::Bad(reason) => return self.pass_over(row.line, reason),
        };
        let limit = u64::from(self.settings.limits.text_bytes_max);
        if let Some(bytes) = texts.iter().map(|text| text.len() as u64).find(|bytes| *bytes > limit) {
            return self.pass_over(row.line, BadRow::TooLong { bytes, limit_name: "text_bytes_max", limit });
        }
        self.pending = texts.into_iter();
        self.pending_row = row.row;
        Ok(())
    }

    fn pass_over(&mut self, line: u64, reason: BadRow) -> Result<(), DatasetError> {
        if !self.settings.skip_bad_rows {
            let path = self.rows.stream_mut().path().to_owned();
            return Err(DatasetError::Row { path, line, reason });
        }
        self.tally.n_bad += 1;
        self.first_bad.get_or_insert((line, reason));
        Ok(())
    }

    /// Whether the file is the one that the spec speaks of; nothing where there is no spec yet.
    fn verify(&mut self) -> Result<(), DatasetError> {
        let Some(expected) = &self.expected else {
            return Ok(());
        };
        let stream = self.rows.stream_mut();
        let (size, sha256) = stream.finish()?;
        let changed = |what| Err(DatasetError::Changed { path: stream.path().to_owned(), what });
        if size != expected.size {
            return changed(format!("{size} bytes instead of {}", expected.size));
        }
        if sha256 != expected.sha256 {
            return changed(format!("sha256 {} instead of {}", sha256.short(), expected.sha256.short()));
        }
        Ok(())
    }

    fn verify_end(&mut self) -> Result<(), DatasetError> {
        self.verify()?;
        match &self.expected {
            Some(expected) if expected.n_texts != self.tally.n_texts => Err(DatasetError::Changed {
                path: self.rows.stream_mut().path().to_owned(),
                what: format!("{} texts instead of {}", self.tally.n_texts, expected.n_texts),
            }),
            _ => Ok(()),
        }
    }

    fn warnings(&mut self) -> Vec<String> {
        let path = self.rows.stream_mut().path().display().to_string();
        let mut warnings = Vec::new();
        if self.rows.stream_mut().had_bom() {
            warnings.push(format!("{path}: a byte order mark at the start was dropped"));
        }
        let n_carriage_returns = self.rows.n_carriage_returns();
        if n_carriage_returns > 0 {
            warnings.push(format!(
                "{path}: {n_carriage_returns} lines end in a carriage return, which stays part of the text; \
                 convert the file to \\n line ends if that is not meant"
            ));
        }
        if let Some((line, reason)) = &self.first_bad {
            let n_bad = self.tally.n_bad;
            warnings.push(format!(
                "{path}: {n_bad} unusable rows were skipped, the first at line {line}: {reason}"
            ));
        }
        warnings
    }
}

impl Iterator for TextReader {
    type Item = Result<Text, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let result = match self.next_text() {
            Ok(Some(text)) => return Some(Ok(text)),
            Ok(None) => self.verify_end(),
            // Another content explains any error in it better than the error itself does.
            Err(error) => self.verify().and(Err(error)),
        };
        self.done = true;
        result.err().map(Err)
    }
}

fn fingerprint(text: &str) -> [u8; 16] {
    let digest = Digest::of(text.as_bytes()).0;
    *digest.first_chunk().expect("a digest has 32 bytes")
}

/// The rows of a file of any format.
enum Rows {
    Lines(Lines),
    Jsonl(Jsonl),
    Delimited(Box<Delimited>),
}

impl Rows {
    fn new(
        stream: ByteStream,
        format: Format,
        column: Option<&str>,
        limits: ReadLimits,
    ) -> Result<Self, DatasetError> {
        let delimited = |stream, delimiter| Delimited::new(stream, delimiter, column, limits).map(Box::new);
        Ok(match format {
            Format::Text => Self::Lines(Lines::new(stream, limits.text_bytes_max)),
            Format::Jsonl => Self::Jsonl(Jsonl::new(stream, column, limits)),
            Format::Csv => Self::Delimited(delimited(stream, b',')?),
            Format::Tsv => Self::Delimited(delimited(stream, b'\t')?),
            Format::Json | Format::Parquet => {
                let source = std::io::ErrorKind::Unsupported.into();
                return Err(DatasetError::Io { path: stream.path().to_owned(), source });
            }
        })
    }

    fn next_row(&mut self) -> Result<Option<Row>, DatasetError> {
        match self {
            Self::Lines(rows) => rows.next_row(),
            Self::Jsonl(rows) => rows.next_row(),
            Self::Delimited(rows) => rows.next_row(),
        }
    }

    fn column(&self) -> Option<&str> {
        match self {
            Self::Lines(_) => None,
            Self::Jsonl(rows) => rows.column(),
            Self::Delimited(rows) => rows.column(),
        }
    }

    fn n_carriage_returns(&self) -> u64 {
        match self {
            Self::Lines(rows) => rows.n_carriage_returns(),
            Self::Jsonl(_) | Self::Delimited(_) => 0,
        }
    }

    fn stream_mut(&mut self) -> &mut ByteStream {
        match self {
            Self::Lines(rows) => rows.stream_mut(),
            Self::Jsonl(rows) => rows.stream_mut(),
            Self::Delimited(rows) => rows.stream_mut(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const SETTINGS: ReadSettings = ReadSettings {
        num_samples: 1000,
        dedupe: false,
        skip_bad_rows: false,
        limits: ReadLimits { text_bytes_max: 64, record_bytes_max: 256, decompressed_bytes_max: 100_000 },
    };

    struct File {
        folder: tempfile::TempDir,
        name: DatasetName,
    }

    impl File {
        fn path(&self) -> &Path {
            match &self.name {
                DatasetName::File(name) => name.path(),
                DatasetName::Hub(_) | DatasetName::Bucket(_) => unreachable!("files are read here"),
            }
        }
    }

    fn file(ending: &str, bytes: &[u8]) -> File {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (ending, column) =
            ending.split_once('#').map_or((ending, String::new()), |(e, c)| (e, format!("#{c}")));
        let path = folder.path().join(format!("f{ending}"));
        std::fs::write(&path, bytes).expect("write the file");
        let name = format!("file:{}{column}", path.display()).parse().expect("a valid name");
        File { folder, name }
    }

    /// Surveys and reads; texts and rows, and the survey.
    fn read(
        ending: &str,
        bytes: &[u8],
        settings: ReadSettings,
    ) -> Result<(Vec<(u64, String)>, Survey), String> {
        let file = file(ending, bytes);
        let strip = |error: DatasetError| {
            let source =
                std::error::Error::source(&error).map_or(String::new(), |source| format!(" ({source})"));
            format!("{error}{source}").replace(&file.folder.path().display().to_string(), "")
        };
        let survey = survey(&file.name, &settings).map_err(strip)?;
        let texts: Result<Vec<Text>, DatasetError> =
            read_texts(&survey.spec, &survey.spec.path_hint).and_then(Iterator::collect);
        let texts = texts.map_err(strip)?;
        assert_eq!(texts.len(), survey.spec.n_texts as usize);
        assert_eq!(texts.iter().map(|t| t.text.len() as u64).sum::<u64>(), survey.n_bytes);
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

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).expect("write to memory");
        encoder.finish().expect("write to memory")
    }

    #[test]
    fn lines_of_text() {
        let survey = check(".txt", b" a \n\n\t \nb\r\nc", SETTINGS, &[(0, " a "), (3, "b\r"), (4, "c")]);
        assert_eq!(survey.n_blank, 2);
        assert!(survey.warnings[0].contains("1 lines end in a carriage return"), "{:?}", survey.warnings);
        let survey =
            check(".txt", b"\xEF\xBB\xBFa\n\xEF\xBB\xBFb\n", SETTINGS, &[(0, "a"), (1, "\u{FEFF}b")]);
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
        let survey =
            check(".txt", &[b"\xff\n".as_slice(), &[b'x'; 65], b"\nok"].concat(), skip, &[(2, "ok")]);
        assert_eq!(survey.n_bad, 2);
        assert!(survey.warnings[0].contains("2 unusable rows were skipped, the first at line 1"));
        // The fault lies behind the texts that are wanted.
        check(".txt", b"a\n\xff", ReadSettings { num_samples: 1, ..SETTINGS }, &[(0, "a")]);
    }

    #[test]
    fn records_of_json() {
        let lines = b"{\"id\": 1, \"text\": \"a\\u00e9\\n\"}\n\n{\"text\":[\"b\",\" \",\"c\"],\"x\":{\"y\":[null]}}\n";
        let survey = check(".jsonl", lines, SETTINGS, &[(0, "aé\n"), (2, "b"), (2, "c")]);
        assert_eq!((survey.n_blank, survey.spec.column.as_deref()), (2, Some("text")));
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
        refuse(
            ".jsonl#c",
            b"{\"a\":\"x\"}",
            SETTINGS,
            "line 1: there is no field \"c\"; the fields are \"a\"",
        );
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
        assert_eq!(survey.n_bad, 3);
    }

    #[test]
    fn records_of_csv_and_tsv() {
        let survey = check(
            ".csv",
            b"id,text\r\n1,\"a, \"\"b\"\"\nc\"\n2,d\n",
            SETTINGS,
            &[(0, "a, \"b\"\nc"), (1, "d")],
        );
        assert_eq!(survey.spec.column.as_deref(), Some("text"));
        check(".csv", b"\xEF\xBB\xBFreview\nx\n", SETTINGS, &[(0, "x")]);
        check(".tsv#b", b"a\tb\nx,y\t\"p\tq\"\n", SETTINGS, &[(0, "p\tq")]);
        let survey = check(".csv", b"id,text\n1,\n2,x\n", SETTINGS, &[(1, "x")]);
        assert_eq!(survey.n_blank, 1);
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
        refuse(".txt.gz", b"plain text", SETTINGS, "/f.txt.gz is damaged: it does not decompress");
        refuse(".txt.zst", b"plain text", SETTINGS, "is damaged");
        let whole = gzip(&(0..2000).flat_map(|i| format!("{i}\n").into_bytes()).collect::<Vec<_>>());
        let all = ReadSettings { num_samples: u32::MAX, ..SETTINGS };
        refuse(".txt.gz", &whole[..whole.len() - 20], all, "is damaged");
        refuse(".csv.gz", &gzip(b"text\na\n")[..12], all, "is damaged");
        let bomb = gzip(&vec![b'\n'; 1_000_000]);
        refuse(".txt.gz", &bomb, SETTINGS, "holds more than 100000 bytes decompressed");
    }

    #[test]
    fn selection() {
        let first = ReadSettings { num_samples: 2, ..SETTINGS };
        check(".txt", b"a\n\nb\nc\n", first, &[(0, "a"), (2, "b")]);
        let dedupe = ReadSettings { dedupe: true, num_samples: 3, ..SETTINGS };
        let survey = check(".txt", b"a\nb\na\na \nc\n", dedupe, &[(0, "a"), (1, "b"), (3, "a ")]);
        assert_eq!(survey.n_duplicates, 1);
        check(".jsonl", b"{\"text\":[\"a\",\"b\",\"c\"]}", first, &[(0, "a"), (0, "b")]);
    }

    #[test]
    fn identity_holds_content_and_settings_only() {
        let a = survey(&file(".txt", b"a\n").name, &SETTINGS).expect("a survey").spec;
        let b = survey(&file(".txt", b"a\n").name, &SETTINGS).expect("a survey").spec;
        assert_ne!(a.path_hint, b.path_hint);
        assert_eq!(a.identity(), b.identity());
        let c = survey(&file(".txt", b"b\n").name, &SETTINGS).expect("a survey").spec;
        assert_ne!(a.identity(), c.identity());
        let mut settings = SETTINGS;
        settings.num_samples += 1;
        assert_ne!(a.identity(), TextsSpec { settings, ..a.clone() }.identity());
        let text = serde_json::to_string(&a).expect("a spec is plain data");
        assert_eq!(serde_json::from_str::<TextsSpec>(&text).expect("what was written"), a);
    }

    #[test]
    fn a_file_that_changed_is_refused() {
        let file = file(".txt", b"a\nb\n");
        let spec = survey(&file.name, &SETTINGS).expect("a survey").spec;
        let check = |bytes: &[u8], expected: &str| {
            std::fs::write(file.path(), bytes).expect("write the file");
            let outcome = read_texts(&spec, file.path()).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let message = outcome.expect_err(expected).to_string();
            assert!(message.contains("has changed") && message.contains(expected), "{message}");
        };
        check(b"a\nb\nc\n", "6 bytes instead of 4");
        check(b"a\nc\n", "sha256 ");
        check(b"a\n\xff\n", "sha256 ");
        let older = TextsSpec { reader_version: 0, ..spec.clone() };
        assert!(matches!(read_texts(&older, file.path()), Err(DatasetError::OtherReader { found: 0 })));
    }

    #[test]
    fn only_regular_files_are_opened() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("d.txt");
        let name: DatasetName = format!("file:{}", path.display()).parse().expect("a valid name");
        assert!(matches!(survey(&name, &SETTINGS), Err(DatasetError::Io { .. })));
        std::fs::create_dir(&path).expect("make a folder");
        assert!(matches!(survey(&name, &SETTINGS), Err(DatasetError::NotAFile { .. })));
    }
}
