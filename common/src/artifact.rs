//! The bytes of stored objects: rows of a shard and matrices of a trial, both safetensors.
//!
//! Encoding is a function of the values alone, so that equal results are equal bytes. Decoding trusts nothing: shapes
//! and dtypes are checked against what the caller expects.

use std::collections::{BTreeMap, HashMap};

use safetensors::{Dtype as StoredDtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use crate::metric::{LayerMetricName, MetricSpec};
use crate::record::TrialRecord;
use crate::trial_matrices::TrialMatrices;

/// The version of the stored format, in `format.json`.
pub const STORE_FORMAT: u32 = 1;

/// Why bytes are not the artifact they should be.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Not safetensors.
    #[error("not a safetensors object: {0}")]
    Container(String),
    /// Safetensors, but not of this kind.
    #[error("{what}: expected {expected}, found {found}")]
    Content {
        /// Which part.
        what: String,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
}

fn content(what: &str, expected: impl ToString, found: impl ToString) -> ArtifactError {
    ArtifactError::Content { what: what.to_owned(), expected: expected.to_string(), found: found.to_string() }
}

const ROWS: &str = "rows";

/// float32 rows [n, width], row-major, as an object.
///
/// # Panics
/// Where `values` is not a whole number of rows.
pub fn encode_rows(values: &[f32], width: usize) -> Vec<u8> {
    assert!(width > 0 && values.len().is_multiple_of(width), "{} numbers in rows of {width}", values.len());
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let view = TensorView::new(StoredDtype::F32, vec![values.len() / width, width], &bytes);
    let view = view.expect("the shape was computed from the number of bytes");
    safetensors::serialize([(ROWS, view)], None).expect("one tensor with a valid shape serialises")
}

/// The rows of an object made by [`encode_rows`].
pub struct Rows<'a> {
    n_rows: usize,
    width: usize,
    bytes: &'a [u8],
}

impl<'a> Rows<'a> {
    /// Reads an object that must hold [n_rows, width].
    pub fn decode(object: &'a [u8], n_rows: usize, width: usize) -> Result<Self, ArtifactError> {
        let tensors =
            SafeTensors::deserialize(object).map_err(|e| ArtifactError::Container(e.to_string()))?;
        let view = tensors.tensor(ROWS).map_err(|e| ArtifactError::Container(e.to_string()))?;
        if view.dtype() != StoredDtype::F32 || view.shape() != [n_rows, width] {
            let found = format!("{:?} {:?}", view.dtype(), view.shape());
            return Err(content(ROWS, format!("F32 [{n_rows}, {width}]"), found));
        }
        Ok(Self { n_rows, width, bytes: view.data() })
    }

    /// Appends row `row` to `out`.
    ///
    /// # Panics
    /// Where there is no such row.
    pub fn append(&self, row: usize, out: &mut Vec<f32>) {
        assert!(row < self.n_rows, "row {row} of {}", self.n_rows);
        let size = self.width * 4;
        let bytes = &self.bytes[row * size..(row + 1) * size];
        out.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
    }
}

const NOTE: &str = "lsa";

/// What stands in the header beside the matrices.
#[derive(Serialize, Deserialize)]
struct TrialNote {
    n_layers: u32,
    metrics: Vec<MetricSpec>,
    layer_metrics: Vec<LayerMetricName>,
    calibrated: bool,
    undefined: BTreeMap<u32, String>,
    record: Option<TrialRecord>,
}

/// The name of a metric's matrix for unrelated rows.
fn null_name(metric: &MetricSpec) -> String {
    format!("{}.null", metric.name)
}

/// The matrices of a trial as an object; the coordinator adds the record when it commits them.
pub fn encode_trial(matrices: &TrialMatrices, record: Option<&TrialRecord>) -> Vec<u8> {
    let side = matrices.n_layers as usize;
    let bytes = |values: &[f64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let square = |name: String, values: &[f64]| (name, vec![side, side], bytes(values));
    let own =
        matrices.matrices.iter().map(|(metric, values)| square(metric.name.as_str().to_owned(), values));
    let nulls = matrices.matrices.iter().zip(&matrices.nulls);
    let nulls = nulls.map(|((metric, _), values)| square(null_name(metric), values));
    let layer_metrics = matrices.layer_metrics.iter();
    let layer_metrics =
        layer_metrics.map(|(name, values)| (name.as_str().to_owned(), vec![side], bytes(values)));
    let blobs: Vec<(String, Vec<usize>, Vec<u8>)> = own.chain(nulls).chain(layer_metrics).collect();
    let views = blobs.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(StoredDtype::F64, shape.clone(), bytes);
        (name.as_str(), view.expect("as many values as the shape says"))
    });
    // Exactly one metadata entry: safetensors writes several in the order of a hash map, which differs run by run.
    let note = TrialNote {
        n_layers: matrices.n_layers,
        metrics: matrices.matrices.iter().map(|(metric, _)| metric.clone()).collect(),
        layer_metrics: matrices.layer_metrics.iter().map(|(name, _)| *name).collect(),
        calibrated: !matrices.nulls.is_empty(),
        undefined: matrices.undefined.clone(),
        record: record.cloned(),
    };
    let note = serde_json::to_string(&note).expect("plain structs with string keys serialise");
    let metadata = HashMap::from([(NOTE.to_owned(), note)]);
    safetensors::serialize(views, Some(metadata)).expect("matrices with distinct names serialise")
}

/// The matrices and the record of an object made by [`encode_trial`].
pub fn decode_trial(object: &[u8]) -> Result<(TrialMatrices, Option<TrialRecord>), ArtifactError> {
    let container = |e: safetensors::SafeTensorError| ArtifactError::Container(e.to_string());
    let (_, header) = SafeTensors::read_metadata(object).map_err(container)?;
    let tensors = SafeTensors::deserialize(object).map_err(container)?;
    let note = header.metadata().as_ref().and_then(|metadata| metadata.get(NOTE));
    let note = note.ok_or_else(|| content("metadata", "an entry \"lsa\"", "none"))?;
    let note: TrialNote = serde_json::from_str(note).map_err(|e| content("metadata", "a trial's note", e))?;
    let TrialNote { n_layers, metrics, layer_metrics, calibrated, undefined, record } = note;

    let side = n_layers as usize;
    let values = |name: &str, shape: &[usize]| -> Result<Vec<f64>, ArtifactError> {
        let view = tensors.tensor(name).map_err(container)?;
        if view.dtype() != StoredDtype::F64 || view.shape() != shape {
            let found = format!("{:?} {:?}", view.dtype(), view.shape());
            return Err(content(name, format!("F64 {shape:?}"), found));
        }
        let number = |b: &[u8]| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
        Ok(view.data().chunks_exact(8).map(number).collect())
    };
    let nulls = match calibrated {
        true => metrics
            .iter()
            .map(|metric| values(&null_name(metric), &[side, side]))
            .collect::<Result<_, _>>()?,
        false => Vec::new(),
    };
    let matrix = |metric: MetricSpec| {
        let cells = values(metric.name.as_str(), &[side, side])?;
        Ok((metric, cells))
    };
    let matrices = metrics.into_iter().map(matrix).collect::<Result<_, ArtifactError>>()?;
    let quantity = |name: LayerMetricName| Ok((name, values(name.as_str(), &[side])?));
    let layer_metrics = layer_metrics.into_iter().map(quantity).collect::<Result<_, ArtifactError>>()?;
    Ok((TrialMatrices { n_layers, matrices, nulls, layer_metrics, undefined }, record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::MetricName;

    #[test]
    fn rows_come_back_and_shapes_are_checked() {
        let values: Vec<f32> = (0..6).map(|i| i as f32).collect();
        let object = encode_rows(&values, 3);
        let rows = Rows::decode(&object, 2, 3).expect("as written");
        let mut out = Vec::new();
        rows.append(1, &mut out);
        assert_eq!(out, [3.0, 4.0, 5.0]);
        assert!(Rows::decode(&object, 3, 2).is_err());
        assert!(Rows::decode(&object[..20], 2, 3).is_err());
    }

    #[test]
    fn trials_come_back_with_nan_and_record() {
        let matrices = TrialMatrices {
            n_layers: 2,
            matrices: vec![
                (MetricSpec::new(MetricName::Cka), vec![1.0, 0.5, 0.5, 1.0]),
                (MetricSpec::new(MetricName::JaccardSimilarity), vec![f64::NAN; 4]),
            ],
            nulls: vec![vec![0.25, 0.5, 0.5, 0.0]; 2],
            layer_metrics: vec![(LayerMetricName::Anisotropy, vec![0.5, f64::NAN])],
            undefined: BTreeMap::from([(0, "all rows are equal".to_owned())]),
        };
        let object = encode_trial(&matrices, None);
        assert_eq!(object, encode_trial(&matrices, None));
        let (back, record) = decode_trial(&object).expect("as written");
        assert_eq!(back.matrices[0], matrices.matrices[0]);
        assert!(back.matrices[1].1.iter().all(|value| value.is_nan()));
        assert_eq!(back.nulls, matrices.nulls);
        assert_eq!(back.layer_metrics[0].1[0], 0.5);
        assert!(back.layer_metrics[0].1[1].is_nan());
        assert_eq!((back.undefined, record), (matrices.undefined, None));
        for end in [0, 7, 40, object.len() - 1] {
            assert!(decode_trial(&object[..end]).is_err(), "cut at {end}");
        }
    }
}
