//! What can be wrong with the name of a dataset.

use crate::dataset::catalogue::Unreadable;

/// Why a text is not the name of a dataset that can be read. Each is the user's to mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing is called so.
    #[error("there is no dataset {name:?}; {hint}")]
    Unknown {
        /// The name as typed.
        name: String,
        /// What was most likely meant, or where to look.
        hint: String,
    },
    /// A path without `file:` in front.
    #[error("dataset {name:?} looks like a path; write file:{name}")]
    NoScheme {
        /// The name as typed.
        name: String,
    },
    /// A word before a colon that is none of the known ones.
    #[error("dataset {name:?} begins with none of file:, hf: and s3://{hint}")]
    UnknownScheme {
        /// The name as typed.
        name: String,
        /// What was most likely meant, or nothing.
        hint: String,
    },
    /// A place that this program does not reach.
    #[error("dataset {name:?} cannot be reached: {reason}")]
    OtherPlace {
        /// The name as typed.
        name: String,
        /// Why, and what to do instead.
        reason: &'static str,
    },
    /// A known beginning with something wrong after it.
    #[error("dataset {name:?} is malformed: {reason}; write {form}")]
    Malformed {
        /// The name as typed.
        name: String,
        /// What is wrong.
        reason: &'static str,
        /// How such names look.
        form: &'static str,
    },
    /// An ending that no reader knows.
    #[error(
        "dataset {name:?} has an unknown ending; known are .txt, .jsonl, .json, .csv, .tsv and .parquet, each also \
         with .gz, .bz2, .xz or .zst"
    )]
    UnknownFormat {
        /// The name as typed.
        name: String,
    },
    /// A subset that a task or C4 does not have.
    #[error("{subset:?} is no {what}; there are {known}{hint}")]
    NoSubset {
        /// The subset as typed.
        subset: String,
        /// What it should be, such as `subset of MassiveIntentClassification`.
        what: String,
        /// Those that there are, cut where they are many.
        known: String,
        /// What was most likely meant, or nothing.
        hint: String,
    },
    /// A subset of a task that has none.
    #[error("{task} has no subsets; leave out \"/{subset}\"")]
    NotDivided {
        /// The task.
        task: &'static str,
        /// The subset as typed.
        subset: String,
    },
    /// A task of which no texts can be had.
    #[error("{task} cannot be read: {reason}; `lsa-coordinator datasets` lists those that can")]
    Unreadable {
        /// The task.
        task: &'static str,
        /// Why.
        reason: Unreadable,
    },
}
