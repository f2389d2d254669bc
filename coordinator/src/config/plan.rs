//! `plan`: what would run; touches nothing.

use clap::Args;

use super::run::merged;
use super::{GridArgs, Machine, MachineArgs};
use crate::grid::{Grid, GridErrors};

const EXAMPLES: &str = "\
Examples:
  lsa-coordinator plan examples/large-scale-analysis.toml
  lsa-coordinator plan --model ./all-MiniLM-L6-v2 --pooling mean cls --dataset file:reviews.txt --json";

/// Show what would run: experiments, shared extractions, rows, FLOP, bytes, memory, what is done already
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = EXAMPLES)]
pub struct PlanArgs {
    /// What would run.
    #[command(flatten)]
    pub grid: GridArgs,

    /// Where and on what.
    #[command(flatten)]
    pub machine: MachineArgs,

    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// [`PlanArgs`], checked.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanConfig {
    /// What would run.
    pub grid: Grid,
    /// Where and on what.
    pub machine: Machine,
    /// Print JSON.
    pub json: bool,
}

impl PlanArgs {
    /// The configuration; all faults of file and flags at once.
    pub fn into_config(self) -> Result<PlanConfig, GridErrors> {
        let mut faults = Vec::new();
        let machine = self.machine.check(&mut faults);
        Ok(PlanConfig { grid: merged(self.grid.into_grid(), faults)?, machine, json: self.json })
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        plan: PlanArgs,
    }

    #[test]
    fn plan_takes_what_run_takes() {
        Cli::command().debug_assert();
        let words = ["plan", "--model", "m", "--dataset", "file:t.txt", "--workers", "2", "--json"];
        let config =
            Cli::try_parse_from(words).expect("valid usage").plan.into_config().expect("valid flags");
        assert_eq!((config.grid.requests.len(), config.machine.workers, config.json), (1, 2, true));
    }
}
