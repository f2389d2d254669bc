//! Mutual k-NN: the mean over rows of |N ∩ N'| / k, N the k nearest other rows by cosine distance.
//!
//! Huh, Cheung, Wang and Isola, "The Platonic Representation Hypothesis", 2024, section 3.

use lsa_common::metric::MetricSpec;

use super::neighbours::mean_of_shared;
use super::{Part, pairwise};

/// The mean share of common neighbours of all pairs of layers, in [0, 1].
pub fn combine(spec: &MetricSpec, a: &[Option<&Part>], b: Option<&[Option<&Part>]>) -> Vec<f64> {
    pairwise(spec, a, b, |left, right| mean_of_shared(left, right, |shared, k| shared / k))
}
