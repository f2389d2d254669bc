//! Who this coordinator process is, and what time it writes into records.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{SecondsFormat, Utc};
use lsa_common::id::Epoch;

/// What every record carries of its writer.
#[derive(Clone, Debug)]
pub struct Identity {
    /// A random id of this process.
    pub coordinator: String,
    /// The epoch in which it leads; 0 in embedded mode.
    pub epoch: Epoch,
    leads: Arc<AtomicBool>,
}

impl Identity {
    /// A process of its own id.
    pub fn new(coordinator: String, epoch: Epoch) -> Self {
        Self { coordinator, epoch, leads: Arc::new(AtomicBool::new(true)) }
    }

    /// Whether records may be written: false from the moment another coordinator may lead.
    pub fn leads(&self) -> bool {
        self.leads.load(Ordering::Acquire)
    }

    /// Says whether this process still leads.
    pub fn set_leads(&self, leads: bool) {
        self.leads.store(leads, Ordering::Release);
    }
}

/// Now, RFC 3339 with seconds, UTC: for people, never compared.
pub fn now_rfc3339() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true)
}
