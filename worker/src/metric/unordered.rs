//! Comparison of pairs of layers to the same bytes, whichever layer comes first.
//!
//! A product of matrices rounds differently when its factors change places, so a symmetric metric fixes their order.

use std::any::Any;
use std::sync::Arc;

use super::{Failed, Sides};

/// A part that can be told from those of other layers.
pub trait Content {
    /// How many columns it has, and a digest of the rows that it was made from.
    fn content(&self) -> (usize, u64);
}

impl<T: Content> Content for Arc<T> {
    fn content(&self) -> (usize, u64) {
        self.as_ref().content()
    }
}

/// The matrix of a metric that takes two parts in either order; `compare` is given the one with fewer columns first.
pub fn unordered_pairs<T: Any + Send + Sync + Content>(
    sides: &Sides<'_>,
    compare: impl Fn(&T, &T) -> Result<f64, Failed> + Sync,
) -> Result<Vec<f64>, Failed> {
    sides.pairwise(|a: &T, b: &T| if b.content() < a.content() { compare(b, a) } else { compare(a, b) })
}
