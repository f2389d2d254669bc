//! The records of the shards of one extraction and pooling: one by one, and rolled up into segments.
//!
//! The object `<shard>.<generation>.json` alone commits a shard. A segment repeats the records of a block of shards,
//! so that who looks at a large extraction lists names and reads one object for every [`SEGMENT_SHARDS`] shards. What
//! it says of a shard counts as long as no later generation of that shard is listed; a segment that is missing, out of
//! date or damaged costs reads, never a result.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use futures::{Stream, StreamExt, TryStreamExt, stream};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::id::{Digest, Epoch};
use crate::layout;
use crate::model::Pooling;
use crate::record::ShardRecord;
use crate::store::{Store, StoreError};

/// Shards of a whole block.
pub const SEGMENT_SHARDS: u32 = 256;
/// A shorter block at the end of an extraction is not worth an object of its own.
const SEGMENT_SHARDS_MIN: u32 = 16;
/// Objects read at once.
const READS_AT_ONCE: usize = 16;
/// Segments of one block; each later one exists because a shard was made again.
const SEGMENTS_MAX: u32 = 64;

/// The records of a block of shards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// The coordinator that rolled them up.
    pub coordinator: String,
    /// The epoch it led in; 0 in embedded mode.
    pub epoch: Epoch,
    /// One for each shard of the block, in order.
    pub records: Vec<SegmentRecord>,
}

/// A shard's record in a segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentRecord {
    /// Its generation.
    pub generation: u32,
    /// The record, as it stands in its own object.
    pub record: ShardRecord,
}

/// What is known of the newest record of a shard.
#[derive(Clone, Debug, PartialEq)]
pub struct Newest<T> {
    /// Its generation.
    pub generation: u32,
    /// What the reader keeps of it; nothing where it is damaged, so that the shard has to be made again.
    pub kept: Option<T>,
    /// A segment has it.
    pub rolled_up: bool,
}

/// Shards by number, each with the generation of its record.
pub type Generations = BTreeMap<u32, u32>;

/// The shards whose records are rolled up together with that of `shard`, of an extraction with `n_shards`; nothing
/// where they are too few.
pub fn block_of(shard: u32, n_shards: u32) -> Option<RangeInclusive<u32>> {
    let first = shard - shard % SEGMENT_SHARDS;
    let last = first.saturating_add(SEGMENT_SHARDS - 1).min(n_shards.checked_sub(1)?);
    (shard <= last && last - first >= SEGMENT_SHARDS_MIN - 1).then_some(first..=last)
}

/// What a listing tells of the records of one extraction and pooling.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    newest: Generations,
    /// The highest number of each, by first and last shard.
    segments: BTreeMap<(u32, u32), u32>,
}

impl Listing {
    /// From object keys; those of other objects are passed over.
    pub fn of<'a>(keys: impl Iterator<Item = &'a str>) -> Self {
        let mut listing = Self::default();
        for key in keys {
            let Some((folder, name)) = key.rsplit_once('/') else { continue };
            if !folder.ends_with("/commits") {
                continue;
            }
            if let Some((shard, generation)) = layout::parse_record_name(name) {
                let known = listing.newest.entry(shard).or_insert(generation);
                *known = generation.max(*known);
            } else if let Some((first, last, number)) = layout::parse_segment_name(name) {
                let known = listing.segments.entry((first, last)).or_insert(number);
                *known = number.max(*known);
            }
        }
        listing
    }

    /// Reads the newest record of every shard, and keeps of each what `keep` makes of it.
    pub async fn read<T>(
        &self,
        store: &Store,
        key: Digest,
        pooling: Pooling,
        keep: impl Fn(&ShardRecord) -> T,
    ) -> Result<BTreeMap<u32, Newest<T>>, StoreError> {
        let mut found = BTreeMap::new();
        let name = |((first, last), number): (&(u32, u32), &u32)| {
            layout::embeddings_segment(key, pooling, *first, *last, *number)
        };
        let names: Vec<String> = self.segments.iter().map(name).collect();
        let mut segments = stream::iter(names)
            .map(|name| async move { readable::<Segment>(store, &name).await })
            .buffer_unordered(READS_AT_ONCE);
        while let Some(segment) = segments.try_next().await? {
            for SegmentRecord { generation, record } in
                segment.into_iter().flat_map(|segment| segment.records)
            {
                if self.newest.get(&record.shard) == Some(&generation) {
                    let newest = Newest { generation, kept: Some(keep(&record)), rolled_up: true };
                    found.insert(record.shard, newest);
                }
            }
        }
        drop(segments);
        let alone: Generations = self
            .newest
            .iter()
            .filter(|(shard, _)| !found.contains_key(shard))
            .map(|(s, g)| (*s, *g))
            .collect();
        let mut records = each(store, key, pooling, alone);
        while let Some((shard, generation, record)) = records.try_next().await? {
            found.insert(shard, Newest { generation, kept: record.as_ref().map(&keep), rolled_up: false });
        }
        Ok(found)
    }
}

/// The newest record of every shard of an extraction and pooling; nothing for one that is damaged.
pub async fn read(
    store: &Store,
    key: Digest,
    pooling: Pooling,
) -> Result<BTreeMap<u32, Option<ShardRecord>>, StoreError> {
    let listed = store.list(&layout::embeddings_commits(key, pooling)).await?;
    let listing = Listing::of(listed.iter().map(|object| object.key.as_str()));
    let found = listing.read(store, key, pooling, ShardRecord::clone).await?;
    Ok(found.into_iter().map(|(shard, newest)| (shard, newest.kept)).collect())
}

/// The blocks of an extraction with `n_shards` of which every record is there and sound, but not every one rolled up.
pub fn loose_blocks<T>(found: &BTreeMap<u32, Newest<T>>, n_shards: u32) -> Vec<Generations> {
    let firsts = (0..n_shards).step_by(SEGMENT_SHARDS as usize);
    let loose = |first: u32| {
        let block = block_of(first, n_shards)?;
        let n_block = (block.end() - block.start() + 1) as usize;
        let of_block: Vec<_> = found.range(block).collect();
        let whole = of_block.len() == n_block && of_block.iter().all(|(_, newest)| newest.kept.is_some());
        let rolled_up = of_block.iter().all(|(_, newest)| newest.rolled_up);
        let generations = || of_block.iter().map(|(shard, newest)| (**shard, newest.generation)).collect();
        (whole && !rolled_up).then(generations)
    };
    firsts.filter_map(loose).collect()
}

/// Rolls up the records of a block, unless a segment that is there has them all, or one of them is damaged.
pub async fn roll_up(
    store: &Store,
    (coordinator, epoch): (&str, Epoch),
    key: Digest,
    pooling: Pooling,
    block: &Generations,
) -> Result<(), StoreError> {
    let (Some((first, _)), Some((last, _))) = (block.first_key_value(), block.last_key_value()) else {
        return Ok(());
    };
    let mut records = Vec::with_capacity(block.len());
    let mut read = each(store, key, pooling, block.clone());
    while let Some((_, generation, record)) = read.try_next().await? {
        let Some(record) = record else { return Ok(()) };
        records.push(SegmentRecord { generation, record });
    }
    records.sort_by_key(|record| record.record.shard);
    let segment = Segment { coordinator: coordinator.to_owned(), epoch, records };
    let json = serde_json::to_vec(&segment).expect("plain structs serialise");
    for number in 0..SEGMENTS_MAX {
        let name = layout::embeddings_segment(key, pooling, *first, *last, number);
        let settled = store.settle(&name, json.clone().into()).await?;
        let says_as_much = |known: Segment| {
            let generations: Generations =
                known.records.iter().map(|known| (known.record.shard, known.generation)).collect();
            block.iter().all(|(shard, generation)| generations.get(shard) >= Some(generation))
        };
        if settled.is_mine || serde_json::from_slice(&settled.value).is_ok_and(says_as_much) {
            return Ok(());
        }
    }
    Ok(())
}

/// The records of some shards, in no order.
fn each(
    store: &Store,
    key: Digest,
    pooling: Pooling,
    shards: Generations,
) -> impl Stream<Item = Result<(u32, u32, Option<ShardRecord>), StoreError>> + Unpin {
    let records = stream::iter(shards).map(move |(shard, generation)| async move {
        let name = layout::embeddings_commit(key, pooling, shard, generation);
        let record: Option<ShardRecord> = readable(store, &name).await?;
        Ok((shard, generation, record.filter(|record| record.shard == shard)))
    });
    Box::pin(records.buffer_unordered(READS_AT_ONCE))
}

/// An object, or nothing where it is gone or cannot be read as one.
async fn readable<T: DeserializeOwned>(store: &Store, key: &str) -> Result<Option<T>, StoreError> {
    let json = store.try_get(key).await?;
    Ok(json.and_then(|json| serde_json::from_slice(&json).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::AttemptId;
    use crate::record::{ExtractNotes, Writer};

    const N_SHARDS: u32 = 300;

    fn key() -> Digest {
        Digest::of(b"extraction")
    }

    fn record(shard: u32, n_rows: u32) -> ShardRecord {
        let writer = Writer {
            coordinator: "c".to_owned(),
            epoch: Epoch(1),
            attempt: AttemptId(7),
            attempt_number: 1,
            worker: "w".parse().expect("a name"),
            numeric_profile: "cpu".to_owned(),
            committed_at: "2026-01-01T00:00:00Z".to_owned(),
            elapsed_ms: 5,
        };
        ShardRecord { writer, shard, n_rows, layers: Vec::new(), notes: ExtractNotes::default() }
    }

    async fn commit(store: &Store, shard: u32, generation: u32, n_rows: u32) {
        let name = layout::embeddings_commit(key(), Pooling::Mean, shard, generation);
        let settled = store.settle_json(&name, &record(shard, n_rows)).await.expect("a store in memory");
        assert!(settled.is_mine);
    }

    async fn look(store: &Store) -> BTreeMap<u32, Newest<u32>> {
        let listed = store.list(&layout::embeddings_commits(key(), Pooling::Mean)).await.expect("a list");
        let listing = Listing::of(listed.iter().map(|object| object.key.as_str()));
        listing.read(store, key(), Pooling::Mean, |record| record.n_rows).await.expect("a store in memory")
    }

    async fn roll_up_loose(store: &Store) -> usize {
        let blocks = loose_blocks(&look(store).await, N_SHARDS);
        for block in &blocks {
            let rolled_up = roll_up(store, ("c", Epoch(1)), key(), Pooling::Mean, block).await;
            rolled_up.expect("a store in memory");
        }
        blocks.len()
    }

    /// As many rows as every shard should have, and who is read from its own object.
    fn alone(found: &BTreeMap<u32, Newest<u32>>, remade: &[u32]) -> Vec<u32> {
        assert_eq!(found.len(), N_SHARDS as usize);
        for (shard, newest) in found {
            let is_remade = remade.contains(shard);
            assert_eq!(
                (newest.generation, newest.kept),
                (u32::from(is_remade), Some(10 + u32::from(is_remade)))
            );
        }
        found.iter().filter(|(_, newest)| !newest.rolled_up).map(|(shard, _)| *shard).collect()
    }

    #[test]
    fn blocks_are_aligned_and_short_ones_are_not_worth_it() {
        assert_eq!(block_of(0, 300), Some(0..=255));
        assert_eq!(block_of(299, 300), Some(256..=299));
        assert_eq!(block_of(0, 16), Some(0..=15));
        assert_eq!(block_of(u32::MAX - 1, u32::MAX), Some(u32::MAX - 255..=u32::MAX - 1));
        for (shard, n_shards) in [(0, 0), (0, 15), (256, 271), (300, 300), (u32::MAX, 300)] {
            assert_eq!(block_of(shard, n_shards), None, "{shard} of {n_shards}");
        }
    }

    #[tokio::test]
    async fn records_are_read_from_segments_unless_they_are_newer() {
        let store = Store::memory();
        for shard in (0..N_SHARDS).filter(|shard| *shard != 270) {
            commit(&store, shard, 0, 10).await;
        }
        assert_eq!(roll_up_loose(&store).await, 1, "one block is whole");
        commit(&store, 270, 0, 10).await;
        assert_eq!(alone(&look(&store).await, &[]), (256..N_SHARDS).collect::<Vec<_>>());
        assert_eq!((roll_up_loose(&store).await, roll_up_loose(&store).await), (1, 0));
        assert_eq!(alone(&look(&store).await, &[]), Vec::<u32>::new());

        // What the segments have is not read again: its own object could hold anything.
        let name = layout::embeddings_commit(key(), Pooling::Mean, 3, 0);
        store.put(&name, "{".into()).await.expect("a store in memory");
        assert_eq!(alone(&look(&store).await, &[]), Vec::<u32>::new());

        // A shard that was made again is read alone until it is rolled up again, under the next number.
        commit(&store, 299, 1, 11).await;
        assert_eq!(alone(&look(&store).await, &[299]), [299]);
        assert_eq!(roll_up_loose(&store).await, 1);
        assert_eq!(alone(&look(&store).await, &[299]), Vec::<u32>::new());
        let second = layout::embeddings_segment(key(), Pooling::Mean, 256, 299, 1);
        assert!(store.size(&second).await.expect("a store in memory").is_some());

        // A damaged segment costs reads.
        store.put(&second, "{".into()).await.expect("a store in memory");
        assert_eq!(alone(&look(&store).await, &[299]).len(), 44);
        assert_eq!(roll_up_loose(&store).await, 1);
        assert_eq!(alone(&look(&store).await, &[299]), Vec::<u32>::new());

        // A record that is gone is not there, whatever a segment says.
        store.delete(&layout::embeddings_commit(key(), Pooling::Mean, 5, 0)).await.expect("it is there");
        assert_eq!(look(&store).await.get(&5), None);
    }

    #[tokio::test]
    async fn a_damaged_record_is_told_and_never_rolled_up() {
        let store = Store::memory();
        for shard in 0..16 {
            commit(&store, shard, 0, 10).await;
        }
        let name = layout::embeddings_commit(key(), Pooling::Mean, 4, 0);
        let other = serde_json::to_vec(&record(5, 10)).expect("it serialises");
        for damage in [b"{".to_vec(), other] {
            store.put(&name, damage.into()).await.expect("a store in memory");
            let found = look(&store).await;
            assert_eq!(found[&4], Newest { generation: 0, kept: None, rolled_up: false });
            assert_eq!(loose_blocks(&found, 16), Vec::<Generations>::new());
            let all = found.iter().map(|(shard, newest)| (*shard, newest.generation)).collect();
            roll_up(&store, ("c", Epoch(1)), key(), Pooling::Mean, &all).await.expect("a store in memory");
            let listed = store.list(&layout::embeddings_commits(key(), Pooling::Mean)).await.expect("a list");
            assert_eq!(listed.len(), 16, "no segment");
        }
    }
}
