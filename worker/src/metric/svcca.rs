//! Singular vector canonical correlation analysis: the mean canonical correlation of the leading singular directions.
//!
//! Of each centred layer the fewest singular directions are kept whose squared singular values make up the share
//! `variance` of the sum of all. With U_k their left singular vectors, the canonical correlations are the singular values
//! of U_kᵀ U'_k'; their mean is taken over min(k, k') of them. (ReSi compares the share with `variance` times the sum,
//! so that it keeps one direction of most layers; here it is the share, as in the paper.)
//!
//! Raghu, Gilmer, Yosinski and Sohl-Dickstein, "SVCCA", 2017.

use std::sync::Arc;

use lsa_common::metric::{MetricSpec, Number, VARIANCE_DEFAULT};

use super::basis::Basis;
use super::matrix::size;
use super::shared::Shared;
use super::singular::nuclear_norm;
use super::unordered::{Content, unordered_pairs};
use super::{Failed, Part, PartError, Sides};

/// The leading directions of a layer.
struct Leading {
    basis: Arc<Basis>,
    /// How many of its vectors.
    count: usize,
}

impl Content for Leading {
    fn content(&self) -> (usize, u64) {
        self.basis.content()
    }
}

/// The directions that hold the share of the variance that was asked for.
pub fn prepare(spec: &MetricSpec, shared: &Shared<'_>) -> Result<Part, PartError> {
    let basis = shared.centred_basis()?;
    let count = leading(&basis.values, spec.variance.map_or(VARIANCE_DEFAULT, Number::get));
    Ok(Part::new(Leading { basis, count }))
}

/// How many of the descending singular values it takes to hold that share of the sum of their squares.
fn leading(values: &[f64], share: f64) -> usize {
    let total: f64 = values.iter().map(|value| value * value).sum();
    let mut held = 0.0;
    let short = |value: &&f64| {
        let is_short = held < share * total;
        held += **value * **value;
        is_short
    };
    values.iter().take_while(short).count()
}

/// SVCCA of all pairs of layers, in [0, 1].
pub fn combine(sides: &Sides<'_>) -> Result<Vec<f64>, Failed> {
    unordered_pairs(sides, |a: &Leading, b| {
        let cosines =
            a.basis.cosines(&b.basis)?.f_narrow(0, 0, size(a.count))?.f_narrow(1, 0, size(b.count))?;
        Ok(nuclear_norm(&cosines)? / a.count.min(b.count) as f64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_directions_as_the_share_takes() {
        let values = [3.0, 2.0, 1.0, 1.0];
        let check = |share, expected| assert_eq!(leading(&values, share), expected, "{share}");
        check(0.01, 1);
        check(9.0 / 15.0, 1);
        check(0.61, 2);
        check(13.0 / 15.0, 2);
        check(0.9, 3);
        check(0.99, 4);
        check(1.0, 4);
    }
}
