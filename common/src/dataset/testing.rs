//! Files for tests: in folders of their own, or in memory.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::parquet::data_type::{ByteArray, ByteArrayType};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;

use super::format::kind_of;
use super::source::{Columns, Place, SourceFile};
use super::{
    DatasetError, DatasetName, FileName, FileOpener, ReadLimits, ReadSettings, Sampling, Tally, TextsPlan,
    read_texts,
};
use crate::hub::{ContentId, Repo, RepoKind};
use crate::id::Digest;
use crate::texts::Text;

pub(super) const SETTINGS: ReadSettings = ReadSettings {
    num_samples: 1000,
    sampling: Sampling::First,
    dedupe: false,
    skip_bad_rows: false,
    limits: ReadLimits { text_bytes_max: 64, record_bytes_max: 256, decompressed_bytes_max: 100_000 },
};

/// The name of a file or a pattern.
pub(crate) fn file_name(path: impl std::fmt::Display) -> FileName {
    match format!("file:{path}").parse() {
        Ok(DatasetName::File(name)) => name,
        other => panic!("{path}: {other:?}"),
    }
}

/// A local file that does not exist.
pub(super) fn local_file(name: &str) -> SourceFile {
    let (format, compression) = kind_of(name).expect("a known ending");
    let place = Place::Local { name: name.to_owned(), hint: PathBuf::from(name) };
    SourceFile { place, size: 0, content: None, format, compression, columns: None }
}

/// Files of a hub, in memory; counts what is read of them.
#[derive(Default)]
pub(super) struct Memory {
    files: BTreeMap<String, Vec<u8>>,
    pub(super) n_read: AtomicU64,
}

impl Memory {
    pub(super) fn add(&mut self, path: &str, bytes: &[u8]) -> SourceFile {
        self.files.insert(path.to_owned(), bytes.to_vec());
        let (format, compression) = kind_of(path).expect("a known ending");
        let repo = Repo { kind: RepoKind::Dataset, id: "a/b".to_owned() };
        let place = Place::Hub { repo, commit: "0".repeat(40), path: path.to_owned() };
        let content = Some(ContentId::Sha256(Digest::of(bytes)));
        SourceFile { place, size: bytes.len() as u64, content, format, compression, columns: None }
    }

    fn bytes(&self, file: &SourceFile) -> &[u8] {
        let Place::Hub { path, .. } = &file.place else { panic!("a hub file") };
        &self.files[path]
    }
}

impl FileOpener for Memory {
    fn open(&self, file: &SourceFile) -> Result<Box<dyn Read + Send>, DatasetError> {
        Ok(Box::new(Cursor::new(self.bytes(file).to_vec())))
    }

    fn read_at(&self, file: &SourceFile, from: u64, size: u64) -> Result<Vec<u8>, DatasetError> {
        self.n_read.fetch_add(size, Ordering::Relaxed);
        Ok(self.bytes(file)[from as usize..(from + size) as usize].to_vec())
    }
}

pub(super) fn columns(names: &[&str], joined: bool) -> Option<Columns> {
    Some(Columns { names: names.iter().map(|name| (*name).to_owned()).collect(), joined })
}

/// What a reading gave.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) texts: Vec<Text>,
    pub(super) tally: Tally,
    pub(super) columns: Vec<Option<Columns>>,
    pub(super) warnings: Vec<String>,
}

impl Outcome {
    /// File, row, column and text of each.
    pub(super) fn told(&self) -> Vec<(u32, u64, u16, &str)> {
        self.texts.iter().map(|text| (text.file, text.row, text.column, text.text.as_str())).collect()
    }

    pub(super) fn strings(&self) -> Vec<&str> {
        self.texts.iter().map(|text| text.text.as_str()).collect()
    }
}

/// Reads the files with `settings`.
pub(super) fn read_all(
    files: &[SourceFile],
    settings: ReadSettings,
    opener: &dyn FileOpener,
) -> Result<Outcome, String> {
    let plan = TextsPlan::new("d".to_owned(), files.to_vec(), settings);
    let told = |error: DatasetError| {
        let source = std::error::Error::source(&error).map_or(String::new(), |source| format!(" ({source})"));
        format!("{error}{source}")
    };
    let mut reader = read_texts(&plan, None, opener).map_err(told)?;
    let texts = reader.by_ref().collect::<Result<Vec<Text>, _>>().map_err(told)?;
    let (columns, warnings) = (reader.columns().to_vec(), reader.warnings().to_vec());
    Ok(Outcome { texts, tally: reader.tally(), columns, warnings })
}

/// Reads one file of a hub.
pub(super) fn read_one(
    path: &str,
    bytes: &[u8],
    wanted: Option<Columns>,
    settings: ReadSettings,
) -> Result<Outcome, String> {
    let mut memory = Memory::default();
    let file = SourceFile { columns: wanted, ..memory.add(path, bytes) };
    read_all(&[file], settings, &memory)
}

/// A column of a row group: its values and, where the schema asks for them, definition and repetition levels.
#[derive(Clone, Default)]
pub(super) struct Leaf {
    pub(super) values: Vec<Vec<u8>>,
    pub(super) definitions: Option<Vec<i16>>,
    pub(super) repetitions: Option<Vec<i16>>,
}

/// A required column.
pub(super) fn leaf(values: &[&str]) -> Leaf {
    Leaf { values: values.iter().map(|value| value.as_bytes().to_vec()).collect(), ..Leaf::default() }
}

/// A Parquet file of binary columns.
pub(super) fn parquet(schema: &str, properties: WriterProperties, groups: &[Vec<Leaf>]) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).expect("a writer");
    for leaves in groups {
        let mut group = writer.next_row_group().expect("a row group");
        for leaf in leaves {
            let mut column = group.next_column().expect("a column").expect("as many as the schema has");
            let values: Vec<ByteArray> =
                leaf.values.iter().map(|value| ByteArray::from(value.clone())).collect();
            column
                .typed::<ByteArrayType>()
                .write_batch(&values, leaf.definitions.as_deref(), leaf.repetitions.as_deref())
                .expect("values of the schema");
            column.close().expect("memory");
        }
        group.close().expect("memory");
    }
    writer.close().expect("memory");
    bytes
}
