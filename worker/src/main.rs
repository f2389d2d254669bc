//! The worker: arguments in, one command, exit code out.

use std::process::ExitCode;

use clap::Parser;
use lsa_worker::config::{Args, Command};
use lsa_worker::{device, embed, inspect};

fn main() -> ExitCode {
    let args = Args::parse();
    device::prepare_libtorch();
    let result = match args.command {
        Command::Embed(args) => embed::run(&args),
        Command::Inspect(args) => inspect::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error.chain());
            ExitCode::from(error.exit_code())
        }
    }
}
