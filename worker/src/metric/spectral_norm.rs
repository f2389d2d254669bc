//! The spectral norm of a symmetric matrix without diagonal, by Lanczos' iteration.
//!
//! The matrix need not be definite: the eigenvalue of largest magnitude may lie at either end, so both are watched.
//! The basis is kept orthogonal in full, the start is fixed and every sum has one order.
//!
//! Parlett, "The Symmetric Eigenvalue Problem", 1998, chapter 13.

use lsa_common::cost::LANCZOS_STEPS_MAX;
use tch::{TchError, Tensor};

use super::Failed;
use super::layer::dot;
use super::triangle::row_start;

/// The norm is right up to this part of itself.
const TOLERANCE: f64 = 1e-12;

/// The most vectors of the basis. A few dozen are usual; only eigenvalues that nearly agree ask for many.
const STEPS_MAX: usize = LANCZOS_STEPS_MAX as usize;

/// Steps between two looks at the eigenvalues: at least this, and a tenth of those made.
const STEPS_BETWEEN: usize = 5;

/// The largest magnitude of an eigenvalue of the symmetric [n, n] matrix with this packed strict upper triangle and a
/// diagonal of zeros, to a relative 1e-12. Fails where that is not reached in 1000 steps.
pub fn spectral_norm(n: usize, upper: &[f64]) -> Result<f64, Failed> {
    if upper.iter().all(|value| *value == 0.0) {
        return Ok(0.0);
    }
    let mut lanczos = Lanczos { basis: Vec::new(), diagonal: Vec::new(), beside: Vec::new() };
    let mut next = start(n);
    let mut look_at = STEPS_BETWEEN;
    for step in 1..=n.min(STEPS_MAX) {
        let mut product = vec![0.0; n];
        multiply(n, upper, &next, &mut product);
        lanczos.diagonal.push(dot(&next, &product));
        lanczos.basis.push(next);
        // Once leaves what rounding took part in, twice is enough.
        for _round in 0..2 {
            for vector in &lanczos.basis {
                let part = dot(vector, &product);
                add_multiple(&mut product, -part, vector);
            }
        }
        let rest = dot(&product, &product).sqrt();
        let largest = lanczos.beside.iter().copied().fold(0.0, f64::max);
        // The basis spans all there is, or all that the start has a part in.
        let complete = step == n || rest <= TOLERANCE * largest;
        if complete || step >= look_at {
            if let Some(norm) = lanczos.norm(if step == n { 0.0 } else { rest })? {
                return Ok(norm);
            }
            look_at = step + STEPS_BETWEEN.max(step / 10);
        }
        lanczos.beside.push(rest);
        product.iter_mut().for_each(|value| *value /= rest);
        next = product;
    }
    Err(Failed(format!(
        "the norm of a difference of distances has not converged in {STEPS_MAX} steps of Lanczos' iteration"
    )))
}

/// An orthonormal basis, and the tridiagonal matrix that the symmetric one is in it.
struct Lanczos {
    basis: Vec<Vec<f64>>,
    diagonal: Vec<f64>,
    beside: Vec<f64>,
}

impl Lanczos {
    /// The largest magnitude of an eigenvalue, once it is known; `rest` is the norm of what the basis leaves out.
    fn norm(&self, rest: f64) -> Result<Option<f64>, TchError> {
        let m = self.diagonal.len();
        let mut matrix = vec![0.0; m * m];
        for (i, value) in self.diagonal.iter().enumerate() {
            matrix[i * m + i] = *value;
        }
        for (i, value) in self.beside.iter().enumerate() {
            (matrix[i * m + i + 1], matrix[(i + 1) * m + i]) = (*value, *value);
        }
        let side = i64::try_from(m).expect("a count of items in memory");
        let (values, vectors) = Tensor::f_from_slice(&matrix)?.f_view([side, side])?.f_linalg_eigh("L")?;
        let value = |place: i64| values.f_double_value(&[place]);
        // An eigenvalue of the whole matrix is no further from one of the tridiagonal matrix than this.
        let error = |place: i64| Ok::<_, TchError>(rest * vectors.f_double_value(&[side - 1, place])?.abs());
        let low = (value(0)?.abs(), error(0)?);
        let high = (value(side - 1)?.abs(), error(side - 1)?);
        let ((norm, norm_error), (other, other_error)) =
            if low.0 > high.0 { (low, high) } else { (high, low) };
        let known = |error: f64| error <= TOLERANCE * norm;
        Ok((known(norm_error) && (known(other_error) || other + other_error <= norm)).then_some(norm))
    }
}

/// A unit vector without a pattern, so that it has a part in every eigenvector.
fn start(n: usize) -> Vec<f64> {
    // The generator splitmix64.
    let mut state = 0u64;
    let mut vector: Vec<f64> = std::iter::repeat_with(|| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = state;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    })
    .take(n)
    .collect();
    let norm = dot(&vector, &vector).sqrt();
    vector.iter_mut().for_each(|value| *value /= norm);
    vector
}

/// Adds the matrix times `vector` to `product`.
fn multiply(n: usize, upper: &[f64], vector: &[f64], product: &mut [f64]) {
    for i in 0..n {
        let row = &upper[row_start(n, i)..row_start(n, i + 1)];
        product[i] += dot(row, &vector[i + 1..]);
        add_multiple(&mut product[i + 1..], vector[i], row);
    }
}

fn add_multiple(to: &mut [f64], factor: f64, values: &[f64]) {
    to.iter_mut().zip(values).for_each(|(to, value)| *to += factor * value);
}

#[cfg(test)]
mod tests {
    use super::super::triangle::n_pairs;
    use super::*;

    fn check(n: usize, entry: impl Fn(usize, usize) -> f64, expected: f64) {
        let upper: Vec<f64> =
            (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))).map(|(i, j)| entry(i, j)).collect();
        assert_eq!(upper.len(), n_pairs(n));
        let norm = spectral_norm(n, &upper).unwrap();
        assert!((norm - expected).abs() <= 1e-12 * expected, "{n}: {norm} instead of {expected}");
    }

    #[test]
    fn norms_of_matrices_with_known_eigenvalues() {
        for n in [2, 3, 10, 300] {
            check(n, |_, _| 0.0, 0.0);
            // All ones off the diagonal: n - 1 once, -1 for the rest.
            check(n, |_, _| 1.0, n as f64 - 1.0);
            check(n, |_, _| -2.5, 2.5 * (n as f64 - 1.0));
            // A path: both ends of the spectrum are as large, and crowded.
            let path = |i: usize, j: usize| f64::from(u8::from(j == i + 1));
            check(n, path, 2.0 * (std::f64::consts::PI / (n as f64 + 1.0)).cos());
        }
        // The larger end is the negative one: minus the ones, of two blocks of 20 and 30.
        check(50, |i, j| if (i < 20) == (j < 20) { -1.0 } else { 0.0 }, 29.0);
    }
}
