//! The strict upper triangle of a symmetric [n, n] matrix, packed row by row.

use super::scratch::Scratch;

/// Entries of the strict upper triangle of an [n, n] matrix.
pub fn n_pairs(n: usize) -> usize {
    n * n.saturating_sub(1) / 2
}

/// Where row `i` begins; it holds the entries (i, i + 1) to (i, n - 1).
pub fn row_start(n: usize, i: usize) -> usize {
    i * (2 * n - i - 1) / 2
}

/// Where the entry (i, j) or, which is the same, (j, i) stands; `i != j`.
pub fn pair_place(n: usize, i: usize, j: usize) -> usize {
    let (low, high) = if i < j { (i, j) } else { (j, i) };
    row_start(n, low) + high - low - 1
}

/// The strict upper triangle of a symmetric matrix.
pub struct Triangle {
    n: usize,
    values: Scratch<f64>,
}

impl Triangle {
    /// A triangle from its packed rows.
    ///
    /// # Panics
    /// Where `values` does not have `n (n - 1) / 2` entries.
    pub fn new(n: usize, values: Scratch<f64>) -> Self {
        assert_eq!(values.len(), n_pairs(n), "packed triangle of {n} rows");
        Self { n, values }
    }

    /// The entries (i, i + 1) to (i, n - 1).
    pub fn row(&self, i: usize) -> &[f64] {
        let start = row_start(self.n, i);
        &self.values[start..start + self.n - i - 1]
    }

    /// The entry (i, j) or, which is the same, (j, i); `i != j`.
    pub fn at(&self, i: usize, j: usize) -> f64 {
        self.values[pair_place(self.n, i, j)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_follow_one_another() {
        for n in 1..6 {
            let mut values = Scratch::with_capacity(n_pairs(n));
            values.extend((0..n_pairs(n)).map(|p| p as f64));
            let triangle = Triangle::new(n, values);
            let mut place = 0.0;
            for i in 0..n {
                assert_eq!(triangle.row(i).len(), n - i - 1);
                for j in i + 1..n {
                    assert_eq!(triangle.row(i)[j - i - 1], place);
                    assert_eq!((triangle.at(i, j), triangle.at(j, i)), (place, place));
                    place += 1.0;
                }
            }
            assert_eq!(place as usize, n_pairs(n));
        }
    }
}
