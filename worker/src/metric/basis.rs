//! An orthonormal basis of the span of a layer's columns: what is left of a layer under invertible linear maps.

use tch::{TchError, Tensor};

use super::matrix::{Matrix, products, size};
use super::rows::Rows;
use super::singular::{Svd, numerical_rank, svd};
use super::unordered::Content;

/// The left singular vectors of n rows and their singular values, as far as the numerical rank r goes.
pub struct Basis {
    /// The left singular vectors, [n, r].
    pub vectors: Matrix,
    /// The singular values, descending; r of them.
    pub values: Vec<f64>,
    content: u64,
}

impl Basis {
    /// Of all these rows.
    pub fn of(rows: &Rows) -> Result<Self, TchError> {
        let matrix = rows.values.tensor();
        let (n, _) = matrix.size2()?;
        let Svd { left, mut values, .. } = svd(&matrix)?;
        values.truncate(numerical_rank(&values, usize::try_from(n).expect("a count of rows"), rows.width));
        let vectors = Matrix::new(&left.f_narrow(1, 0, size(values.len()))?)?;
        Ok(Self { vectors, values, content: rows.content })
    }

    /// The numerical rank r.
    pub fn rank(&self) -> usize {
        self.values.len()
    }

    /// The cosines of all pairs of vectors of this basis and of another one over the same rows, [r, r'].
    pub fn cosines(&self, other: &Self) -> Result<Tensor, TchError> {
        products(&self.vectors.tensor(), &other.vectors.tensor())
    }
}

impl Content for Basis {
    fn content(&self) -> (usize, u64) {
        (self.rank(), self.content)
    }
}
