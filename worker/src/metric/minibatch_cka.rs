//! Minibatch CKA: debiased CKA whose three HSIC are each summed over batches of consecutive rows.
//!
//! With HSIC₁ the unbiased estimator of [`super::debiased_cka`] over the rows of one batch, and b the batches,
//! Σ_b HSIC₁(K_b, L_b) / √(Σ_b HSIC₁(K_b, K_b) Σ_b HSIC₁(L_b, L_b)).
//!
//! Batches are taken in the order in which a trial draws its rows. Rows that are too few for a batch of their own join
//! the last batch, so that every row counts and no batch is smaller than asked for, unless all rows together are.
//!
//! Nguyen, Raghu and Kornblith, "Do Wide and Deep Networks Learn the Same Things?", 2021, equation 2.

use std::ops::Range;

use lsa_common::metric::{BATCH_SIZE_DEFAULT, MetricSpec};

use super::layer::{Layer, dot};
use super::pair_vector::{PairVector, Values};
use super::row_sums::SummedRows;
use super::shared::Shared;
use super::triangle::n_pairs;
use super::{Part, PartError, Undefined};

/// The fewest rows for which the unbiased estimator is defined.
pub const BATCH_ROWS_MIN: u32 = 4;

/// Centred kernels of at most this part of their diagonals are rounding: products of float64 leave less.
const ROUNDING: f64 = 1e-12;

/// The centred kernels of all batches one after another, so that the sum over batches is one inner product.
pub fn kernels(spec: &MetricSpec, shared: &Shared<'_>) -> Result<Part, PartError> {
    let layer = shared.layer;
    let n = layer.n_rows();
    let size = spec.batch_size.unwrap_or(BATCH_SIZE_DEFAULT) as usize;
    let batches = batches(n, size);
    let mut upper = Values::with_capacity(n, batches.iter().map(|batch| n_pairs(batch.len())).sum());
    let mut diagonal = 0.0;
    for batch in batches {
        diagonal += batch_kernel(layer, &layer.distinct_of[batch], &mut upper);
    }
    if upper.sum_of_squares().sqrt() <= ROUNDING * diagonal.sqrt() {
        return Err(Undefined::EqualBatchProducts.into());
    }
    Ok(Part::new(PairVector::new(upper, Values::with_capacity(n, 0))))
}

/// Batches of `size` of `n` rows; the last one takes up what remains.
fn batches(n: usize, size: usize) -> Vec<Range<usize>> {
    let count = (n / size).max(1);
    (0..count).map(|batch| batch * size..if batch + 1 < count { (batch + 1) * size } else { n }).collect()
}

/// Appends the U-centred kernel of the named distinct rows, over the root of what HSIC₁ divides by, and returns the sum
/// of the squares of its diagonal as it was, over the same divisor.
fn batch_kernel(layer: &Layer, rows: &[u32], upper: &mut Values) -> f64 {
    let count = rows.len() as f64;
    let scale = 1.0 / (count * (count - 3.0)).sqrt();
    let width = layer.width as f64;
    let product = |a: u32, b: u32| {
        let (a, b) = (a as usize, b as usize);
        let offset = |row: usize| layer.row_means[row] - layer.grand_mean;
        dot(layer.centred_row(a), layer.centred_row(b)) + width * (offset(a) * offset(b))
    };
    let mut summed = SummedRows::new(rows.len());
    let mut diagonal = 0.0;
    let mut right = Vec::with_capacity(rows.len());
    for (i, row) in rows.iter().enumerate() {
        let own = scale * product(*row, *row);
        diagonal += own * own;
        right.clear();
        right.extend(rows[i + 1..].iter().map(|other| scale * product(*row, *other)));
        summed.row(i, &right);
    }
    let means: Vec<f64> = summed.sums().iter().map(|sum| sum / (count - 2.0)).collect();
    let grand_mean = summed.sums().iter().sum::<f64>() / ((count - 1.0) * (count - 2.0));
    upper.append(&summed.centred(&means, grand_mean));
    diagonal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_batch_takes_up_what_remains() {
        let check = |n, size, expected: &[Range<usize>]| assert_eq!(batches(n, size), expected);
        check(12, 4, &[0..4, 4..8, 8..12]);
        check(15, 4, &[0..4, 4..8, 8..15]);
        check(5, 4, std::slice::from_ref(&(0..5)));
        check(4, 256, std::slice::from_ref(&(0..4)));
    }
}
