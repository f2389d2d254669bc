//! Permutation Procrustes distance: min_P ‖X P - X'‖, P a permutation of columns; in the unit of the entries.
//!
//! The layers are not centred. The narrower one gets columns of zeros, so that each of its own columns is matched with
//! one of the other layer and the rest of that counts in full.
//!
//! Williams, Kunz, Kornblith and Linderman, "Generalized Shape Metrics on Neural Representations", 2021, section 2.

use std::sync::Arc;

use lsa_common::metric::MetricSpec;
use tch::{TchError, Tensor};

use super::assignment::best_assignment;
use super::layer::times_power_of_two;
use super::matrix::{entries, products, size, sum_of_squares};
use super::rows::Rows;
use super::shared::Shared;
use super::unordered::unordered_pairs;
use super::{Failed, Part, PartError, Sides};

/// The rows.
pub fn prepare(_spec: &MetricSpec, shared: &Shared<'_>) -> Result<Part, PartError> {
    Ok(Part::new(shared.rows()?))
}

/// The distance of all pairs of layers, at least 0.
pub fn combine(sides: &Sides<'_>) -> Result<Vec<f64>, Failed> {
    unordered_pairs(sides, |a: &Arc<Rows>, b| Ok(distance(a, b)?))
}

/// The distance of two layers, of which the first has no more columns than the second.
fn distance(narrow: &Rows, wide: &Rows) -> Result<f64, TchError> {
    let (x, y) = (narrow.values.tensor(), wide.values.tensor());
    let matched = best_assignment(&entries(&products(&x, &y)?)?, wide.width);
    // In units of the larger layer's power of two, in which nothing overflows.
    let unit = narrow.scale_exponent.max(wide.scale_exponent);
    let [x, y] = [(x, narrow), (y, wide)]
        .map(|(values, rows)| values.f_mul_scalar(times_power_of_two(1.0, rows.scale_exponent - unit)));
    let (x, y) = (x?, y?);
    let columns = |places: &[usize]| {
        let places: Vec<i64> = places.iter().map(|place| size(*place)).collect();
        y.f_index_select(1, &Tensor::f_from_slice(&places)?)
    };
    let left_over: Vec<usize> = (0..wide.width).filter(|column| !matched.contains(column)).collect();
    let squared = sum_of_squares(&x.f_sub(&columns(&matched)?)?)? + sum_of_squares(&columns(&left_over)?)?;
    Ok(times_power_of_two(squared.sqrt(), unit))
}
