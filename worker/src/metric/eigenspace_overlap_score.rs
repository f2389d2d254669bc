//! Eigenspace overlap score: ‖Uᵀ U'‖² / max(r, r'), U the left singular vectors of X, which is not centred.
//!
//! r is the numerical rank, where the paper and ReSi divide by the number d of columns; the two are the same for layers
//! of full rank, and only the rank gives a layer compared with itself 1 whatever it is. A layer of rank n, which takes
//! at least as many columns as rows, spans all there is: its score with a layer of rank r is r / n.
//!
//! May, Zhang, Dao and Ré, "On the Downstream Performance of Compressed Word Embeddings", 2019, definition 1.

use std::sync::Arc;

use lsa_common::metric::MetricSpec;

use super::basis::Basis;
use super::matrix::sum_of_squares;
use super::shared::Shared;
use super::unordered::unordered_pairs;
use super::{Failed, Part, PartError, Sides};

/// A basis of the span of the columns.
pub fn prepare(_spec: &MetricSpec, shared: &Shared<'_>) -> Result<Part, PartError> {
    Ok(Part::new(shared.basis()?))
}

/// The score of all pairs of layers, in [0, 1].
pub fn combine(sides: &Sides<'_>) -> Result<Vec<f64>, Failed> {
    unordered_pairs(sides, |a: &Arc<Basis>, b| {
        Ok(sum_of_squares(&a.cosines(b)?)? / a.rank().max(b.rank()) as f64)
    })
}
