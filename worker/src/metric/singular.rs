//! Singular values and vectors.

use tch::{TchError, Tensor};

/// A = U diag(values) Vᵀ with as many singular values as A has rows or columns, whichever are fewer.
pub struct Svd {
    /// The left singular vectors, [rows, k].
    pub left: Tensor,
    /// The singular values, descending.
    pub values: Vec<f64>,
    /// The right singular vectors, [columns, k].
    pub right: Tensor,
}

/// The thin singular value decomposition of a float64 matrix.
pub fn svd(matrix: &Tensor) -> Result<Svd, TchError> {
    // Not `linalg_svd`: its binding always names a driver, which libtorch refuses on a CPU.
    let (left, values, right) = matrix.f_svd(true, true)?;
    Ok(Svd { left, values: Vec::try_from(values)?, right })
}

/// The sum of the singular values of a float64 matrix.
pub fn nuclear_norm(matrix: &Tensor) -> Result<f64, TchError> {
    let (_, values, _) = matrix.f_svd(true, false)?;
    Ok(Vec::<f64>::try_from(values)?.iter().sum())
}

/// How many singular values of an [n, d] matrix are more than rounding: above max(n, d) ε times the largest one.
pub fn numerical_rank(values: &[f64], n: usize, d: usize) -> usize {
    let largest = values.first().copied().unwrap_or(0.0);
    let tolerance = n.max(d) as f64 * f64::EPSILON * largest;
    values.iter().take_while(|value| **value > tolerance).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_is_that_of_the_numbers_and_not_of_their_rounding() {
        assert_eq!(numerical_rank(&[4.0, 1.0, 1e-15, 0.0], 100, 4), 2);
        assert_eq!(numerical_rank(&[4.0, 1.0, 1e-12, 0.0], 100, 4), 3);
        assert_eq!(numerical_rank(&[0.0, 0.0], 2, 2), 0);
        assert_eq!(numerical_rank(&[], 2, 0), 0);
    }

    #[test]
    fn a_matrix_is_the_product_of_its_factors() {
        let matrix = Tensor::from_slice(&[3.0, 0.0, 4.0, 0.0, 2.0, 0.0f64]).view([2, 3]);
        let Svd { left, values, right } = svd(&matrix).unwrap();
        assert!((values[0] - 5.0).abs() < 1e-14 && (values[1] - 2.0).abs() < 1e-14, "{values:?}");
        let product = (left * Tensor::from_slice(&values)).matmul(&right.transpose(0, 1));
        assert!(f64::try_from((product - &matrix).abs().max()).unwrap() < 1e-14);
        assert!((nuclear_norm(&matrix).unwrap() - 7.0).abs() < 1e-14);
    }
}
