//! `submit`: resolve here, send what the bucket lacks, have it run there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use lsa_common::dataset::Place;
use lsa_common::hub::ContentId;
use lsa_common::id::Digest;
use lsa_common::job::JobSpec;
use lsa_common::wire::job as pb;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Client, ClientError};
use crate::forecast;

/// A file that is told by name when it is sent: one that takes a while.
const TOLD_BYTES_MIN: u64 = 1 << 20;
/// Files that are sent side by side: a bucket takes as long for a small one as its disk or network takes to answer.
const FILES_AT_ONCE: usize = 8;
/// Bytes of one chunk of an input file.
const CHUNK: usize = 1 << 20;

/// A local file that the spec names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Input {
    path: PathBuf,
    size: u64,
    sha256: Digest,
}

/// Sends the files that the bucket does not hold yet, then the spec.
pub async fn submit(
    client: &mut Client,
    spec: &JobSpec,
    told: &dyn Fn(&str),
) -> Result<pb::SubmitReply, ClientError> {
    let inputs = inputs(spec);
    let sha256 = inputs.iter().map(|input| input.sha256.to_string()).collect();
    let missing = client.missing_inputs(pb::InputDigests { sha256 }).await?.into_inner().sha256;
    let missing: BTreeSet<String> = missing.into_iter().collect();
    let missing: Vec<&Input> =
        inputs.iter().filter(|input| missing.contains(&input.sha256.to_string())).collect();
    if !missing.is_empty() {
        let total = missing.iter().map(|input| input.size).sum();
        told(&format!("sending {} files, {}", missing.len(), forecast::bytes(total)));
    }
    let sending = |input: &Input| {
        if input.size >= TOLD_BYTES_MIN {
            told(&format!("sending {} ({})", input.path.display(), forecast::bytes(input.size)));
        }
    };
    let sends = stream::iter(missing).map(|input| {
        let mut client = client.clone();
        async move {
            sending(input);
            send(&mut client, input).await
        }
    });
    sends.buffer_unordered(FILES_AT_ONCE).try_collect::<()>().await?;
    let json = Bytes::from(serde_json::to_vec(spec).expect("a spec is plain data with string keys"));
    let starts = (0..json.len()).step_by(CHUNK);
    let chunks: Vec<pb::SpecChunk> = starts
        .map(|start| pb::SpecChunk { data: json.slice(start..json.len().min(start + CHUNK)) })
        .collect();
    Ok(client.submit(tokio_stream::iter(chunks)).await?.into_inner())
}

/// Every file that workers will need, each once.
fn inputs(spec: &JobSpec) -> Vec<Input> {
    // What comes from a hub, the workers get from there.
    let local = spec.models.iter().filter(|model| model.revision.is_none());
    let of_models = local.flat_map(|model| {
        let input = |file: &lsa_common::model::PinnedFile| Input {
            path: model.folder.join(&file.name),
            size: file.size,
            sha256: file.sha256,
        };
        model.files.iter().map(input)
    });
    let files = spec.texts.iter().flat_map(|texts| &texts.plan.files);
    let of_texts = files.filter_map(|file| match (&file.place, &file.content) {
        (Place::Local { hint, .. }, Some(ContentId::Sha256(sha256))) => {
            Some(Input { path: hint.clone(), size: file.size, sha256: *sha256 })
        }
        // What lies on a hub, workers fetch there; what nobody digested, nobody asks for.
        _ => None,
    });
    let mut inputs: Vec<Input> = of_models.chain(of_texts).collect();
    inputs.sort_by_key(|input| input.sha256);
    inputs.dedup_by_key(|input| input.sha256);
    inputs
}

async fn send(client: &mut Client, input: &Input) -> Result<(), ClientError> {
    let failed = |path: &Path, source| ClientError::File { path: path.to_owned(), source };
    let mut file = tokio::fs::File::open(&input.path).await.map_err(|e| failed(&input.path, e))?;
    let (sender, chunks) = mpsc::channel(4);
    let Input { path, size, sha256 } = input.clone();
    let read = async move {
        let mut first = true;
        loop {
            let mut data = Vec::with_capacity(CHUNK);
            let n =
                (&mut file).take(CHUNK as u64).read_to_end(&mut data).await.map_err(|e| failed(&path, e))?;
            if n == 0 && !first {
                return Ok::<(), ClientError>(());
            }
            first = false;
            let chunk = pb::InputChunk { sha256: sha256.to_string(), size, data: data.into() };
            // A receiver that is gone has an answer for `put_input` to return.
            if sender.send(chunk).await.is_err() {
                return Ok(());
            }
        }
    };
    let (sent, read) = tokio::join!(client.put_input(ReceiverStream::new(chunks)), read);
    read?;
    sent?;
    Ok(())
}
