//! What decides the bytes of prepared texts: the part of a job spec that speaks of a dataset.

use serde::{Deserialize, Serialize};

use super::{Columns, Compression, Format, Place, SourceFile};
use crate::hub::ContentId;

/// Raised whenever a reader gives other texts for the same files and settings.
pub const READER_VERSION: u32 = 2;

/// Streams that a dataset of many files is read in, where nobody says otherwise: 20,000 texts of C4 then take about 1.1 MB
/// of each of 16 files.
pub const STREAMS_DEFAULT: u32 = 16;

/// Bounds on what a file may make a reader hold or do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReadLimits {
    /// The longest text, in bytes of UTF-8. 1 MiB: no document of C4 is longer, and a part of 16,384 of them fits in memory.
    pub text_bytes_max: u32,
    /// The longest record, be it a line of JSON, a record of CSV or a row of Parquet, in bytes. 16 MiB: a text with all
    /// that may stand beside it.
    pub record_bytes_max: u32,
    /// The most bytes that a compressed file may unfold to. 64 GiB: a bomb ends in minutes, real corpora pass.
    pub decompressed_bytes_max: u64,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self { text_bytes_max: 1 << 20, record_bytes_max: 16 << 20, decompressed_bytes_max: 64 << 30 }
    }
}

/// How texts are picked. Blank texts are never among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampling {
    /// The first ones: files in order, rows in order.
    First,
    /// The ones whose rows have the smallest keys ([`crate::seed::RowKeys`]), in the order of files and rows. The texts of
    /// a row keep their order, and the last row taken may be cut. All files are read.
    Shuffle {
        /// Of the keys.
        seed: u64,
    },
    /// The first ones of several streams, one stream after the other. Stream v takes the files v, v + `streams`, … of
    /// [`crate::seed::file_order`], and an equal share of the texts; the first streams take one more where the number does
    /// not divide. A stream without texts left takes fewer. There are never more streams than files.
    Streams {
        /// How many.
        streams: u32,
        /// Of the order of files.
        seed: u64,
    },
}

/// Which texts of a dataset are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReadSettings {
    /// So many texts are taken, at least 1.
    pub num_samples: u32,
    /// Which ones.
    pub sampling: Sampling,
    /// Leave out a text that was taken before, byte for byte.
    pub dedupe: bool,
    /// Leave out unusable rows, counted, instead of failing.
    pub skip_bad_rows: bool,
    /// Bounds.
    pub limits: ReadLimits,
}

/// The texts of one dataset, planned: files, columns and selection. Nothing of a hub file need have been read for it;
/// local files are digested by [`super::survey`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextsPlan {
    /// The dataset as the user named it.
    pub dataset: String,
    /// The files, in order.
    pub files: Vec<SourceFile>,
    /// Which texts are wanted, and the bounds.
    pub settings: ReadSettings,
    /// [`READER_VERSION`] of the program that made the plan.
    pub reader_version: u32,
}

/// Texts that were counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextsSpec {
    /// Which texts.
    pub plan: TextsPlan,
    /// How many these are: a fact that follows from the plan, at least 1 and at most `num_samples`.
    pub n_texts: u32,
}

impl TextsPlan {
    /// The files of a dataset and what is wanted of them, for the readers of this program.
    pub fn new(dataset: String, files: Vec<SourceFile>, settings: ReadSettings) -> Self {
        Self { dataset, files, settings, reader_version: READER_VERSION }
    }

    /// What the texts' content key is a digest of. The content of all files is known: only a plan with local files that
    /// were not surveyed is without.
    pub fn identity(&self) -> TextsIdentity<'_> {
        let settings = &self.settings;
        TextsIdentity {
            reader_version: self.reader_version,
            files: self.files.iter().map(FileIdentity::of).collect(),
            num_samples: settings.num_samples,
            sampling: settings.sampling,
            dedupe: settings.dedupe,
            skip_bad_rows: settings.skip_bad_rows,
            text_bytes_max: settings.limits.text_bytes_max,
            record_bytes_max: settings.limits.record_bytes_max,
        }
    }

    /// A file whose content nobody knows yet, if there is one.
    pub fn unpinned(&self) -> Option<&SourceFile> {
        self.files.iter().find(|file| file.content.is_none())
    }

    /// Bytes of all files, as they lie there.
    pub fn n_bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.size))
    }
}

/// All that decides the texts' bytes and nothing else: no path, no name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TextsIdentity<'a> {
    reader_version: u32,
    files: Vec<FileIdentity<'a>>,
    num_samples: u32,
    sampling: Sampling,
    dedupe: bool,
    skip_bad_rows: bool,
    text_bytes_max: u32,
    record_bytes_max: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct FileIdentity<'a> {
    size: u64,
    content: Option<&'a ContentId>,
    format: Format,
    compression: Compression,
    columns: Option<&'a Columns>,
    /// Whose rule chooses the columns where none are named.
    rule: Option<&'static str>,
}

impl<'a> FileIdentity<'a> {
    fn of(file: &'a SourceFile) -> Self {
        let rule = match &file.place {
            _ if file.columns.is_some() || file.format == Format::Text => None,
            Place::Local { .. } => Some("local"),
            Place::Hub { .. } => Some("hub"),
        };
        Self {
            size: file.size,
            content: file.content.as_ref(),
            format: file.format,
            compression: file.compression,
            columns: file.columns.as_ref(),
            rule,
        }
    }
}
