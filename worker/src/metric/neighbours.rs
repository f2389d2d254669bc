//! The nearest rows of every row by cosine distance, for the metrics that count how many of them layers share.
//! Equally near rows are taken by index, the lower first; a row is never its own neighbour.

use super::{Part, Prepare, Undefined};

/// The k nearest neighbours of every row of a layer.
pub struct Neighbours {
    k: usize,
    /// [n, k], each row in ascending order.
    indices: Vec<u32>,
    /// [n, k], the rank of each of `indices` among the neighbours of its row: 1 for the nearest.
    ranks: Vec<u32>,
}

impl Neighbours {
    /// The neighbours of every row in ascending order, each with its rank.
    pub fn rows(&self) -> impl Iterator<Item = (&[u32], &[u32])> {
        self.indices.chunks_exact(self.k).zip(self.ranks.chunks_exact(self.k))
    }
}

/// Gathers the neighbours of one layer from its cosines.
///
/// Row by row of the upper triangle, every row meets its candidates in ascending order; so a later one has to be
/// strictly nearer to come in.
pub struct Nearest {
    k: usize,
    /// The largest cosines of every row, descending: [n, k], below any cosine where there is none yet.
    cosines: Vec<f64>,
    /// The rows they belong to.
    indices: Vec<u32>,
    /// The smallest of `cosines` of every row.
    least: Vec<f64>,
}

impl Nearest {
    /// For `n` rows, of which each has `k` neighbours; `k < n`.
    pub fn new(n: usize, k: usize) -> Self {
        Self {
            k,
            cosines: vec![f64::NEG_INFINITY; n * k],
            indices: vec![0; n * k],
            least: vec![f64::NEG_INFINITY; n],
        }
    }

    fn insert(&mut self, row: usize, candidate: usize, cosine: f64) {
        let cosines = &mut self.cosines[row * self.k..][..self.k];
        let indices = &mut self.indices[row * self.k..][..self.k];
        let place = cosines.partition_point(|other| *other >= cosine);
        cosines.copy_within(place..self.k - 1, place + 1);
        indices.copy_within(place..self.k - 1, place + 1);
        cosines[place] = cosine;
        indices[place] = u32::try_from(candidate).expect("row indices are u32");
        self.least[row] = cosines[self.k - 1];
    }
}

impl Prepare for Nearest {
    fn row(&mut self, i: usize, _own: f64, right: &[f64]) {
        for (offset, cosine) in right.iter().enumerate() {
            let j = i + 1 + offset;
            if *cosine > self.least[i] {
                self.insert(i, j, *cosine);
            }
            if *cosine > self.least[j] {
                self.insert(j, i, *cosine);
            }
        }
    }

    fn finish(mut self: Box<Self>) -> Result<Part, Undefined> {
        let mut ranks = Vec::with_capacity(self.indices.len());
        let mut ranked: Vec<(u32, u32)> = Vec::with_capacity(self.k);
        for row in self.indices.chunks_exact_mut(self.k) {
            ranked.clear();
            ranked.extend(row.iter().copied().zip(1..));
            ranked.sort_unstable();
            row.iter_mut().zip(&ranked).for_each(|(index, (own, _))| *index = *own);
            ranks.extend(ranked.iter().map(|(_, rank)| *rank));
        }
        Ok(Part::new(Neighbours { k: self.k, indices: self.indices, ranks }))
    }
}

/// The mean over rows of `score`, a function of how many neighbours a row shares and of k.
pub fn mean_of_shared(a: &Neighbours, b: &Neighbours, score: impl Fn(f64, f64) -> f64) -> f64 {
    // Rows are counted by how many neighbours they share, so that the sum has k + 1 terms in a fixed order.
    let k = a.k;
    let mut rows_sharing = vec![0u64; k + 1];
    for (left, right) in a.indices.chunks_exact(k).zip(b.indices.chunks_exact(k)) {
        rows_sharing[n_shared(left, right)] += 1;
    }
    let n = a.indices.len() / k;
    let terms = rows_sharing.iter().enumerate();
    terms.map(|(shared, rows)| *rows as f64 * score(shared as f64, k as f64)).sum::<f64>() / n as f64
}

/// How many entries two ascending lists have in common.
fn n_shared(left: &[u32], right: &[u32]) -> usize {
    let mut shared = 0;
    for_each_shared(left, right, |_, _| shared += 1);
    shared
}

/// Calls `met` with the places of every entry that two ascending lists have in common.
pub fn for_each_shared(left: &[u32], right: &[u32], mut met: impl FnMut(usize, usize)) {
    let (mut i, mut j) = (0, 0);
    while i < left.len() && j < right.len() {
        let (a, b) = (left[i], right[j]);
        if a == b {
            met(i, j);
        }
        i += usize::from(a <= b);
        j += usize::from(b <= a);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The neighbours of every row from a full symmetric matrix.
    fn nearest(cosines: &[&[f64]], k: usize) -> Vec<u32> {
        let mut nearest = Box::new(Nearest::new(cosines.len(), k));
        for (i, row) in cosines.iter().enumerate() {
            nearest.row(i, 1.0, &row[i + 1..]);
        }
        nearest.finish().unwrap().get::<Neighbours>().indices.clone()
    }

    #[test]
    fn ties_go_to_the_lower_index_and_a_row_is_not_its_own_neighbour() {
        let equal: [&[f64]; 4] = [&[1.0; 4]; 4];
        assert_eq!(nearest(&equal, 1), [1, 0, 0, 0]);
        assert_eq!(nearest(&equal, 2), [1, 2, 0, 2, 0, 1, 0, 1]);
        assert_eq!(nearest(&equal, 3), [1, 2, 3, 0, 2, 3, 0, 1, 3, 0, 1, 2]);
        let mixed: [&[f64]; 4] =
            [&[1.0, 0.2, 0.5, 0.5], &[0.2, 1.0, -1.0, 0.3], &[0.5, -1.0, 1.0, 0.5], &[0.5, 0.3, 0.5, 1.0]];
        assert_eq!(nearest(&mixed, 1), [2, 3, 0, 0]);
    }

    #[test]
    fn shared_entries() {
        assert_eq!(n_shared(&[1, 3, 5], &[2, 3, 5]), 2);
        assert_eq!(n_shared(&[1, 2], &[3, 4]), 0);
        assert_eq!(n_shared(&[1, 2], &[1, 2]), 2);
    }
}
