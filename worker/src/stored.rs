//! What earlier stages committed, read back and verified: texts of a row range, rows of an extraction.

use std::collections::BTreeMap;
use std::ops::Range;

use lsa_common::artifact::Rows;
use lsa_common::id::Digest;
use lsa_common::layout;
use lsa_common::model::Pooling;
use lsa_common::record::{ShardRecord, TextsRecord};
use lsa_common::report::Damaged;
use lsa_common::store::{Store, StoreError};
use lsa_common::texts::{PART_ROWS_MAX, decode_part};
use lsa_common::unit::{CompareSide, CompareUnit};
use tokio::runtime::Handle;

use crate::trial::{LayerRows, LayerSource, SourceError};

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

/// The rows that some trials of a comparison need, held in memory: only those, side after side and layer by layer.
pub struct SampledRows {
    layers: Vec<Layer>,
    rows: BTreeMap<u32, usize>,
    n_rows: u32,
}

struct Layer {
    width: usize,
    values: Vec<f32>,
}

impl SampledRows {
    /// Reads every shard once per layer and keeps `rows` (ascending, of all texts) of it. `records` has the shards of
    /// each side; `None` where `go_on` said no.
    pub fn read(
        runtime: &Handle,
        store: &Store,
        unit: &CompareUnit,
        records: &[Vec<ShardRecord>],
        rows: &[u32],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<Self>, StoredError> {
        let mut layers = Vec::with_capacity(unit.n_layers());
        for (side, records) in unit.sides.iter().zip(records) {
            for place in 0..side.layers.len() {
                if !go_on() {
                    return Ok(None);
                }
                layers.push(read_layer(runtime, store, (side, unit.pooling), records, place, rows)?);
            }
        }
        let rows = rows.iter().enumerate().map(|(place, row)| (*row, place)).collect();
        Ok(Some(Self { layers, rows, n_rows: unit.n_texts }))
    }
}

fn read_layer(
    runtime: &Handle,
    store: &Store,
    (side, pooling): (&CompareSide, Pooling),
    records: &[ShardRecord],
    place: usize,
    rows: &[u32],
) -> Result<Layer, StoredError> {
    let mut values = Vec::new();
    let mut width = 0;
    let mut rest = rows;
    let mut first_row = 0u32;
    for record in records {
        let end = first_row + record.n_rows;
        let (inside, after) = rest.split_at(rest.partition_point(|row| *row < end));
        rest = after;
        if !inside.is_empty() {
            let damaged = |fault: String| shard_damaged(side, pooling, record.shard, fault);
            let layer = record.layers.get(place).filter(|layer| layer.layer == side.layers[place]);
            let layer = layer.ok_or_else(|| damaged("its record has other layers".to_owned()))?;
            if width != 0 && width != layer.width {
                return Err(damaged(format!("rows of width {} beside rows of width {width}", layer.width)));
            }
            width = layer.width;
            let bytes = match runtime.block_on(store.get_verified(&layer.object)) {
                Err(StoreError::Damaged { fault, .. }) => return Err(damaged(fault)),
                bytes => bytes?,
            };
            let decoded = Rows::decode(&bytes, record.n_rows as usize, width as usize);
            let decoded = decoded.map_err(|e| damaged(e.to_string()))?;
            for row in inside {
                decoded.append((row - first_row) as usize, &mut values);
            }
        }
        first_row = end;
    }
    Ok(Layer { width: width as usize, values })
}

fn shard_damaged(side: &CompareSide, pooling: Pooling, shard: u32, fault: String) -> StoredError {
    StoredError::Damaged {
        what: format!("shard {shard} of pooling {pooling}"),
        fault,
        damaged: Damaged::Shard { extraction_key: side.extraction_key, pooling, shard },
    }
}

/// The newest record of every shard of a side, in order; there have to be `n_texts` rows.
pub async fn shard_records(
    store: &Store,
    side: &CompareSide,
    pooling: Pooling,
    n_texts: u32,
) -> Result<Vec<ShardRecord>, StoredError> {
    let listed = store.list(&layout::embeddings_commits(side.extraction_key, pooling)).await?;
    let damaged = |shard: u32, fault: String| shard_damaged(side, pooling, shard, fault);
    let newest = layout::newest_records(listed.iter().map(|object| object.key.as_str()));
    let mut records = Vec::with_capacity(side.n_shards as usize);
    for shard in 0..side.n_shards {
        let generation = newest.get(&shard).copied();
        let generation = generation.ok_or_else(|| damaged(shard, "there is no record".to_owned()))?;
        let key = layout::embeddings_commit(side.extraction_key, pooling, shard, generation);
        let record: ShardRecord = match store.get_json(&key).await {
            Err(StoreError::Damaged { fault, .. }) => return Err(damaged(shard, fault)),
            record => record?,
        };
        records.push(record);
    }
    let n_rows: u64 = records.iter().map(|record| u64::from(record.n_rows)).sum();
    if n_rows != u64::from(n_texts) {
        let last = side.n_shards.saturating_sub(1);
        return Err(damaged(last, format!("all shards have {n_rows} rows, expected {n_texts}")));
    }
    Ok(records)
}

impl SampledRows {
    /// The memory that the rows take, in bytes.
    pub fn n_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| size_of_val(&*layer.values) as u64).sum()
    }
}

impl LayerSource for SampledRows {
    fn n_layers(&self) -> usize {
        self.layers.len()
    }

    fn n_rows(&self) -> u32 {
        self.n_rows
    }

    fn width(&self, layer: usize) -> usize {
        self.layers[layer].width
    }

    fn rows(&self, layer: usize, rows: &[u32]) -> Result<LayerRows, SourceError> {
        let Layer { width, values } = &self.layers[layer];
        let mut gathered = Vec::with_capacity(rows.len() * width);
        for row in rows {
            let Some(place) = self.rows.get(row) else {
                return Err(SourceError {
                    class: lsa_common::failure::FailureClass::Reject,
                    message: format!("row {row} was not read for these trials"),
                    cause: None,
                });
            };
            gathered.extend(values[place * width..(place + 1) * width].iter().map(|value| f64::from(*value)));
        }
        Ok(LayerRows { width: *width, values: gathered })
    }
}
