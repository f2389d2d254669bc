//! `lsa-coordinator`: arguments, configuration, run, exit code.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{CommandFactory, Parser, Subcommand};
use lsa_common::id::Epoch;
use lsa_common::job::JobSpec;
use lsa_common::model_source::Fetch;
use lsa_common::record::RunState;
use lsa_common::store::Store;
use lsa_common::telemetry::{self, TelemetryArgs};
use lsa_common::wire::job::JobState;
use lsa_coordinator::client::fetch::{self, FetchArgs};
use lsa_coordinator::client::show::{self, DrainArgs, ListArgs};
use lsa_coordinator::client::submit::submit;
use lsa_coordinator::client::{ClientError, CoordinatorArgs, JobArgs};
use lsa_coordinator::config::{GridArgs, Machine, PlanArgs, RunArgs};
use lsa_coordinator::daemon::{self, DaemonError, ServeArgs};
use lsa_coordinator::datasets::{self, DatasetsArgs, DatasetsCommand};
use lsa_coordinator::forecast::{self, Forecast};
use lsa_coordinator::grid::Grid;
use lsa_coordinator::identity::Identity;
use lsa_coordinator::local::{self, LocalConfig, LocalEnd, LocalError};
use lsa_coordinator::maintain::doctor::{self, DoctorArgs};
use lsa_coordinator::maintain::evict::evict;
use lsa_coordinator::maintain::gc::{self, GcArgs, GcError};
use lsa_coordinator::maintain::mirror::{self, MirrorArgs, MirrorCommandError};
use lsa_coordinator::metrics::{self, MetricsArgs};
use lsa_coordinator::output;
use lsa_coordinator::progress::Progress;
use lsa_coordinator::report::{self, ReportArgs};
use lsa_coordinator::resolve::resolve;
use lsa_coordinator::sources::{AskCoordinator, AskHub, Keep, Repositories};
use lsa_coordinator::{hub_access, random_id};
use tokio::runtime::Handle;

/// Measures how similar the layers of transformer models are to each other.
///
/// `run` does everything on this machine. `serve`, `submit` and `lsa-worker serve` do the same on a cluster.
#[derive(Parser)]
#[command(name = "lsa-coordinator", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

#[derive(Subcommand)]
enum Command {
    Run(Box<RunArgs>),
    Plan(Box<PlanArgs>),
    /// Lead: accept jobs and lend their work to workers
    Serve(ServeArgs),
    /// Have a running coordinator run a grid; local files that it names go along
    Submit(Box<SubmitArgs>),
    /// How a job stands
    Status(JobArgs),
    /// Follow a job until it ends
    Watch(JobArgs),
    /// All jobs
    Jobs(ListArgs),
    /// All workers
    Workers(ListArgs),
    /// Lend nothing more of a job for now; what is under way is finished
    Pause(JobArgs),
    /// Go on with a job that was paused
    Resume(JobArgs),
    /// End a job
    Cancel(JobArgs),
    /// Have a worker finish its unit and leave
    Drain(DrainArgs),
    /// What happened to a job
    Logs(JobArgs),
    /// Results of a finished job into a directory
    Fetch(FetchArgs),
    /// Put models and datasets of the hub into the bucket, for machines without internet
    Mirror(Box<MirrorArgs>),
    /// Remove from a bucket what no run can need any more
    Gc(GcArgs),
    /// What a store really does, and whether it is safe
    Doctor(DoctorArgs),
    /// Draw the figures of a results directory again, also of one that holds only .pkl files and metadata.json
    Report(ReportArgs),
    /// The metrics, with formula, source, cost and properties
    Metrics(MetricsArgs),
    /// The datasets that have names of their own
    Datasets(DatasetsArgs),
    /// A completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

const SUBMIT_EXAMPLES: &str = "\
Examples:
  lsa-coordinator submit grid.toml --watch --output-dir results
  lsa-coordinator submit --model ./all-MiniLM-L6-v2 --dataset file:reviews.txt --coordinator http://leader:7300
  lsa-coordinator submit grid.toml --set similarity.trials=10 --dry-run";

/// What `submit` takes.
#[derive(clap::Args)]
#[command(after_help = SUBMIT_EXAMPLES)]
struct SubmitArgs {
    #[command(flatten)]
    grid: GridArgs,
    #[command(flatten)]
    coordinator: CoordinatorArgs,
    /// Follow the job until it ends; interrupting only detaches
    #[arg(long)]
    watch: bool,
    /// Fetch the results here when the job has ended
    #[arg(long, short, value_name = "DIR", requires = "watch")]
    output_dir: Option<std::path::PathBuf>,
    /// Show what would run, and stop
    #[arg(long)]
    dry_run: bool,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// What a user can mend before any work: exit 2.
const USAGE: u8 = 2;
/// It could have worked, but did not.
const FAILED: u8 = 1;
/// Finished, but some experiments failed.
const PARTIAL: u8 = 3;
/// Somebody wants to know who asks.
const REFUSED: u8 = 4;
/// Ctrl-C.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        let _telemetry = match telemetry::init(&cli.telemetry, "lsa-coordinator") {
            Ok(telemetry) => telemetry,
            Err(error) => return fault(&error.into(), USAGE),
        };
        match execute(cli.command, &cli.telemetry.log).await {
            Ok(code) => ExitCode::from(code),
            Err(Failure::Usage(error)) => fault(&error, USAGE),
            Err(Failure::Refused(error)) => fault(&error, REFUSED),
            Err(Failure::Other(error)) => fault(&error, exit_code(&error)),
        }
    });
    // Tasks that still wait for the network must not hold up the end.
    runtime.shutdown_background();
    code
}

/// Tells all that is wrong, a line each.
fn fault(error: &anyhow::Error, code: u8) -> ExitCode {
    lsa_coordinator::chain(&**error).lines().for_each(|line| eprintln!("error: {line}"));
    ExitCode::from(code)
}

/// 2 where the user can mend it before any work, 1 where the work failed.
fn exit_code(error: &anyhow::Error) -> u8 {
    let by_user = error.downcast_ref::<ClientError>().is_some_and(ClientError::is_usage)
        || error.downcast_ref::<GcError>().is_some_and(GcError::is_usage)
        || error.downcast_ref::<DaemonError>().is_some_and(DaemonError::is_usage)
        || error.downcast_ref::<LocalError>().is_some_and(LocalError::is_usage)
        || error.downcast_ref::<MirrorCommandError>().is_some_and(MirrorCommandError::is_usage);
    if by_user { USAGE } else { FAILED }
}

enum Failure {
    Usage(anyhow::Error),
    Refused(anyhow::Error),
    Other(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

fn usage<E: Into<anyhow::Error>>(error: E) -> Failure {
    Failure::Usage(error.into())
}

async fn execute(command: Command, log: &str) -> Result<u8, Failure> {
    match command {
        Command::Run(args) => run(*args, log).await,
        Command::Plan(args) => {
            let config = args.into_config().map_err(usage)?;
            plan(&config.grid, &config.machine, config.json).await?;
            Ok(0)
        }
        Command::Serve(args) => {
            daemon::serve(&args).await?;
            Ok(0)
        }
        Command::Submit(args) => submit_grid(*args).await,
        Command::Status(args) => Ok(state_code(show::status(&args).await?.state())),
        Command::Watch(args) => Ok(state_code(show::watch(&args).await?.state())),
        Command::Jobs(args) => done(show::jobs(&args).await),
        Command::Workers(args) => done(show::workers(&args).await),
        Command::Pause(args) => done(show::pause(&args, true).await),
        Command::Resume(args) => done(show::pause(&args, false).await),
        Command::Cancel(args) => done(show::cancel(&args).await),
        Command::Drain(args) => done(show::drain(&args).await),
        Command::Logs(args) => done(show::logs(&args).await),
        Command::Fetch(args) => {
            output::check_writable(&args.output_dir).map_err(usage)?;
            let n_files = fetch::fetch(&args).await?;
            match args.job.json {
                true => {
                    let json = serde_json::json!({
                        "job": args.job.job, "files": n_files, "output_dir": args.output_dir,
                    });
                    println!("{}", serde_json::to_string_pretty(&json)?);
                }
                false => println!("{n_files} files in {}", args.output_dir.display()),
            }
            Ok(0)
        }
        Command::Mirror(args) => {
            mirror::run(*args).await.map_err(|error| match error.is_refused() {
                true => Failure::Refused(error.into()),
                false => error.into(),
            })?;
            Ok(0)
        }
        Command::Gc(args) => {
            let collected = gc::run(&args).await?;
            match args.json {
                true => println!("{}", serde_json::to_string_pretty(&collected)?),
                false => print!("{}", collected.to_text(args.dry_run)),
            }
            Ok(0)
        }
        Command::Doctor(args) => {
            let diagnosis = doctor::run(&args).await.map_err(usage)?;
            match args.json {
                true => println!("{}", serde_json::to_string_pretty(&diagnosis)?),
                false => emit(&diagnosis.to_text())?,
            }
            Ok(if diagnosis.safe { 0 } else { FAILED })
        }
        Command::Report(args) => {
            let summary = report::run(&args).map_err(|error| match error.exit_code() {
                USAGE => usage(error),
                _ => error.into(),
            })?;
            if args.json {
                println!("{}", serde_json::to_string_pretty(&summary)?);
                return Ok(summary.exit_code());
            }
            summary.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
            for (path, reason) in &summary.failures {
                eprintln!("not drawn: {}: {reason}", path.display());
            }
            let n_directories = summary.experiments.len();
            let directories = if n_directories == 1 { "directory" } else { "directories" };
            println!("{} figures in {n_directories} {directories}", summary.figures.len());
            Ok(summary.exit_code())
        }
        Command::Metrics(args) => {
            emit(&metrics::list(args))?;
            Ok(0)
        }
        Command::Datasets(DatasetsArgs { command: None, list }) => {
            emit(&datasets::list(&list, io::stdout().is_terminal()).map_err(usage)?)?;
            Ok(0)
        }
        Command::Datasets(DatasetsArgs { command: Some(DatasetsCommand::Show(args)), .. }) => {
            let hub = hub_access::hub().map_err(usage)?;
            let shown = tokio::task::spawn_blocking(move || datasets::show(&*hub, &args)).await?;
            emit(&shown.map_err(|error| match error.is_refused() {
                true => Failure::Refused(error.into()),
                false => usage(error),
            })?)?;
            Ok(0)
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "lsa-coordinator", &mut std::io::stdout());
            Ok(0)
        }
    }
}

/// Prints a long text. A reader such as `head` that has seen enough is no fault.
fn emit(text: &str) -> io::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

fn done(result: Result<(), ClientError>) -> Result<u8, Failure> {
    result?;
    Ok(0)
}

fn state_code(state: JobState) -> u8 {
    match state {
        JobState::Unspecified | JobState::Running | JobState::Done => 0,
        JobState::Partial => PARTIAL,
        JobState::Failed | JobState::Cancelled => FAILED,
    }
}

/// Reads configs, headers and datasets; blocking, so on a thread of its own.
async fn resolved(grid: &Grid, repositories: impl Repositories + Send + 'static) -> Result<JobSpec, Failure> {
    let grid = grid.clone();
    let told = |line: &str| tracing::info!("{line}");
    let spec = tokio::task::spawn_blocking(move || resolve(&grid, &repositories, &told)).await?;
    spec.map_err(|errors| match errors.is_refused {
        true => Failure::Refused(errors.into()),
        false => usage(errors),
    })
}

/// A hub of which everything is fetched that a run needs, and whose texts go into the bucket.
fn fetched(grid: &Grid, place: &str) -> Result<AskHub, Failure> {
    let (mirror, runtime) = (grid.run.mirror, Handle::current());
    let existing = Store::open_existing(place).map_err(usage)?;
    let hub = hub_access::for_this_machine(mirror, existing.as_ref(), &runtime).map_err(usage)?;
    let (place, wait) = (place.to_owned(), runtime.clone());
    let open = move || {
        let store = Store::open(&place)?;
        wait.block_on(store.prepare()).map(|()| store)
    };
    let keep = Keep::In { open: Arc::new(open), identity: Identity::new(random_id(), Epoch(0)) };
    Ok(AskHub { hub, fetch: Fetch::Weights, keep, runtime })
}

/// A hub of which as little is read as possible.
fn looked_at(grid: &Grid, store: Option<Store>) -> Result<AskHub, Failure> {
    let runtime = Handle::current();
    let hub = hub_access::for_this_machine(grid.run.mirror, store.as_ref(), &runtime).map_err(usage)?;
    Ok(AskHub { hub, fetch: Fetch::Headers, keep: Keep::Nothing(store), runtime })
}

/// What a user should know before the work begins, each once.
fn notes(spec: &JobSpec) -> BTreeSet<&String> {
    spec.experiments.iter().flat_map(|experiment| &experiment.warnings).collect()
}

fn store_place(machine: &Machine) -> String {
    let default = || lsa_common::config::default_store().display().to_string();
    machine.store.clone().unwrap_or_else(default)
}

async fn plan(grid: &Grid, machine: &Machine, json: bool) -> Result<(), Failure> {
    let store = Store::open_existing(&store_place(machine)).map_err(usage)?;
    let spec = resolved(grid, looked_at(grid, store.clone())?).await?;
    print(&forecast::forecast(&spec, store.as_ref()).await?, json)
}

fn print(forecast: &Forecast, json: bool) -> Result<(), Failure> {
    match json {
        true => println!("{}", serde_json::to_string_pretty(forecast)?),
        false => print!("{}", forecast.to_text()),
    }
    Ok(())
}

async fn run(args: RunArgs, log: &str) -> Result<u8, Failure> {
    let config = args.into_config().map_err(usage)?;
    if let (false, Some(directory)) = (config.dry_run, &config.output_dir) {
        output::check_writable(directory).map_err(usage)?;
    }
    let Some(output_dir) = config.output_dir.filter(|_| !config.dry_run) else {
        plan(&config.grid, &config.machine, config.json).await?;
        return Ok(0);
    };
    let place = store_place(&config.machine);
    let mut spec = resolved(&config.grid, fetched(&config.grid, &place)?).await?;
    // Workers of one machine share its cache.
    spec.run.mirror = false;
    let store = Store::open(&place).map_err(usage)?;
    check_free_space(&spec, &store).map_err(usage)?;
    let mut progress = Progress::new();
    progress.say(&format!("job {} · bucket {}", spec.id(), store.url()));
    notes(&spec).iter().for_each(|warning| progress.say(&format!("note: {warning}")));
    let local = LocalConfig {
        spec: spec.clone(),
        output_dir: output_dir.clone(),
        store: store.clone(),
        workers: config.machine.workers,
        threads: config.machine.threads,
        device: config.machine.device.clone(),
        log: log.to_owned(),
    };
    let result = match local::run(local, &mut progress).await? {
        LocalEnd::Ended(result) => *result,
        LocalEnd::Interrupted => {
            eprintln!("interrupted; the same command goes on where this one stopped");
            return Ok(INTERRUPTED);
        }
    };
    if let Some(limit_bytes) = config.machine.store_limit_bytes {
        let evicted = evict(&store, limit_bytes, &result.extractions).await?;
        if evicted.extractions > 0 {
            let (n, freed) = (evicted.extractions, forecast::bytes(evicted.bytes));
            progress
                .say(&format!("evicted {n} extractions, {freed}, to keep the bucket within --store-limit"));
        }
    }
    let snapshot = &result.snapshot;
    let view = &snapshot.view;
    if config.json {
        let summary = serde_json::json!({
            "job": snapshot.job, "run": snapshot.run, "state": view.state, "units_run": view.units_run,
            "units_total": view.units_total, "elapsed_ms": snapshot.elapsed_ms, "output_dir": output_dir,
        });
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        println!(
            "{} units run, {} found done · {:.1} s · results in {}",
            view.units_run,
            view.units_done.saturating_sub(view.units_run),
            snapshot.elapsed_ms as f64 / 1000.0,
            output_dir.display()
        );
    }
    report_failures(&result);
    Ok(match view.state {
        RunState::Running | RunState::Done => 0,
        RunState::Partial => PARTIAL,
        RunState::Failed | RunState::Cancelled => FAILED,
    })
}

fn report_failures(result: &local::LocalResult) {
    use lsa_coordinator::scheduler::ExperimentStatus;
    let spec = &result.snapshot.spec;
    for (experiment, status) in spec.experiments.iter().zip(&result.experiments) {
        match status {
            ExperimentStatus::Failed(message) => eprintln!("failed: {}: {message}", experiment.name),
            ExperimentStatus::Cancelled => eprintln!("not run: {}", experiment.name),
            ExperimentStatus::Waiting | ExperimentStatus::Merging | ExperimentStatus::Done => {}
        }
    }
    for unresolved in &spec.unresolved {
        eprintln!("failed: {}: {}", unresolved.name, unresolved.error);
    }
}

/// Refuses a job whose embeddings cannot fit beside what is there.
fn check_free_space(spec: &JobSpec, store: &Store) -> anyhow::Result<()> {
    let Some(folder) = store.folder() else { return Ok(()) };
    let free = nix::sys::statvfs::statvfs(folder).context("cannot ask for the bucket's free space")?;
    let free_bytes = free.blocks_available().saturating_mul(free.fragment_size());
    let needed = forecast::embedding_bytes(spec);
    anyhow::ensure!(
        needed <= free_bytes,
        "the job writes up to {} but the bucket's file system has {} free; free space, choose another --store, or \
         take fewer texts or layers",
        forecast::bytes(needed),
        forecast::bytes(free_bytes)
    );
    Ok(())
}

async fn submit_grid(args: SubmitArgs) -> Result<u8, Failure> {
    let grid = args.grid.into_grid().map_err(usage)?;
    if args.dry_run {
        let spec = resolved(&grid, looked_at(&grid, None)?).await?;
        print(&forecast::forecast(&spec, None).await?, args.json)?;
        return Ok(0);
    }
    if let Some(directory) = &args.output_dir {
        output::check_writable(directory).map_err(usage)?;
    }
    let (coordinator, mirror) = (args.coordinator.clone(), grid.run.mirror);
    let spec = resolved(&grid, AskCoordinator { coordinator, mirror, runtime: Handle::current() }).await?;
    let mut client = args.coordinator.connect().await?;
    notes(&spec).iter().for_each(|warning| eprintln!("note: {warning}"));
    let reply = submit(&mut client, &spec, &|line| eprintln!("{line}")).await?;
    if !args.watch {
        match args.json {
            true => {
                let json =
                    serde_json::json!({ "job": reply.job_id, "run": reply.run, "attached": reply.attached });
                println!("{}", serde_json::to_string_pretty(&json)?);
            }
            false => println!("{}", reply.job_id),
        }
        return Ok(0);
    }
    eprintln!("job {} (run {}); interrupting only detaches", reply.job_id, reply.run);
    let status = show::follow(&args.coordinator, &mut client, &reply.job_id).await?;
    show::print_status(&status, args.json);
    if let Some(directory) = &args.output_dir {
        fetch_results(&mut client, &reply.job_id, directory).await?;
    }
    Ok(state_code(status.state()))
}

async fn fetch_results(
    client: &mut lsa_coordinator::client::Client,
    job: &str,
    directory: &Path,
) -> Result<(), ClientError> {
    let n_files = fetch::fetch_into(client, job, directory).await?;
    eprintln!("{n_files} files in {}", directory.display());
    Ok(())
}
