//! All experiments in long format, for data frames and SQL: `similarities.parquet` has one row per cell, and
//! `layer_metrics.parquet` one per layer and quantity.

mod layers;

use std::io::Write;
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int32Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use crate::across::AcrossResult;
use crate::merge::{Estimates, ExperimentResult};

pub use layers::LayerMetricTable;

/// The columns. A cell that is undefined has null numbers, and a reason; bounds are null where no interval is defined.
/// `null_mean` and `calibrated` are null without calibration; the first is not called `null`, which SQL has for
/// another thing.
const SCHEMA: &str = "message similarities {
    REQUIRED BYTE_ARRAY model_a (UTF8);
    REQUIRED INT32 layer_a;
    REQUIRED BYTE_ARRAY model_b (UTF8);
    REQUIRED INT32 layer_b;
    REQUIRED BYTE_ARRAY pooling (UTF8);
    REQUIRED BYTE_ARRAY dataset (UTF8);
    REQUIRED BYTE_ARRAY metric (UTF8);
    OPTIONAL DOUBLE mean;
    OPTIONAL DOUBLE std;
    OPTIONAL DOUBLE ci_low;
    OPTIONAL DOUBLE ci_high;
    OPTIONAL DOUBLE null_mean;
    OPTIONAL DOUBLE calibrated;
    REQUIRED INT32 trials;
    OPTIONAL BYTE_ARRAY reason (UTF8);
}";

/// Why a number is undefined where no layer of it is in every trial.
const UNDEFINED: &str = "undefined in a trial";

/// Rows held before they are written as a row group.
const GROUP_ROWS: usize = 128 * 1024;

/// Why the table cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("a parquet table could not be written")]
pub struct TableError(#[from] ParquetError);

/// Writes the table, experiment by experiment; holds at most one experiment more than a row group.
pub struct SimilarityTable<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    rows: Vec<Row>,
}

/// One cell of one metric.
struct Row {
    model_a: ByteArray,
    layer_a: i32,
    model_b: ByteArray,
    layer_b: i32,
    pooling: ByteArray,
    dataset: ByteArray,
    metric: ByteArray,
    numbers: Numbers,
    null: Option<f64>,
    calibrated: Option<f64>,
    trials: i32,
    reason: Option<ByteArray>,
}

/// What trials say of one number; null where it is undefined.
struct Numbers {
    mean: Option<f64>,
    std: Option<f64>,
    ci_low: Option<f64>,
    ci_high: Option<f64>,
}

impl Numbers {
    fn of(estimates: &Estimates, place: usize) -> Self {
        let Estimates { mean, std, ci_low, ci_high } = estimates;
        Self {
            mean: defined(mean[place]),
            std: defined(std[place]),
            ci_low: defined(ci_low[place]),
            ci_high: defined(ci_high[place]),
        }
    }
}

fn defined(number: f64) -> Option<f64> {
    Some(number).filter(|number| !number.is_nan())
}

fn int(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn count(trials: usize) -> i32 {
    i32::try_from(trials).unwrap_or(i32::MAX)
}

fn begin<W: Write + Send>(output: W, schema: &str) -> Result<SerializedFileWriter<W>, ParquetError> {
    let schema = parse_message_type(schema)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_created_by(concat!("lsa ", env!("CARGO_PKG_VERSION")).to_owned())
        .build();
    SerializedFileWriter::new(output, Arc::new(schema), Arc::new(properties))
}

impl<W: Write + Send> SimilarityTable<W> {
    /// Begins the file.
    pub fn begin(output: W) -> Result<Self, TableError> {
        Ok(Self { writer: begin(output, SCHEMA)?, rows: Vec::new() })
    }

    /// Appends every cell of every metric of an experiment, in the order of its metrics, then row by row.
    pub fn add(&mut self, result: &ExperimentResult) -> Result<(), TableError> {
        let model = ByteArray::from(result.metadata.model.as_str());
        let pooling = ByteArray::from(result.metadata.pooling.as_str());
        let dataset = ByteArray::from(result.metadata.dataset.as_str());
        for metric in &result.metrics {
            let name = ByteArray::from(metric.metric.name.as_str());
            let cells = result.layers.iter().flat_map(|a| result.layers.iter().map(move |b| (*a, *b)));
            for (place, (layer_a, layer_b)) in cells.enumerate() {
                let numbers = Numbers::of(&metric.estimates, place);
                let reason = numbers.mean.is_none().then(|| result.reason(layer_a, layer_b));
                let reason = reason.map(|reason| reason.unwrap_or_else(|| UNDEFINED.to_owned()));
                let calibration = metric.calibration.as_ref();
                self.rows.push(Row {
                    model_a: model.clone(),
                    layer_a: int(layer_a),
                    model_b: model.clone(),
                    layer_b: int(layer_b),
                    pooling: pooling.clone(),
                    dataset: dataset.clone(),
                    metric: name.clone(),
                    numbers,
                    null: calibration.and_then(|calibration| defined(calibration.null[place])),
                    calibrated: calibration.and_then(|calibration| defined(calibration.calibrated[place])),
                    trials: count(metric.trials.len()),
                    reason: reason.map(|reason| ByteArray::from(reason.as_str())),
                });
            }
        }
        if self.rows.len() >= GROUP_ROWS { self.flush() } else { Ok(()) }
    }

    /// Appends every cell of every pair of different models: both ways where the metric is not symmetric.
    pub fn add_across(&mut self, result: &AcrossResult) -> Result<(), TableError> {
        let pooling = ByteArray::from(result.metadata.pooling.as_str());
        let dataset = ByteArray::from(result.metadata.dataset.as_str());
        for metric in &result.metrics {
            let name = ByteArray::from(metric.metric.name.as_str());
            for (a, b) in result.pairs(metric) {
                let pair = result.pair(metric, a, b);
                let (a, b) = (&result.models[a], &result.models[b]);
                let ids = [a, b].map(|model| ByteArray::from(model.id.as_str()));
                let cells = a.places().flat_map(|row| b.places().map(move |column| (row, column)));
                let calibration = pair.calibration.as_ref();
                for (place, (row, column)) in cells.enumerate() {
                    let numbers = Numbers::of(&pair.estimates, place);
                    let reason = numbers.mean.is_none().then(|| result.reason(row, column));
                    let reason = reason.map(|reason| reason.unwrap_or_else(|| UNDEFINED.to_owned()));
                    self.rows.push(Row {
                        model_a: ids[0].clone(),
                        layer_a: int(a.layers[row - a.first]),
                        model_b: ids[1].clone(),
                        layer_b: int(b.layers[column - b.first]),
                        pooling: pooling.clone(),
                        dataset: dataset.clone(),
                        metric: name.clone(),
                        numbers,
                        null: calibration.and_then(|c| defined(c.null[place])),
                        calibrated: calibration.and_then(|c| defined(c.calibrated[place])),
                        trials: count(pair.trials.len()),
                        reason: reason.map(|reason| ByteArray::from(reason.as_str())),
                    });
                }
            }
            if self.rows.len() >= GROUP_ROWS {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Completes the file.
    pub fn finish(mut self) -> Result<W, TableError> {
        self.flush()?;
        Ok(self.writer.into_inner()?)
    }

    fn flush(&mut self) -> Result<(), TableError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.rows);
        let mut group = self.writer.next_row_group()?;
        column::<_, _, ByteArrayType>(&mut group, &rows, |row| Some(row.model_a.clone()))?;
        column::<_, _, Int32Type>(&mut group, &rows, |row| Some(row.layer_a))?;
        column::<_, _, ByteArrayType>(&mut group, &rows, |row| Some(row.model_b.clone()))?;
        column::<_, _, Int32Type>(&mut group, &rows, |row| Some(row.layer_b))?;
        column::<_, _, ByteArrayType>(&mut group, &rows, |row| Some(row.pooling.clone()))?;
        column::<_, _, ByteArrayType>(&mut group, &rows, |row| Some(row.dataset.clone()))?;
        column::<_, _, ByteArrayType>(&mut group, &rows, |row| Some(row.metric.clone()))?;
        column::<_, _, DoubleType>(&mut group, &rows, |row| row.numbers.mean)?;
        column::<_, _, DoubleType>(&mut group, &rows, |row| row.numbers.std)?;
        column::<_, _, DoubleType>(&mut group, &rows, |row| row.numbers.ci_low)?;
        column::<_, _, DoubleType>(&mut group, &rows, |row| row.numbers.ci_high)?;
        column::<_, _, DoubleType>(&mut group, &rows, |row| row.null)?;
        column::<_, _, DoubleType>(&mut group, &rows, |row| row.calibrated)?;
        column::<_, _, Int32Type>(&mut group, &rows, |row| Some(row.trials))?;
        column::<_, _, ByteArrayType>(&mut group, &rows, |row| row.reason.clone())?;
        group.close()?;
        Ok(())
    }
}

/// Writes the next column: the values that are there, and for each row whether it has one.
fn column<W: Write + Send, R, T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    rows: &[R],
    value: impl Fn(&R) -> Option<T::T>,
) -> Result<(), ParquetError> {
    let cells: Vec<Option<T::T>> = rows.iter().map(value).collect();
    let present: Vec<i16> = cells.iter().map(|cell| i16::from(cell.is_some())).collect();
    let values: Vec<T::T> = cells.into_iter().flatten().collect();
    let mut column = group.next_column()?.expect("one call per column of the schema");
    // A required column ignores the definition levels.
    column.typed::<T>().write_batch(&values, Some(&present), None)?;
    column.close()
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    use parquet::record::Field;

    use super::*;
    use crate::export::samples::{calibrated, result};

    fn table(results: &[ExperimentResult]) -> Vec<u8> {
        let mut table = SimilarityTable::begin(Vec::new()).unwrap();
        for result in results {
            table.add(result).unwrap();
        }
        table.finish().unwrap()
    }

    #[test]
    fn one_row_per_cell() {
        let mut named = result(3, true);
        named.layers = vec![0, 6, 12];
        let bytes = table(&[named.clone(), result(2, false)]);
        assert_eq!(bytes, table(&[named.clone(), result(2, false)]));

        let reader = SerializedFileReader::new(bytes::Bytes::from(bytes)).unwrap();
        let rows: Vec<Vec<(String, Field)>> = reader
            .get_row_iter(None)
            .unwrap()
            .map(|row| row.unwrap().into_columns().into_iter().collect())
            .collect();
        assert_eq!(rows.len(), 4 * 9 + 4 * 4);
        let cell = |row: usize, name: &str| {
            rows[row].iter().find(|(column, _)| column == name).map(|(_, field)| field.clone()).unwrap()
        };
        // Row 5 is CKA of the second layer and the third.
        assert_eq!(cell(5, "layer_a"), Field::Int(6));
        assert_eq!(cell(5, "layer_b"), Field::Int(12));
        assert_eq!(cell(5, "metric"), Field::Str("CKA".to_owned()));
        assert_eq!(cell(5, "model_b"), Field::Str("bert-base-uncased".to_owned()));
        assert_eq!(cell(5, "mean"), Field::Double(named.metrics[0].estimates.mean[5]));
        assert_eq!(cell(5, "std"), Field::Double(named.metrics[0].estimates.std[5]));
        assert_eq!(cell(5, "trials"), Field::Int(3));
        assert_eq!(cell(5, "ci_low"), Field::Double(named.metrics[0].estimates.ci_low[5]));
        assert_eq!((cell(5, "null_mean"), cell(5, "calibrated")), (Field::Null, Field::Null));
        assert_eq!(cell(5, "reason"), Field::Null);
        assert_eq!((cell(1, "mean"), cell(1, "ci_high")), (Field::Null, Field::Null));
        assert_eq!(cell(1, "reason"), Field::Str("layer 0: all rows are equal".to_owned()));
    }

    #[test]
    fn calibration_has_columns_of_its_own() {
        let result = calibrated(2);
        let reader =
            SerializedFileReader::new(bytes::Bytes::from(table(std::slice::from_ref(&result)))).unwrap();
        let second = reader.get_row_iter(None).unwrap().nth(1).unwrap().unwrap();
        let cell =
            |name: &str| second.get_column_iter().find(|(column, _)| *column == name).map(|(_, f)| f.clone());
        let calibration = result.metrics[0].calibration.as_ref().unwrap();
        assert_eq!(cell("null_mean"), Some(Field::Double(calibration.null[1])));
        assert_eq!(cell("calibrated"), Some(Field::Double(calibration.calibrated[1])));
    }

    #[test]
    fn a_table_without_rows_opens() {
        let reader = SerializedFileReader::new(bytes::Bytes::from(table(&[]))).unwrap();
        assert_eq!(reader.metadata().file_metadata().num_rows(), 0);
    }
}
