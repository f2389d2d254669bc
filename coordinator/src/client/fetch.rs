//! `fetch`: a finished job's results into a directory.

use std::path::PathBuf;

use clap::Args;
use lsa_common::job::is_plain_name;
use lsa_common::wire::job as pb;
use tokio_stream::StreamExt as _;

use super::show::state_name;
use super::{Client, ClientError, JobArgs};
use crate::output::replace;

const EXAMPLES: &str = "\
Examples:
  lsa-coordinator fetch compare-models --output-dir results
  lsa-coordinator fetch compare-models-3f2a -o results --coordinator http://leader:7300 --json";

/// What `fetch` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct FetchArgs {
    /// Which job
    #[command(flatten)]
    pub job: JobArgs,
    /// Where the results go
    #[arg(long, short, value_name = "DIR")]
    pub output_dir: PathBuf,
}

/// Fetches every file of a job's results; how many there were.
pub async fn fetch(args: &FetchArgs) -> Result<usize, ClientError> {
    let mut client = args.job.coordinator.connect().await?;
    fetch_into(&mut client, &args.job.job, &args.output_dir).await
}

/// Fetches every file of a job's results through a connected client.
pub async fn fetch_into(
    client: &mut Client,
    job: &str,
    directory: &std::path::Path,
) -> Result<usize, ClientError> {
    let request = pb::JobRequest { job_id: job.to_owned() };
    let files = client.list_results(request.clone()).await?.into_inner().files;
    if files.is_empty() {
        let status = client.get_job(request).await?.into_inner();
        return Err(ClientError::NoResults { state: state_name(status.state()), job: status.job_id });
    }
    for file in &files {
        if !is_plain_name(&file.path) {
            return Err(ClientError::ResultName(file.path.clone()));
        }
        let request = pb::FetchRequest { job_id: job.to_owned(), path: file.path.clone() };
        let mut chunks = client.fetch_result(request).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.next().await {
            bytes.extend_from_slice(&chunk?.data);
        }
        let path = directory.join(&file.path);
        replace(&path, &bytes).map_err(|source| ClientError::File { path: path.clone(), source })?;
    }
    Ok(files.len())
}
