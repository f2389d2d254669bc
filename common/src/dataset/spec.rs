//! What decides the bytes of prepared texts: the part of a job spec that speaks of a dataset.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Compression, Format};
use crate::id::Digest;
use crate::model::PinnedFile;

/// Raised whenever a reader gives other texts for the same file and settings.
pub const READER_VERSION: u32 = 1;

/// Bounds on what a file may make a reader hold or do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReadLimits {
    /// The longest text, in bytes of UTF-8. 1 MiB: no document of C4 is longer, and a part of 16,384 of them fits in memory.
    pub text_bytes_max: u32,
    /// The longest line of JSON or record of CSV, in bytes. 16 MiB: a text with all that may stand beside it.
    pub record_bytes_max: u32,
    /// The most bytes that a compressed file may unfold to. 64 GiB: a bomb ends in minutes, real corpora pass.
    pub decompressed_bytes_max: u64,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self { text_bytes_max: 1 << 20, record_bytes_max: 16 << 20, decompressed_bytes_max: 64 << 30 }
    }
}

/// Which texts of a file are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReadSettings {
    /// The first so many texts are taken, at least 1.
    pub num_samples: u32,
    /// Leave out a text that was seen before, byte for byte.
    pub dedupe: bool,
    /// Leave out unusable rows, counted, instead of failing.
    pub skip_bad_rows: bool,
    /// Bounds.
    pub limits: ReadLimits,
}

/// The texts of one dataset, pinned: file, column and selection. Made by [`super::survey`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextsSpec {
    /// The dataset as the user named it.
    pub dataset: String,
    /// The file; its name is the path as typed.
    pub file: PinnedFile,
    /// Where the file was found, made absolute: the first place to look, never trusted.
    pub path_hint: PathBuf,
    /// How it is divided into texts.
    pub format: Format,
    /// How it is compressed.
    pub compression: Compression,
    /// The column that holds the texts; none for `.txt`.
    pub column: Option<String>,
    /// Which texts are wanted, and the bounds.
    pub settings: ReadSettings,
    /// [`READER_VERSION`] of the program that made the survey.
    pub reader_version: u32,
    /// How many texts these are: a fact that follows from the rest, at least 1 and at most `num_samples`.
    pub n_texts: u32,
}

impl TextsSpec {
    /// What the texts' content key is a digest of.
    pub fn identity(&self) -> TextsIdentity<'_> {
        TextsIdentity {
            reader_version: self.reader_version,
            size: self.file.size,
            sha256: self.file.sha256,
            format: self.format,
            compression: self.compression,
            column: self.column.as_deref(),
            num_samples: self.settings.num_samples,
            dedupe: self.settings.dedupe,
            skip_bad_rows: self.settings.skip_bad_rows,
            text_bytes_max: self.settings.limits.text_bytes_max,
            record_bytes_max: self.settings.limits.record_bytes_max,
        }
    }
}

/// All that decides the texts' bytes and nothing else: no path, no name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TextsIdentity<'a> {
    reader_version: u32,
    size: u64,
    sha256: Digest,
    format: Format,
    compression: Compression,
    column: Option<&'a str>,
    num_samples: u32,
    dedupe: bool,
    skip_bad_rows: bool,
    text_bytes_max: u32,
    record_bytes_max: u32,
}
