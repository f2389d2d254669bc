//! The worker: arguments in, one command, exit code out.

use std::process::ExitCode;

use clap::Parser;
use lsa_common::reach::ReachError;
use lsa_common::telemetry::{self, TelemetryArgs};
use lsa_worker::config::{Args, Command, CommandError};
use lsa_worker::lease_loop::WorkerError;
use lsa_worker::serve::{self, ServeArgs};
use lsa_worker::{chain, device, embed, inspect, similarity, verify_model};

fn main() -> ExitCode {
    let args = Args::parse();
    device::prepare_libtorch();
    let result = match args.command {
        Command::Embed(args) => embed::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::VerifyModel(args) => verify_model::run(&args),
        Command::Similarity(args) => similarity::run(args).map_err(|error| match error.exit_code() {
            2 => CommandError::usage(error),
            _ => CommandError::failed(error),
        }),
        Command::Serve(serve) => work(serve, &args.telemetry),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

fn work(args: ServeArgs, telemetry: &TelemetryArgs) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(CommandError::failed)?;
    let result = runtime.block_on(async {
        let _telemetry = telemetry::init(telemetry, "lsa-worker").map_err(CommandError::usage)?;
        serve::run(args).await.map_err(|error| match error {
            serve::ServeError::Device(_)
            | serve::ServeError::Bucket(_)
            | serve::ServeError::Listen { .. }
            | serve::ServeError::Worker(WorkerError::Reach(ReachError::Address { .. })) => {
                CommandError::usage(error)
            }
            serve::ServeError::Worker(_) | serve::ServeError::Signals(_) => CommandError::failed(error),
        })
    });
    // Reading standard input cannot be given up; the process ends all the same.
    runtime.shutdown_background();
    result
}
