//! Jaccard similarity: the mean over rows of |N ∩ N'| / |N ∪ N'|, N the k nearest other rows by cosine distance.
//!
//! Wang et al., "Towards Understanding the Instability of Network Embedding", 2020; named as in the ReSi benchmark.

use super::neighbours::mean_of_shared;
use super::{Failed, Sides};

/// Jaccard similarity of all pairs of layers, in [0, 1].
pub fn combine(sides: &Sides<'_>) -> Result<Vec<f64>, Failed> {
    sides.pairwise(|left, right| Ok(mean_of_shared(left, right, |shared, k| shared / (2.0 * k - shared))))
}
