//! A float64 matrix that several threads read at once.

use std::sync::{Mutex, PoisonError};

use tch::{Kind, TchError, Tensor};

/// A matrix whose entries never change once it is made.
///
/// A handle of libtorch may go to another thread but not be shared; the entries behind it may. So each reader takes a
/// handle of its own.
pub struct Matrix(Mutex<Tensor>);

impl Matrix {
    /// Takes a matrix, [rows, columns], laid out row by row: products are summed in an order that depends on the layout.
    pub fn new(tensor: &Tensor) -> Result<Self, TchError> {
        debug_assert_eq!((tensor.kind(), tensor.dim()), (Kind::Double, 2));
        Ok(Self(Mutex::new(tensor.f_contiguous()?)))
    }

    /// Its entries, not to be written to.
    pub fn tensor(&self) -> Tensor {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).shallow_clone()
    }
}

/// A count as libtorch takes it.
pub fn size(count: usize) -> i64 {
    i64::try_from(count).expect("a count of items in memory")
}

/// ⟨A, B⟩ for every pair of columns of two matrices with as many rows: Aᵀ B.
pub fn products(a: &Tensor, b: &Tensor) -> Result<Tensor, TchError> {
    a.f_transpose(0, 1)?.f_matmul(b)
}

/// The sum of the squares of all entries.
pub fn sum_of_squares(matrix: &Tensor) -> Result<f64, TchError> {
    f64::try_from(matrix.f_square()?.f_sum(Kind::Double)?)
}

/// All entries, row by row.
pub fn entries(matrix: &Tensor) -> Result<Vec<f64>, TchError> {
    Vec::try_from(matrix.f_flatten(0, -1)?)
}
