//! Hard correlation match: the mean correlation of columns matched one to one, so that it is largest.
//!
//! Of layers that differ in width, all columns of the narrower one are matched, and the mean is over these. A constant
//! column has correlation 0 with any other, itself included: with such columns a layer compared with itself is below 1.
//!
//! Li, Yosinski, Clune, Lipson and Hopcroft, "Convergent Learning: Do different neural networks learn the same
//! representations?", 2016, section 3.

use std::sync::Arc;

use lsa_common::metric::MetricSpec;

use super::assignment::best_assignment;
use super::matrix::{entries, products};
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
    unordered_pairs(sides, |narrow: &Arc<Rows>, wide| {
        let correlations = entries(&products(&narrow.values.tensor(), &wide.values.tensor())?)?;
        let matched = best_assignment(&correlations, wide.width);
        let of_row = correlations.chunks_exact(wide.width).zip(matched).map(|(row, column)| row[column]);
        Ok(of_row.sum::<f64>() / narrow.width as f64)
    })
}
