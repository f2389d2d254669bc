//! One batch: forward pass, pooling, and what to do when memory or half precision does not suffice.

use lsa_common::model::Dtype;
use lsa_common::tokenize::Encoded;
use tch::TchError;

use super::{ExtractError, ExtractRequest, Extractor, SharedEncoder};
use crate::batch::Batch;
use crate::model::PackedBatch;
use crate::pooling::{self, LayerRows};

/// What a batch is computed with.
pub(super) struct BatchRun<'a> {
    pub(super) extractor: &'a Extractor,
    /// The tokens of all texts.
    pub(super) tokens: &'a [Encoded],
    pub(super) what: &'a ExtractRequest,
}

/// The pooled rows of one batch.
pub(super) struct BatchRows {
    /// Per layer and pooling asked for: [n, width], row-major.
    pub(super) layers: Vec<Vec<Vec<f32>>>,
    /// Rows redone in float32, per layer asked for.
    pub(super) nonfinite_rows_per_layer: Vec<u64>,
    /// Whether the batch was split for lack of memory.
    pub(super) split: bool,
}

impl BatchRun<'_> {
    /// Computes the given texts; rows that overflow in half precision are done again in float32.
    pub(super) fn rows(&self, rows: &[u32]) -> Result<BatchRows, ExtractError> {
        let (mut layers, mut split) = self.forward(&self.extractor.encoder, rows)?;
        let nonfinite_rows_per_layer = layers.iter().map(|layer| layer.nonfinite.len() as u64).collect();
        let mut overflown: Vec<usize> = layers.iter().flat_map(|layer| layer.nonfinite.clone()).collect();
        overflown.sort_unstable();
        overflown.dedup();
        if !overflown.is_empty() {
            let again: Vec<u32> = overflown.iter().map(|place| rows[*place]).collect();
            let full = if self.extractor.dtype == Dtype::Float32 {
                None
            } else {
                let (full, split_again) = self.forward(self.extractor.full_precision()?, &again)?;
                split |= split_again;
                Some(full)
            };
            self.refuse_nonfinite(
                full.as_ref().unwrap_or(&layers),
                if full.is_some() { &again } else { rows },
            )?;
            if let Some(full) = full {
                replace(&mut layers, &full, &overflown, rows.len());
            }
        }
        let layers = layers.into_iter().map(|layer| layer.rows).collect();
        Ok(BatchRows { layers, nonfinite_rows_per_layer, split })
    }

    /// Names the first row and layer that are not finite.
    fn refuse_nonfinite(&self, layers: &[LayerRows], rows: &[u32]) -> Result<(), ExtractError> {
        for (layer, computed) in self.what.layers.iter().zip(layers) {
            if let Some(place) = computed.nonfinite.first() {
                return Err(ExtractError::NonFinite { row: u64::from(rows[*place]), layer: *layer });
            }
        }
        Ok(())
    }

    /// One forward pass, or two over half the texts each where memory does not suffice.
    fn forward(&self, encoder: &SharedEncoder, rows: &[u32]) -> Result<(Vec<LayerRows>, bool), ExtractError> {
        match self.try_forward(encoder, rows) {
            Ok(layers) => Ok((layers, false)),
            Err(error) if is_out_of_memory(&error) => match rows {
                [] => Ok((Vec::new(), false)),
                [row] => {
                    let n_tokens = self.tokens[*row as usize].ids.len() as u64;
                    Err(ExtractError::OutOfMemory { row: u64::from(*row), n_tokens })
                }
                rows => {
                    let (first, second) = rows.split_at(rows.len() / 2);
                    let (mut layers, _) = self.forward(encoder, first)?;
                    let (more, _) = self.forward(encoder, second)?;
                    for (layer, more) in layers.iter_mut().zip(more) {
                        append(layer, more, first.len());
                    }
                    Ok((layers, true))
                }
            },
            Err(error) => Err(error.into()),
        }
    }

    fn try_forward(&self, encoder: &SharedEncoder, rows: &[u32]) -> Result<Vec<LayerRows>, TchError> {
        let texts = || rows.iter().map(|row| &self.tokens[*row as usize]);
        let batch = Batch::pack(texts().map(|text| text.ids.as_slice()));
        let batch = batch.with_types(texts().map(|text| text.types.as_slice()));
        let packed = PackedBatch::new(&batch, self.extractor.device)?;
        let mut layers = Vec::with_capacity(self.what.layers.len());
        encoder.0.forward(&packed, &mut |layer, hidden| {
            if self.what.layers.contains(&layer) {
                let (poolings, pooler) = (&self.what.poolings, encoder.0.pooler());
                layers.push(pooling::pool(hidden, &batch.offsets, poolings, pooler)?);
            }
            Ok(())
        })?;
        Ok(layers)
    }
}

fn append(layer: &mut LayerRows, more: LayerRows, n_rows: usize) {
    for (rows, more) in layer.rows.iter_mut().zip(more.rows) {
        rows.extend(more);
    }
    layer.nonfinite.extend(more.nonfinite.iter().map(|place| place + n_rows));
}

/// Puts the rows of `full` in the given places of `layers`, each of which has `n_rows` rows.
fn replace(layers: &mut [LayerRows], full: &[LayerRows], places: &[usize], n_rows: usize) {
    for (layer, full) in layers.iter_mut().zip(full) {
        for (rows, full) in layer.rows.iter_mut().zip(&full.rows) {
            let width = (rows.len() / n_rows).max(1);
            for (place, row) in places.iter().zip(full.chunks_exact(width)) {
                rows[place * width..(place + 1) * width].copy_from_slice(row);
            }
        }
    }
}

/// libtorch has no error codes; these are the words of its allocators.
fn is_out_of_memory(error: &TchError) -> bool {
    const WORDS: [&str; 4] = ["out of memory", "can't allocate memory", "not enough memory", "bad_alloc"];
    let message = error.to_string();
    WORDS.iter().any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    #[test]
    fn a_lack_of_memory_is_told_from_other_errors() {
        let huge = Tensor::f_zeros([1 << 48], (Kind::Float, Device::Cpu)).expect_err("no such memory");
        assert!(is_out_of_memory(&huge), "{huge}");
        let misshapen = Tensor::from_slice(&[1, 2]).f_view([3]).expect_err("misshapen");
        assert!(!is_out_of_memory(&misshapen));
    }

    #[test]
    fn halves_are_put_together_and_rows_replaced() {
        let layer = |values: &[f32], nonfinite: &[usize]| LayerRows {
            rows: vec![values.to_vec()],
            nonfinite: nonfinite.to_vec(),
        };
        let mut layers = vec![layer(&[1., 2., 3., 4.], &[1])];
        append(&mut layers[0], layer(&[5., 6.], &[0]), 2);
        assert_eq!(layers[0], layer(&[1., 2., 3., 4., 5., 6.], &[1, 2]));
        replace(&mut layers, &[layer(&[-3., -4., -5., -6.], &[])], &[1, 2], 3);
        assert_eq!(layers[0].rows, [[1., 2., -3., -4., -5., -6.]]);
    }
}
