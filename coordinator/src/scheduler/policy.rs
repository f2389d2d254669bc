//! How long to wait after a failure, and how often to try. Pure functions.

use rand_core::Rng;

/// How often a record is tried to be written, about two minutes in all, before the attempt counts as failed.
pub const COMMIT_TRIES_MAX: u32 = 8;

const BACK_OFF_FIRST_MS: u64 = 1_000;
const BACK_OFF_MAX_MS: u64 = 60_000;

/// How long a unit rests after its `failures`-th failed attempt: 1 s, doubled to 60 s, ± 20 %.
pub fn back_off_ms(failures: u32, generator: &mut impl Rng) -> u64 {
    let doublings = failures.saturating_sub(1).min(16);
    let plain = (BACK_OFF_FIRST_MS << doublings).min(BACK_OFF_MAX_MS);
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
}
