//! What time it is by the store's clock, whatever this machine's own clock does.

use std::time::{Duration, Instant, SystemTime};

use lsa_common::store::{Store, StoreError};
use tokio::sync::Mutex;

/// How long a reading is carried on by this machine's clocks.
const TRUSTED_FOR: Duration = Duration::from_secs(60);
/// By how much this machine's two clocks may differ over that time. They do where one was set, or the machine slept.
const DRIFT_MAX: Duration = Duration::from_secs(5);

#[derive(Clone, Copy)]
struct Reading {
    store_s: i64,
    monotonic: Instant,
    wall: SystemTime,
}

impl Reading {
    /// The store's time now, unless it has to be asked again.
    fn carried_on(&self, monotonic: Instant, wall: SystemTime) -> Option<i64> {
        let elapsed = monotonic.saturating_duration_since(self.monotonic);
        let by_wall = wall.duration_since(self.wall).ok()?;
        if elapsed > TRUSTED_FOR || by_wall.abs_diff(elapsed) > DRIFT_MAX {
            return None;
        }
        Some(self.store_s.saturating_add(i64::try_from(elapsed.as_secs()).ok()?))
    }
}

/// The store's clock as it was read last.
#[derive(Default)]
pub struct StoreClock {
    reading: Mutex<Option<Reading>>,
}

impl StoreClock {
    /// Seconds since 1970 by the store's clock: at most two behind it, and ahead of it by no more than the store took to
    /// answer when it was read.
    #[expect(clippy::disallowed_methods, reason = "this is about clocks")]
    pub async fn now_s(&self, store: &Store) -> Result<i64, StoreError> {
        let mut reading = self.reading.lock().await;
        if let Some(now_s) = reading.and_then(|reading| reading.carried_on(Instant::now(), SystemTime::now()))
        {
            return Ok(now_s);
        }
        let (monotonic, wall) = (Instant::now(), SystemTime::now());
        let store_s = store.now_s().await?;
        *reading = Some(Reading { store_s, monotonic, wall });
        Ok(store_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "this is about clocks")]
    #[test]
    fn a_reading_is_carried_on_until_a_clock_jumps() {
        let (monotonic, wall) = (Instant::now(), SystemTime::now());
        let reading = Reading { store_s: 1_000, monotonic, wall };
        let seconds = Duration::from_secs;
        let after = |by_monotonic: u64, by_wall: i64| {
            let jumped = match by_wall {
                0.. => wall + seconds(by_wall.unsigned_abs()),
                _ => wall - seconds(by_wall.unsigned_abs()),
            };
            reading.carried_on(monotonic + seconds(by_monotonic), jumped)
        };
        assert_eq!(after(30, 31), Some(1_030));
        assert_eq!(after(61, 61), None, "too long ago");
        assert_eq!(after(1, 24 * 3600), None, "set forward, or the machine slept");
        assert_eq!(after(30, -3600), None, "set back");
    }

    #[tokio::test]
    async fn the_store_is_asked() {
        let store = Store::memory();
        let clock = StoreClock::default();
        let first = clock.now_s(&store).await.expect("a store in memory");
        let second = clock.now_s(&store).await.expect("a store in memory");
        assert!((first..first + 2).contains(&second));
        assert_eq!(store.list("probe").await.expect("a store in memory"), [], "nothing is left");
    }
}
