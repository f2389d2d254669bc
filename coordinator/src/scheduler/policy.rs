//! How long to wait after a failure, and how often to try. Pure functions.

use rand_core::Rng;

/// How long a unit is left to workers on which it has not failed. They may never ask.
pub const PATIENCE_MS: u64 = 600_000;

/// How many attempts in a row fail on a worker, while others succeed, before it rests.
pub const FAILURES_BEFORE_REST: u32 = 3;

/// How many units of a work are to be done before one can be said to lag.
pub const STRAGGLER_PEERS_MIN: usize = 5;
const STRAGGLER_FACTOR: u64 = 3;
const STRAGGLER_AFTER_MS: u64 = 30_000;

const BACK_OFF_FIRST_MS: u64 = 1_000;
const BACK_OFF_MAX_MS: u64 = 60_000;
const REST_FIRST_MS: u64 = 30_000;
const REST_MAX_MS: u64 = 600_000;

/// How long a unit runs before it is lent once more, where its peers took `median_ms`.
pub fn straggles_after_ms(median_ms: u64) -> u64 {
    median_ms.saturating_mul(STRAGGLER_FACTOR).max(STRAGGLER_AFTER_MS)
}

/// How long a unit rests after its `failures`-th failed attempt: 1 s, doubled to 60 s, ± 20 %.
pub fn back_off_ms(failures: u32, generator: &mut impl Rng) -> u64 {
    doubled_ms(BACK_OFF_FIRST_MS, BACK_OFF_MAX_MS, failures, generator)
}

/// How long a worker rests after its `failures`-th failure in a row, if it does: 30 s, doubled to 10 min, ± 20 %.
pub fn rest_ms(failures: u32, generator: &mut impl Rng) -> Option<u64> {
    let rests = (failures + 1).checked_sub(FAILURES_BEFORE_REST).filter(|rests| *rests > 0)?;
    Some(doubled_ms(REST_FIRST_MS, REST_MAX_MS, rests, generator))
}

fn doubled_ms(first: u64, most: u64, times: u32, generator: &mut impl Rng) -> u64 {
    let doublings = times.saturating_sub(1).min(16);
    let plain = (first << doublings).min(most);
    let fifth = plain / 5;
    plain - fifth + generator.next_u64() % (2 * fifth + 1)
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn back_off_doubles_up_to_a_minute_with_jitter() {
        let mut generator = ChaCha8Rng::from_seed([1; 32]);
        for (failures, plain) in [(1, 1_000), (2, 2_000), (5, 16_000), (7, 60_000), (99, 60_000)] {
            let waited = back_off_ms(failures, &mut generator);
            assert!((plain * 8 / 10..=plain * 12 / 10).contains(&waited), "{failures}: {waited}");
        }
    }

    #[test]
    fn a_worker_rests_from_its_third_failure_in_a_row() {
        let mut generator = ChaCha8Rng::from_seed([1; 32]);
        assert_eq!(rest_ms(2, &mut generator), None);
        for (failures, plain) in [(3, 30_000), (4, 60_000), (8, 600_000), (99, 600_000)] {
            let rested = rest_ms(failures, &mut generator).expect("three or more");
            assert!((plain * 8 / 10..=plain * 12 / 10).contains(&rested), "{failures}: {rested}");
        }
    }
}
