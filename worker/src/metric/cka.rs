//! Linear centred kernel alignment, biased: ⟨K, K'⟩ / (‖K‖ ‖K'‖), K the Gram matrix of the rows less the mean row.
//!
//! With Xc those rows, ⟨K, K'⟩ is ‖Xcᵀ X'c‖² too. Layers with many more rows than columns are compared so, where no
//! other metric needs the pairs of rows: it takes no matrix of [n, n].
//!
//! Kornblith, Norouzi, Lee and Hinton, "Similarity of Neural Network Representations Revisited", 2019, section 3.

use lsa_common::cost::cka_keeps_rows;
use rayon::prelude::*;

use super::gram::{View, product};
use super::layer::{Layer, dot};
use super::pair_vector::{PairVector, Values, cosines};
use super::scratch::{aligned, aligned_part};
use super::triangle::n_pairs;
use super::{Failed, Part, PartError, Prepare, Sides};

/// Gathers the kernel of one layer.
pub struct Kernel {
    upper: Values,
    diagonal: Values,
}

impl Kernel {
    /// For `n` rows.
    pub fn new(n: usize) -> Self {
        Self { upper: Values::with_capacity(n, n_pairs(n)), diagonal: Values::with_capacity(n, n) }
    }

    fn vector(self) -> PairVector {
        PairVector::new(self.upper, self.diagonal)
    }
}

impl Prepare for Kernel {
    fn row(&mut self, _i: usize, own: f64, right: &[f64]) {
        self.diagonal.extend_from_slice(&[own]);
        self.upper.extend_from_slice(right);
    }

    fn finish(self: Box<Self>) -> Result<Part, PartError> {
        Ok(Part::new(self.vector()))
    }
}

/// Whether CKA of n rows of that width is less work from the rows than from their pairs.
pub fn rows_suffice(n: usize, width: usize) -> bool {
    cka_keeps_rows(n as u64, width as u64)
}

/// The rows of a layer less their mean.
struct CentredRows {
    /// Holds [n, d + 1], aligned: the rows less their own means and the column means, and in the last column what the
    /// row means add, so that inner products of rows are those of the rows less the mean row.
    buffer: Vec<f64>,
    n: usize,
    width: usize,
    /// ‖Xcᵀ Xc‖, which is the norm of the kernel.
    norm: f64,
}

impl CentredRows {
    fn rows(&self) -> View<'_> {
        View::new(aligned_part(&self.buffer, self.n * self.width), self.width)
    }
}

/// The part of one layer, from its rows.
pub fn of_rows(layer: &Layer) -> Result<Part, PartError> {
    let (n, width) = (layer.n_rows(), layer.width + 1);
    let mut rows = CentredRows { buffer: Vec::new(), n, width, norm: f64::NAN };
    let size = (layer.width as f64).sqrt();
    let all = aligned(&mut rows.buffer, n * width);
    for (row, distinct) in all.chunks_exact_mut(width).zip(&layer.distinct_of) {
        let distinct = *distinct as usize;
        let (last, others) = row.split_last_mut().expect("one column more than the layer has");
        others.copy_from_slice(layer.centred_row(distinct));
        *last = size * (layer.row_means[distinct] - layer.grand_mean);
    }
    rows.norm = squared_norm_of_product(&rows, &rows)?.sqrt();
    Ok(Part::new(rows))
}

/// ‖Xᵀ Y‖² of two matrices of as many rows.
fn squared_norm_of_product(x: &CentredRows, y: &CentredRows) -> Result<f64, Failed> {
    let mut buffer = Vec::new();
    let out = aligned(&mut buffer, x.width * y.width);
    product(x.rows().transposed(), y.rows(), out)?;
    Ok(dot(out, out))
}

/// The kernel of one layer from its rows, as [`Kernel`] keeps it.
fn of_pairs(rows: &CentredRows) -> Part {
    let mut kernel = Kernel::new(rows.n);
    let mut buffer = Vec::new();
    for i in 0..rows.n {
        let rest = aligned_part(&rows.buffer, rows.n * rows.width);
        let (own, others) = rest[i * rows.width..].split_at(rows.width);
        buffer.clear();
        buffer.extend(others.chunks_exact(rows.width).map(|other| dot(own, other)));
        kernel.row(i, dot(own, own), &buffer);
    }
    Part::new(kernel.vector())
}

/// CKA of all pairs of layers, in [0, 1]; from kernels of the unbiased estimator, in [-1, 1].
pub fn combine(sides: &Sides<'_>) -> Result<Vec<f64>, Failed> {
    let parts = || sides.a.iter().chain(sides.b.unwrap_or_default()).flatten();
    if sides.are_on_device() || parts().all(|part| part.is::<PairVector>()) {
        return sides.cosines();
    }
    if parts().all(|part| part.is::<CentredRows>()) {
        return sides.pairwise(|a: &CentredRows, b: &CentredRows| {
            Ok(squared_norm_of_product(a, b)? / (a.norm * b.norm))
        });
    }
    // Layers of different widths: those that are narrow enough for their rows alone still have pairs.
    fn own(side: &[Option<&Part>]) -> Vec<Option<Part>> {
        let part = |part: &Option<&Part>| match part {
            Some(part) if part.is::<CentredRows>() => Some(of_pairs(part.get())),
            _ => None,
        };
        side.par_iter().map(part).collect()
    }
    fn vectors<'a>(side: &[Option<&'a Part>], own: &'a [Option<Part>]) -> Vec<Option<&'a PairVector>> {
        side.iter().zip(own).map(|(part, own)| own.as_ref().or(*part).map(Part::get)).collect()
    }
    let (own_a, own_b) = (own(sides.a), own(sides.b.unwrap_or_default()));
    let a = vectors(sides.a, &own_a);
    let b = sides.b.map(|b| vectors(b, &own_b));
    Ok(cosines(&a, b.as_deref()))
}
