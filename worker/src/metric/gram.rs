//! The Gram matrix of a layer's centred rows, the one product that every metric is derived from.

use tch::{Kind, TchError, Tensor};

use super::layer::{Layer, dot};
use super::scratch::Scratch;
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
    let size = |count: usize| i64::try_from(count).expect("a count of items in memory");
    let rows = Tensor::f_from_slice(&layer.centred)?.f_view([size(m), size(layer.width)])?;
    let mut block = Vec::new();
    let mut start = 0;
    while start < m {
        let rest = m - start;
        // The last block takes up a remainder that would be too short on its own.
        let height = if rest < BLOCK_ROWS + PRODUCT_ROWS_MIN { rest } else { BLOCK_ROWS };
        let left = rows.f_narrow(0, size(start), size(height))?;
        let right = rows.f_narrow(0, size(start), size(rest))?;
        let product = left.f_matmul(&right.f_transpose(0, 1)?)?;
        debug_assert_eq!(product.kind(), Kind::Double);
        block.resize(height * rest, 0.0);
        product.f_copy_data(&mut block, height * rest)?;
        for (i, row) in block.chunks_exact(rest).enumerate() {
            values.extend_from_slice(&row[i + 1..]);
        }
        start += height;
    }
    Ok(Triangle::new(m, values))
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
