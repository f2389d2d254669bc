//! Quantities of one layer, computed beside the similarities of layers.
//!
//! They are of the rows as given, not centred. A layer whose rows are all equal has those that are defined there.

pub mod anisotropy;
pub mod dataset_entropy;
pub mod effective_rank;
pub mod intrinsic_dimension;
pub mod norms;

/// -Σ p log p of numbers that sum to 1, in nats; one that rounding left at or below 0 counts as 0.
fn entropy(shares: impl Iterator<Item = f64>) -> f64 {
    shares.filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum()
}
