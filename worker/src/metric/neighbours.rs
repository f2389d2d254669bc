//! The nearest rows of every row, for the metrics that count how many of them layers share.
//! Equally near rows are taken by index, the lower first; a row is never its own neighbour.

use lsa_common::metric::{Inner, MetricSpec};

use super::vectorised::vectorised;
use super::{Part, PartError, Prepare};

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
    /// The nearest rows have the largest similarities, but the smallest distances.
    sign: f64,
    /// The largest similarities of every row, descending: [n, k], below any similarity where there is none yet.
    similarities: Vec<f64>,
    /// The rows they belong to.
    indices: Vec<u32>,
    /// The smallest of `similarities` of every row.
    least: Vec<f64>,
}

impl Nearest {
    /// For `n` rows, of which each has `spec.k` neighbours; `k < n`.
    pub fn new(spec: &MetricSpec, n: usize) -> Self {
        let k = spec.neighbours() as usize;
        Self {
            k,
            sign: if spec.inner == Some(Inner::Euclidean) { -1.0 } else { 1.0 },
            similarities: vec![f64::NEG_INFINITY; n * k],
            indices: vec![0; n * k],
            least: vec![f64::NEG_INFINITY; n],
        }
    }

    fn insert(&mut self, row: usize, candidate: usize, similarity: f64) {
        let similarities = &mut self.similarities[row * self.k..][..self.k];
        let indices = &mut self.indices[row * self.k..][..self.k];
        let place = similarities.partition_point(|other| *other >= similarity);
        similarities.copy_within(place..self.k - 1, place + 1);
        indices.copy_within(place..self.k - 1, place + 1);
        similarities[place] = similarity;
        indices[place] = u32::try_from(candidate).expect("row indices are u32");
        self.least[row] = similarities[self.k - 1];
    }
}

impl Prepare for Nearest {
    fn row(&mut self, i: usize, _own: f64, right: &[f64]) {
        let mut start = 0;
        while let Some(offset) =
            next_nearer(self.sign, &right[start..], self.least[i], &self.least[i + 1 + start..])
        {
            let place = start + offset;
            let (j, similarity) = (i + 1 + place, self.sign * right[place]);
            if similarity > self.least[i] {
                self.insert(i, j, similarity);
            }
            if similarity > self.least[j] {
                self.insert(j, i, similarity);
            }
            start = place + 1;
        }
    }

    fn finish(self: Box<Self>) -> Result<Part, PartError> {
        Ok(Part::new(self.neighbours()))
    }
}

impl Nearest {
    /// The neighbours, after all rows.
    pub fn neighbours(self) -> Neighbours {
        Neighbours::new(self.k, self.indices)
    }
}

impl Neighbours {
    /// Takes the k neighbours of every row, the nearest first: `[n, k]`.
    pub fn new(k: usize, mut nearest: Vec<u32>) -> Self {
        let mut ranks = Vec::with_capacity(nearest.len());
        let mut ranked: Vec<(u32, u32)> = Vec::with_capacity(k);
        for row in nearest.chunks_exact_mut(k) {
            ranked.clear();
            ranked.extend(row.iter().copied().zip(1..));
            ranked.sort_unstable();
            row.iter_mut().zip(&ranked).for_each(|(index, (own, _))| *index = *own);
            ranks.extend(ranked.iter().map(|(_, rank)| *rank));
        }
        Self { k, indices: nearest, ranks }
    }
}

vectorised! {
    /// The first pair that comes in at one of its two rows: nearer than the least of the one row or of the others.
    fn next_nearer(sign: f64, values: &[f64], least: f64, others: &[f64]) -> Option<usize> {
        const LANES: usize = 16;
        let is_nearer = |value: f64, other: f64| (sign * value > least) | (sign * value > other);
        let (blocks, _) = values.as_chunks::<LANES>();
        let (other_blocks, _) = others.as_chunks::<LANES>();
        let mut blocks = blocks.iter().zip(other_blocks);
        // Nearly every block holds none, which is told without a branch for each pair.
        let none = |(block, others): &(&[f64; LANES], &[f64; LANES])| {
            !(0..LANES).fold(false, |any, lane| any | is_nearer(block[lane], others[lane]))
        };
        let start = LANES * blocks.by_ref().take_while(none).count();
        let mut rest = values[start..].iter().zip(&others[start..]);
        rest.position(|(value, other)| is_nearer(*value, *other)).map(|offset| start + offset)
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

/// Calls `met` with every entry that is in one of two ascending lists or in both, ascending.
pub fn for_each_of_either(left: &[u32], right: &[u32], mut met: impl FnMut(u32)) {
    let (mut i, mut j) = (0, 0);
    loop {
        match (left.get(i), right.get(j)) {
            (None, None) => return,
            (Some(a), Some(b)) => {
                met(*a.min(b));
                (i, j) = (i + usize::from(a <= b), j + usize::from(b <= a));
            }
            (Some(a), None) => {
                met(*a);
                i += 1;
            }
            (None, Some(b)) => {
                met(*b);
                j += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use lsa_common::metric::MetricName;

    use super::*;

    /// The neighbours of every row from a full symmetric matrix.
    fn nearest(cosines: &[&[f64]], k: u32) -> Vec<u32> {
        let spec = MetricSpec { k: Some(k), ..MetricSpec::new(MetricName::JaccardSimilarity) };
        let mut nearest = Box::new(Nearest::new(&spec, cosines.len()));
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
        let mut either = Vec::new();
        for_each_of_either(&[1, 3, 5], &[2, 3, 9, 11], |entry| either.push(entry));
        assert_eq!(either, [1, 2, 3, 5, 9, 11]);
    }
}
