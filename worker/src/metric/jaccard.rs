//! Jaccard similarity: the mean over rows of |N ∩ N'| / |N ∪ N'|, N the k nearest other rows by cosine distance.
//!
//! Wang et al., "Towards Understanding the Instability of Network Embedding", 2020; named as in the ReSi benchmark.

use lsa_common::metric::MetricSpec;

use super::neighbours::mean_of_shared;
use super::{Part, pairwise};

/// Jaccard similarity of all pairs of layers, in [0, 1].
pub fn combine(spec: &MetricSpec, a: &[Option<&Part>], b: Option<&[Option<&Part>]>) -> Vec<f64> {
    pairwise(spec, a, b, |left, right| mean_of_shared(left, right, |shared, k| shared / (2.0 * k - shared)))
}
