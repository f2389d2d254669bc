//! Rank similarity: common neighbours weigh the more the nearer they are and the more alike their ranks.
//!
//! For row i with m common neighbours j of ranks r and r' (1 for the nearest), the mean over rows of
//! (1 / H_m) Σ_j 2 / ((1 + |r - r'|) (r + r')), H_m = Σ_{i = 1..m} 1 / i; 0 where m is 0.
//!
//! Wang et al., "Towards Understanding the Instability of Network Embedding", 2020; as the ReSi benchmark has it.

use super::neighbours::{Neighbours, for_each_shared};
use super::{Failed, Sides};

/// Rank similarity of all pairs of layers, in [0, 1].
pub fn combine(sides: &Sides<'_>) -> Result<Vec<f64>, Failed> {
    sides.pairwise(|left, right| Ok(mean_score(left, right)))
}

fn mean_score(a: &Neighbours, b: &Neighbours) -> f64 {
    let (sum, n) = a.rows().zip(b.rows()).fold((0.0, 0u32), |(sum, n), (a, b)| (sum + score(a, b), n + 1));
    sum / f64::from(n)
}

/// The score of one row; both sides are neighbours in ascending order and their ranks.
fn score((left, left_ranks): (&[u32], &[u32]), (right, right_ranks): (&[u32], &[u32])) -> f64 {
    let (mut sum, mut harmonic, mut n_common) = (0.0, 0.0, 0u32);
    for_each_shared(left, right, |i, j| {
        let (r, other) = (left_ranks[i], right_ranks[j]);
        sum += 2.0 / (f64::from(1 + r.abs_diff(other)) * f64::from(r + other));
        n_common += 1;
        harmonic += 1.0 / f64::from(n_common);
    });
    if n_common == 0 { 0.0 } else { sum / harmonic }
}
