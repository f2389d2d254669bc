//! Which files of a repository a dataset is read from, in which order, and which of their columns.
//!
//! All but listing and reading a `README.md` is pure: the same listing gives the same files. Nothing of a repository is
//! executed, and nothing in it is believed: sizes, depths and counts are bounded.

use crate::hub::{Hub, HubError, Repo};

use super::SourceFile;
use super::name::HubName;

mod by_name;
mod c4;
mod contents;
mod converted;
#[cfg(test)]
mod fake;
mod readme;
mod repo;
mod repository;
mod split;
mod task;
#[cfg(test)]
mod tests;
mod yaml;

/// The split that is read where none is asked for.
pub const SPLIT_DEFAULT: &str = "train";

/// The files that a dataset is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFiles {
    /// At least one, in reading order. All lie on the hub, and their contents are known.
    pub files: Vec<SourceFile>,
    /// The split that is read; of a corpus and its queries both, where they differ.
    pub split: Option<String>,
    /// The config that is read; of a corpus and its queries both.
    pub config: Option<String>,
    /// The commit, 40 hex digits.
    pub revision: Option<String>,
    /// What a person should hear, one sentence each: what was chosen for what was not named or is not there.
    pub warnings: Vec<String>,
}

/// Finds the files of `name`. `split` is read if it is there, and else what comes nearest, which is said; a split in the
/// name itself goes first. `split_is_asked` says whether the user named it, and decides what is said.
pub fn resolve(
    name: &HubName,
    split: &str,
    split_is_asked: bool,
    hub: &dyn Hub,
) -> Result<FoundFiles, FilesError> {
    match name {
        HubName::C4(name) => c4::resolve(*name, split, split_is_asked, hub),
        HubName::Task(name) => task::resolve(name, split, split_is_asked, hub),
        HubName::Repo(name) => repo::resolve(name, split, split_is_asked, hub),
    }
}

impl FilesError {
    /// Whether the rights of whoever asks the hub do not suffice.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Hub(error) if error.is_refused())
    }
}

/// Why no files were found.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The hub gave no answer, and says why.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// No file that can be read, and no conversion.
    #[error(
        "{repo} at {commit} has no file that can be read (.parquet, .jsonl, .json, .csv, .tsv or .txt), and the hub has \
         not converted it either; name another dataset"
    )]
    NoData {
        /// The repository.
        repo: Repo,
        /// Its commit.
        commit: String,
        /// What was said of the branch with conversions.
        #[source]
        source: Box<HubError>,
    },
    /// No file that can be read, and nothing in the conversion.
    #[error(
        "{repo} at {commit} has no file that can be read (.parquet, .jsonl, .json, .csv, .tsv or .txt); name another \
         dataset"
    )]
    Empty {
        /// The repository.
        repo: Repo,
        /// Its commit.
        commit: String,
    },
    /// A config that the repository does not have.
    #[error("{repo} has no config {config:?}; there are {known}{hint}")]
    NoConfig {
        /// The repository.
        repo: Repo,
        /// The config wanted.
        config: String,
        /// Those that there are, cut where they are many.
        known: String,
        /// What was most likely meant, or nothing.
        hint: String,
    },
    /// A repository of C4 without the files of a config.
    #[error("{repo} at {commit} has no files of config {config:?}; take allenai/c4 or a whole copy of it")]
    NoShards {
        /// The repository.
        repo: Repo,
        /// Its commit.
        commit: String,
        /// The config wanted.
        config: String,
    },
}

/// The parts, each once, as they are told together.
fn joined<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut seen: Vec<&str> = Vec::new();
    for part in parts {
        if !seen.contains(&part) {
            seen.push(part);
        }
    }
    seen.join(", ")
}
