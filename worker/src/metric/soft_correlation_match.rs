//! Soft correlation match: the mean, over the columns of a layer, of the largest correlation with any column of the other
//! one; and of that the mean over both layers.
//!
//! A constant column has correlation 0 with any other, itself included: with such columns a layer compared with itself
//! is below 1.
//!
//! Li, Yosinski, Clune, Lipson and Hopcroft, "Convergent Learning: Do different neural networks learn the same
//! representations?", 2016, section 3; both directions averaged as in the ReSi benchmark.

use std::sync::Arc;

use lsa_common::metric::MetricSpec;
use tch::{Kind, TchError};

use super::matrix::products;
use super::rows::Rows;
use super::shared::Shared;
use super::unordered::unordered_pairs;
use super::{Failed, Part, PartError, Sides};

/// The columns, centred and of norm 1.
pub fn prepare(_spec: &MetricSpec, shared: &Shared<'_>) -> Result<Part, PartError> {
    Ok(Part::new(shared.unit_columns()?))
}

/// The mean correlation of all pairs of layers, in [-1, 1].
pub fn combine(sides: &Sides<'_>) -> Result<Vec<f64>, Failed> {
    unordered_pairs(sides, |a: &Arc<Rows>, b| Ok(mean_best(a, b)?))
}

fn mean_best(a: &Rows, b: &Rows) -> Result<f64, TchError> {
    let correlations = products(&a.values.tensor(), &b.values.tensor())?;
    let best = |over: i64| f64::try_from(correlations.f_amax(over, false)?.f_mean(Kind::Double)?);
    Ok(f64::midpoint(best(1)?, best(0)?))
}
