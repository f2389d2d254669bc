//! Metrics of all pairs of rows computed by libtorch on a device: the same numbers up to rounding as on the CPU.
//!
//! What takes time in proportion to n² or n² d runs on the device; rows are scaled, told apart and centred on the CPU,
//! and what is one number per row is computed there too. Everything is float64. One layer at a time is prepared.

pub mod pairs;
mod parts;
pub mod vector;

use lsa_common::metric::{MetricName, MetricSpec};
use tch::Device;

use self::pairs::TensorPairs;
use super::{Part, PartError};
use crate::device;

/// The part of a device's memory that layers may take, as one of so many: the model stays loaded beside them.
const MEMORY_SHARE: u64 = 2;

/// Matrices of [n, n] in float64 that are there at once while a layer is prepared: the Gram matrix, quantities and what
/// they are made of, and, most of all, the sorted pairs with their order.
const WORKING_MATRICES: u64 = 12;

/// Whether the metric can be computed on a device.
pub fn is_on_device(spec: &MetricSpec) -> bool {
    matches!(
        spec.name,
        MetricName::Cka
            | MetricName::Rsa
            | MetricName::JaccardSimilarity
            | MetricName::MutualKnn
            | MetricName::RankSimilarity
            | MetricName::DistanceCorrelation
    )
}

/// Whether so many layers of n rows fit into the memory of the device. It depends on the kind of device alone, so that
/// devices of one kind compute the same bytes.
pub fn fits(n: u64, n_layers: u64, metrics: &[MetricSpec], device: Device) -> bool {
    let vectors = metrics.iter().filter(|spec| keeps_vector(spec)).count() as u64;
    let matrix = 8 * n * n;
    let needed = n_layers * vectors * (matrix / 2) + WORKING_MATRICES * matrix;
    device::memory(device).is_some_and(|memory| needed <= memory.total_bytes / MEMORY_SHARE)
}

fn keeps_vector(spec: &MetricSpec) -> bool {
    matches!(spec.name, MetricName::Cka | MetricName::Rsa | MetricName::DistanceCorrelation)
}

/// The part of a layer for a metric that [`is_on_device`].
///
/// # Panics
/// For any other.
pub fn part(spec: &MetricSpec, pairs: &mut TensorPairs<'_>) -> Result<Part, PartError> {
    match spec.name {
        MetricName::Cka => parts::kernel(pairs),
        MetricName::Rsa => parts::ranks(spec, pairs),
        MetricName::DistanceCorrelation => parts::centred_distances(pairs),
        MetricName::JaccardSimilarity | MetricName::MutualKnn | MetricName::RankSimilarity => {
            parts::neighbours(spec, pairs)
        }
        other => unreachable!("{other} has no form on a device"),
    }
}
