//! How this worker stands, for whoever watches over it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use lsa_common::id::Epoch;
use lsa_common::report::Outcome;

/// Counters and states; written by the lease loop, read by the HTTP server.
#[derive(Debug, Default)]
pub struct Condition {
    /// Of the coordinator that this worker is connected to; 0 while there is none.
    epoch: AtomicU64,
    is_busy: AtomicU64,
    n_done: AtomicU64,
    n_failed: AtomicU64,
    n_handed_back: AtomicU64,
}

impl Condition {
    /// Connected to the leader of that epoch, or to nobody.
    pub fn connected(&self, epoch: Option<Epoch>) {
        self.epoch.store(epoch.map_or(0, |epoch| epoch.0), Relaxed);
    }

    /// A unit has begun.
    pub fn began(&self) {
        self.is_busy.store(1, Relaxed);
    }

    /// The unit has ended.
    pub fn finished(&self, outcome: &Outcome) {
        self.is_busy.store(0, Relaxed);
        let counter = match outcome {
            Outcome::Failed(_) => &self.n_failed,
            Outcome::HandedBack => &self.n_handed_back,
            _ => &self.n_done,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// Whether there is a coordinator to work for.
    pub fn is_connected(&self) -> bool {
        self.epoch.load(Relaxed) > 0
    }

    /// In the text format of Prometheus.
    pub fn metrics(&self, uptime: Duration) -> String {
        let connected = u64::from(self.is_connected());
        [
            ("lsa_worker_connected", "gauge", "whether a coordinator is connected", connected),
            ("lsa_worker_epoch", "gauge", "the epoch of that coordinator", self.epoch.load(Relaxed)),
            ("lsa_worker_busy", "gauge", "whether a unit is under way", self.is_busy.load(Relaxed)),
            ("lsa_worker_units_done_total", "counter", "units reported as done", self.n_done.load(Relaxed)),
            ("lsa_worker_units_failed_total", "counter", "attempts that failed", self.n_failed.load(Relaxed)),
            (
                "lsa_worker_units_handed_back_total",
                "counter",
                "units handed back unfinished",
                self.n_handed_back.load(Relaxed),
            ),
            ("lsa_worker_uptime_seconds", "gauge", "since the process began", uptime.as_secs()),
        ]
        .map(|(name, kind, help, value)| {
            format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n")
        })
        .concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_counted() {
        let condition = Condition::default();
        assert!(!condition.is_connected());
        condition.connected(Some(Epoch(3)));
        condition.began();
        let metrics = condition.metrics(Duration::from_secs(7));
        for line in [
            "lsa_worker_connected 1",
            "lsa_worker_epoch 3",
            "lsa_worker_busy 1",
            "lsa_worker_uptime_seconds 7",
        ] {
            assert!(metrics.lines().any(|known| known == line), "{line} in {metrics}");
        }
        condition.finished(&Outcome::HandedBack);
        condition.connected(None);
        let metrics = condition.metrics(Duration::ZERO);
        for line in ["lsa_worker_busy 0", "lsa_worker_units_handed_back_total 1", "lsa_worker_connected 0"] {
            assert!(metrics.lines().any(|known| known == line), "{line} in {metrics}");
        }
    }
}
