//! The client of the hub against a hub on this machine: listings, transfers, faults, and who gets to see what.

#[path = "hub/access.rs"]
mod access;
#[path = "hub/download.rs"]
mod download;
#[path = "hub/faults.rs"]
mod faults;
#[path = "hub/list.rs"]
mod list;
#[path = "hub/stream.rs"]
mod stream;

use std::path::Path;
use std::time::Duration;

use lsa_common::hub::{HfHub, Hub, HubCache, HubSettings, Listing, Repo, RepoKind, RetryPolicy};
use lsa_tests::test_hub::TestHub;

/// The longest pause that the hub can ask for here.
const RETRY_AFTER_MAX: Duration = Duration::from_millis(40);

/// Pauses of milliseconds.
fn settings(hub: &TestHub, cache: &Path) -> HubSettings {
    let mut settings = HubSettings::new(hub.url(), HubCache::at(cache)).expect("an address");
    settings.retry = RetryPolicy {
        attempts_max: 4,
        pause_first: Duration::from_millis(1),
        pause_max: Duration::from_millis(5),
        retry_after_max: RETRY_AFTER_MAX,
    };
    settings
}

fn client(hub: &TestHub, cache: &Path) -> HfHub {
    HfHub::new(settings(hub, cache)).expect("a client")
}

fn model(id: &str) -> Repo {
    Repo { kind: RepoKind::Model, id: id.to_owned() }
}

fn listing(client: &HfHub, id: &str) -> Listing {
    client.list(&model(id), "main").expect("a listing")
}

/// Bytes that do not repeat at any power of two.
fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index % 251) as u8).collect()
}

/// All files below a folder, by path; links are followed.
fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten() {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let inside = path.strip_prefix(folder).expect("below");
                found.push(inside.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}
