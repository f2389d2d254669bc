//! The rows that some trials of a comparison draw from, read once for all of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use lsa_common::artifact::Rows;
use lsa_common::failure::FailureClass;
use lsa_common::model::Pooling;
use lsa_common::record::ShardRecord;
use lsa_common::store::{Store, StoreError};
use lsa_common::unit::{CompareSide, CompareUnit};
use tokio::runtime::Handle;

use crate::resources::Resources;
use crate::stored::{StoredError, shard_damaged};
use crate::trial::{LayerRows, LayerSource, SourceError};

/// The rows that some trials of a comparison need: only those, side after side and layer by layer. In memory, or in a file
/// without a name where they would take more than half of it.
pub struct SampledRows {
    layers: Vec<Layer>,
    rows: BTreeMap<u32, usize>,
    n_rows: u32,
    file: Option<File>,
}

struct Layer {
    width: usize,
    held: Held,
}

/// The numbers of a layer, row-major.
enum Held {
    Memory(Vec<f32>),
    /// From this byte of the file on.
    File(u64),
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
        resources: &Resources,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<Self>, StoredError> {
        let failed = |source| StoredError::Scratch { folder: resources.scratch.clone(), source };
        let widths = unit.sides.iter().map(|side| side.layers.len() as u64 * u64::from(side.hidden_size));
        let n_bytes = (rows.len() * size_of::<f32>()) as u64 * widths.sum::<u64>();
        let file = match n_bytes > resources.memory_bytes / 2 {
            true => Some(tempfile::tempfile_in(&resources.scratch).map_err(failed)?),
            false => None,
        };
        let mut end = 0;
        let mut layers = Vec::with_capacity(unit.n_layers());
        for (side, records) in unit.sides.iter().zip(records) {
            for place in 0..side.layers.len() {
                if !go_on() {
                    return Ok(None);
                }
                let (width, values) = read_layer(runtime, store, (side, unit.pooling), records, place, rows)?;
                let held = match &file {
                    None => Held::Memory(values),
                    Some(file) => {
                        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
                        file.write_all_at(&bytes, end).map_err(failed)?;
                        let start = end;
                        end += bytes.len() as u64;
                        Held::File(start)
                    }
                };
                layers.push(Layer { width, held });
            }
        }
        let rows = rows.iter().enumerate().map(|(place, row)| (*row, place)).collect();
        Ok(Some(Self { layers, rows, n_rows: unit.n_texts, file }))
    }

    /// The memory that the rows take, in bytes.
    pub fn n_bytes(&self) -> u64 {
        let in_memory = |layer: &Layer| match &layer.held {
            Held::Memory(values) => size_of_val(&**values) as u64,
            Held::File(_) => 0,
        };
        self.layers.iter().map(in_memory).sum()
    }

    /// Appends the row at that place among those that were read.
    fn append(&self, layer: &Layer, place: usize, out: &mut Vec<f64>) -> io::Result<()> {
        match (&layer.held, &self.file) {
            (Held::Memory(values), _) => {
                let row = &values[place * layer.width..(place + 1) * layer.width];
                out.extend(row.iter().map(|value| f64::from(*value)));
            }
            (Held::File(start), Some(file)) => {
                let mut bytes = vec![0; layer.width * size_of::<f32>()];
                let at = start + (place * bytes.len()) as u64;
                file.read_exact_at(&mut bytes, at)?;
                let (numbers, _) = bytes.as_chunks();
                out.extend(numbers.iter().map(|number| f64::from(f32::from_ne_bytes(*number))));
            }
            (Held::File(_), None) => return Err(io::Error::other("there is no file")),
        }
        Ok(())
    }
}

/// Width and rows of one layer of a side, which is the one at `place` among the layers that are compared.
fn read_layer(
    runtime: &Handle,
    store: &Store,
    (side, pooling): (&CompareSide, Pooling),
    records: &[ShardRecord],
    place: usize,
    rows: &[u32],
) -> Result<(usize, Vec<f32>), StoredError> {
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
    Ok((width as usize, values))
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
        let layer = &self.layers[layer];
        let mut values = Vec::with_capacity(rows.len() * layer.width);
        for row in rows {
            let place = self.rows.get(row).ok_or_else(|| SourceError {
                class: FailureClass::Reject,
                message: format!("row {row} was not read for these trials"),
                cause: None,
            })?;
            self.append(layer, *place, &mut values).map_err(|cause| SourceError {
                class: FailureClass::Retry,
                message: format!("row {row} cannot be read from the scratch file"),
                cause: Some(Box::new(cause)),
            })?;
        }
        Ok(LayerRows { width: layer.width, values })
    }
}

#[cfg(test)]
mod tests {
    use lsa_common::artifact::encode_rows;
    use lsa_common::id::Digest;
    use lsa_common::job::{Compare, SimilaritySettings, Trials};
    use lsa_common::record::{ExtractNotes, ShardLayer, Writer};

    use super::*;

    const WIDTHS: [u32; 2] = [3, 5];
    const SHARD_ROWS: u32 = 4;

    fn value(side: usize, layer: u32, row: u32, column: u32) -> f32 {
        (side as u32 * 1000 + layer * 100 + row * 10 + column) as f32 / 8.0
    }

    async fn records(store: &Store, side: usize) -> Vec<ShardRecord> {
        let mut records = Vec::new();
        for shard in 0..3 {
            let mut layers = Vec::new();
            for layer in 0..2 {
                let rows = shard * SHARD_ROWS..(shard + 1) * SHARD_ROWS;
                let cells = rows.flat_map(|row| (0..WIDTHS[side]).map(move |column| (row, column)));
                let values: Vec<f32> = cells.map(|(row, column)| value(side, layer, row, column)).collect();
                let object = encode_rows(&values, WIDTHS[side] as usize);
                let object = store.put(&format!("{side}-{layer}-{shard}"), object.into()).await.unwrap();
                layers.push(ShardLayer { layer, width: WIDTHS[side], object });
            }
            let writer = Writer {
                coordinator: String::new(),
                epoch: serde_json::from_str("0").unwrap(),
                attempt: lsa_common::id::AttemptId(1),
                attempt_number: 1,
                worker: "worker".parse().unwrap(),
                numeric_profile: String::new(),
                committed_at: String::new(),
                elapsed_ms: 0,
            };
            let notes = ExtractNotes::default();
            records.push(ShardRecord { writer, shard, n_rows: SHARD_ROWS, layers, notes });
        }
        records
    }

    #[test]
    fn rows_are_the_same_in_memory_and_on_disk() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (store, folder) = (Store::memory(), tempfile::tempdir().unwrap());
        let side = |hidden_size: u32| CompareSide {
            extraction_key: Digest::of(b"rows"),
            n_shards: 3,
            layers: vec![0, 1],
            hidden_size,
        };
        let unit = CompareUnit {
            comparison_key: Digest::of(b"comparison"),
            sides: WIDTHS.map(side).into(),
            pooling: Pooling::Mean,
            n_texts: 12,
            settings: SimilaritySettings {
                metrics: Vec::new(),
                layer_metrics: Vec::new(),
                sample_size: 3,
                trials: Trials::Fixed(1),
                compare: Compare::Across,
                calibrate: false,
                seed: 1,
            },
            trials: vec![0],
        };
        let records: Vec<_> = (0..2).map(|side| runtime.block_on(records(&store, side))).collect();
        let drawn = [0, 3, 4, 7, 8, 11];
        for memory_bytes in [1 << 30, 0] {
            let resources =
                Resources { threads: 1, memory_bytes, scratch: folder.path().to_owned(), tensors: None };
            let read =
                SampledRows::read(runtime.handle(), &store, &unit, &records, &drawn, &resources, &|| true);
            let source = read.unwrap().expect("nobody stops it");
            assert_eq!(source.n_bytes() == 0, memory_bytes == 0);
            for place in 0..4 {
                let (side, layer) = (place / 2, place as u32 % 2);
                let found = source.rows(place, &[11, 0, 7]).unwrap();
                let cells = [11, 0, 7].into_iter().flat_map(|row| (0..WIDTHS[side]).map(move |c| (row, c)));
                let expected: Vec<f64> =
                    cells.map(|(row, column)| f64::from(value(side, layer, row, column))).collect();
                assert_eq!((found.width, found.values), (WIDTHS[side] as usize, expected));
            }
            assert!(source.rows(0, &[1]).is_err(), "a row that was not read");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the file has no name");
    }
}
