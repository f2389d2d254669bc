//! CKA with a Gaussian kernel: K_ij = exp(-‖x_i - x_j‖² / (2 σ² m²)), m the median distance of two different rows given.
//!
//! Centring takes away whatever all of a kernel has in common, so K - 1 stands for K: `exp_m1` keeps the digits that a
//! wide kernel would lose, and the diagonal is 0.
//!
//! Kornblith, Norouzi, Lee and Hinton, "Similarity of Neural Network Representations Revisited", 2019, section 3.

use lsa_common::metric::{MetricSpec, SIGMA_DEFAULT};

use super::pair_vector::{PairVector, Values};
use super::row_sums::SummedRows;
use super::scratch::Scratch;
use super::triangle::{n_pairs, row_start};
use super::{Part, PartError, Prepare, Undefined};

/// Gathers the distances of one layer and makes the centred kernel of them.
pub struct Kernel {
    n: usize,
    sigma: f64,
    distances: Scratch<f64>,
}

impl Kernel {
    /// For `n` rows, at least 2.
    pub fn new(spec: &MetricSpec, n: usize) -> Self {
        let sigma = spec.sigma.map_or(SIGMA_DEFAULT, |sigma| sigma.get());
        Self { n, sigma, distances: Scratch::with_capacity(n_pairs(n)) }
    }
}

impl Prepare for Kernel {
    fn row(&mut self, _i: usize, _own: f64, right: &[f64]) {
        self.distances.extend_from_slice(right);
    }

    fn finish(self: Box<Self>) -> Result<Part, PartError> {
        let Self { n, sigma, distances } = *self;
        let median = median(&distances);
        if median == 0.0 {
            return Err(Undefined::ZeroMedian.into());
        }
        let width = sigma * median;
        let mut summed = SummedRows::new(n);
        let mut right = Vec::with_capacity(n);
        for i in 0..n {
            right.clear();
            right.extend(distances[row_start(n, i)..row_start(n, i + 1)].iter().map(|distance| {
                let ratio = distance / width;
                (-0.5 * ratio * ratio).exp_m1()
            }));
            summed.row(i, &right);
        }
        drop(distances);
        let means: Vec<f64> = summed.sums().iter().map(|sum| sum / n as f64).collect();
        let grand_mean = means.iter().sum::<f64>() / n as f64;
        let mut diagonal = Values::with_capacity(n, n);
        diagonal.extend(means.iter().map(|mean| grand_mean - 2.0 * mean));
        let upper = summed.centred(&means, grand_mean);
        if upper.sum_of_squares() + diagonal.sum_of_squares() == 0.0 {
            return Err(Undefined::EqualKernel.into());
        }
        Ok(Part::new(PairVector::new(upper, diagonal)))
    }
}

/// The median of at least one number, none of them NaN; the mean of the middle two of an even count.
fn median(values: &[f64]) -> f64 {
    let mut ordered = Scratch::with_capacity(values.len());
    ordered.extend_from_slice(values);
    let (below, middle, _) = ordered.select_nth_unstable_by(values.len() / 2, f64::total_cmp);
    let middle = *middle;
    if values.len() % 2 == 1 {
        return middle;
    }
    below.iter().copied().fold(f64::NEG_INFINITY, f64::max).midpoint(middle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[3.0, 1.0]), 2.0);
        assert_eq!(median(&[5.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(&[5.0, 1.0, 4.0, 3.0, 3.0, 9.0]), 3.5);
    }
}
