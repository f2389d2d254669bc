//! `doctor`: what a store really does, check by check, and whether it is safe.
//!
//! Every check is made through the same code that the system uses. A check that fails where the system's promises rest
//! on it makes the store unsafe; one that would only be a nuisance is a warning.

mod checks;
mod peer;

use clap::Args;
use lsa_common::store::{Store, StoreError};
use serde::Serialize;

use checks::Bench;

const EXAMPLES: &str = "\
Examples:
  lsa-coordinator doctor --store s3://bucket/prefix
  AWS_PROFILE=lab lsa-coordinator doctor --store 's3://bucket/prefix?endpoint=https://s3.lab.example'

  A folder of a network file system, on two machines at about the same time:
    lsa-coordinator doctor --store /shared/lsa --peer

Exit codes: 0 safe, 1 not safe, 2 usage or configuration.";

/// What `doctor` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct DoctorArgs {
    /// The bucket: a folder or URL
    #[arg(long, env = "LSA_STORE", value_name = "PATH_OR_URL")]
    pub store: String,
    /// Meet another `doctor --peer` of the same store, started on another machine within two minutes
    #[arg(long)]
    pub peer: bool,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Work is safe, but somebody should know.
    Warning,
    /// Work would not be safe, or cannot be done.
    Failed,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// What was found.
    pub verdict: Verdict,
    /// In words, with figures.
    pub detail: String,
}

/// All checks of a store.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// Which.
    pub store: String,
    /// No check failed.
    pub safe: bool,
    /// In the order in which they were made.
    pub checks: Vec<Check>,
}

impl Diagnosis {
    fn new(store: &Store, checks: Vec<Check>) -> Self {
        let safe = checks.iter().all(|check| check.verdict != Verdict::Failed);
        Self { store: store.url().to_owned(), safe, checks }
    }

    /// For a person.
    pub fn to_text(&self) -> String {
        let mut text = format!("store {}\n", self.store);
        for Check { name, verdict, detail } in &self.checks {
            let mark = match verdict {
                Verdict::Ok => "ok",
                Verdict::Warning => "warning",
                Verdict::Failed => "FAILED",
            };
            text += &format!("{mark:<8} {name:<14} {detail}\n");
        }
        text += match self.safe {
            true => "safe\n",
            false => "NOT SAFE: finished work could be lost or mixed; see docs/stores.md\n",
        };
        text
    }
}

/// Opens the store and makes all checks.
pub async fn run(args: &DoctorArgs) -> Result<Diagnosis, StoreError> {
    let store = Store::open(&args.store)?;
    Ok(match args.peer {
        true => peer::meet(&store).await,
        false => diagnose(&store).await,
    })
}

/// Makes all checks that one machine can make alone.
pub async fn diagnose(store: &Store) -> Diagnosis {
    Diagnosis::new(store, Bench::new(store).all().await)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(diagnosis: &Diagnosis) -> Vec<(&'static str, Verdict)> {
        diagnosis.checks.iter().map(|check| (check.name, check.verdict)).collect()
    }

    #[tokio::test]
    async fn a_directory_is_safe_and_left_as_it_was() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(&folder.path().display().to_string()).expect("a folder");
        let diagnosis = diagnose(&store).await;
        assert!(diagnosis.safe, "{}", diagnosis.to_text());
        assert!(verdicts(&diagnosis).contains(&("create-only", Verdict::Ok)));
        assert_eq!(store.list("probe").await.expect("a folder"), []);
    }

    #[tokio::test]
    async fn two_that_meet_agree() {
        let store = Store::memory();
        let (here, there) = tokio::join!(peer::meet(&store), peer::meet(&store));
        for diagnosis in [here, there] {
            assert!(diagnosis.safe, "{}", diagnosis.to_text());
            assert_eq!(verdicts(&diagnosis), [("peer", Verdict::Ok), ("race", Verdict::Ok)]);
        }
        assert_eq!(store.list("probe").await.expect("a store in memory"), []);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_nobody_meets_says_so() {
        let diagnosis = peer::meet(&Store::memory()).await;
        assert!(!diagnosis.safe && diagnosis.checks[0].detail.contains("nobody came"), "{diagnosis:?}");
    }
}
