//! The command line of `lsa-worker`, and how its commands fail.

use std::error::Error;
use std::fmt::Display;

use clap::{Parser, Subcommand};

use lsa_common::telemetry::TelemetryArgs;

use crate::embed::EmbedArgs;
use crate::inspect::InspectArgs;
use crate::serve::ServeArgs;
use crate::similarity::SimilarityArgs;
use crate::verify_model::VerifyModelArgs;

/// Runs texts through transformer models and compares their layers.
#[derive(Debug, Parser)]
#[command(name = "lsa-worker", version, max_term_width = 110)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What to log.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// The commands; each has its arguments in its own file.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write one vector per line of a text file, for every layer and pooling.
    Embed(EmbedArgs),
    /// Say what a model is and needs, without loading its weights.
    Inspect(InspectArgs),
    /// Compare the layers of a file of representations.
    Similarity(SimilarityArgs),
    /// Compare every layer and pooling of a model with stored hidden states.
    VerifyModel(VerifyModelArgs),
    /// Work for a coordinator until told to stop.
    Serve(ServeArgs),
}

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// What the user gave cannot work: arguments, files, models.
    #[error(transparent)]
    Usage(Box<dyn Error + Send + Sync>),
    /// It could have worked, but did not.
    #[error(transparent)]
    Failed(Box<dyn Error + Send + Sync>),
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
}

impl CommandError {
    /// A fault of the user's input.
    pub fn usage(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Usage(error.into())
    }

    /// A fault of anything else.
    pub fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(error.into())
    }

    /// The exit code of the process: 1 failed, 2 usage, 130 interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Interrupted => 130,
        }
    }
}

/// The values of a flag that takes several, separated by spaces or commas, each once, in the order given.
///
/// Faults are added to `faults`: an unknown name with the known ones, and a list without any.
pub fn names<T: Copy + PartialEq + Display>(
    flag: &str,
    given: &[String],
    known: &[T],
    parse: impl Fn(&str) -> Option<T>,
    faults: &mut Vec<String>,
) -> Vec<T> {
    let mut values = Vec::new();
    for name in given.iter().flat_map(|value| value.split(',')).map(str::trim).filter(|name| !name.is_empty())
    {
        match parse(name) {
            Some(value) if values.contains(&value) => {}
            Some(value) => values.push(value),
            None => faults.push(format!("{flag}: {name:?} is unknown; known: {}", listed(known))),
        }
    }
    if values.is_empty() && faults.is_empty() {
        faults.push(format!("{flag}: no value given; known: {}", listed(known)));
    }
    values
}

fn listed<T: Display>(known: &[T]) -> String {
    known.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use lsa_common::model::Pooling;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn several_values_by_spaces_commas_and_repetition() {
        let check = |given: &[&str], expected: &[Pooling], n_faults: usize| {
            let given: Vec<String> = given.iter().map(|value| (*value).to_owned()).collect();
            let mut faults = Vec::new();
            let found = names("--pooling", &given, &Pooling::ALL, Pooling::parse, &mut faults);
            assert_eq!((found.as_slice(), faults.len()), (expected, n_faults), "{given:?}: {faults:?}");
        };
        check(&["mean", "cls"], &[Pooling::Mean, Pooling::Cls], 0);
        check(&["mean,cls", "mean"], &[Pooling::Mean, Pooling::Cls], 0);
        check(&["mean,", " cls"], &[Pooling::Mean, Pooling::Cls], 0);
        check(&["men", "clss"], &[], 2);
        check(&[","], &[], 1);
    }

    #[test]
    fn causes_are_printed_once_each() {
        let inner = std::io::Error::other("disk full");
        let outer = lsa_common::model_source::ModelSourceError::Io { path: "x".into(), source: inner };
        assert_eq!(crate::chain(&CommandError::failed(outer)), "cannot read x: disk full");
    }
}
