//! Second-order cosine similarity: the mean over rows i of the cosine of `D_i[U]` and `D'_i[U]`, U the rows that are among
//! the k nearest of i in either layer and D_i their distances to i. Distances are 1 - cosine or 1 - correlation, or
//! euclidean.
//!
//! Distances that are all 0, as between equal rows, have no direction: where both layers have such ones the row counts
//! as 1, where one has as 0. (The ReSi benchmark gets NaN or noise there.)
//!
//! Hamilton, Leskovec and Jurafsky, "Cultural Shift or Linguistic Drift?", 2016; with distances as ReSi has it.

use lsa_common::metric::{Inner, MetricSpec};

use super::neighbours::{Nearest, Neighbours, for_each_of_either};
use super::triangle::{n_pairs, pair_place};
use super::{Failed, Part, PartError, Prepare, Sides};

/// Gathers the distances of one layer and the nearest rows.
pub struct Distances {
    n: usize,
    euclidean: bool,
    nearest: Nearest,
    upper: Vec<f64>,
}

impl Distances {
    /// For `n` rows, of which each has `spec.k` neighbours; `k < n`.
    pub fn new(spec: &MetricSpec, n: usize) -> Self {
        Self {
            n,
            euclidean: spec.inner == Some(Inner::Euclidean),
            nearest: Nearest::new(spec, n),
            upper: Vec::with_capacity(n_pairs(n)),
        }
    }
}

impl Prepare for Distances {
    fn row(&mut self, i: usize, own: f64, right: &[f64]) {
        self.nearest.row(i, own, right);
        let euclidean = self.euclidean;
        self.upper.extend(right.iter().map(|value| if euclidean { *value } else { 1.0 - value }));
    }

    fn finish(self: Box<Self>) -> Result<Part, PartError> {
        let Self { n, nearest, upper, .. } = *self;
        Ok(Part::new(Surroundings { n, neighbours: nearest.neighbours(), upper }))
    }
}

/// The nearest rows of every row of a layer, and the distances of all: which are needed is known only when another layer
/// is there.
struct Surroundings {
    n: usize,
    neighbours: Neighbours,
    upper: Vec<f64>,
}

/// Second-order cosine similarity of all pairs of layers, in [0, 1].
pub fn combine(sides: &Sides<'_>) -> Result<Vec<f64>, Failed> {
    sides.pairwise(|left, right| Ok(mean_cosine(left, right)))
}

fn mean_cosine(a: &Surroundings, b: &Surroundings) -> f64 {
    let rows = a.neighbours.rows().zip(b.neighbours.rows()).enumerate();
    let cosines = rows.map(|(i, ((left, _), (right, _)))| {
        let (mut product, mut square_a, mut square_b) = (0.0, 0.0, 0.0);
        for_each_of_either(left, right, |j| {
            let place = pair_place(a.n, i, j as usize);
            let (x, y) = (a.upper[place], b.upper[place]);
            product += x * y;
            square_a += x * x;
            square_b += y * y;
        });
        match (square_a == 0.0, square_b == 0.0) {
            (true, true) => 1.0,
            (true, false) | (false, true) => 0.0,
            (false, false) => product / (square_a.sqrt() * square_b.sqrt()),
        }
    });
    cosines.sum::<f64>() / a.n as f64
}
