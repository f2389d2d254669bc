//! `datasets`: which datasets have names of their own, and what would be read of one.

use lsa_common::dataset::DatasetName;
use lsa_common::dataset::files::FilesError;

mod list;
mod show;

pub use list::list;
pub use show::show;

/// What `datasets` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DatasetsArgs {
    /// What to do instead of listing.
    #[command(subcommand)]
    pub command: Option<DatasetsCommand>,
    /// Which datasets to list, and how.
    #[command(flatten)]
    pub list: ListArgs,
}

/// What `datasets` does besides listing.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum DatasetsCommand {
    /// Which files and columns of a dataset would be read
    Show(ShowArgs),
}

/// Which datasets are listed, and how.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ListArgs {
    /// Only tasks of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
    /// Only those in this language: deu, or deu-Latn
    #[arg(long, value_name = "CODE")]
    pub language: Option<String>,
    /// Only those with these words in the name or the repository
    #[arg(long, value_name = "WORDS")]
    pub search: Option<String>,
    /// Only those that can be read
    #[arg(long)]
    pub readable: bool,
    /// Do not cut cells so that a line fits 80 columns; always so where the list is not printed on a terminal
    #[arg(long)]
    pub wide: bool,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// Which dataset is shown, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct ShowArgs {
    /// c4, a task, either with /SUBSET, or hf:owner/name
    pub name: DatasetName,
    /// The split to read, where it is there
    #[arg(long)]
    pub split: Option<String>,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

impl DatasetsError {
    /// Whether the rights of whoever asks the hub do not suffice.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Files(error) if error.is_refused())
    }
}

/// Why nothing is listed or shown.
#[derive(Debug, thiserror::Error)]
pub enum DatasetsError {
    /// A type that no task has.
    #[error("--type: no task is of type {kind:?}; there are {known}{hint}")]
    NoKind {
        /// The type as typed.
        kind: String,
        /// All types.
        known: String,
        /// What was most likely meant, or nothing.
        hint: String,
    },
    /// A language in which there is nothing.
    #[error("--language: nothing is in {language:?}; write a code of three letters such as deu{hint}")]
    NoLanguage {
        /// The language as typed.
        language: String,
        /// What was most likely meant, or nothing.
        hint: String,
    },
    /// A name of files that are not in a repository.
    #[error("{0} is not on the hub; name c4, a task or hf:owner/name")]
    NotOnHub(DatasetName),
    /// The files were not found.
    #[error(transparent)]
    Files(#[from] FilesError),
}
