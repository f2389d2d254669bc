//! One coordinator leads: it has created the highest numbered object under `epochs/` and refreshes the beat beside it.
//!
//! A coordinator that finds a leader's beat refreshed waits; it takes over once no new beat has come for
//! [`TAKEOVER_AFTER`] by its own monotonic clock, or at once where the leader has said that it ended. A leader whose
//! last beat succeeded more than [`SILENT_AFTER`] ago writes nothing; one that sees a higher epoch, or that has been silent
//! for [`STEP_DOWN_AFTER`], is over.

use std::fmt;
use std::time::{Duration, Instant};

use lsa_common::epoch::{self, EpochRecord};
use lsa_common::id::Epoch;
use lsa_common::layout;
use lsa_common::store::{Store, StoreError};
use serde::{Deserialize, Serialize};

use crate::identity::{Identity, now_rfc3339};
use crate::seat::Leader;

/// How often the leader beats.
pub const BEAT_EVERY: Duration = Duration::from_secs(2);
/// How long a leader may go without a successful beat and still write.
pub const SILENT_AFTER: Duration = Duration::from_secs(5);
/// How long a leader must be silent before another one takes over.
pub const TAKEOVER_AFTER: Duration = Duration::from_secs(10);
/// How long a leader that is silent keeps its workers: another one may have taken over where this one cannot see it.
pub const STEP_DOWN_AFTER: Duration = Duration::from_secs(20);
/// How often a coordinator that stands by looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Who would lead.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The random id of its process.
    pub coordinator: String,
    /// Where workers reach it.
    pub address: Option<String>,
}

/// Why a leader leads no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deposed {
    /// Another one leads.
    By(Epoch),
    /// The bucket could not be reached for too long.
    Silent,
}

impl fmt::Display for Deposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By(epoch) => write!(f, "a coordinator of epoch {epoch} has taken over"),
            Self::Silent => write!(f, "the bucket could not be reached for {STEP_DOWN_AFTER:?}"),
        }
    }
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Beat {
    coordinator: String,
    count: u64,
    ended: bool,
}

/// Leadership that was won.
pub struct Leadership {
    /// In which epoch.
    pub identity: Identity,
    /// The previous leader has not said that it ended: its workers may still be busy.
    pub after_crash: bool,
    store: Store,
    count: u64,
}

/// Waits until nobody leads, then takes the next epoch. `waiting` is told of every leader that is waited for.
#[expect(clippy::disallowed_methods, reason = "leadership is a matter of time")]
pub async fn acquire(
    store: &Store,
    candidate: &Candidate,
    waiting: impl Fn(Leader),
) -> Result<Leadership, StoreError> {
    let mut told = None;
    loop {
        let newest = epoch::newest(store).await?;
        let mut after_crash = false;
        if let Some(epoch) = newest {
            let mut seen = read_beat(store, epoch).await?;
            let mut since = Instant::now();
            while !seen.as_ref().is_some_and(|beat| beat.ended) {
                if told != newest {
                    let address = epoch::record(store, epoch).await?.address;
                    waiting(Leader { epoch, address });
                    told = newest;
                }
                if since.elapsed() >= TAKEOVER_AFTER {
                    after_crash = true;
                    break;
                }
                tokio::time::sleep(LOOK_EVERY).await;
                let beat = read_beat(store, epoch).await?;
                if beat != seen {
                    seen = beat;
                    since = Instant::now();
                }
            }
            if epoch::newest(store).await? != newest {
                continue;
            }
        }
        let epoch = Epoch(newest.map_or(1, |epoch| epoch.0 + 1));
        let Candidate { coordinator, address } = candidate.clone();
        let record = EpochRecord { coordinator: coordinator.clone(), address, at: now_rfc3339() };
        if store.settle_json(&layout::epoch(epoch), &record).await?.is_mine {
            let identity = Identity::new(coordinator, epoch);
            identity.lead_until(Instant::now() + SILENT_AFTER);
            let mut leadership = Leadership { identity, after_crash, store: store.clone(), count: 0 };
            leadership.beat(false).await?;
            return Ok(leadership);
        }
    }
}

impl Leadership {
    /// Beats until this leader is over. Drop the future to stop.
    #[expect(clippy::disallowed_methods, reason = "leadership is a matter of time")]
    pub async fn keep(&mut self) -> Deposed {
        let mut heard = Instant::now();
        loop {
            tokio::time::sleep(BEAT_EVERY).await;
            let begun = Instant::now();
            let beaten = tokio::time::timeout(BEAT_EVERY, self.beat(false)).await;
            let newest = tokio::time::timeout(BEAT_EVERY, epoch::newest(&self.store)).await;
            match (beaten, newest) {
                (_, Ok(Ok(Some(newest)))) if newest > self.identity.epoch => {
                    self.identity.lead_until(begun);
                    return Deposed::By(newest);
                }
                // A beat alone proves nothing: a successor may have come before it.
                (Ok(Ok(())), Ok(Ok(_))) => {
                    heard = begun;
                    self.identity.lead_until(begun + SILENT_AFTER);
                }
                _ if heard.elapsed() >= STEP_DOWN_AFTER => return Deposed::Silent,
                _ => tracing::warn!("cannot refresh the beat of epoch {}", self.identity.epoch),
            }
        }
    }

    /// Says that this leader has ended, so that the next one need not wait.
    #[expect(clippy::disallowed_methods, reason = "leadership is a matter of time")]
    pub async fn resign(&mut self) -> Result<(), StoreError> {
        self.identity.lead_until(Instant::now());
        self.beat(true).await
    }

    async fn beat(&mut self, ended: bool) -> Result<(), StoreError> {
        self.count += 1;
        let beat = Beat { coordinator: self.identity.coordinator.clone(), count: self.count, ended };
        let json = serde_json::to_vec(&beat).expect("a plain struct serialises");
        self.store.put(&layout::beat(self.identity.epoch), json.into()).await?;
        Ok(())
    }
}

async fn read_beat(store: &Store, epoch: Epoch) -> Result<Option<Beat>, StoreError> {
    let bytes = store.try_get(&layout::beat(epoch)).await?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str) -> Candidate {
        Candidate { coordinator: name.to_owned(), address: Some(format!("http://{name}:7300")) }
    }

    #[tokio::test]
    async fn a_successor_of_a_leader_that_resigned_need_not_wait() {
        let store = Store::memory();
        let mut first = acquire(&store, &candidate("a"), |_| {}).await.expect("nobody leads");
        assert_eq!((first.identity.epoch, first.after_crash), (Epoch(1), false));
        first.resign().await.expect("a store in memory");
        assert!(!first.identity.leads());
        let second = acquire(&store, &candidate("b"), |_| {}).await.expect("nobody leads");
        assert_eq!((second.identity.epoch, second.after_crash), (Epoch(2), false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deposed_leader_learns_of_its_successor() {
        let store = Store::memory();
        let mut first = acquire(&store, &candidate("a"), |_| {}).await.expect("nobody leads");
        let record = EpochRecord { coordinator: "b".to_owned(), address: None, at: now_rfc3339() };
        store.settle_json(&layout::epoch(Epoch(2)), &record).await.expect("a store in memory");
        assert_eq!(first.keep().await, Deposed::By(Epoch(2)));
        assert!(!first.identity.leads());
    }
}
