//! One layer's rows made ready for comparison: scaled, told apart, centred over rows and columns.
//!
//! Rows that are equal bit by bit are stored once and remember how often they occur, so that whatever is computed
//! from them is equal bit by bit too and ties are true ties.

use super::scratch::Scratch;

/// A row of smaller norm, after scaling, is the zero row: ten times the spacing of float64 at 1.
pub const ZERO_NORM: f64 = 10.0 * f64::EPSILON;

/// Rows whose distance from their mean is at most this part of their norm are all equal up to rounding.
pub const CONSTANT_RATIO: f64 = 1e-6;

/// A row that holds a NaN or an infinity, so that nothing can be computed from its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NonFinite {
    /// The position of the row among those given.
    pub row: usize,
}

/// The rows of one layer and what follows from each of them alone.
///
/// With x the scaled rows, r their means and y = x - r, `centred` holds y less its column means: its rows and its
/// columns sum to zero, so that every inner product below is a sum of terms that do not cancel.
pub struct Layer {
    /// The width d of a row.
    pub width: usize,
    /// The rows given are 2^scale_exponent times what is stored here.
    pub scale_exponent: i32,
    /// Whether all rows are equal up to rounding.
    pub constant: bool,
    /// For each row given, which of the distinct rows it is.
    pub distinct_of: Vec<u32>,
    /// How many of the rows given each distinct row stands for: `[m]`.
    pub counts: Vec<f64>,
    /// The distinct rows in order of first occurrence, scaled by a power of two to max |x| in [1, 2): `[m, d]`.
    pub values: Vec<f64>,
    /// The distinct rows less their row mean, less the column means of that: `[m, d]`.
    pub centred: Scratch<f64>,
    /// Column means of the rows less their row mean: `[d]`.
    pub column_means: Vec<f64>,
    /// The mean of each distinct row: `[m]`.
    pub row_means: Vec<f64>,
    /// The mean over all rows given of their row means.
    pub grand_mean: f64,
}

impl Layer {
    /// Takes the rows [n, width] of a layer, row-major.
    ///
    /// # Panics
    /// Where `width` is 0 or `values` is not a whole number of rows.
    pub fn new(mut values: Vec<f64>, width: usize) -> Result<Self, NonFinite> {
        assert!(width > 0 && values.len().is_multiple_of(width), "rows of width {width}");
        if let Some(place) = values.iter().position(|value| !value.is_finite()) {
            return Err(NonFinite { row: place / width });
        }
        let scale_exponent = scale(&mut values);
        let distinct_of = merge_equal_rows(&mut values, width);
        let n_distinct = values.len() / width;
        let mut counts = vec![0.0; n_distinct];
        for distinct in &distinct_of {
            counts[*distinct as usize] += 1.0;
        }
        let n = distinct_of.len() as f64;

        let row_means: Vec<f64> = values.chunks_exact(width).map(mean).collect();
        let grand_mean = weighted_mean(&row_means, &counts, n);
        let mut centred = Scratch::with_capacity(values.len());
        centred.extend_from_slice(&values);
        for (row, mean) in centred.chunks_exact_mut(width).zip(&row_means) {
            row.iter_mut().for_each(|value| *value -= mean);
        }
        let column_means = centre_columns(&mut centred, &counts, n);

        let mut spread = 0.0;
        let mut size = 0.0;
        for (i, count) in counts.iter().enumerate() {
            let row = i * width..(i + 1) * width;
            let offset = row_means[i] - grand_mean;
            spread +=
                count * (dot(&centred[row.clone()], &centred[row.clone()]) + width as f64 * offset * offset);
            size += count * dot(&values[row.clone()], &values[row]);
        }
        let constant = spread.sqrt() <= CONSTANT_RATIO * size.sqrt();
        Ok(Self {
            width,
            scale_exponent,
            constant,
            distinct_of,
            counts,
            values,
            centred,
            column_means,
            row_means,
            grand_mean,
        })
    }

    /// The number n of rows given.
    pub fn n_rows(&self) -> usize {
        self.distinct_of.len()
    }

    /// The number m of distinct rows.
    pub fn n_distinct(&self) -> usize {
        self.row_means.len()
    }

    /// Distinct row `i`, scaled.
    pub fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.width..(i + 1) * self.width]
    }

    /// Distinct row `i`, centred.
    pub fn centred_row(&self, i: usize) -> &[f64] {
        &self.centred[i * self.width..(i + 1) * self.width]
    }

    /// The norm of distinct row `i`, scaled; exactly 0 for the zero row.
    pub fn norm(&self, i: usize) -> f64 {
        let norm = dot(self.row(i), self.row(i)).sqrt();
        if norm < ZERO_NORM { 0.0 } else { norm }
    }
}

/// The inner product of two rows, summed in eight lanes whatever the machine.
#[inline(always)]
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    sum_of(a, b, |x, y| x * y)
}

/// The squared euclidean distance of two rows; 0 for equal rows.
pub fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    sum_of(a, b, |x, y| (x - y) * (x - y))
}

/// Numbers that are summed apart from one another, so that a processor adds them at the same time. They are part of
/// every result: they fix the order of summation.
const LANES: usize = 8;

/// The inner products of `a` with several rows as long, each with the bits that [`dot`] gives it.
#[inline(always)]
pub fn dots<const N: usize>(a: &[f64], b: [&[f64]; N]) -> [f64; N] {
    let mut lanes = [[0.0; LANES]; N];
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let b_blocks = b.map(|b| &b.as_chunks::<LANES>().0[..a_blocks.len()]);
    for (place, x) in a_blocks.iter().enumerate() {
        for (lanes, b_blocks) in lanes.iter_mut().zip(&b_blocks) {
            let y = &b_blocks[place];
            for lane in 0..LANES {
                lanes[lane] += x[lane] * y[lane];
            }
        }
    }
    std::array::from_fn(|place| {
        let b_rest = &b[place][a.len() - a_rest.len()..];
        let rest: f64 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
        sum_of_lanes(lanes[place]) + rest
    })
}

fn sum_of_lanes([a, b, c, d, e, f, g, h]: [f64; LANES]) -> f64 {
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// The sum of `term` over two rows.
#[inline(always)]
pub fn sum_of(a: &[f64], b: &[f64], term: impl Fn(f64, f64) -> f64) -> f64 {
    let mut lanes = [0.0; LANES];
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            lanes[lane] += term(x[lane], y[lane]);
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(x, y)| term(*x, *y)).sum();
    sum_of_lanes(lanes) + rest
}

/// `value` times 2^exponent; exact but for what underflows, infinite where float64 ends.
pub fn times_power_of_two(value: f64, exponent: i32) -> f64 {
    let (first, second) = halves(exponent);
    value * first * second
}

/// Two factors that make 2^exponent: it may be outside the range of float64 itself, its halves never are.
fn halves(exponent: i32) -> (f64, f64) {
    (2f64.powi(exponent / 2), 2f64.powi(exponent - exponent / 2))
}

/// Divides by the power of two that brings the largest magnitude into [1, 2), and returns its exponent; exact but for
/// what underflows.
fn scale(values: &mut [f64]) -> i32 {
    let top = values.iter().fold(0.0f64, |top, value| top.max(value.abs()));
    if top == 0.0 {
        return 0;
    }
    let exponent = floor_log2(top);
    let (first, second) = halves(-exponent);
    values.iter_mut().for_each(|value| *value = *value * first * second);
    exponent
}

/// The largest e with 2^e <= x, for finite x > 0.
fn floor_log2(x: f64) -> i32 {
    let biased = |x: f64| i32::try_from(x.to_bits() >> 52).expect("eleven bits of a positive number");
    if x >= f64::MIN_POSITIVE { biased(x) - 1023 } else { biased(x * 2f64.powi(54)) - 1023 - 54 }
}

/// Keeps the first of each set of equal rows and tells for every row which one it is.
fn merge_equal_rows(values: &mut Vec<f64>, width: usize) -> Vec<u32> {
    let n = values.len() / width;
    // Adding 0 turns -0 into 0, which compares as the number that it is.
    let row = |i: u32| values[i as usize * width..][..width].iter().map(|value| value + 0.0);
    let compare = |a: u32, b: u32| row(a).map(f64::to_bits).cmp(row(b).map(f64::to_bits));
    let mut order: Vec<u32> = (0..u32::try_from(n).expect("row indices are u32")).collect();
    order.sort_unstable_by(|a, b| compare(*a, *b).then(a.cmp(b)));

    let mut first_of: Vec<u32> = (0..).take(n).collect();
    for pair in order.windows(2) {
        if compare(pair[0], pair[1]).is_eq() {
            first_of[pair[1] as usize] = first_of[pair[0] as usize];
        }
    }
    let mut distinct_of = vec![0u32; n];
    let mut n_distinct = 0;
    for i in 0..n {
        let first = first_of[i] as usize;
        if first == i {
            values.copy_within(i * width..(i + 1) * width, n_distinct * width);
            distinct_of[i] = u32::try_from(n_distinct).expect("no more than the rows");
            n_distinct += 1;
        } else {
            distinct_of[i] = distinct_of[first];
        }
    }
    values.truncate(n_distinct * width);
    values.shrink_to_fit();
    distinct_of
}

/// The mean of a row, corrected once by the mean of what is left, so that a row of equal values has exactly that mean.
fn mean(row: &[f64]) -> f64 {
    let n = row.len() as f64;
    let first = sum_of(row, row, |x, _| x) / n;
    first + sum_of(row, row, |x, _| x - first) / n
}

fn weighted_mean(values: &[f64], weights: &[f64], n: f64) -> f64 {
    let first = dot(values, weights) / n;
    first + sum_of(values, weights, |value, weight| weight * (value - first)) / n
}

/// Subtracts the column means and returns them; the second round takes away what the first left by rounding.
fn centre_columns(values: &mut [f64], weights: &[f64], n: f64) -> Vec<f64> {
    /// Rows summed before the sum joins the total, which keeps the error of long sums small.
    const ROWS: usize = 64;
    let width = values.len() / weights.len();
    let mut means = vec![0.0; width];
    for _round in 0..2 {
        let mut total = vec![0.0; width];
        for (rows, weights) in values.chunks(ROWS * width).zip(weights.chunks(ROWS)) {
            let mut sum = vec![0.0; width];
            for (row, weight) in rows.chunks_exact(width).zip(weights) {
                sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * value);
            }
            total.iter_mut().zip(&sum).for_each(|(total, sum)| *total += sum);
        }
        total.iter_mut().for_each(|sum| *sum /= n);
        for row in values.chunks_exact_mut(width) {
            row.iter_mut().zip(&total).for_each(|(value, mean)| *value -= mean);
        }
        means.iter_mut().zip(&total).for_each(|(mean, part)| *mean += part);
    }
    means
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_is_by_a_power_of_two() {
        for top in [f64::MIN_POSITIVE / 64.0, 1e-20, 0.75, 1.0, 3.0, 1e20, 1e308] {
            let mut values = [top, -top / 4.0];
            let exponent = scale(&mut values);
            assert_eq!(times_power_of_two(values[0], exponent), top);
            assert!((1.0..2.0).contains(&values[0]), "{top}: {values:?}");
            assert_eq!(values[1], -values[0] / 4.0);
            assert_eq!(times_power_of_two(values[0], exponent), top);
        }
    }

    #[test]
    fn equal_rows_are_stored_once_in_order_of_first_occurrence() {
        let mut values = vec![3.0, 1.0, 0.0, 2.0, 3.0, 1.0, 5.0, 5.0, -0.0, 2.0];
        assert_eq!(merge_equal_rows(&mut values, 2), [0, 1, 0, 2, 1]);
        assert_eq!(values, [3.0, 1.0, 0.0, 2.0, 5.0, 5.0]);
    }

    #[test]
    fn rows_and_columns_of_the_centred_rows_sum_to_zero() {
        let values: Vec<f64> = (0..60).map(|i| f64::from(i * i % 17) + 100.0).collect();
        let layer = Layer::new(values, 5).unwrap();
        for row in layer.centred.chunks_exact(5) {
            assert!(row.iter().sum::<f64>().abs() < 1e-14);
        }
        for column in 0..5 {
            let sum: f64 = layer.distinct_of.iter().map(|i| layer.centred_row(*i as usize)[column]).sum();
            assert!(sum.abs() < 1e-14, "{sum}");
        }
    }

    #[test]
    fn rows_equal_up_to_rounding_are_constant() {
        let check = |values: Vec<f64>, expected| {
            assert_eq!(Layer::new(values, 4).map(|layer| layer.constant), expected);
        };
        check(vec![0.1; 40], Ok(true));
        check(vec![0.0; 40], Ok(true));
        check((0..40).map(|i| 0.1 + 1e-9 * f64::from(i)).collect(), Ok(true));
        check((0..40).map(|i| 0.1 + 1e-4 * f64::from(i)).collect(), Ok(false));
        check(vec![0.0, 1.0, 2.0, 3.0, 0.0, f64::NAN, 0.0, 0.0], Err(NonFinite { row: 1 }));
    }
}
