//! Mutual k-NN: the mean over rows of |N ∩ N'| / k, N the k nearest other rows by cosine distance.
//!
//! Huh, Cheung, Wang and Isola, "The Platonic Representation Hypothesis", 2024, section 3.

use super::neighbours::mean_of_shared;
use super::{Failed, Sides};

/// The mean share of common neighbours of all pairs of layers, in [0, 1].
pub fn combine(sides: &Sides<'_>) -> Result<Vec<f64>, Failed> {
    sides.pairwise(|left, right| Ok(mean_of_shared(left, right, |shared, k| shared / k)))
}
