//! `similarities.parquet`: all experiments in long format, one row per cell, for data frames and SQL.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int32Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use crate::merge::ExperimentResult;

/// The columns. A cell that is undefined has null `mean` and `std`, and a reason; intervals are null until they
/// are defined.
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
    REQUIRED INT32 trials;
    OPTIONAL BYTE_ARRAY reason (UTF8);
}";

/// Rows held before they are written as a row group.
const GROUP_ROWS: usize = 128 * 1024;

/// Why the table cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("similarities.parquet could not be written")]
pub struct TableError(#[from] ParquetError);

/// Writes the table, experiment by experiment; holds at most one experiment more than a row group.
pub struct SimilarityTable<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    rows: Vec<Row>,
}

/// One cell of one metric of one experiment.
struct Row {
    model: ByteArray,
    layer_a: i32,
    layer_b: i32,
    pooling: ByteArray,
    dataset: ByteArray,
    metric: ByteArray,
    mean: Option<f64>,
    std: Option<f64>,
    trials: i32,
    reason: Option<ByteArray>,
}

impl<W: Write + Send> SimilarityTable<W> {
    /// Begins the file.
    pub fn begin(output: W) -> Result<Self, TableError> {
        let schema = parse_message_type(SCHEMA)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by(concat!("lsa ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let writer = SerializedFileWriter::new(output, Arc::new(schema), Arc::new(properties))?;
        Ok(Self { writer, rows: Vec::new() })
    }

    /// Appends every cell of every metric of an experiment, in the order of its metrics, then row by row.
    pub fn add(&mut self, result: &ExperimentResult) -> Result<(), TableError> {
        let model = ByteArray::from(result.metadata.model.as_str());
        let pooling = ByteArray::from(result.metadata.pooling.as_str());
        let dataset = ByteArray::from(result.metadata.dataset.as_str());
        let int = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        for metric in &result.metrics {
            let name = ByteArray::from(metric.metric.name.as_str());
            let trials = u32::try_from(metric.trials.len()).map_or(i32::MAX, int);
            let cells = result.layers.iter().flat_map(|a| result.layers.iter().map(move |b| (*a, *b)));
            for ((layer_a, layer_b), (mean, std)) in cells.zip(metric.mean.iter().zip(&metric.std)) {
                let reason = mean.is_nan().then(|| result.reason(layer_a, layer_b));
                let reason = reason.map(|reason| reason.unwrap_or_else(|| "undefined in a trial".to_owned()));
                self.rows.push(Row {
                    model: model.clone(),
                    layer_a: int(layer_a),
                    layer_b: int(layer_b),
                    pooling: pooling.clone(),
                    dataset: dataset.clone(),
                    metric: name.clone(),
                    mean: Some(*mean).filter(|mean| !mean.is_nan()),
                    std: Some(*std).filter(|std| !std.is_nan()),
                    trials,
                    reason: reason.map(|reason| ByteArray::from(reason.as_str())),
                });
            }
        }
        if self.rows.len() >= GROUP_ROWS { self.flush() } else { Ok(()) }
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
        column::<_, ByteArrayType>(&mut group, &rows, |row| Some(row.model.clone()))?;
        column::<_, Int32Type>(&mut group, &rows, |row| Some(row.layer_a))?;
        column::<_, ByteArrayType>(&mut group, &rows, |row| Some(row.model.clone()))?;
        column::<_, Int32Type>(&mut group, &rows, |row| Some(row.layer_b))?;
        column::<_, ByteArrayType>(&mut group, &rows, |row| Some(row.pooling.clone()))?;
        column::<_, ByteArrayType>(&mut group, &rows, |row| Some(row.dataset.clone()))?;
        column::<_, ByteArrayType>(&mut group, &rows, |row| Some(row.metric.clone()))?;
        column::<_, DoubleType>(&mut group, &rows, |row| row.mean)?;
        column::<_, DoubleType>(&mut group, &rows, |row| row.std)?;
        column::<_, DoubleType>(&mut group, &rows, |_| None)?;
        column::<_, DoubleType>(&mut group, &rows, |_| None)?;
        column::<_, Int32Type>(&mut group, &rows, |row| Some(row.trials))?;
        column::<_, ByteArrayType>(&mut group, &rows, |row| row.reason.clone())?;
        group.close()?;
        Ok(())
    }
}

/// Writes the next column: the values that are there, and for each row whether it has one.
fn column<W: Write + Send, T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    rows: &[Row],
    value: impl Fn(&Row) -> Option<T::T>,
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
    use crate::export::samples::result;

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
        assert_eq!(cell(5, "mean"), Field::Double(named.metrics[0].mean[5]));
        assert_eq!(cell(5, "std"), Field::Double(named.metrics[0].std[5]));
        assert_eq!(cell(5, "trials"), Field::Int(3));
        assert_eq!(cell(5, "ci_low"), Field::Null);
        assert_eq!(cell(5, "reason"), Field::Null);
        assert_eq!(cell(1, "mean"), Field::Null);
        assert_eq!(cell(1, "reason"), Field::Str("layer 0: all rows are equal".to_owned()));
    }

    #[test]
    fn a_table_without_rows_opens() {
        let reader = SerializedFileReader::new(bytes::Bytes::from(table(&[]))).unwrap();
        assert_eq!(reader.metadata().file_metadata().num_rows(), 0);
    }
}
