//! Layers compared as vectors over all pairs of rows: inner products, and the cosines made of them.
//!
//! CKA, RSA and distance correlation are each such a cosine; they differ in what stands in the vector.

use std::ops::Range;

use lsa_common::cost::EXACT_ROWS_MAX;
use rayon::prelude::*;

use super::layer::dot;

/// A symmetric [n, n] matrix seen as a vector: its strict upper triangle, which counts twice, and its diagonal.
pub struct PairVector {
    upper: Values,
    diagonal: Values,
}

impl PairVector {
    /// A vector of the packed strict upper triangle and the diagonal; the diagonal is empty where it does not count.
    pub fn new(upper: Values, diagonal: Values) -> Self {
        Self { upper, diagonal }
    }
}

/// Computed values as they are kept; sums over them run in float64.
///
/// Up to [`EXACT_ROWS_MAX`] rows nothing is rounded. Beyond, float32 halves the memory; half a million and more
/// roundings average out and move a cosine by less than 1e-10.
pub enum Values {
    /// As computed.
    Exact(Vec<f64>),
    /// Rounded to float32, or exact in it.
    Rounded(Vec<f32>),
}

impl Values {
    /// Room for `count` values of a layer of `n` rows.
    pub fn with_capacity(n: usize, count: usize) -> Self {
        if n <= EXACT_ROWS_MAX as usize {
            Self::Exact(Vec::with_capacity(count))
        } else {
            Self::Rounded(Vec::with_capacity(count))
        }
    }

    /// Appends values.
    pub fn extend(&mut self, values: impl Iterator<Item = f64>) {
        match self {
            Self::Exact(own) => own.extend(values),
            Self::Rounded(own) => own.extend(values.map(|value| value as f32)),
        }
    }

    /// The sum of the squares of all values, in order.
    pub fn sum_of_squares(&self) -> f64 {
        match self {
            Self::Exact(values) => values.iter().map(|value| value * value).sum(),
            Self::Rounded(values) => values.iter().map(|value| f64::from(*value) * f64::from(*value)).sum(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Exact(values) => values.len(),
            Self::Rounded(values) => values.len(),
        }
    }

    /// Writes the values of `range` to the start of `out`.
    fn copy_to(&self, range: Range<usize>, out: &mut [f64]) {
        match self {
            Self::Exact(values) => out[..range.len()].copy_from_slice(&values[range]),
            Self::Rounded(values) => {
                out.iter_mut().zip(&values[range]).for_each(|(out, value)| *out = f64::from(*value));
            }
        }
    }
}

/// Entries whose products are summed before the sum joins a total. A part of every result: changing it changes bytes.
const CHUNK: usize = 1024;
/// The most groups of chunks that are summed apart from one another, so that partial results stay small.
const GROUPS_MAX: usize = 256;

/// Cosines of all pairs of vectors, [a, b] row-major: `b` is `None` to compare `a` with itself.
///
/// Undefined layers are `None` and give NaN. A vector of zeros does too. The matrix of `a` with itself is exactly
/// symmetric; its diagonal is computed by the same rule as everything else.
pub fn cosines(a: &[Option<&PairVector>], b: Option<&[Option<&PairVector>]>) -> Vec<f64> {
    let norms = |vectors: &[Option<&PairVector>]| -> Vec<f64> {
        let pairs: Vec<(usize, usize)> = (0..vectors.len()).map(|i| (i, i)).collect();
        inner_products(vectors, vectors, &pairs).into_iter().map(f64::sqrt).collect()
    };
    let others = b.unwrap_or(a);
    let width = others.len();
    let pairs: Vec<(usize, usize)> =
        (0..a.len()).flat_map(|i| (if b.is_some() { 0 } else { i }..width).map(move |j| (i, j))).collect();
    let products = inner_products(a, others, &pairs);
    let norms_a = norms(a);
    let norms_b = b.map_or_else(|| norms_a.clone(), norms);
    let mut matrix = vec![f64::NAN; a.len() * width];
    for ((i, j), product) in pairs.into_iter().zip(products) {
        let cosine = product / (norms_a[i] * norms_b[j]);
        matrix[i * width + j] = cosine;
        if b.is_none() {
            matrix[j * width + i] = cosine;
        }
    }
    matrix
}

/// The inner products of the named pairs; NaN where one of the two is undefined.
///
/// The order of summation depends on the length of the vectors alone, never on which or how many there are.
fn inner_products(
    a: &[Option<&PairVector>],
    b: &[Option<&PairVector>],
    pairs: &[(usize, usize)],
) -> Vec<f64> {
    let upper = sums_of_products(a, b, pairs, |vector| &vector.upper);
    let diagonal = sums_of_products(a, b, pairs, |vector| &vector.diagonal);
    upper.into_iter().zip(diagonal).map(|(upper, diagonal)| 2.0 * upper + diagonal).collect()
}

fn sums_of_products(
    a: &[Option<&PairVector>],
    b: &[Option<&PairVector>],
    pairs: &[(usize, usize)],
    part: fn(&PairVector) -> &Values,
) -> Vec<f64> {
    fn parts<'a>(
        vectors: &[Option<&'a PairVector>],
        part: fn(&PairVector) -> &Values,
    ) -> Vec<Option<&'a Values>> {
        vectors.iter().map(|vector| vector.map(part)).collect()
    }
    // Comparing vectors with themselves, each is converted once.
    let one_side = std::ptr::eq(a, b);
    let (a, b) = (parts(a, part), if one_side { Vec::new() } else { parts(b, part) });
    let length = a.iter().chain(&b).flatten().map(|values| values.len()).min().unwrap_or(0);
    let group = length.div_ceil(CHUNK).div_ceil(GROUPS_MAX).max(1) * CHUNK;
    let starts: Vec<usize> = (0..length).step_by(group).collect();
    let partial: Vec<Vec<f64>> = starts
        .into_par_iter()
        .map(|start| {
            let mut sums = vec![0.0; pairs.len()];
            let (mut chunks_a, mut chunks_b) = (vec![0.0; a.len() * CHUNK], vec![0.0; b.len() * CHUNK]);
            let end = (start + group).min(length);
            for begin in (start..end).step_by(CHUNK) {
                let range = begin..(begin + CHUNK).min(end);
                convert(&a, range.clone(), &mut chunks_a);
                convert(&b, range.clone(), &mut chunks_b);
                let chunks_b = if one_side { &chunks_a } else { &chunks_b };
                for (sum, (i, j)) in sums.iter_mut().zip(pairs) {
                    *sum += dot(&chunks_a[i * CHUNK..][..range.len()], &chunks_b[j * CHUNK..][..range.len()]);
                }
            }
            sums
        })
        .collect();
    let mut totals = vec![0.0; pairs.len()];
    for sums in partial {
        totals.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
    }
    let b = if one_side { &a } else { &b };
    for (total, (i, j)) in totals.iter_mut().zip(pairs) {
        if a[*i].is_none() || b[*j].is_none() {
            *total = f64::NAN;
        }
    }
    totals
}

/// One chunk of each vector as float64, [vectors, CHUNK]; what is undefined is left as it was.
fn convert(vectors: &[Option<&Values>], range: Range<usize>, out: &mut [f64]) {
    for (vector, out) in vectors.iter().zip(out.chunks_exact_mut(CHUNK)) {
        if let Some(vector) = vector {
            vector.copy_to(range.clone(), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors(count: usize, n: usize) -> Vec<PairVector> {
        let value = |seed: usize, place: usize| ((place + 1) * (2 * seed + 3) % 101) as f64 - 50.0;
        let vector = |seed| {
            let mut upper = Values::with_capacity(n, 0);
            let mut diagonal = Values::with_capacity(n, 0);
            upper.extend((0..n * (n - 1) / 2).map(|place| value(seed, place)));
            diagonal.extend((0..n).map(|place| value(seed + 5, place)));
            PairVector::new(upper, diagonal)
        };
        (0..count).map(vector).collect()
    }

    #[test]
    fn cosines_agree_with_their_definition() {
        check_cosines(70);
        check_cosines(EXACT_ROWS_MAX as usize + 1);
    }

    fn check_cosines(n: usize) {
        let all = vectors(4, n);
        let all_of = |values: &Values| {
            let mut all = vec![0.0; values.len()];
            values.copy_to(0..values.len(), &mut all);
            all
        };
        let full = |v: &PairVector| [all_of(&v.upper), all_of(&v.upper), all_of(&v.diagonal)].concat();
        let product =
            |a: &PairVector, b: &PairVector| -> f64 { full(a).iter().zip(full(b)).map(|(x, y)| x * y).sum() };
        let parts: Vec<Option<&PairVector>> = all.iter().map(Some).collect();
        let matrix = cosines(&parts, None);
        for i in 0..4 {
            for j in 0..4 {
                let (a, b) = (&all[i], &all[j]);
                let expected = product(a, b) / (product(a, a) * product(b, b)).sqrt();
                // Products of small integers are exact; what is left is a division and a root.
                assert!((matrix[i * 4 + j] - expected).abs() < 1e-15);
                assert_eq!(matrix[i * 4 + j].to_bits(), matrix[j * 4 + i].to_bits());
            }
        }
    }

    #[test]
    fn a_panel_holds_the_same_bits_as_the_whole() {
        let all = vectors(5, 300);
        let parts: Vec<Option<&PairVector>> = all.iter().map(Some).collect();
        let whole = cosines(&parts, None);
        let panel = cosines(&parts[..2], Some(&parts[2..]));
        for i in 0..2 {
            for j in 0..3 {
                assert_eq!(panel[i * 3 + j].to_bits(), whole[i * 5 + 2 + j].to_bits());
            }
        }
    }

    #[test]
    fn undefined_layers_spoil_their_own_cells_only() {
        let all = vectors(3, 20);
        let parts = [Some(&all[0]), None, Some(&all[2])];
        let matrix = cosines(&parts, None);
        for i in 0..3 {
            for j in 0..3 {
                assert_eq!(matrix[i * 3 + j].is_nan(), i == 1 || j == 1);
            }
        }
        assert!(cosines(&[None, None], None).iter().all(|cell| cell.is_nan()));
    }
}
