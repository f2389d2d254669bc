//! Layers on a device compared as vectors over all pairs of rows: the counterpart of [`super::super::pair_vector`].

use tch::{Device, Kind, TchError, Tensor};

use super::super::matrix::{Matrix, entries, size};

/// Layers whose products with others are made at once. A part of every result, as the two that follow.
const PANEL: usize = 32;
/// Entries of every layer of a panel that are copied at a time: 128 MiB.
const SLICE: i64 = 1 << 19;
/// Entries whose products are summed before the sum joins a total.
const CHUNK: i64 = 1 << 13;

/// A symmetric matrix of float64 seen as a vector: its strict upper triangle, which counts twice, and its diagonal.
pub struct TensorVector {
    upper: Matrix,
    diagonal: Matrix,
}

impl TensorVector {
    /// A vector of the packed strict upper triangle and the diagonal, on one device; the diagonal is empty where it does
    /// not count.
    pub fn new(upper: &Tensor, diagonal: &Tensor) -> Result<Self, TchError> {
        let row = |values: &Tensor| Matrix::new(&values.f_unsqueeze(0)?);
        Ok(Self { upper: row(upper)?, diagonal: row(diagonal)? })
    }
}

/// Cosines of all pairs of vectors, [a, b] row-major: `b` is `None` to compare `a` with itself.
///
/// Undefined layers are `None` and give NaN. The matrix of `a` with itself is exactly symmetric.
pub fn cosines(
    a: &[Option<&TensorVector>],
    b: Option<&[Option<&TensorVector>]>,
) -> Result<Vec<f64>, TchError> {
    let all: Vec<Option<&TensorVector>> = a.iter().chain(b.unwrap_or_default()).copied().collect();
    let products = inner_products(&all)?;
    let norms: Vec<f64> = (0..all.len()).map(|i| products[i * all.len() + i].sqrt()).collect();
    let columns = if b.is_some() { a.len()..all.len() } else { 0..a.len() };
    let cell = |i: usize, j: usize| products[i * all.len() + j] / (norms[i] * norms[j]);
    Ok((0..a.len()).flat_map(|i| columns.clone().map(move |j| (i, j))).map(|(i, j)| cell(i, j)).collect())
}

/// The inner products of all pairs; NaN where one of the two is undefined.
fn inner_products(vectors: &[Option<&TensorVector>]) -> Result<Vec<f64>, TchError> {
    let n = vectors.len();
    let mut products = vec![f64::NAN; n * n];
    for left in (0..n).step_by(PANEL) {
        for right in (left..n).step_by(PANEL) {
            let [a, b] = [left, right].map(|start| &vectors[start..(start + PANEL).min(n)]);
            let upper = panel_products(a, b, |vector| &vector.upper)?;
            let diagonal = panel_products(a, b, |vector| &vector.diagonal)?;
            for (i, first) in a.iter().enumerate() {
                for (j, second) in b.iter().enumerate() {
                    let (row, column) = (left + i, right + j);
                    if first.is_some() && second.is_some() && row <= column {
                        let product = 2.0 * upper[i * PANEL + j] + diagonal[i * PANEL + j];
                        products[row * n + column] = product;
                        products[column * n + row] = product;
                    }
                }
            }
        }
    }
    Ok(products)
}

/// The inner products of one part of the vectors of two panels: [`PANEL`, `PANEL`].
///
/// A panel is filled up with zeros, so that the order of summation does not depend on how many layers there are.
fn panel_products(
    a: &[Option<&TensorVector>],
    b: &[Option<&TensorVector>],
    part: impl Fn(&TensorVector) -> &Matrix,
) -> Result<Vec<f64>, TchError> {
    let tensors = |panel: &[Option<&TensorVector>]| -> Vec<Option<Tensor>> {
        panel.iter().map(|vector| vector.map(|vector| part(vector).tensor())).collect()
    };
    let (a_parts, b_parts) = (tensors(a), tensors(b));
    let (Some(any), Some(_)) = (a_parts.iter().flatten().next(), b_parts.iter().flatten().next()) else {
        return Ok(vec![0.0; PANEL * PANEL]);
    };
    let (count, device) = (any.size()[1], any.device());
    let mut total = Tensor::f_zeros([size(PANEL), size(PANEL)], (Kind::Double, device))?;
    for start in (0..count).step_by(SLICE as usize) {
        let range = (start, SLICE.min(count - start));
        let left = chunks_of(&a_parts, range, device)?;
        let products = match std::ptr::eq(a, b) {
            true => left.f_bmm(&left.f_transpose(1, 2)?)?,
            false => left.f_bmm(&chunks_of(&b_parts, range, device)?.f_transpose(1, 2)?)?,
        };
        total = total.f_add(&products.f_sum_dim_intlist(0, false, Kind::Double)?)?;
    }
    entries(&total)
}

/// A range of the entries of a panel, cut into chunks: [chunks, `PANEL`, `CHUNK`].
fn chunks_of(
    panel: &[Option<Tensor>],
    (start, count): (i64, i64),
    device: Device,
) -> Result<Tensor, TchError> {
    let n_chunks = (count + CHUNK - 1) / CHUNK;
    let all = Tensor::f_zeros([size(PANEL), n_chunks * CHUNK], (Kind::Double, device))?;
    for (place, vector) in (0..).zip(panel) {
        if let Some(vector) = vector {
            let values = vector.f_select(0, 0)?.f_narrow(0, start, count)?;
            all.f_select(0, place)?.f_narrow(0, 0, count)?.f_copy_(&values)?;
        }
    }
    all.f_view([size(PANEL), n_chunks, CHUNK])?.f_transpose(0, 1)?.f_contiguous()
}
