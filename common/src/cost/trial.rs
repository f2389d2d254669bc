//! What a Monte Carlo trial takes: operations, memory, disk.

use std::collections::BTreeSet;

use crate::metric::{BATCH_SIZE_DEFAULT, K_DEFAULT, LayerMetricName, MetricName, MetricSpec};

/// Up to this many rows, what is kept of a layer for its comparison with others is float64, beyond it is float32.
pub const EXACT_ROWS_MAX: u32 = 1024;

/// With this many rows to a column, CKA is less work, and less memory, from the rows than from their pairs: comparing
/// l layers then takes l² n d² operations, and n² d for each layer otherwise; few models have many more layers.
const CKA_ROWS_PER_COLUMN: u64 = 16;

/// Buffers up to this size are kept by a thread for its next layer: taking them afresh costs more than the memory.
pub const SPARE_BYTES_MAX: u64 = 1 << 30;

/// Whether CKA keeps the n rows of a layer of that width, where no other metric needs the pairs of rows.
pub fn cka_keeps_rows(n: u64, width: u64) -> bool {
    n >= CKA_ROWS_PER_COLUMN.saturating_mul(width)
}

/// Rows of the Gram matrix that are computed at a time, part of the estimate below.
const GRAM_BLOCK_ROWS: u64 = 256;

/// Numbers that are ranked at a time, part of the estimate below; those that tie in the leading bits come on top.
const SORTED_AT_A_TIME: u64 = 1 << 25;

/// The most vectors that Lanczos' iteration keeps for `RSMNormDifference`.
pub const LANCZOS_STEPS_MAX: u64 = 1000;

/// What each thread holds whatever the sizes, in bytes: packing buffers of the matrix product, allocator slack.
const PER_THREAD_BYTES: u64 = 16 << 20;

/// Floating-point operations of one trial over `n` rows, roughly: what is made of each layer, and of each pair.
pub fn trial_flop(n: u32, widths: &[u32], metrics: &[MetricSpec], layer_metrics: &[LayerMetricName]) -> u64 {
    // What one number of a list over pairs of rows takes beside the Gram matrix: distances, ranks, neighbours.
    const OF_PAIR: u64 = 100;
    let (n, pairs) = (u64::from(n), u64::from(n).saturating_mul(u64::from(n)));
    let sum = |of: &dyn Fn(u64) -> u64| {
        widths.iter().fold(0u64, |sum, width| sum.saturating_add(of(u64::from(*width))))
    };
    // A singular value decomposition of the rows; twice, for metrics that want vectors.
    let decompositions = sum(&|d| 14u64.saturating_mul(n.max(d)).saturating_mul(n.min(d).saturating_pow(2)));
    let n_layers = widths.len() as u64;
    let comparisons = n_layers.saturating_mul(n_layers.saturating_add(1)) / 2;
    let widest = widths.iter().copied().max().map_or(0, u64::from);
    let product = 2u64.saturating_mul(n).saturating_mul(widest.saturating_pow(2));
    let cube = widest.min(n).saturating_pow(3);

    let mut flop = 0u64;
    let mut reads_pairs = layer_metrics.contains(&LayerMetricName::IntrinsicDimension);
    for metric in metrics {
        let (by_pairs, of_layers, of_comparison) = match metric.name {
            MetricName::Cka
            | MetricName::Rsa
            | MetricName::DistanceCorrelation
            | MetricName::DebiasedCka
            | MetricName::RbfCka => (true, 0, pairs),
            MetricName::JaccardSimilarity
            | MetricName::MutualKnn
            | MetricName::RankSimilarity
            | MetricName::SecondOrderCosineSimilarity => {
                (true, 0, n.saturating_mul(4 * u64::from(metric.neighbours())))
            }
            // Some dozens of products with a vector, as a rule.
            MetricName::RsmNormDifference => (true, 0, pairs.saturating_mul(100)),
            MetricName::UniformityDifference => (true, 0, 0),
            MetricName::MinibatchCka => {
                let rows = u64::from(metric.batch_size.unwrap_or(BATCH_SIZE_DEFAULT)).min(n);
                (false, sum(&|d| n.saturating_mul(rows).saturating_mul(d)), n.saturating_mul(rows))
            }
            MetricName::MagnitudeDifference | MetricName::ConcentricityDifference => (false, 0, 0),
            MetricName::EigenspaceOverlapScore | MetricName::LinearRegression | MetricName::Gulp => {
                (false, decompositions.saturating_mul(2), product)
            }
            MetricName::Svcca | MetricName::Pwcca => {
                (false, decompositions.saturating_mul(2), product.saturating_add(cube.saturating_mul(25)))
            }
            MetricName::OrthogonalProcrustesCenteredAndNormalized
            | MetricName::ProcrustesSizeAndShapeDistance
            | MetricName::OrthogonalAngularShapeMetricCentered
            | MetricName::AlignedCosineSimilarity => {
                (false, 0, product.saturating_mul(2).saturating_add(cube.saturating_mul(25)))
            }
            MetricName::PermutationProcrustes | MetricName::HardCorrelationMatch => {
                (false, 0, product.saturating_add(widest.saturating_pow(3).saturating_mul(2)))
            }
            MetricName::SoftCorrelationMatch => (false, 0, product),
        };
        reads_pairs |= by_pairs;
        let of_layers = match by_pairs {
            true => pairs.saturating_mul(OF_PAIR).saturating_mul(n_layers),
            false => of_layers,
        };
        flop = flop.saturating_add(of_layers).saturating_add(of_comparison.saturating_mul(comparisons));
    }
    for name in layer_metrics {
        flop = flop.saturating_add(match name {
            LayerMetricName::EffectiveRank | LayerMetricName::DatasetEntropy => decompositions,
            LayerMetricName::IntrinsicDimension => pairs.saturating_mul(n_layers),
            LayerMetricName::Anisotropy
            | LayerMetricName::NormMean
            | LayerMetricName::NormStd
            | LayerMetricName::NormMin
            | LayerMetricName::NormMax => sum(&|d| n.saturating_mul(2 * d)),
        });
    }
    if reads_pairs {
        // The upper triangle of each Gram matrix.
        flop = flop.saturating_add(sum(&|d| pairs.saturating_mul(d)));
    }
    flop
}

/// How a trial is fitted into a budget of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrialPlan {
    /// Layers that are prepared at the same time; at least 1, at most the threads.
    pub n_in_flight: usize,
    /// What is kept of layers and can lie in a file: whether it does.
    pub on_disk: bool,
    /// The most memory in bytes held at a time, the process itself left out.
    pub memory_bytes: u64,
    /// Of which, once all layers are prepared, is kept for their comparison.
    pub kept_bytes: u64,
    /// Disk for scratch files, in bytes; 0 unless `on_disk`.
    pub scratch_bytes: u64,
}

/// How a trial over `n` rows of layers of these widths is fitted into `budget_bytes` of memory.
///
/// In this order: all in memory, with as many layers in flight as there are threads; what is kept of layers on disk;
/// fewer layers in flight. The last plan may still exceed the budget; it is the least that the trial can do with.
pub fn trial_plan(
    n: u32,
    widths: &[u32],
    metrics: &[MetricSpec],
    layer_metrics: &[LayerMetricName],
    threads: usize,
    budget_bytes: u64,
) -> TrialPlan {
    let needs = TrialNeeds::of(n, widths, metrics, layer_metrics);
    let n_layers = widths.len() as u64;
    let most = n_layers.min(threads.max(1) as u64).max(1);
    let plan = |n_in_flight: u64, on_disk: bool| {
        let scratch_bytes = if on_disk { needs.on_disk.saturating_mul(n_layers) } else { 0 };
        let kept = if on_disk { needs.in_memory } else { needs.in_memory.saturating_add(needs.on_disk) };
        let kept_bytes = kept.saturating_mul(n_layers);
        let memory_bytes = kept_bytes.saturating_add(needs.in_flight.saturating_mul(n_in_flight));
        TrialPlan { n_in_flight: n_in_flight as usize, on_disk, memory_bytes, kept_bytes, scratch_bytes }
    };
    let in_memory = plan(most, false);
    if n_layers == 0 || in_memory.memory_bytes <= budget_bytes {
        return TrialPlan {
            memory_bytes: if n_layers == 0 { 0 } else { in_memory.memory_bytes },
            ..in_memory
        };
    }
    let least = needs.in_memory.saturating_mul(n_layers);
    let fitting = budget_bytes.saturating_sub(least) / needs.in_flight.max(1);
    plan(fitting.clamp(1, most), needs.on_disk > 0)
}

/// The most memory in bytes that one Monte Carlo trial holds at a time, the process itself left out, where no budget
/// keeps it from using what it can.
///
/// `n` rows are compared, `widths` has one entry per layer, and up to `threads` layers are in flight at once. What is
/// kept of a layer is the same for any width; what is in flight depends on the widest.
pub fn trial_memory_bytes(
    n: u32,
    widths: &[u32],
    metrics: &[MetricSpec],
    layer_metrics: &[LayerMetricName],
    threads: usize,
) -> u64 {
    trial_plan(n, widths, metrics, layer_metrics, threads, u64::MAX).memory_bytes
}

/// The memory in bytes that a trial falls to where there is no more: one layer in flight, what is kept on disk.
pub fn trial_memory_min_bytes(
    n: u32,
    widths: &[u32],
    metrics: &[MetricSpec],
    layer_metrics: &[LayerMetricName],
) -> u64 {
    trial_plan(n, widths, metrics, layer_metrics, 1, 0).memory_bytes
}

/// The disk in bytes that a trial takes for scratch files within `budget_bytes` of memory.
pub fn trial_scratch_bytes(
    n: u32,
    widths: &[u32],
    metrics: &[MetricSpec],
    layer_metrics: &[LayerMetricName],
    threads: usize,
    budget_bytes: u64,
) -> u64 {
    trial_plan(n, widths, metrics, layer_metrics, threads, budget_bytes).scratch_bytes
}

/// What a trial needs for each layer, in bytes.
struct TrialNeeds {
    /// While a layer is prepared.
    in_flight: u64,
    /// Kept of it in any case.
    in_memory: u64,
    /// Kept of it, in memory or on disk.
    on_disk: u64,
}

impl TrialNeeds {
    fn of(n: u32, widths: &[u32], metrics: &[MetricSpec], layer_metrics: &[LayerMetricName]) -> Self {
        let n = u64::from(n);
        let pairs = n.saturating_mul(n.saturating_sub(1)) / 2;
        let width = widths.iter().copied().max().map_or(0, u64::from);
        let bytes_per_pair = |bytes: u64| pairs.saturating_mul(bytes);
        // Rows as they were read, centred, and aligned for the product, in float64.
        let rows = (3 * 8 * n).saturating_mul(width);
        let mut needs = Self { in_flight: 0, in_memory: 0, on_disk: 0 };
        let only_cka = !metrics.is_empty() && metrics.iter().all(|metric| metric.name == MetricName::Cka);
        if cka_keeps_rows(n, width) && only_cka && layer_metrics.is_empty() {
            needs.in_memory =
                (8 * n).saturating_mul(width.saturating_add(1)).saturating_mul(metrics.len() as u64);
            needs.in_flight = rows.saturating_add(PER_THREAD_BYTES);
            return needs;
        }
        // The upper triangle of the Gram matrix, and the block of it that is being computed.
        let gram = bytes_per_pair(8).saturating_add((5 * 8 * GRAM_BLOCK_ROWS / 4).saturating_mul(n));
        let value = if n <= u64::from(EXACT_ROWS_MAX) { 8 } else { 4 };
        // Metrics are prepared one after another, while the rows and the Gram matrix are there.
        let mut most_work = 0u64;
        let mut most_ranking = 0u64;
        let mut n_rankings = 0;
        let mut of_rows = BTreeSet::new();
        for metric in metrics {
            let n_neighbours = u64::from(metric.k.unwrap_or(K_DEFAULT)).saturating_mul(n);
            let matrix = bytes_per_pair(value).saturating_add(value * n);
            let (part, work) = match metric.name {
                MetricName::Cka => (matrix, 0),
                MetricName::DistanceCorrelation | MetricName::DebiasedCka => (matrix, bytes_per_pair(8)),
                MetricName::Rsa => (bytes_per_pair(4), bytes_per_pair(8)),
                MetricName::JaccardSimilarity | MetricName::MutualKnn | MetricName::RankSimilarity => {
                    (n_neighbours.saturating_mul(8), n_neighbours.saturating_mul(16))
                }
                MetricName::SecondOrderCosineSimilarity => (
                    bytes_per_pair(8).saturating_add(n_neighbours.saturating_mul(8)),
                    n_neighbours.saturating_mul(16),
                ),
                MetricName::MinibatchCka => {
                    let batch = u64::from(metric.batch_size.unwrap_or(BATCH_SIZE_DEFAULT)).min(n);
                    // What remains joins the last batch, which is then nearly twice as large.
                    let rows = batch.saturating_mul(2).min(n);
                    (
                        n.saturating_mul(rows).saturating_mul(value) / 2,
                        rows.saturating_mul(rows).saturating_mul(8),
                    )
                }
                // Distances, a copy in which the median is found, the kernel before it is centred.
                MetricName::RbfCka => (matrix, bytes_per_pair(3 * 8)),
                // Distances, and of each pair of layers their difference and the vectors of Lanczos' iteration.
                MetricName::RsmNormDifference => {
                    (bytes_per_pair(8), bytes_per_pair(8).saturating_add(8 * n * n.min(LANCZOS_STEPS_MAX)))
                }
                MetricName::UniformityDifference | MetricName::MagnitudeDifference => (8, 0),
                MetricName::ConcentricityDifference => (8, 8 * width),
                MetricName::EigenspaceOverlapScore => {
                    of_rows.insert(OfRows::Basis);
                    (0, 0)
                }
                MetricName::Svcca | MetricName::Gulp | MetricName::LinearRegression => {
                    of_rows.insert(OfRows::CentredBasis);
                    (0, 0)
                }
                MetricName::Pwcca => {
                    of_rows.insert(OfRows::CentredBasis);
                    // The columns in the coordinates of the basis.
                    (width.min(n).saturating_mul(width).saturating_mul(8), 0)
                }
                MetricName::OrthogonalProcrustesCenteredAndNormalized
                | MetricName::ProcrustesSizeAndShapeDistance
                | MetricName::OrthogonalAngularShapeMetricCentered => {
                    of_rows.insert(OfRows::Shape);
                    (0, 0)
                }
                MetricName::AlignedCosineSimilarity | MetricName::PermutationProcrustes => {
                    of_rows.insert(OfRows::Rows);
                    (0, 0)
                }
                MetricName::HardCorrelationMatch | MetricName::SoftCorrelationMatch => {
                    of_rows.insert(OfRows::UnitColumns);
                    (0, 0)
                }
            };
            let kept = if is_kept_by_pairs(metric.name) { &mut needs.on_disk } else { &mut needs.in_memory };
            *kept = kept.saturating_add(part);
            most_work = most_work.max(work);
            if metric.name == MetricName::Rsa {
                // Similarities, ranks, and the records that are sorted at a time.
                let records = bytes_per_pair(8).min(8 * SORTED_AT_A_TIME);
                most_ranking = bytes_per_pair(8 + 4).saturating_add(records);
                n_rankings += 1;
            }
        }
        let of_layer = layer_metrics.iter().map(|name| layer_metric_bytes(*name, n, width));
        most_work = most_work.max(of_layer.max().unwrap_or(0));
        if !of_rows.is_empty() {
            let rows = n.saturating_mul(width).saturating_mul(8);
            let square = width.min(n).saturating_mul(width.min(n)).saturating_mul(8);
            needs.in_memory = needs.in_memory.saturating_add(rows.saturating_mul(of_rows.len() as u64));
            // The rows, centred and not, and singular value decompositions: their inputs, factors and workspaces.
            let decomposition = rows.saturating_mul(10).saturating_add(square.saturating_mul(8));
            most_work = most_work.max(decomposition);
        }
        // The last of the rankings is done when the rows and the Gram matrix are gone, unless their memory is kept for
        // the next layer.
        let beside = rows.saturating_add(gram);
        let frees = n_rankings <= 1 && bytes_per_pair(8) > SPARE_BYTES_MAX;
        needs.in_flight = match frees {
            // What is left of the ranking of the layer before are the records.
            true => beside.saturating_add(most_work).saturating_add(8 * SORTED_AT_A_TIME).max(most_ranking),
            false => beside.saturating_add(most_work.max(most_ranking)),
        };
        needs.in_flight = needs.in_flight.saturating_add(PER_THREAD_BYTES);
        needs
    }
}

/// Whether a metric keeps a number for each pair of rows, in a list that can lie on disk.
fn is_kept_by_pairs(metric: MetricName) -> bool {
    use MetricName::{Cka, DebiasedCka, DistanceCorrelation, MinibatchCka, RbfCka, Rsa};
    matches!(metric, Cka | DebiasedCka | DistanceCorrelation | MinibatchCka | RbfCka | Rsa)
}

/// What is kept of the rows of a layer, [n, d] float64 each; metrics that start from the same keep it once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum OfRows {
    Rows,
    Basis,
    CentredBasis,
    Shape,
    UnitColumns,
}

/// Bytes that a layer metric holds while it looks at one layer of `n` rows of that width.
fn layer_metric_bytes(name: LayerMetricName, n: u64, width: u64) -> u64 {
    let rows = n.saturating_mul(width);
    let side = n.min(width);
    let square = side.saturating_mul(side);
    let numbers = match name {
        // The rows, their copy for libtorch, another by columns with the reflections; the triangular factor, its
        // copy, and the zeros that libtorch returns for singular vectors.
        LayerMetricName::EffectiveRank => rows.saturating_mul(4).saturating_add(square.saturating_mul(5)),
        // The rows and their copy for libtorch; the product and its copies.
        LayerMetricName::DatasetEntropy => rows.saturating_mul(2).saturating_add(square.saturating_mul(3)),
        LayerMetricName::Anisotropy => width,
        LayerMetricName::IntrinsicDimension => n.saturating_mul(3),
        LayerMetricName::NormMean
        | LayerMetricName::NormStd
        | LayerMetricName::NormMin
        | LayerMetricName::NormMax => n,
    };
    numbers.saturating_mul(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<MetricSpec> {
        MetricName::DEFAULT.into_iter().map(MetricSpec::new).collect()
    }

    #[test]
    fn estimates_grow_with_what_they_depend_on() {
        let base = trial_memory_bytes(1000, &[768; 13], &all(), &[], 2);
        assert!(trial_memory_bytes(1001, &[768; 13], &all(), &[], 2) > base);
        assert!(trial_memory_bytes(1000, &[768; 14], &all(), &[], 2) > base);
        assert!(trial_memory_bytes(1000, &[769; 13], &all(), &[], 2) > base);
        assert!(trial_memory_bytes(1000, &[768; 13], &all(), &[], 3) > base);
        assert!(trial_memory_bytes(1000, &[768; 13], &all()[..3], &[], 2) < base);
        assert_eq!(
            trial_memory_bytes(1000, &[768; 13], &all(), &[], 13),
            trial_memory_bytes(1000, &[768; 13], &all(), &[], 99)
        );
    }

    #[test]
    fn a_budget_sends_parts_to_disk_first_and_then_lowers_the_layers_in_flight() {
        let widths = [768; 13];
        let plan = |gib: u64| trial_plan(20_000, &widths, &all(), &[], 4, gib << 30);
        let roomy = plan(100);
        assert_eq!((roomy.n_in_flight, roomy.on_disk, roomy.scratch_bytes), (4, false, 0));
        let on_disk = plan(20);
        assert_eq!((on_disk.n_in_flight, on_disk.on_disk), (4, true));
        // A float32 or an integer for each pair and each of three metrics.
        assert!((31_000_000_000..32_000_000_000).contains(&on_disk.scratch_bytes), "{on_disk:?}");
        for gib in [8, 12, 20] {
            assert!(plan(gib).memory_bytes <= gib << 30, "{:?}", plan(gib));
        }
        assert!((1..4).contains(&plan(8).n_in_flight), "{:?}", plan(8));
        let least = trial_memory_min_bytes(20_000, &widths, &all(), &[]);
        assert_eq!((plan(0).memory_bytes, plan(0).n_in_flight), (least, 1));
        assert!(least < 5 << 30, "{least}");
        // Neighbours do not lie on disk.
        assert!(!trial_plan(3000, &widths, &all()[2..3], &[], 2, 0).on_disk);
    }

    #[test]
    fn every_layer_metric_has_an_estimate_that_does_not_overflow() {
        let base = trial_memory_bytes(1000, &[768; 13], &[], &[], 2);
        for name in LayerMetricName::ALL {
            assert!(trial_memory_bytes(1000, &[768; 13], &[], &[name], 2) > base, "{name}");
            assert_eq!(trial_memory_bytes(u32::MAX, &[u32::MAX; 3], &[], &[name], 9), u64::MAX, "{name}");
        }
    }

    #[test]
    fn metrics_that_start_from_the_same_keep_it_once() {
        let bytes = |names: &[MetricName]| {
            let metrics: Vec<MetricSpec> = names.iter().copied().map(MetricSpec::new).collect();
            trial_memory_bytes(1000, &[768; 13], &metrics, &[], 2)
        };
        let (svcca, both) = (bytes(&[MetricName::Svcca]), bytes(&[MetricName::Svcca, MetricName::Gulp]));
        assert_eq!(svcca, both);
        let kept = 13 * 1000 * 768 * 8;
        assert_eq!(bytes(&[MetricName::Svcca, MetricName::SoftCorrelationMatch]), svcca + kept);
    }

    #[test]
    fn the_usual_trial_fits_a_small_machine() {
        let bytes = trial_memory_bytes(3000, &[768; 13], &all(), &[], 2);
        assert!((1 << 29..2 << 30).contains(&bytes), "{bytes}");
    }

    #[test]
    fn every_metric_counts_for_something_and_none_overflows() {
        let widths = [768; 13];
        for name in MetricName::ALL {
            let one = [MetricSpec::new(name)];
            let flop = trial_flop(3000, &widths, &one, &[]);
            assert!(flop > 0 || trial_memory_bytes(3000, &widths, &one, &[], 1) < 1 << 30, "{name}");
            assert!(trial_flop(u32::MAX, &[u32::MAX; 3], &one, &[]) >= flop, "{name}");
        }
        let (default, with_svd) = (all(), [all(), vec![MetricSpec::new(MetricName::Pwcca)]].concat());
        assert!(trial_flop(3000, &widths, &with_svd, &[]) > 2 * trial_flop(3000, &widths, &default, &[]));
    }

    #[test]
    fn absurd_sizes_do_not_overflow() {
        let mut all = all();
        all[2].k = Some(u32::MAX);
        assert_eq!(trial_memory_bytes(u32::MAX, &[u32::MAX; 3], &all, &[], usize::MAX), u64::MAX);
        assert_eq!(trial_memory_bytes(u32::MAX, &[1; 3], &all[1..2], &[], 1), u64::MAX);
        assert_eq!(trial_memory_bytes(0, &[], &[], &[], 0), 0);
    }
}
