//! The Gram matrix of a layer's centred rows, the one product that every metric is derived from.

use tch::{Device, Kind, TchError, Tensor};

use super::layer::{Layer, dot};
use super::scratch::{Scratch, aligned};
use super::triangle::{Triangle, n_pairs};

/// Rows multiplied at a time. Only the blocks on and above the diagonal are computed, which saves nearly half.
const BLOCK_ROWS: usize = 256;

/// Products of fewer rows than this go to other kernels, which do not always sum in the same order.
const PRODUCT_ROWS_MIN: usize = 64;

/// Inner products of all pairs of distinct centred rows, in float64.
///
/// libtorch must run with one intra-op thread: the order of every sum then depends on the shape of the layer alone.
pub fn centred_gram(layer: &Layer) -> Result<Triangle, TchError> {
    let m = layer.n_distinct();
    let mut values = Scratch::with_capacity(n_pairs(m));
    if m < PRODUCT_ROWS_MIN {
        let row = |i| layer.centred_row(i);
        values.extend((0..m).flat_map(|i| (i + 1..m).map(move |j| dot(row(i), row(j)))));
        return Ok(Triangle::new(m, values));
    }
    let mut rows = Scratch::with_capacity(layer.centred.len() + 8);
    let rows = aligned(&mut rows, layer.centred.len());
    rows.copy_from_slice(&layer.centred);
    let mut block = Scratch::with_capacity((BLOCK_ROWS + PRODUCT_ROWS_MIN).min(m) * m + 8);
    let mut start = 0;
    while start < m {
        let rest = m - start;
        // The last block takes up a remainder that would be too short on its own.
        let height = if rest < BLOCK_ROWS + PRODUCT_ROWS_MIN { rest } else { BLOCK_ROWS };
        let right = &rows[start * layer.width..];
        let block = aligned(&mut block, height * rest);
        let left = View::new(&right[..height * layer.width], layer.width);
        product(left, View::new(right, layer.width).transposed(), block)?;
        for (i, row) in block.chunks_exact(rest).enumerate() {
            values.extend_from_slice(&row[i + 1..]);
        }
        start += height;
    }
    Ok(Triangle::new(m, values))
}

/// A matrix, row-major, or its transpose.
#[derive(Clone, Copy)]
pub struct View<'a> {
    values: &'a [f64],
    shape: [usize; 2],
    strides: [usize; 2],
}

impl<'a> View<'a> {
    /// The matrix of rows of `width` entries.
    ///
    /// # Panics
    /// Where `values` is no whole number of rows.
    pub fn new(values: &'a [f64], width: usize) -> Self {
        assert!(values.len().is_multiple_of(width), "rows of width {width}");
        Self { values, shape: [values.len() / width, width], strides: [width, 1] }
    }

    /// Rows for columns.
    pub fn transposed(self) -> Self {
        let ([height, width], [of_row, of_column]) = (self.shape, self.strides);
        Self { shape: [width, height], strides: [of_column, of_row], ..self }
    }
}

/// The matrix product of two matrices, into `out`, row-major.
///
/// Its bits depend on the shapes and on how all three are aligned: see [`aligned`].
///
/// # Panics
/// Where the shapes do not fit one another.
pub fn product(left: View<'_>, right: View<'_>, out: &mut [f64]) -> Result<(), TchError> {
    let ([height, inner], [right_inner, width]) = (left.shape, right.shape);
    assert!(inner == right_inner && out.len() == height * width, "{:?} by {:?}", left.shape, right.shape);
    let tensor = |values: *const f64, shape: [usize; 2], strides: [usize; 2]| {
        let sizes = |counts: [usize; 2]| counts.map(|count| i64::try_from(count).expect("counts in memory"));
        let (shape, strides) = (sizes(shape), sizes(strides));
        // SAFETY: shape and strides stay within a slice that is borrowed for longer than this function's tensors live.
        unsafe { Tensor::f_from_blob(values.cast(), &shape, &strides, Kind::Double, Device::Cpu) }
    };
    let left = tensor(left.values.as_ptr(), left.shape, left.strides)?;
    let right = tensor(right.values.as_ptr(), right.shape, right.strides)?;
    let out = tensor(out.as_mut_ptr().cast_const(), [height, width], [width, 1])?;
    let _same_as_out = left.f_matmul_out(&out, &right)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_the_triangle() {
        // Float64 products of a few numbers near 1, in whatever order.
        const TOLERANCE: f64 = 1e-13;
        for n in [2, 63, 64, 65, 255, 256, 257, 319, 320, 321, 600] {
            let values = (0..n * 3).map(|i| f64::from((i * 7919 % 1009) as u32) / 1009.0).collect();
            let layer = Layer::new(values, 3).unwrap();
            let gram = centred_gram(&layer).unwrap();
            for i in 0..layer.n_distinct() {
                for j in i + 1..layer.n_distinct() {
                    let expected = dot(layer.centred_row(i), layer.centred_row(j));
                    assert!((gram.at(i, j) - expected).abs() < TOLERANCE, "{n}: ({i}, {j})");
                }
            }
        }
    }
}
