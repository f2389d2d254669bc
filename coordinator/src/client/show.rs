//! `status`, `watch`, `jobs`, `workers`, `pause`, `resume`, `cancel`, `drain`, `logs`.

use clap::Args;
use lsa_common::wire::job as pb;
use serde_json::{Value, json};
use tokio_stream::StreamExt as _;

use super::{Client, ClientError, CoordinatorArgs, JobArgs};
use crate::progress::{Progress, Sight};

/// A listing.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
    /// Which coordinator
    #[command(flatten)]
    pub coordinator: CoordinatorArgs,
}

/// A worker that is to leave.
#[derive(Args, Clone, Debug)]
pub struct DrainArgs {
    /// The worker's id, as `workers` lists it
    pub worker: String,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
    /// Which coordinator
    #[command(flatten)]
    pub coordinator: CoordinatorArgs,
}

/// Prints how a job stands.
pub async fn status(args: &JobArgs) -> Result<pb::JobStatus, ClientError> {
    let mut client = args.coordinator.connect().await?;
    let status = client.get_job(request(args)).await?.into_inner();
    print_status(&status, args.json);
    Ok(status)
}

/// Follows a job until it ends.
pub async fn watch(args: &JobArgs) -> Result<pb::JobStatus, ClientError> {
    let mut client = args.coordinator.connect().await?;
    let status = follow(&args.coordinator, &mut client, &args.job).await?;
    print_status(&status, args.json);
    Ok(status)
}

/// Shows a job's progress until it ends; goes on through a coordinator's restart, or with the one that takes over.
pub async fn follow(
    coordinator: &CoordinatorArgs,
    client: &mut Client,
    job: &str,
) -> Result<pb::JobStatus, ClientError> {
    let mut progress = Progress::new();
    let request = || pb::JobRequest { job_id: job.to_owned() };
    let mut statuses = client.watch_job(request()).await?.into_inner();
    let mut last = None;
    loop {
        match statuses.next().await {
            Some(Ok(status)) => {
                progress.show_sight(sight(&status));
                last = Some(status);
            }
            Some(Err(broken)) if last.is_some() => {
                progress.say(&format!("the coordinator went away ({}); waiting for it", broken.message()));
                statuses = reconnect(coordinator, client, request()).await?;
            }
            Some(Err(refused)) => return Err(refused.into()),
            None => match last {
                Some(status) if status.state() != pb::JobState::Running => {
                    progress.end();
                    return Ok(status);
                }
                _ => statuses = reconnect(coordinator, client, request()).await?,
            },
        }
    }
}

/// Tries for two minutes, as long as a standby or a restart may take.
#[expect(clippy::disallowed_methods, reason = "a client waits for its server")]
async fn reconnect(
    coordinator: &CoordinatorArgs,
    client: &mut Client,
    request: pb::JobRequest,
) -> Result<tonic::Streaming<pb::JobStatus>, ClientError> {
    const TRIES: u32 = 120;
    for _ in 1..TRIES {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        if let Ok(connected) = coordinator.connect().await {
            *client = connected;
            if let Ok(answer) = client.watch_job(request.clone()).await {
                return Ok(answer.into_inner());
            }
        }
    }
    Ok(client.watch_job(request).await?.into_inner())
}

/// Prints all jobs.
pub async fn jobs(args: &ListArgs) -> Result<(), ClientError> {
    let mut client = args.coordinator.connect().await?;
    let list = client.list_jobs(pb::ListJobsRequest {}).await?.into_inner();
    if args.json {
        print_json(&Value::Array(list.jobs.iter().map(status_json).collect()));
        return Ok(());
    }
    if list.jobs.is_empty() {
        println!("no jobs yet; `lsa-coordinator submit GRID` begins one");
    }
    let ids = list.jobs.iter().map(|job| job.job_id.len()).max().unwrap_or(0);
    for job in &list.jobs {
        let n_experiments = job.experiments_total;
        println!(
            "{:<ids$}  {:<9}  {:>3.0}%  {n_experiments} experiment{}",
            job.job_id,
            shown_state(job),
            job.fraction * 100.0,
            if n_experiments == 1 { "" } else { "s" }
        );
    }
    Ok(())
}

/// Prints all workers.
pub async fn workers(args: &ListArgs) -> Result<(), ClientError> {
    let mut client = args.coordinator.connect().await?;
    let list = client.list_workers(pb::ListWorkersRequest {}).await?.into_inner();
    if args.json {
        let worker = |worker: &pb::WorkerStatus| {
            json!({
                "worker": worker.worker_id, "device": worker.device, "threads": worker.threads,
                "memory_bytes": worker.memory_bytes, "numeric_profile": worker.numeric_profile,
                "doing": worker.doing, "connected": worker.connected, "draining": worker.draining,
            })
        };
        print_json(
            &json!({ "epoch": list.epoch, "workers": list.workers.iter().map(worker).collect::<Vec<_>>() }),
        );
        return Ok(());
    }
    if list.workers.is_empty() {
        println!(
            "no workers; `lsa-worker serve --coordinator {}` adds one",
            args.coordinator.coordinator.join(",")
        );
    }
    let ids = list.workers.iter().map(|worker| worker.worker_id.len()).max().unwrap_or(0);
    let devices = list.workers.iter().map(|worker| device_name(worker).chars().count()).max().unwrap_or(0);
    for worker in &list.workers {
        let doing = match (worker.connected, worker.doing.as_str()) {
            (false, _) => "disconnected",
            (true, "") => "idle",
            (true, doing) => doing,
        };
        let gib = worker.memory_bytes as f64 / (1u64 << 30) as f64;
        let leaving = if worker.draining { " (draining)" } else { "" };
        println!(
            "{:<ids$}  {:<devices$}  {gib:>6.1} GiB  {doing}{leaving}",
            worker.worker_id,
            device_name(worker)
        );
    }
    Ok(())
}

/// The device without the reason for which it was chosen.
fn device_name(worker: &pb::WorkerStatus) -> &str {
    worker.device.split(", chosen by ").next().unwrap_or_default()
}

/// Has nothing more of a job lent for now, or goes on with it.
pub async fn pause(args: &JobArgs, paused: bool) -> Result<(), ClientError> {
    let mut client = args.coordinator.connect().await?;
    let answer = if paused { client.pause(request(args)).await } else { client.resume(request(args)).await };
    let status = answer?.into_inner();
    match args.json {
        true => print_json(&status_json(&status)),
        false => println!("{}: {}", status.job_id, shown_state(&status)),
    }
    Ok(())
}

/// Has a worker finish its unit and leave.
pub async fn drain(args: &DrainArgs) -> Result<(), ClientError> {
    let mut client = args.coordinator.connect().await?;
    let worker = client.drain(pb::WorkerRequest { worker_id: args.worker.clone() }).await?.into_inner();
    match (args.json, worker.doing.as_str()) {
        (true, doing) => {
            print_json(&json!({ "worker": worker.worker_id, "doing": doing, "draining": worker.draining }))
        }
        (false, "") => println!("{}: leaves", worker.worker_id),
        (false, doing) => println!("{}: leaves after {doing}", worker.worker_id),
    }
    Ok(())
}

/// Ends a job.
pub async fn cancel(args: &JobArgs) -> Result<(), ClientError> {
    let mut client = args.coordinator.connect().await?;
    let status = client.cancel(request(args)).await?.into_inner();
    if args.json {
        print_json(&status_json(&status));
    } else {
        let ended_before = match status.state() {
            pb::JobState::Done | pb::JobState::Partial | pb::JobState::Failed => {
                " before it could be cancelled"
            }
            pb::JobState::Unspecified | pb::JobState::Running | pb::JobState::Cancelled => "",
        };
        println!("{}: {}{ended_before}", status.job_id, state_name(status.state()));
    }
    Ok(())
}

/// Prints what happened to a job.
pub async fn logs(args: &JobArgs) -> Result<(), ClientError> {
    let mut client = args.coordinator.connect().await?;
    let lines = client.logs(request(args)).await?.into_inner().lines;
    if args.json {
        print_json(&json!(lines));
    } else {
        lines.iter().for_each(|line| println!("{line}"));
    }
    Ok(())
}

fn request(args: &JobArgs) -> pb::JobRequest {
    pb::JobRequest { job_id: args.job.clone() }
}

/// What a person is told of a job: one that is paused does not run.
fn shown_state(status: &pb::JobStatus) -> &'static str {
    if status.paused { "paused" } else { state_name(status.state()) }
}

/// The state's name, as it is printed.
pub fn state_name(state: pb::JobState) -> &'static str {
    match state {
        pb::JobState::Unspecified => "unknown",
        pb::JobState::Running => "running",
        pb::JobState::Done => "done",
        pb::JobState::Partial => "partial",
        pb::JobState::Failed => "failed",
        pb::JobState::Cancelled => "cancelled",
    }
}

fn sight(status: &pb::JobStatus) -> Sight {
    let doing = match status.leases.as_slice() {
        [] if !status.waiting.is_empty() => format!("waiting: {}", status.waiting),
        [] => String::new(),
        [one] => one.what.clone(),
        [one, more @ ..] => format!("{} (+{})", one.what, more.len()),
    };
    Sight {
        fraction: status.fraction,
        units_done: status.units_done,
        units_total: status.units_total,
        experiments_done: usize::try_from(status.experiments_done).unwrap_or(usize::MAX),
        experiments_total: usize::try_from(status.experiments_total).unwrap_or(usize::MAX),
        doing,
    }
}

/// Prints a status for a person or a program.
pub fn print_status(status: &pb::JobStatus, as_json: bool) {
    if as_json {
        print_json(&status_json(status));
        return;
    }
    println!("{} (run {}): {}", status.job_id, status.run, shown_state(status));
    println!(
        "  {:.0}% · {} of {} units done, {} by this run · {:.1} s",
        status.fraction * 100.0,
        status.units_done,
        status.units_total,
        status.units_run,
        status.elapsed_ms as f64 / 1000.0
    );
    if !status.waiting.is_empty() {
        println!("  waiting: {}", status.waiting);
    }
    for experiment in &status.experiments {
        let error =
            if experiment.error.is_empty() { String::new() } else { format!(": {}", experiment.error) };
        println!("  {:<10} {}{error}", experiment.state, experiment.name);
    }
    for lease in &status.leases {
        // Nothing is known of a unit's size before its first report.
        let progress = match lease.total {
            0 => String::new(),
            total => format!(" · {} of {total}", lease.done),
        };
        println!("  {}{progress} · {}", lease.what, lease.worker_id);
    }
}

/// A status as JSON.
pub fn status_json(status: &pb::JobStatus) -> Value {
    let experiment = |experiment: &pb::ExperimentStatus| json!({ "name": experiment.name, "state": experiment.state, "error": experiment.error });
    let lease = |lease: &pb::LeaseStatus| {
        json!({
            "unit": lease.unit_id, "attempt": lease.attempt_id, "attempt_number": lease.attempt_number,
            "worker": lease.worker_id, "what": lease.what, "done": lease.done, "total": lease.total,
        })
    };
    json!({
        "job": status.job_id, "run": status.run, "name": status.name, "state": state_name(status.state()),
        "waiting": status.waiting, "units_total": status.units_total, "units_done": status.units_done,
        "units_run": status.units_run, "fraction": status.fraction, "elapsed_ms": status.elapsed_ms,
        "paused": status.paused, "experiments_total": status.experiments_total,
        "experiments_done": status.experiments_done,
        "experiments": status.experiments.iter().map(experiment).collect::<Vec<_>>(),
        "leases": status.leases.iter().map(lease).collect::<Vec<_>>(),
    })
}

fn print_json(value: &Value) {
    println!("{}", serde_json::to_string_pretty(value).expect("plain JSON values serialise"));
}
