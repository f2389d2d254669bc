//! What earlier stages committed, read back and verified: texts of a row range, records of an extraction.

use std::io;
use std::ops::Range;
use std::path::PathBuf;

use lsa_common::id::Digest;
use lsa_common::layout;
use lsa_common::model::Pooling;
use lsa_common::record::{ShardRecord, TextsRecord};
use lsa_common::report::Damaged;
use lsa_common::shard_records;
use lsa_common::store::{Store, StoreError};
use lsa_common::texts::{PART_ROWS_MAX, decode_part};
use lsa_common::unit::CompareSide;

/// Why something committed could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// It is not what its record says; it has to be made again.
    #[error("{what}: {fault}")]
    Damaged {
        /// For a person.
        what: String,
        /// What is wrong.
        fault: String,
        /// For the coordinator.
        damaged: Damaged,
    },
    /// The bucket failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Rows that do not fit into memory could not be put on disk; most often it is full.
    #[error(
        "rows for trials cannot be kept in {}; free space there, name another folder with --scratch, or allow more memory",
        folder.display()
    )]
    Scratch {
        /// Where.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The texts in `range` of prepared texts.
pub async fn texts(
    store: &Store,
    texts_key: Digest,
    range: Range<usize>,
) -> Result<Vec<String>, StoredError> {
    let damaged = |fault: String| StoredError::Damaged {
        what: "prepared texts".to_owned(),
        fault,
        damaged: Damaged::Texts(texts_key),
    };
    let listed = store.list(&layout::texts_commits(texts_key)).await?;
    let generation = |key: &str| key.rsplit('/').next().and_then(layout::parse_generation);
    let newest = listed.iter().filter_map(|object| generation(&object.key)).max();
    let newest = newest.ok_or_else(|| damaged("there is no record".to_owned()))?;
    let record: TextsRecord = match store.get_json(&layout::texts_commit(texts_key, newest)).await {
        Err(StoreError::Damaged { fault, .. }) => return Err(damaged(fault)),
        record => record?,
    };
    let mut texts = Vec::with_capacity(range.len());
    let (first, last) = (range.start / PART_ROWS_MAX, range.end.saturating_sub(1) / PART_ROWS_MAX);
    for number in first..=last {
        let part =
            record.parts.get(number).ok_or_else(|| damaged(format!("part {number} is not in its record")))?;
        let bytes = match store.get_verified(part).await {
            Err(StoreError::Damaged { fault, .. }) => return Err(damaged(fault)),
            bytes => bytes?,
        };
        let base = number * PART_ROWS_MAX;
        let inside = range.start.max(base) - base..range.end.min(base + PART_ROWS_MAX) - base;
        let rows = decode_part(bytes, inside).map_err(|e| damaged(e.to_string()))?;
        texts.extend(rows.into_iter().map(|text| text.text));
    }
    Ok(texts)
}

/// That a shard of a side has to be made again.
pub fn shard_damaged(side: &CompareSide, pooling: Pooling, shard: u32, fault: String) -> StoredError {
    StoredError::Damaged {
        what: format!("shard {shard} of pooling {pooling}"),
        fault,
        damaged: Damaged::Shard { extraction_key: side.extraction_key, pooling, shard },
    }
}

/// The newest record of every shard of a side, in order; there have to be `n_texts` rows.
pub async fn records_of_side(
    store: &Store,
    side: &CompareSide,
    pooling: Pooling,
    n_texts: u32,
) -> Result<Vec<ShardRecord>, StoredError> {
    let mut newest = shard_records::read(store, side.extraction_key, pooling).await?;
    let damaged = |shard: u32, fault: String| shard_damaged(side, pooling, shard, fault);
    let mut records = Vec::with_capacity(side.n_shards as usize);
    for shard in 0..side.n_shards {
        let record = newest.remove(&shard).ok_or_else(|| damaged(shard, "there is no record".to_owned()))?;
        records.push(record.ok_or_else(|| damaged(shard, "its record is damaged".to_owned()))?);
    }
    let n_rows: u64 = records.iter().map(|record| u64::from(record.n_rows)).sum();
    if n_rows != u64::from(n_texts) {
        let last = side.n_shards.saturating_sub(1);
        return Err(damaged(last, format!("all shards have {n_rows} rows, expected {n_texts}")));
    }
    Ok(records)
}
