//! Who this coordinator process is, and what time it writes into records.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use chrono::{SecondsFormat, Utc};
use lsa_common::id::Epoch;

#[derive(Clone, Copy, Debug)]
enum Leads {
    Always,
    Until(Instant),
}

/// What every record carries of its writer.
#[derive(Clone, Debug)]
pub struct Identity {
    /// A random id of this process.
    pub coordinator: String,
    /// The epoch in which it leads; 0 in embedded mode.
    pub epoch: Epoch,
    leads: Arc<Mutex<Leads>>,
}

impl Identity {
    /// A process of its own id; it leads until something else is said.
    pub fn new(coordinator: String, epoch: Epoch) -> Self {
        Self { coordinator, epoch, leads: Arc::new(Mutex::new(Leads::Always)) }
    }

    /// Whether records may be written. Asked of the clock each time: a process that was stopped and goes on must not
    /// believe what it knew before.
    #[expect(clippy::disallowed_methods, reason = "leadership is a matter of time")]
    pub fn leads(&self) -> bool {
        match *self.leads.lock().unwrap_or_else(PoisonError::into_inner) {
            Leads::Always => true,
            Leads::Until(end) => Instant::now() < end,
        }
    }

    /// Says until when this process leads.
    pub fn lead_until(&self, end: Instant) {
        *self.leads.lock().unwrap_or_else(PoisonError::into_inner) = Leads::Until(end);
    }
}

/// Now, RFC 3339 with seconds, UTC: for people, never compared.
pub fn now_rfc3339() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true)
}
