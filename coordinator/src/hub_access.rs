//! The hub that this process's environment names, directly or through the mirror in a bucket.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use lsa_common::config;
use lsa_common::hub::{HfHub, Hub, HubError, HubProgress, HubSettings};
use lsa_common::mirror::{MirrorMode, MirroredHub};
use lsa_common::store::Store;
use tokio::runtime::Handle;

use crate::forecast::bytes;

/// Files below this are there before anybody wonders.
const TOLD_BYTES_MIN: u64 = 8 << 20;

/// Why there is no hub to ask.
#[derive(Debug, thiserror::Error)]
pub enum HubAccessError {
    /// The settings of the hub are wrong.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// Nothing can be mirrored there.
    #[error(
        "run.mirror = \"only\", but there is no bucket that could hold a mirror; fill one with `lsa-coordinator mirror`, or \
         name another with --store"
    )]
    NoBucket,
}

/// The hub of the environment; downloads are told on standard error.
pub fn hub() -> Result<Arc<dyn Hub>, HubError> {
    let downloads = Downloads::default();
    let hub = HfHub::new(HubSettings::from_environment()?)?;
    Ok(Arc::new(hub.with_progress(Arc::new(move |progress| downloads.hear(&progress)))))
}

/// The hub as a command of this machine uses it: workers here share one cache, so that files need not go through the
/// bucket, and only with [`MirrorMode::Only`] they come from there.
pub fn for_this_machine(
    mirror: MirrorMode,
    store: Option<&Store>,
    runtime: &Handle,
) -> Result<Arc<dyn Hub>, HubAccessError> {
    match (mirror, store) {
        (MirrorMode::Only, Some(store)) => {
            let cache = config::coordinator_cache();
            Ok(Arc::new(MirroredHub::new(mirror, store.clone(), runtime.clone(), None, cache)))
        }
        (MirrorMode::Only, None) => Err(HubAccessError::NoBucket),
        (MirrorMode::Auto | MirrorMode::Off, _) => Ok(hub()?),
    }
}

/// A bar per file on a terminal, a line per file elsewhere.
#[derive(Default)]
struct Downloads {
    bars: MultiProgress,
    known: Mutex<BTreeMap<String, Option<ProgressBar>>>,
}

impl Downloads {
    fn hear(&self, progress: &HubProgress) {
        if progress.total < TOLD_BYTES_MIN {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = known.entry(progress.file.clone()).or_insert_with(|| self.begin(progress));
        let Some(bar) = bar else { return };
        bar.set_position(progress.done);
        if progress.done >= progress.total {
            bar.finish_and_clear();
        }
    }

    fn begin(&self, progress: &HubProgress) -> Option<ProgressBar> {
        if !std::io::stderr().is_terminal() {
            eprintln!("downloading {} ({})", progress.file, bytes(progress.total));
            return None;
        }
        let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}")
            .expect("a template that is written here");
        let bar = self.bars.add(ProgressBar::new(progress.total).with_style(style));
        Some(bar.with_message(progress.file.clone()))
    }
}
