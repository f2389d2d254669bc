//! The command line: arguments as typed → configuration as used; one file per command.
//!
//! Values are taken as texts and checked together with the grid file, so that all faults are told at once.

mod flags;
mod machine;
mod plan;
mod run;

pub use flags::GridArgs;
pub use machine::{Machine, MachineArgs};
pub use plan::{PlanArgs, PlanConfig};
pub use run::{RunArgs, RunConfig};
