//! What is wrong with what the user typed: where, what, and how to mend it.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;

/// Faults shown at most; a file that is wrong in more places is better mended step by step.
const FAULTS_SHOWN: usize = 50;

/// Where a value was typed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// In the grid file; line and column count from 1, columns in characters.
    File {
        /// The line.
        line: u32,
        /// The column.
        column: u32,
    },
    /// On the command line, under this flag.
    Flag(String),
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    /// Where; none where something is missing altogether.
    pub place: Option<Place>,
    /// What, and how to mend it.
    pub message: String,
}

/// All that is wrong with a grid; exit code 2. Prints one fault a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct GridErrors {
    /// The grid file, where there is one.
    pub file: Option<PathBuf>,
    /// The faults, in the order in which they stand in the file; at least one.
    pub faults: Vec<Fault>,
}

impl fmt::Display for GridErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.as_ref().map(|path| path.display().to_string());
        for (fault_idx, Fault { place, message }) in self.faults.iter().take(FAULTS_SHOWN).enumerate() {
            if fault_idx > 0 {
                writeln!(f)?;
            }
            match (place, &file) {
                (Some(Place::File { line, column }), Some(file)) => {
                    write!(f, "{file}:{line}:{column}: {message}")?
                }
                (Some(Place::File { line, column }), None) => write!(f, "{line}:{column}: {message}")?,
                (Some(Place::Flag(flag)), _) => write!(f, "{flag}: {message}")?,
                (None, Some(file)) => write!(f, "{file}: {message}")?,
                (None, None) => write!(f, "{message}")?,
            }
        }
        match self.faults.len().saturating_sub(FAULTS_SHOWN) {
            0 => Ok(()),
            n_left => write!(f, "\nand {n_left} more faults"),
        }
    }
}

/// Collects faults; the same one is kept once.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    faults: Vec<Fault>,
    seen: HashSet<Fault>,
}

impl Faults {
    /// Adds a fault.
    pub(crate) fn add(&mut self, place: Option<&Place>, message: impl Into<String>) {
        let fault = Fault { place: place.cloned(), message: message.into() };
        if self.seen.insert(fault.clone()) {
            self.faults.push(fault);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    /// The faults as an error, in file order, those of flags last.
    pub(crate) fn into_errors(mut self, file: Option<PathBuf>) -> GridErrors {
        self.faults.sort_by(|a, b| a.place.cmp(&b.place));
        GridErrors { file, faults: self.faults }
    }
}

/// A value that the user typed, quoted and cut for a message.
pub(crate) fn shown(text: &str) -> String {
    const CHARS: usize = 80;
    match text.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
