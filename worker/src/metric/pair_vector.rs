//! Layers compared as vectors over all pairs of rows: inner products, and the cosines made of them.
//!
//! CKA, RSA and distance correlation are each such a cosine; they differ in what stands in the vector.

use std::ops::Range;

use lsa_common::cost::EXACT_ROWS_MAX;
use rayon::prelude::*;

use super::kept::{Kept, Window};
use super::layer::{dot, dots};
use super::vectorised::vectorised;

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
    Exact(Kept<f64>),
    /// Rounded to float32.
    Rounded(Kept<f32>),
    /// Integers.
    Whole(Kept<i32>),
}

impl Values {
    /// Room for `count` values of a layer of `n` rows.
    pub fn with_capacity(n: usize, count: usize) -> Self {
        if n <= EXACT_ROWS_MAX as usize {
            Self::Exact(Kept::with_capacity(count))
        } else {
            Self::Rounded(Kept::with_capacity(count))
        }
    }

    /// These integers.
    pub fn whole(numbers: Vec<i32>) -> Self {
        Self::Whole(Kept::from_vec(numbers))
    }

    /// Appends values.
    pub fn extend(&mut self, values: impl Iterator<Item = f64>) {
        let values: Vec<f64> = values.collect();
        self.extend_from_slice(&values);
    }

    /// Appends values.
    pub fn extend_from_slice(&mut self, values: &[f64]) {
        match self {
            Self::Exact(own) => own.extend_from_slice(values),
            Self::Rounded(own) => own.extend_from_slice(values),
            Self::Whole(own) => own.extend_from_slice(values),
        }
    }

    /// Appends the values of `other`.
    pub fn append(&mut self, other: &Self) {
        let (mut window, mut chunk) = (Window::default(), [0.0; CHUNK]);
        for range in chunks(0..other.len()) {
            other.copy_to(range.clone(), &mut window, &mut chunk);
            self.extend_from_slice(&chunk[..range.len()]);
        }
    }

    /// The sum of the squares of all values, in order.
    pub fn sum_of_squares(&self) -> f64 {
        let (mut window, mut chunk) = (Window::default(), [0.0; CHUNK]);
        let mut sum = 0.0;
        for range in chunks(0..self.len()) {
            self.copy_to(range.clone(), &mut window, &mut chunk);
            chunk[..range.len()].iter().for_each(|value| sum += value * value);
        }
        sum
    }

    fn len(&self) -> usize {
        match self {
            Self::Exact(values) => values.len(),
            Self::Rounded(values) => values.len(),
            Self::Whole(values) => values.len(),
        }
    }

    /// Writes the values of a chunk to the start of `out`.
    fn copy_to(&self, chunk: Range<usize>, window: &mut Window, out: &mut [f64]) {
        match self {
            Self::Exact(values) => values.copy_to(chunk, window, out),
            Self::Rounded(values) => values.copy_to(chunk, window, out),
            Self::Whole(values) => values.copy_to(chunk, window, out),
        }
    }
}

/// The chunks of a range that begins with one.
fn chunks(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(CHUNK).map(move |start| start..(start + CHUNK).min(end))
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
    // One list of all vectors, so that each is read once; products of vectors with themselves give the norms.
    let all: Vec<Option<&PairVector>> = a.iter().chain(b.unwrap_or_default()).copied().collect();
    let columns = if b.is_some() { a.len()..all.len() } else { 0..a.len() };
    let first = |i: usize| if b.is_some() { columns.start } else { i };
    let norms = (0..all.len()).map(|i| (i, i));
    let cells = (0..a.len()).flat_map(|i| (first(i)..columns.end).map(move |j| (i, j)));
    let pairs: Vec<(usize, usize)> = norms.chain(cells.filter(|(i, j)| i != j)).collect();
    let products = inner_products(&all, &pairs);
    let norms: Vec<f64> = products[..all.len()].iter().map(|product| product.sqrt()).collect();
    let mut matrix = vec![f64::NAN; a.len() * columns.len()];
    for ((i, j), product) in pairs.into_iter().zip(products) {
        if !columns.contains(&j) || i >= a.len() {
            continue;
        }
        let (row, column) = (i, j - columns.start);
        matrix[row * columns.len() + column] = product / (norms[i] * norms[j]);
        if b.is_none() {
            matrix[column * columns.len() + row] = matrix[row * columns.len() + column];
        }
    }
    matrix
}

/// The inner products of the named pairs; NaN where one of the two is undefined.
///
/// The order of summation depends on the length of the vectors alone, never on which or how many there are.
fn inner_products(vectors: &[Option<&PairVector>], pairs: &[(usize, usize)]) -> Vec<f64> {
    let of = |part: fn(&PairVector) -> &Values| -> Vec<Option<&Values>> {
        vectors.iter().map(|vector| vector.map(part)).collect()
    };
    let upper = sums_of_products(&of(|vector| &vector.upper), pairs);
    let diagonal = sums_of_products(&of(|vector| &vector.diagonal), pairs);
    let defined = |(i, j): &(usize, usize)| vectors[*i].is_some() && vectors[*j].is_some();
    let products = upper.into_iter().zip(diagonal).map(|(upper, diagonal)| 2.0 * upper + diagonal);
    products.zip(pairs).map(|(product, pair)| if defined(pair) { product } else { f64::NAN }).collect()
}

fn sums_of_products(vectors: &[Option<&Values>], pairs: &[(usize, usize)]) -> Vec<f64> {
    let length = vectors.iter().flatten().map(|values| values.len()).min().unwrap_or(0);
    let group = length.div_ceil(CHUNK).div_ceil(GROUPS_MAX).max(1) * CHUNK;
    let starts: Vec<usize> = (0..length).step_by(group).collect();
    let partial: Vec<Vec<f64>> = starts
        .into_par_iter()
        .map(|start| {
            let mut sums = vec![0.0; pairs.len()];
            let mut values = vec![0.0; vectors.len() * CHUNK];
            let mut windows: Vec<Window> = vectors.iter().map(|_| Window::default()).collect();
            for chunk in chunks(start..(start + group).min(length)) {
                let places = vectors.iter().zip(values.chunks_exact_mut(CHUNK)).zip(&mut windows);
                for ((vector, values), window) in places {
                    if let Some(vector) = vector {
                        vector.copy_to(chunk.clone(), window, values);
                    }
                }
                add_products(pairs, chunk.len(), &values, &mut sums);
            }
            sums
        })
        .collect();
    let mut totals = vec![0.0; pairs.len()];
    for sums in partial {
        totals.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
    }
    totals
}

vectorised! {
    /// Adds the products of two chunks to the sum of each pair.
    fn add_products(pairs: &[(usize, usize)], length: usize, values: &[f64], sums: &mut [f64]) {
        let chunk = |vector: usize| &values[vector * CHUNK..][..length];
        let mut done = 0;
        while done < pairs.len() {
            let (i, j) = pairs[done];
            match pairs.get(done + 1) {
                // Two products with the same vector read it once.
                Some((same, other)) if *same == i => {
                    let [first, second] = dots(chunk(i), [chunk(j), chunk(*other)]);
                    sums[done] += first;
                    sums[done + 1] += second;
                    done += 2;
                }
                _ => {
                    sums[done] += dot(chunk(i), chunk(j));
                    done += 1;
                }
            }
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
            let mut window = Window::default();
            chunks(0..values.len())
                .for_each(|range| values.copy_to(range.clone(), &mut window, &mut all[range]));
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
