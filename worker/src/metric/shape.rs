//! The shape of a layer: its centred rows but for their size, and how far the shapes of two layers are apart.
//!
//! Williams, Kunz, Kornblith and Linderman, "Generalized Shape Metrics on Neural Representations", 2021.

use std::sync::Arc;

use tch::TchError;

use super::matrix::{Matrix, products, sum_of_squares};
use super::rows::Rows;
use super::singular::{Svd, nuclear_norm, svd};
use super::unordered::{Content, unordered_pairs};
use super::{Failed, Sides};

/// The name of the matrix of chords among what metrics share.
const CHORDS: &str = "chords of shapes";

/// Below this, 1 - ‖Xᵀ X'‖_* has lost too many digits, and the difference itself is computed.
const CHORD_MIN: f64 = 1e-2;

/// Centred rows, in coordinates of their own span where there are fewer rows than columns.
pub struct Shape {
    /// The rows divided by their Frobenius norm, [n, min(n, d)].
    unit: Matrix,
    /// Their Frobenius norm; two to the power of `scale_exponent` is still to be multiplied.
    pub norm: f64,
    /// The rows given were divided by two to this power.
    pub scale_exponent: i32,
    content: (usize, u64),
}

impl Shape {
    /// Of rows that are centred, and not all zero.
    pub fn of(centred: &Rows) -> Result<Self, TchError> {
        let values = centred.values.tensor();
        let norm = sum_of_squares(&values)?.sqrt();
        let unit = Matrix::new(&values.f_div_scalar(norm)?)?;
        Ok(Self { unit, norm, scale_exponent: centred.scale_exponent, content: centred.content() })
    }

    /// The distance min_Q ‖X Q - X'‖ of two shapes, Q orthogonal, in [0, √2]; `self` has no more columns than `other`,
    /// and the columns that it lacks are zero.
    fn chord(&self, other: &Self) -> Result<f64, TchError> {
        let (x, y) = (self.unit.tensor(), other.unit.tensor());
        let cross = products(&x, &y)?;
        let squared = 2.0 - 2.0 * nuclear_norm(&cross)?;
        if squared >= CHORD_MIN * CHORD_MIN {
            return Ok(squared.sqrt());
        }
        let Svd { left, right, .. } = svd(&cross)?;
        let turned = x.f_matmul(&left)?.f_matmul(&right.f_transpose(0, 1)?)?;
        Ok(sum_of_squares(&turned.f_sub(&y)?)?.sqrt())
    }
}

impl Content for Shape {
    fn content(&self) -> (usize, u64) {
        self.content
    }
}

/// The distances of the shapes of all pairs of layers; computed once for all metrics that are derived from it.
pub fn chords(sides: &Sides<'_>) -> Result<Arc<Vec<f64>>, Failed> {
    sides.memo.matrix(CHORDS, || unordered_pairs(sides, |a: &Arc<Shape>, b| Ok(a.chord(b)?)))
}
