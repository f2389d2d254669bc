//! Estimates of time and memory, made from a spec alone: what plans print and what schedulers match with workers.

use crate::job::ExtractionSettings;
use crate::metric::{K_DEFAULT, MetricName, MetricSpec};
use crate::model::ModelFacts;

/// Up to this many rows, what is kept of a layer for its comparison with others is float64, beyond it is float32.
pub const EXACT_ROWS_MAX: u32 = 1024;

/// Rows of the Gram matrix that are computed at a time, part of the estimate below.
const GRAM_BLOCK_ROWS: u64 = 256;

/// What each thread holds whatever the sizes, in bytes: packing buffers of the matrix product, allocator slack.
const PER_THREAD_BYTES: u64 = 16 << 20;

/// Floating-point operations of one token in a text of `length` tokens.
pub fn token_flop(facts: &ModelFacts, length: u32) -> u64 {
    facts.flop_linear.saturating_add(facts.flop_per_length.saturating_mul(u64::from(length)))
}

/// Rows of a shard: the largest power of two from 32 to 2048 whose texts, all of full length, cost at most 10 TFLOP;
/// some minutes on a CPU core, and few enough objects on a GPU.
pub fn shard_rows(facts: &ModelFacts, max_length: u32) -> u32 {
    const SHARD_FLOP: u64 = 10_000_000_000_000;
    let text_flop = token_flop(facts, max_length).saturating_mul(u64::from(max_length)).max(1);
    let rows = (SHARD_FLOP / text_flop).clamp(32, 2048);
    1 << rows.ilog2()
}

/// Bytes that an extract unit needs: weights, the activations of one batch, the rows of a shard.
pub fn extract_memory_bytes(facts: &ModelFacts, settings: &ExtractionSettings, n_poolings: usize) -> u64 {
    let number = settings.dtype.bytes();
    let weights = facts.n_params.saturating_mul(number);
    let tokens = settings.token_budget().max(u64::from(settings.max_length));
    let activations = tokens.saturating_mul(facts.activation_width).saturating_mul(number);
    let row_bytes = u64::from(facts.hidden_size) * 4 * settings.layers.len() as u64 * n_poolings as u64;
    weights
        .saturating_add(activations)
        .saturating_add(row_bytes.saturating_mul(u64::from(settings.shard_rows)))
}

/// Floating-point operations of one trial over `n` rows: a Gram matrix per layer, and what is derived from it.
pub fn trial_flop(n: u32, widths: &[u32]) -> u64 {
    // Ranks, neighbours and distances cost about as much as this many products per pair of rows.
    const DERIVED: u64 = 400;
    let pairs = u64::from(n) * u64::from(n);
    let gram: u64 = widths.iter().map(|width| pairs.saturating_mul(2 * u64::from(*width) + DERIVED)).sum();
    let products = pairs.saturating_mul((widths.len() * widths.len()) as u64 * 3);
    gram.saturating_add(products)
}

/// The most memory in bytes that one Monte Carlo trial holds at a time, the process itself left out.
///
/// `n` rows are compared, `widths` has one entry per layer, and up to `threads` layers are in flight at once. What is
/// kept of a layer is the same for any width; what is in flight depends on the widest.
pub fn trial_memory_bytes(n: u32, widths: &[u32], metrics: &[MetricSpec], threads: usize) -> u64 {
    let n = u64::from(n);
    let pairs = n.saturating_mul(n.saturating_sub(1)) / 2;
    let width = widths.iter().copied().max().map_or(0, u64::from);

    // Rows as they were read (float64), their centred form and its copy for libtorch; the Gram matrix's upper
    // triangle and the block of it that is being computed.
    let bytes_per_pair = |bytes: u64| pairs.saturating_mul(bytes);
    let mut in_flight = (3 * 8 * n)
        .saturating_mul(width)
        .saturating_add(bytes_per_pair(8))
        .saturating_add(2 * 8 * GRAM_BLOCK_ROWS * n)
        .saturating_add(PER_THREAD_BYTES);
    let mut kept = 0u64;
    let value = if n <= u64::from(EXACT_ROWS_MAX) { 8 } else { 4 };
    for metric in metrics {
        let n_neighbours = u64::from(metric.k.unwrap_or(K_DEFAULT)).saturating_mul(n);
        let matrix = bytes_per_pair(value).saturating_add(value * n);
        let (part, work) = match metric.name {
            MetricName::Cka => (matrix, 0),
            MetricName::DistanceCorrelation | MetricName::DebiasedCka => (matrix, bytes_per_pair(8)),
            // Similarities, and while they are ranked two lists of sort records.
            MetricName::Rsa => (bytes_per_pair(4), bytes_per_pair(3 * 8)),
            MetricName::JaccardSimilarity | MetricName::MutualKnn | MetricName::RankSimilarity => {
                (n_neighbours.saturating_mul(8), n_neighbours.saturating_mul(16))
            }
        };
        kept = kept.saturating_add(part);
        in_flight = in_flight.saturating_add(work);
    }
    let n_layers = widths.len() as u64;
    let n_in_flight = n_layers.min(threads.max(1) as u64);
    kept.saturating_mul(n_layers).saturating_add(in_flight.saturating_mul(n_in_flight))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<MetricSpec> {
        MetricName::DEFAULT.into_iter().map(MetricSpec::new).collect()
    }

    #[test]
    fn estimates_grow_with_what_they_depend_on() {
        let base = trial_memory_bytes(1000, &[768; 13], &all(), 2);
        assert!(trial_memory_bytes(1001, &[768; 13], &all(), 2) > base);
        assert!(trial_memory_bytes(1000, &[768; 14], &all(), 2) > base);
        assert!(trial_memory_bytes(1000, &[769; 13], &all(), 2) > base);
        assert!(trial_memory_bytes(1000, &[768; 13], &all(), 3) > base);
        assert!(trial_memory_bytes(1000, &[768; 13], &all()[..3], 2) < base);
        assert_eq!(
            trial_memory_bytes(1000, &[768; 13], &all(), 13),
            trial_memory_bytes(1000, &[768; 13], &all(), 99)
        );
    }

    #[test]
    fn the_usual_trial_fits_a_small_machine() {
        let bytes = trial_memory_bytes(3000, &[768; 13], &all(), 2);
        assert!((1 << 29..2 << 30).contains(&bytes), "{bytes}");
    }

    #[test]
    fn absurd_sizes_do_not_overflow() {
        let mut all = all();
        all[2].k = Some(u32::MAX);
        assert_eq!(trial_memory_bytes(u32::MAX, &[u32::MAX; 3], &all, usize::MAX), u64::MAX);
        assert_eq!(trial_memory_bytes(u32::MAX, &[1; 3], &all[..1], 1), u64::MAX);
        assert_eq!(trial_memory_bytes(0, &[], &[], 0), 0);
    }
}
