//! Large files by the Xet protocol, which the library of the hub speaks.
//!
//! Untested against a real hub: none can be reached where the tests run. Everything that can go wrong here is an
//! error, after which the file comes by plain HTTP; and what comes is verified like everything else.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hf_hub::HFClient;
use hf_hub::progress::{ProgressEvent, ProgressHandler};

use super::client::Client;
use super::{HubError, HubFile, Listing, RepoKind};

/// Counts events: as long as there are some, the download is alive.
#[derive(Default)]
struct Pulse(AtomicU64);

impl ProgressHandler for Pulse {
    fn on_progress(&self, _: &ProgressEvent) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Downloads into `folder`, which is a cache of the library for this one file, and says where the bytes are.
pub(super) fn download(
    client: &Client,
    listing: &Listing,
    file: &HubFile,
    folder: &Path,
) -> Result<PathBuf, HubError> {
    let settings = client.settings();
    let mut builder = HFClient::builder().endpoint(settings.endpoint()).cache_dir(folder);
    if let Some(token) = &settings.token {
        builder = builder.token(token.secret());
    }
    let library = builder.build().map_err(failed)?;
    let (repo, commit, path) = (listing.repo.clone(), listing.commit.clone(), file.path.clone());
    let pulse = Arc::new(Pulse::default());
    let events = Arc::clone(&pulse);
    let download = async move {
        let (owner, name) = hf_hub::split_id(&repo.id);
        match repo.kind {
            RepoKind::Model => {
                let repository = library.model(owner, name);
                repository.download_file().filename(path).revision(commit).progress(events).send().await
            }
            RepoKind::Dataset => {
                let repository = library.dataset(owner, name);
                repository.download_file().filename(path).revision(commit).progress(events).send().await
            }
        }
    };
    let limit = settings.connect_timeout + settings.read_timeout;
    let found = client.run(async move {
        let mut download = Box::pin(download);
        loop {
            let before = pulse.0.load(Ordering::Relaxed);
            match tokio::time::timeout(limit, &mut download).await {
                Ok(done) => return done.map_err(failed),
                Err(_) if pulse.0.load(Ordering::Relaxed) == before => {
                    return Err(HubError::Xet(format!("nothing came for {} s", limit.as_secs_f32())));
                }
                Err(_) => {}
            }
        }
    })??;
    // The library gives its link; the bytes behind it are what is wanted.
    fs::canonicalize(&found).map_err(|source| HubError::disk("read", &found, source))
}

/// Its messages name addresses with signatures, of which only what comes before is kept.
fn failed(error: hf_hub::HFError) -> HubError {
    let text = crate::failure::chain(&error);
    let plain = text.split('?').next().unwrap_or_default();
    HubError::Xet(plain.chars().take(300).collect())
}
