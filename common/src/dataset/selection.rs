//! Which texts are taken: the order of files, and the pool of a shuffle.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};

use super::Sampling;
use crate::id::Digest;
use crate::seed::{RowKeys, file_order};

/// Files that are read one after the other, for so many texts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Leg {
    pub(super) files: VecDeque<u32>,
    pub(super) quota: u32,
}

/// What is read, in order, for `num_samples` texts of `n_files` files. A shuffle reads files in order, too.
pub(super) fn legs(sampling: Sampling, n_files: u32, num_samples: u32) -> VecDeque<Leg> {
    match sampling {
        Sampling::First | Sampling::Shuffle { .. } => {
            VecDeque::from([Leg { files: (0..n_files).collect(), quota: num_samples }])
        }
        Sampling::Streams { streams, seed } => {
            let order = file_order(seed, n_files);
            // A stream without files would only lack texts.
            let n_streams = streams.clamp(1, n_files.max(1));
            let files = |stream: u32| {
                order.iter().copied().skip(stream as usize).step_by(n_streams as usize).collect()
            };
            let quota = |stream| num_samples / n_streams + u32::from(stream < num_samples % n_streams);
            (0..n_streams).map(|stream| Leg { files: files(stream), quota: quota(stream) }).collect()
        }
    }
}

/// A text of a shuffle: its row's key, then where it is: file, row and place among the row's texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) key: u64,
    pub(super) file: u32,
    pub(super) row: u64,
    pub(super) place: u32,
}

/// The texts with the smallest keys so far: their places, not the texts.
pub(super) struct Pool {
    capacity: usize,
    entries: BTreeMap<Entry, Fingerprint>,
    /// Where each text is; empty unless texts are deduplicated.
    by_text: HashMap<Fingerprint, Entry>,
    dedupe: bool,
    /// Texts left out because an equal one has a smaller key.
    pub(super) n_duplicates: u64,
}

/// The first bytes of a text's digest.
pub(super) type Fingerprint = [u8; 16];

pub(super) fn fingerprint(text: &str) -> Fingerprint {
    let digest = Digest::of(text.as_bytes()).0;
    *digest.first_chunk().expect("a digest has 32 bytes")
}

impl Pool {
    pub(super) fn new(capacity: u32, dedupe: bool) -> Self {
        let capacity = capacity as usize;
        Self { capacity, entries: BTreeMap::new(), by_text: HashMap::new(), dedupe, n_duplicates: 0 }
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.len() == self.capacity
    }

    /// Takes a text in, unless enough texts or an equal one have smaller keys.
    pub(super) fn offer(&mut self, entry: Entry, text: &str) {
        if self.is_full() && self.entries.last_key_value().is_none_or(|(last, _)| *last < entry) {
            return;
        }
        let mut fingerprint = Fingerprint::default();
        if self.dedupe {
            fingerprint = self::fingerprint(text);
            if let Some(known) = self.by_text.get(&fingerprint) {
                self.n_duplicates += 1;
                if *known < entry {
                    return;
                }
                self.entries.remove(known);
            }
            self.by_text.insert(fingerprint, entry);
        }
        self.entries.insert(entry, fingerprint);
        if self.entries.len() > self.capacity
            && let Some((_, last)) = self.entries.pop_last()
            && self.dedupe
        {
            self.by_text.remove(&last);
        }
    }

    /// What was taken, by file: rows and places in them, ascending.
    pub(super) fn picks(&self) -> BTreeMap<u32, BTreeSet<(u64, u32)>> {
        let mut picks: BTreeMap<u32, BTreeSet<(u64, u32)>> = BTreeMap::new();
        for entry in self.entries.keys() {
            picks.entry(entry.file).or_default().insert((entry.row, entry.place));
        }
        picks
    }
}

/// The `n` rows with the smallest keys of files with so many rows, by file, ascending.
pub(super) fn smallest_rows(seed: u64, n_rows: &[u64], n: usize) -> BTreeMap<u32, BTreeSet<u64>> {
    let mut heap: BinaryHeap<(u64, u32, u64)> = BinaryHeap::new();
    for (file, n_rows) in (0..).zip(n_rows) {
        let mut keys = RowKeys::new(seed, file);
        for row in 0..*n_rows {
            let found = (keys.key(row), file, row);
            if heap.len() < n {
                heap.push(found);
            } else if let Some(mut last) = heap.peek_mut()
                && found < *last
            {
                *last = found;
            }
        }
    }
    let mut rows: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
    for (_, file, row) in heap {
        rows.entry(file).or_default().insert(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_share_files_and_texts() {
        let legs = |streams, n_files, n| {
            let legs = legs(Sampling::Streams { streams, seed: 42 }, n_files, n);
            legs.into_iter().map(|leg| (Vec::from(leg.files), leg.quota)).collect::<Vec<_>>()
        };
        let order = file_order(42, 8);
        let found = legs(3, 8, 10);
        assert_eq!(found[0], (vec![order[0], order[3], order[6]], 4));
        assert_eq!(found[1], (vec![order[1], order[4], order[7]], 3));
        assert_eq!(found[2], (vec![order[2], order[5]], 3));
        assert_eq!(legs(16, 2, 5).iter().map(|leg| leg.1).collect::<Vec<_>>(), [3, 2]);
        assert_eq!(legs(0, 2, 5).len(), 1);
        let c4 = legs(16, 1024, 20_000);
        assert!(c4.iter().all(|(files, quota)| files.len() == 64 && *quota == 1250));
    }

    #[test]
    fn the_pool_holds_the_smallest_keys() {
        let entry = |key, row| Entry { key, file: 0, row, place: 0 };
        let take = |dedupe, offers: &[(u64, &str)]| {
            let mut pool = Pool::new(3, dedupe);
            for (row, (key, text)) in (0..).zip(offers) {
                pool.offer(entry(*key, row), text);
            }
            let rows: Vec<u64> = pool.picks().into_values().flatten().map(|(row, _)| row).collect();
            (rows, pool.n_duplicates)
        };
        let offers = [(9, "a"), (5, "b"), (7, "a"), (3, "b"), (8, "c"), (6, "d")];
        assert_eq!(take(false, &offers), (vec![1, 3, 5], 0));
        // a: row 2; b: row 3; then d before c.
        assert_eq!(take(true, &offers), (vec![2, 3, 5], 2));
        assert_eq!(take(false, &offers[..2]), (vec![0, 1], 0));
    }

    #[test]
    fn smallest_rows_are_those_of_the_keys() {
        let mut all = Vec::new();
        for (file, n_rows) in [(0, 50), (1, 0), (2, 70)] {
            let mut keys = RowKeys::new(1, file);
            all.extend((0..n_rows).map(|row| (keys.key(row), file, row)));
        }
        all.sort_unstable();
        let expected: BTreeSet<(u32, u64)> = all[..30].iter().map(|(_, file, row)| (*file, *row)).collect();
        let found = smallest_rows(1, &[50, 0, 70], 30);
        let found: BTreeSet<(u32, u64)> =
            found.into_iter().flat_map(|(file, rows)| rows.into_iter().map(move |row| (file, row))).collect();
        assert_eq!(found, expected);
    }
}
