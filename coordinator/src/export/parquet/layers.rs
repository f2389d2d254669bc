//! `layer_metrics.parquet`: what was measured of single layers.

use std::io::Write;

use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int32Type};
use parquet::file::writer::SerializedFileWriter;

use super::{GROUP_ROWS, Numbers, TableError, UNDEFINED, begin, column, count, int};
use crate::merge::ExperimentResult;

/// The columns. A value that is undefined has null numbers, and a reason.
const SCHEMA: &str = "message layer_metrics {
    REQUIRED BYTE_ARRAY model (UTF8);
    REQUIRED INT32 layer;
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

/// Writes the table, experiment by experiment.
pub struct LayerMetricTable<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    rows: Vec<Row>,
}

/// One quantity of one layer of one experiment.
struct Row {
    model: ByteArray,
    layer: i32,
    pooling: ByteArray,
    dataset: ByteArray,
    metric: ByteArray,
    numbers: Numbers,
    trials: i32,
    reason: Option<ByteArray>,
}

impl<W: Write + Send> LayerMetricTable<W> {
    /// Begins the file.
    pub fn begin(output: W) -> Result<Self, TableError> {
        Ok(Self { writer: begin(output, SCHEMA)?, rows: Vec::new() })
    }

    /// Appends every layer of every quantity of an experiment, in the order of its quantities.
    pub fn add(&mut self, result: &ExperimentResult) -> Result<(), TableError> {
        for metric in &result.layer_metrics {
            for (place, layer) in result.layers.iter().enumerate() {
                let numbers = Numbers::of(&metric.estimates, place);
                let reason = result.undefined.get(layer).map_or(UNDEFINED, String::as_str);
                self.rows.push(Row {
                    model: ByteArray::from(result.metadata.model.as_str()),
                    layer: int(*layer),
                    pooling: ByteArray::from(result.metadata.pooling.as_str()),
                    dataset: ByteArray::from(result.metadata.dataset.as_str()),
                    metric: ByteArray::from(metric.name.as_str()),
                    reason: numbers.mean.is_none().then(|| ByteArray::from(reason)),
                    numbers,
                    trials: count(metric.trials.len()),
                });
            }
        }
        if self.rows.len() >= GROUP_ROWS { self.flush() } else { Ok(()) }
    }

    /// Whether there is nothing to be written.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.writer.flushed_row_groups().is_empty()
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
        column::<_, _, ByteArrayType>(&mut group, &rows, |row| Some(row.model.clone()))?;
        column::<_, _, Int32Type>(&mut group, &rows, |row| Some(row.layer))?;
        column::<_, _, ByteArrayType>(&mut group, &rows, |row| Some(row.pooling.clone()))?;
        column::<_, _, ByteArrayType>(&mut group, &rows, |row| Some(row.dataset.clone()))?;
        column::<_, _, ByteArrayType>(&mut group, &rows, |row| Some(row.metric.clone()))?;
        column::<_, _, DoubleType>(&mut group, &rows, |row| row.numbers.mean)?;
        column::<_, _, DoubleType>(&mut group, &rows, |row| row.numbers.std)?;
        column::<_, _, DoubleType>(&mut group, &rows, |row| row.numbers.ci_low)?;
        column::<_, _, DoubleType>(&mut group, &rows, |row| row.numbers.ci_high)?;
        column::<_, _, Int32Type>(&mut group, &rows, |row| Some(row.trials))?;
        column::<_, _, ByteArrayType>(&mut group, &rows, |row| row.reason.clone())?;
        group.close()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    use parquet::record::Field;

    use super::*;
    use crate::export::samples::calibrated;

    #[test]
    fn one_row_per_layer_and_quantity() {
        let mut result = calibrated(3);
        result.layer_metrics[1].estimates.mean[2] = f64::NAN;
        result.undefined.insert(2, "all rows are equal".to_owned());
        let mut table = LayerMetricTable::begin(Vec::new()).unwrap();
        assert!(table.is_empty());
        table.add(&result).unwrap();
        assert!(!table.is_empty());
        let reader = SerializedFileReader::new(bytes::Bytes::from(table.finish().unwrap())).unwrap();
        let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(|row| row.unwrap()).collect();
        assert_eq!(rows.len(), 2 * 3);
        let cell = |row: usize, name: &str| {
            rows[row].get_column_iter().find(|(column, _)| *column == name).map(|(_, field)| field.clone())
        };
        assert_eq!(cell(1, "metric"), Some(Field::Str("EffectiveRank".to_owned())));
        assert_eq!(cell(1, "layer"), Some(Field::Int(1)));
        let estimates = &result.layer_metrics[0].estimates;
        assert_eq!(cell(1, "mean"), Some(Field::Double(estimates.mean[1])));
        assert_eq!(cell(1, "ci_high"), Some(Field::Double(estimates.ci_high[1])));
        assert_eq!(cell(1, "reason"), Some(Field::Null));
        assert_eq!(cell(5, "mean"), Some(Field::Null));
        assert_eq!(cell(5, "reason"), Some(Field::Str("all rows are equal".to_owned())));
    }
}
