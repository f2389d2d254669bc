//! Intrinsic dimension by TwoNN: n / Σ log(r₂ / r₁), r₁ and r₂ the distances of a row to its two nearest other rows.
//!
//! This is the estimate of maximum likelihood, over all points: the paper fits a line instead and leaves out the tenth
//! of the points with the largest ratios. Equal rows have r₁ = 0 and no ratio, so rows count once, and n is the number of
//! distinct ones.
//!
//! Facco, d'Errico, Rodriguez and Laio, "Estimating the intrinsic dimension of datasets by a minimal neighborhood
//! information", 2017.

use super::super::layer::Layer;
use super::super::{Part, PartError, Prepare, Undefined};

/// Gathers the distances of every distinct row to its two nearest ones.
pub struct TwoNearest {
    /// Whether a row is the first of those equal to it.
    first: Vec<bool>,
    /// For every row the smallest distance and the one after it.
    nearest: Vec<[f64; 2]>,
}

impl TwoNearest {
    /// For the rows of `layer`.
    pub fn new(layer: &Layer) -> Self {
        let n = layer.n_rows();
        let mut n_seen = 0;
        // Distinct rows are numbered in order of first occurrence.
        let first = layer.distinct_of.iter().map(|distinct| {
            let new = *distinct == n_seen;
            n_seen += u32::from(new);
            new
        });
        Self { first: first.collect(), nearest: vec![[f64::INFINITY; 2]; n] }
    }
}

impl Prepare for TwoNearest {
    fn row(&mut self, i: usize, _own: f64, right: &[f64]) {
        if !self.first[i] {
            return;
        }
        let (done, later) = self.nearest.split_at_mut(i + 1);
        let others = later.iter_mut().zip(&self.first[i + 1..]).zip(right);
        for ((other, _), distance) in others.filter(|((_, first), _)| **first) {
            insert(&mut done[i], *distance);
            insert(other, *distance);
        }
    }

    fn finish(self: Box<Self>) -> Result<Part, PartError> {
        let distinct = self.nearest.iter().zip(&self.first).filter(|(_, first)| **first);
        let (mut n, mut sum) = (0.0, 0.0);
        for ([r1, r2], _) in distinct {
            if r2.is_infinite() {
                return Err(Undefined::FewRows(3).into());
            }
            if *r1 == 0.0 {
                return Err(Undefined::RowsTooNear.into());
            }
            n += 1.0;
            sum += (r2 / r1).ln();
        }
        if sum == 0.0 { Err(Undefined::EqualDistances.into()) } else { Ok(Part::new(n / sum)) }
    }
}

fn insert(nearest: &mut [f64; 2], distance: f64) {
    if distance < nearest[0] {
        *nearest = [distance, nearest[0]];
    } else if distance < nearest[1] {
        nearest[1] = distance;
    }
}
