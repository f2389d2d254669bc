//! The rows of a Monte Carlo trial, and the order of a dataset's files and rows; the system has no other randomness.
//!
//! The generator is part of the stored format: ChaCha8, keyed by SHA-256 of a name and the inputs, little-endian. For
//! trials it drives a partial Fisher–Yates shuffle, for files a whole one; a row of a file has the word of its number as
//! its key. A change of one step changes every result, so the first draws are pinned by a test.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use crate::id::Digest;

/// The rows of trial `trial`: `sample_size` distinct rows of `0..n`, ascending.
///
/// Depends on the arguments alone, so that models and poolings over the same texts are compared on the same rows.
///
/// # Panics
/// Where `sample_size > n`; a resolved spec never asks for it.
pub fn trial_rows(seed: u64, trial: u32, n: u32, sample_size: u32) -> Vec<u32> {
    assert!(sample_size <= n, "a sample of {sample_size} rows out of {n}");
    let mut generator = generator("lsa trial rows v1", seed, &[trial, n, sample_size]);

    let mut rows: Vec<u32> = (0..n).collect();
    for place in 0..sample_size {
        let pick = place + below(&mut generator, n - place);
        rows.swap(place as usize, pick as usize);
    }
    rows.truncate(sample_size as usize);
    rows.sort_unstable();
    rows
}

/// The places `0..sample_size` of a trial's rows in another order, all orders being as likely: what is left of a
/// similarity when rows no longer belong together.
pub fn null_order(seed: u64, trial: u32, sample_size: u32) -> Vec<u32> {
    let mut generator = generator("lsa null order v1", seed, &[trial, sample_size]);
    let mut places: Vec<u32> = (0..sample_size).collect();
    for place in 0..sample_size {
        let pick = place + below(&mut generator, sample_size - place);
        places.swap(place as usize, pick as usize);
    }
    places
}

/// The files `0..n_files` in the order in which streams take them: for each place the last swap is with a later one or
/// itself.
///
/// Depends on the arguments alone, never on the number of workers.
pub fn file_order(seed: u64, n_files: u32) -> Vec<u32> {
    let mut generator = generator("lsa file order v1", seed, &[n_files]);
    let mut files: Vec<u32> = (0..n_files).collect();
    for place in 0..n_files {
        let pick = place + below(&mut generator, n_files - place);
        files.swap(place as usize, pick as usize);
    }
    files
}

/// The keys by which the rows of a file are shuffled: row r has the r-th 64-bit word of the generator.
pub struct RowKeys {
    generator: ChaCha8Rng,
    next: u64,
}

impl RowKeys {
    /// The keys of the rows of file number `file`.
    pub fn new(seed: u64, file: u32) -> Self {
        Self { generator: generator("lsa row keys v1", seed, &[file]), next: 0 }
    }

    /// The key of `row`; row after row it is cheapest.
    pub fn key(&mut self, row: u64) -> u64 {
        if row != self.next {
            // A word of the generator has 32 bits.
            self.generator.set_word_pos(u128::from(row) * 2);
        }
        self.next = row.wrapping_add(1);
        self.generator.next_u64()
    }
}

fn generator(name: &str, seed: u64, inputs: &[u32]) -> ChaCha8Rng {
    let mut key = name.as_bytes().to_vec();
    key.extend(seed.to_le_bytes());
    inputs.iter().for_each(|input| key.extend(input.to_le_bytes()));
    ChaCha8Rng::from_seed(Digest::of(&key).0)
}

/// A uniform integer of `0..bound`; draws that would favour small values are thrown away.
fn below(generator: &mut ChaCha8Rng, bound: u32) -> u32 {
    let bound = u64::from(bound);
    let fair = (1u64 << 32) / bound * bound;
    loop {
        let draw = u64::from(generator.next_u32());
        if draw < fair {
            return u32::try_from(draw % bound).expect("a remainder by a u32 fits a u32");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_distinct_ascending_and_within_range() {
        for (n, sample_size) in [(1, 1), (5, 5), (100, 1), (1000, 300)] {
            let rows = trial_rows(42, 0, n, sample_size);
            assert_eq!(rows.len(), sample_size as usize);
            assert!(rows.windows(2).all(|pair| pair[0] < pair[1]));
            assert!(rows.iter().all(|row| *row < n));
        }
    }

    #[test]
    fn every_argument_matters() {
        let rows = trial_rows(42, 0, 1000, 10);
        assert_ne!(rows, trial_rows(43, 0, 1000, 10));
        assert_ne!(rows, trial_rows(42, 1, 1000, 10));
        assert_ne!(rows, trial_rows(42, 0, 1001, 10));
        assert_ne!(rows, trial_rows(42, 0, 1000, 11)[..10]);
    }

    /// Stored texts depend on them.
    #[test]
    fn first_draws_are_pinned() {
        assert_eq!(trial_rows(42, 0, 1000, 5), [79, 360, 790, 856, 926]);
        assert_eq!(file_order(42, 8), [7, 3, 6, 0, 1, 5, 2, 4]);
        let mut keys = RowKeys::new(42, 3);
        let first: Vec<u64> = (0..3).map(|row| keys.key(row)).collect();
        assert_eq!(first, [2505040235302511018, 9316948631140132737, 8003651251179161875]);
        assert_eq!((keys.key(1), keys.key(2), keys.key(0)), (first[1], first[2], first[0]));
        assert_ne!(RowKeys::new(42, 4).key(0), first[0]);
        assert_ne!(RowKeys::new(43, 3).key(0), first[0]);
    }

    #[test]
    fn files_are_all_there_once() {
        for n in [0, 1, 2, 1024] {
            let mut files = file_order(7, n);
            files.sort_unstable();
            assert_eq!(files, (0..n).collect::<Vec<u32>>());
        }
    }

    #[test]
    fn every_row_is_drawn_about_equally_often() {
        let mut hits = [0u32; 50];
        for trial in 0..5000 {
            for row in trial_rows(7, trial, 50, 5) {
                hits[row as usize] += 1;
            }
        }
        // 500 expected, standard deviation 21; the seed is fixed, so this never flickers.
        assert!(hits.iter().all(|count| (420..580).contains(count)), "{hits:?}");
    }
}
