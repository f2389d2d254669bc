//! The files that a dataset is read from, before anything of them is read.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Compression, Format};
use crate::hub::{ContentId, Repo};

/// Where a file lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "in", rename_all = "snake_case")]
pub enum Place {
    /// On the machine that resolved the job; elsewhere in the bucket, by its digest.
    Local {
        /// As the user typed it.
        name: String,
        /// Where it was found, made absolute: the first place to look, never trusted.
        hint: PathBuf,
    },
    /// In a repository.
    Hub {
        /// Which repository.
        repo: Repo,
        /// At which commit, 40 hex digits.
        commit: String,
        /// The file's path inside it.
        path: String,
    },
}

/// Which columns of a file hold its texts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Columns {
    /// Names, in the order in which a row's texts are taken. A cell that is a list gives a text per item.
    pub names: Vec<String>,
    /// Whether the cells of a row make one text, non-empty ones joined by a space and the whole trimmed, as MTEB joins
    /// `title` and `text` of a document. Otherwise each cell is a text of its own.
    pub joined: bool,
}

/// One file of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Where it lies.
    pub place: Place,
    /// Its size in bytes, as it lies there.
    pub size: u64,
    /// What its bytes are; nothing for a local file that has not been read yet.
    pub content: Option<ContentId>,
    /// How it is divided into rows.
    pub format: Format,
    /// How it is compressed.
    pub compression: Compression,
    /// The columns that hold the texts; nothing where the first rows of the file decide, and for `.txt`.
    pub columns: Option<Columns>,
}
