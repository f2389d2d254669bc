//! Similarities and distances of all pairs of rows, derived from the Gram matrix by corrections of rank one.
//!
//! With K' the Gram matrix of the doubly centred rows, r the row means, u = K'-side products with the column means m:
//! ```text
//! kernel    K_ij = K'_ij + d (r_i - r)(r_j - r)          rows less the mean row
//! pearson   P_ij = (K'_ij + u_i + u_j + m·m) / |y_i| |y_j|      y: rows less their own mean
//! cosine    C_ij = (K'_ij + u_i + u_j + m·m + d r_i r_j) / |x_i| |x_j|
//! distance  D_ij = sqrt(K_ii + K_jj - 2 K_ij)
//! ```
//! Nothing here subtracts large numbers from one another but where rows are much nearer to each other, or to zero,
//! than to the mean; such pairs are computed from the rows themselves.

use super::layer::{Layer, ZERO_NORM, dot, squared_distance, sum_of};
use super::triangle::Triangle;
use super::vectorised::vectorised;

/// What a metric wants to know of each pair of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// The inner product of the rows less the mean row.
    Kernel,
    /// The cosine of the rows; 0 where one of them is the zero row.
    Cosine,
    /// The Pearson correlation of the rows; 0 where one of them is constant.
    Pearson,
    /// The euclidean distance of the rows; exactly 0 for equal rows.
    Distance,
}

/// Cosines and correlations this near to ±1 are ±1, so that parallel rows tie whatever the last bits say.
pub const PARALLEL: f64 = 1.0 - 1e-14;

/// Squared distances below this part of the squared norms have lost six digits and are computed from the rows.
pub const CANCELLED: f64 = 1e-6;

/// Rows whose centred norms exceed their own norms by this factor (of both together) lose four digits.
pub const AMPLIFIED: f64 = 1e4;

/// All pairs of rows of a layer; every value is the same bit by bit for (i, j) and (j, i).
pub struct Pairs<'a> {
    layer: &'a Layer,
    gram: &'a Triangle,
    /// One entry per row given, not per distinct row.
    terms: RowTerms,
    scratch: Vec<f64>,
}

/// What the quantities take of each row alone.
pub struct RowTerms {
    /// Inner product with itself, centred over rows and columns.
    pub gram_diagonal: Vec<f64>,
    /// Inner product with itself less the mean row.
    pub kernel_diagonal: Vec<f64>,
    /// Inner product of the centred row with the column means.
    pub mean_product: Vec<f64>,
    /// The mean of the row.
    pub row_mean: Vec<f64>,
    /// The same less the grand mean.
    pub row_offset: Vec<f64>,
    /// Makes cosines of inner products of rows.
    pub cosine: Normaliser,
    /// Makes correlations of covariances of rows.
    pub pearson: Normaliser,
    /// Inner product of the column means with themselves.
    pub means_product: f64,
}

/// How inner products become cosines.
pub struct Normaliser {
    /// 1 / norm, or 0 for a zero row.
    pub inverse: Vec<f64>,
    /// How many times larger than the row the numbers are that it is put together from.
    pub amplification: Vec<f64>,
    /// The largest of `amplification`.
    pub amplification_max: f64,
}

impl Normaliser {
    fn new(norms: &[f64], sizes: &[f64]) -> Self {
        let inverse: Vec<f64> =
            norms.iter().map(|norm| if *norm < ZERO_NORM { 0.0 } else { 1.0 / norm }).collect();
        let amplification: Vec<f64> =
            inverse.iter().zip(sizes).map(|(inverse, size)| inverse * size).collect();
        let amplification_max = amplification.iter().copied().fold(0.0, f64::max);
        Self { inverse, amplification, amplification_max }
    }
}

impl RowTerms {
    /// Those of the named distinct rows of a layer.
    pub fn new(layer: &Layer, rows: &[u32]) -> Self {
        let width = layer.width as f64;
        let m = layer.n_distinct();
        let per_row = |of: &dyn Fn(usize) -> f64| -> Vec<f64> {
            let distinct: Vec<f64> = (0..m).map(of).collect();
            rows.iter().map(|i| distinct[*i as usize]).collect()
        };
        let means_product = dot(&layer.column_means, &layer.column_means);
        let gram_diagonal = per_row(&|i| dot(layer.centred_row(i), layer.centred_row(i)));
        let row_offset = per_row(&|i| layer.row_means[i] - layer.grand_mean);
        let kernel_diagonal = gram_diagonal
            .iter()
            .zip(&row_offset)
            .map(|(own, offset)| own + width * (offset * offset))
            .collect();
        let sizes: Vec<f64> = gram_diagonal.iter().map(|own| own.sqrt() + means_product.sqrt()).collect();
        let cosine_norms = per_row(&|i| dot(layer.row(i), layer.row(i)).sqrt());
        let pearson_norms = per_row(&|i| covariance(layer, i, i).sqrt());
        Self {
            mean_product: per_row(&|i| dot(layer.centred_row(i), &layer.column_means)),
            cosine: Normaliser::new(&cosine_norms, &sizes),
            pearson: Normaliser::new(&pearson_norms, &sizes),
            row_mean: per_row(&|i| layer.row_means[i]),
            gram_diagonal,
            kernel_diagonal,
            row_offset,
            means_product,
        }
    }
}

impl<'a> Pairs<'a> {
    /// All pairs of `layer`, whose centred Gram matrix is `gram`.
    pub fn new(layer: &'a Layer, gram: &'a Triangle) -> Self {
        Self { terms: RowTerms::new(layer, &layer.distinct_of), layer, gram, scratch: Vec::new() }
    }

    /// Writes the quantity of the pairs (i, i + 1) to (i, n - 1) into `out` and returns that of (i, i).
    pub fn row(&mut self, quantity: Quantity, i: usize, out: &mut Vec<f64>) -> f64 {
        out.clear();
        match quantity {
            Quantity::Kernel => {
                self.kernel_row(i, out);
                self.terms.kernel_diagonal[i]
            }
            Quantity::Distance => {
                self.distance_row(i, out);
                0.0
            }
            Quantity::Cosine => self.cosine_row(i, out, true),
            Quantity::Pearson => self.cosine_row(i, out, false),
        }
    }

    fn kernel_row(&mut self, i: usize, out: &mut Vec<f64>) {
        let gram = gram_row(self.layer, self.gram, &self.terms.gram_diagonal, i, &mut self.scratch);
        out.resize(gram.len(), 0.0);
        kernel_values(
            gram,
            &self.terms.row_offset[i + 1..],
            self.layer.width as f64,
            self.terms.row_offset[i],
            out,
        );
    }

    fn distance_row(&mut self, i: usize, out: &mut Vec<f64>) {
        self.kernel_row(i, out);
        let own = self.terms.kernel_diagonal[i];
        let others = &self.terms.kernel_diagonal[i + 1..];
        if squared_distances(own, others, out) {
            let distinct = &self.layer.distinct_of;
            for (offset, (value, other)) in out.iter_mut().zip(others).enumerate() {
                if *value < CANCELLED * (own + other) {
                    let (a, b) = (distinct[i] as usize, distinct[i + 1 + offset] as usize);
                    *value = squared_distance(self.layer.row(a), self.layer.row(b));
                }
            }
        }
        roots(out);
    }

    /// Cosines of the rows themselves or, with `of_rows` false, of the rows less their means.
    fn cosine_row(&mut self, i: usize, out: &mut Vec<f64>, of_rows: bool) -> f64 {
        let layer = self.layer;
        let normaliser = if of_rows { &self.terms.cosine } else { &self.terms.pearson };
        // The means of the rows add d r_i r_j to an inner product of rows, nothing to a covariance.
        let width = if of_rows { layer.width as f64 } else { 0.0 };
        let (row_mean, mean_product, inverse) =
            (self.terms.row_mean[i], self.terms.mean_product[i], normaliser.inverse[i]);
        let means_product = self.terms.means_product;
        let gram = gram_row(layer, self.gram, &self.terms.gram_diagonal, i, &mut self.scratch);
        out.resize(gram.len(), 0.0);
        let own = Cosines { width, row_mean, mean_product, inverse, means_product };
        let (products, means) = (&self.terms.mean_product[i + 1..], &self.terms.row_mean[i + 1..]);
        cosine_values(own, gram, products, means, &normaliser.inverse[i + 1..], out);
        let amplification = normaliser.amplification[i];
        if amplification * normaliser.amplification_max > AMPLIFIED {
            let a = layer.distinct_of[i] as usize;
            for (offset, value) in out.iter_mut().enumerate() {
                let j = i + 1 + offset;
                if amplification * normaliser.amplification[j] > AMPLIFIED {
                    let b = layer.distinct_of[j] as usize;
                    let inner =
                        if of_rows { dot(layer.row(a), layer.row(b)) } else { covariance(layer, a, b) };
                    *value = saturated(inner * (inverse * normaliser.inverse[j]));
                }
            }
        }
        if inverse == 0.0 { 0.0 } else { 1.0 }
    }
}

vectorised! {
    /// Kernels of a row from its inner products with others, centred over rows and columns.
    fn kernel_values(gram: &[f64], offsets: &[f64], width: f64, offset: f64, out: &mut [f64]) {
        for ((out, gram), other) in out.iter_mut().zip(gram).zip(offsets) {
            *out = gram + width * (offset * other);
        }
    }
}

vectorised! {
    /// Turns kernels into squared distances; whether too little is left of any of them.
    fn squared_distances(own: f64, others: &[f64], values: &mut [f64]) -> bool {
        let mut cancelled = false;
        for (value, other) in values.iter_mut().zip(others) {
            let sizes = own + other;
            *value = sizes - 2.0 * *value;
            cancelled |= *value < CANCELLED * sizes;
        }
        cancelled
    }
}

vectorised! {
    fn roots(values: &mut [f64]) {
        values.iter_mut().for_each(|value| *value = value.sqrt());
    }
}

/// What one row brings to its cosines with others.
#[derive(Clone, Copy)]
struct Cosines {
    width: f64,
    row_mean: f64,
    mean_product: f64,
    inverse: f64,
    means_product: f64,
}

vectorised! {
    /// Cosines from inner products that are centred over rows and columns, and what the other rows bring.
    fn cosine_values(
        own: Cosines,
        gram: &[f64],
        products: &[f64],
        means: &[f64],
        inverses: &[f64],
        out: &mut [f64],
    ) {
        let others = products.iter().zip(means).zip(inverses);
        for ((out, gram), ((product, mean), inverse)) in out.iter_mut().zip(gram).zip(others) {
            let inner = gram + (own.mean_product + product) + own.means_product + own.width * (own.row_mean * mean);
            *out = saturated(inner * (own.inverse * inverse));
        }
    }
}

/// The inner product of two distinct rows, each less its own mean.
fn covariance(layer: &Layer, a: usize, b: usize) -> f64 {
    let (mean_a, mean_b) = (layer.row_means[a], layer.row_means[b]);
    sum_of(layer.row(a), layer.row(b), |x, y| (x - mean_a) * (y - mean_b))
}

#[inline(always)]
fn saturated(cosine: f64) -> f64 {
    if cosine.abs() >= PARALLEL { 1f64.copysign(cosine) } else { cosine }
}

/// Row `i` of the upper triangle over the rows given, looked up by distinct row where some are equal.
fn gram_row<'a>(
    layer: &Layer,
    gram: &'a Triangle,
    gram_diagonal: &[f64],
    i: usize,
    scratch: &'a mut Vec<f64>,
) -> &'a [f64] {
    if layer.n_distinct() == layer.n_rows() {
        return gram.row(i);
    }
    let own = layer.distinct_of[i];
    scratch.clear();
    scratch.extend(
        layer.distinct_of[i + 1..].iter().map(|other| {
            if *other == own { gram_diagonal[i] } else { gram.at(own as usize, *other as usize) }
        }),
    );
    scratch
}

#[cfg(test)]
mod tests {
    use super::super::gram::centred_gram;
    use super::*;

    /// All pairs of a quantity as a full matrix.
    fn matrix(values: &[f64], width: usize, quantity: Quantity) -> Vec<Vec<f64>> {
        let layer = Layer::new(values.to_vec(), width).unwrap();
        let gram = centred_gram(&layer).unwrap();
        let mut pairs = Pairs::new(&layer, &gram);
        let n = layer.n_rows();
        let mut all = vec![vec![0.0; n]; n];
        let mut row = Vec::new();
        for i in 0..n {
            all[i][i] = pairs.row(quantity, i, &mut row);
            for (offset, value) in row.iter().enumerate() {
                all[i][i + 1 + offset] = *value;
                all[i + 1 + offset][i] = *value;
            }
        }
        all
    }

    /// Numbers in [-1, 1) without a pattern.
    fn noise(count: usize) -> Vec<f64> {
        let mut state = 1u64;
        let next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    #[test]
    fn quantities_agree_with_their_definitions() {
        // Relative to values near 1; the corrections add a handful of roundings.
        const TOLERANCE: f64 = 1e-12;
        let (n, d) = (70, 5);
        let mut values = noise(n * d);
        // A row near zero, two rows near each other, and a large common mean.
        values[..d].iter_mut().for_each(|value| *value *= 1e-9);
        for k in 0..d {
            values[2 * d + k] = values[d + k] * (1.0 + 1e-8);
        }
        for shift in [0.0, 1e4] {
            let mut values = values.clone();
            for (place, value) in values.iter_mut().enumerate() {
                *value += shift * (1 + place % d) as f64;
            }
            let mut scaled = values.clone();
            let top = values.iter().fold(0f64, |top, value| top.max(value.abs()));
            let factor = 2f64.powi(-(top.log2().floor() as i32));
            scaled.iter_mut().for_each(|value| *value *= factor);
            let row = |i: usize| &scaled[i * d..(i + 1) * d];
            let mean = |x: &[f64]| x.iter().sum::<f64>() / d as f64;
            let cosine = |x: &[f64], y: &[f64]| dot(x, y) / (dot(x, x) * dot(y, y)).sqrt();
            let [by_cosine, by_pearson, by_distance] =
                [Quantity::Cosine, Quantity::Pearson, Quantity::Distance].map(|q| matrix(&values, d, q));
            for i in 0..n {
                for j in 0..n {
                    let (x, y) = (row(i), row(j));
                    let close = |got: f64, expected: f64, what: &str| {
                        assert!(
                            (got - expected).abs() < TOLERANCE,
                            "{shift} {what} ({i}, {j}): {got} {expected}"
                        );
                    };
                    close(by_cosine[i][j], cosine(x, y), "cosine");
                    close(by_distance[i][j], squared_distance(x, y).sqrt(), "distance");
                    let less = |x: &[f64]| x.iter().map(|value| value - mean(x)).collect::<Vec<f64>>();
                    close(by_pearson[i][j], cosine(&less(x), &less(y)), "pearson");
                }
            }
        }
    }

    #[test]
    fn equal_rows_have_equal_similarities_bit_by_bit() {
        let (n, d) = (150, 7);
        let mut values = noise(n * d);
        values.copy_within(3 * d..4 * d, 90 * d);
        values.copy_within(3 * d..4 * d, 140 * d);
        for quantity in [Quantity::Kernel, Quantity::Cosine, Quantity::Pearson, Quantity::Distance] {
            let all = matrix(&values, d, quantity);
            for other in (0..n).filter(|other| ![3, 90, 140].contains(other)) {
                assert_eq!(all[3][other].to_bits(), all[90][other].to_bits(), "{quantity:?}");
                assert_eq!(all[3][other].to_bits(), all[140][other].to_bits(), "{quantity:?}");
            }
            assert_eq!(all[3][90], all[3][3], "{quantity:?}");
        }
    }

    #[test]
    fn zero_and_constant_rows() {
        let d = 4;
        let mut values = noise(20 * d);
        values[..d].fill(0.0);
        values[d..2 * d].fill(0.7);
        let cosine = matrix(&values, d, Quantity::Cosine);
        let pearson = matrix(&values, d, Quantity::Pearson);
        for j in 0..20 {
            assert_eq!(cosine[0][j], 0.0);
            assert_eq!((pearson[0][j], pearson[1][j]), (0.0, 0.0));
        }
        assert_eq!(cosine[1][1], 1.0);
    }
}
