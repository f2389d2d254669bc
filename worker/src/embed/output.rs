//! The safetensors file that `embed` writes: its header first, then rows wherever they belong.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use lsa_common::model::Pooling;
use serde_json::{Map, json};

use crate::config::CommandError;
use crate::extract::Pooled;

/// An output file in the making, under a name of its own beside the final one.
pub(super) struct EmbeddingFile {
    file: File,
    partial: PathBuf,
    target: PathBuf,
    /// Where [n, width] of each pooling and layer begins.
    slabs: BTreeMap<(Pooling, u32), u64>,
    finished: bool,
}

/// Why the output cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", .path.display())]
pub(super) struct OutputError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl EmbeddingFile {
    /// Creates the file at its full size, with `{pooling}` [layers, n, d], or `{pooling}.layer{l}` [n, d_l] each
    /// where the layers' widths differ.
    pub(super) fn create(
        target: &Path,
        poolings: &[Pooling],
        n_rows: u64,
        widths: &[u32],
        metadata: &BTreeMap<&'static str, String>,
    ) -> Result<Self, CommandError> {
        let mut header = Map::new();
        header.insert("__metadata__".to_owned(), json!(metadata));
        let mut slabs = BTreeMap::new();
        let mut end = 0u64;
        let even = widths.windows(2).all(|pair| pair[0] == pair[1]);
        for pooling in poolings {
            let start_of_pooling = end;
            for (layer, width) in (0u32..).zip(widths) {
                slabs.insert((*pooling, layer), end);
                let start = end;
                end += n_rows * u64::from(*width) * 4;
                if !even {
                    let entry =
                        json!({"dtype": "F32", "shape": [n_rows, width], "data_offsets": [start, end]});
                    header.insert(format!("{pooling}.layer{layer}"), entry);
                }
            }
            if even {
                let shape = json!([widths.len(), n_rows, widths.first().copied().unwrap_or(0)]);
                let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [start_of_pooling, end]});
                header.insert(pooling.to_string(), entry);
            }
        }
        let mut header = serde_json::Value::Object(header).to_string().into_bytes();
        // Data starts at a multiple of 8, as the format wants it.
        header.resize(header.len().next_multiple_of(8), b' ');
        let data_start = 8 + header.len() as u64;
        slabs.values_mut().for_each(|start| *start += data_start);
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let partial = target.with_file_name(format!(".{name}.{}.partial", std::process::id()));
        let failed = |source: io::Error| OutputError { path: target.to_owned(), source };
        if target.is_dir() || target.file_name().is_none() {
            return Err(CommandError::usage(failed(io::ErrorKind::IsADirectory.into())));
        }
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&partial);
        let file = file.map_err(|error| CommandError::usage(failed(error)))?;
        let output = Self { file, partial, target: target.to_owned(), slabs, finished: false };
        output
            .file
            .set_len(data_start + end)
            .and_then(|()| output.file.write_all_at(&(header.len() as u64).to_le_bytes(), 0))
            .and_then(|()| output.file.write_all_at(&header, 8))
            .map_err(|error| CommandError::failed(failed(error)))?;
        Ok(output)
    }

    /// Writes rows from `first_row` on.
    pub(super) fn write(&mut self, first_row: u64, pooled: &Pooled) -> Result<(), OutputError> {
        for (pooling, layers) in &pooled.rows {
            for (layer, rows) in pooled.layers.iter().zip(layers) {
                if let Some(slab) = self.slabs.get(&(*pooling, layer.layer)) {
                    let bytes: Vec<u8> = rows.iter().flat_map(|x| x.to_le_bytes()).collect();
                    let start = slab + first_row * u64::from(layer.width) * 4;
                    self.file.write_all_at(&bytes, start).map_err(|source| self.error(source))?;
                }
            }
        }
        Ok(())
    }

    /// Gives the file its name.
    pub(super) fn finish(mut self) -> Result<(), OutputError> {
        self.file
            .sync_all()
            .and_then(|()| std::fs::rename(&self.partial, &self.target))
            .map_err(|source| self.error(source))?;
        self.finished = true;
        Ok(())
    }

    fn error(&self, source: io::Error) -> OutputError {
        OutputError { path: self.target.clone(), source }
    }
}

impl Drop for EmbeddingFile {
    fn drop(&mut self) {
        if !self.finished {
            // There is nobody left to tell, and a leftover does no harm.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use lsa_common::model::Pooling::{Cls, Mean};
    use safetensors::SafeTensors;

    use super::*;
    use crate::extract::{ExtractNotes, PooledLayer};

    fn pooled(widths: &[u32], n_rows: usize) -> Pooled {
        let layers: Vec<PooledLayer> =
            (0..).zip(widths).map(|(layer, width)| PooledLayer { layer, width: *width }).collect();
        let values = |shift: f32| {
            let of_layer = |layer: &PooledLayer| {
                (0..n_rows * layer.width as usize).map(|i| shift + layer.layer as f32 + i as f32).collect()
            };
            layers.iter().map(of_layer).collect::<Vec<Vec<f32>>>()
        };
        let rows = BTreeMap::from([(Mean, values(0.0)), (Cls, values(100.0))]);
        let kept = (0..n_rows as u32).collect();
        Pooled { n_rows, kept, rows, layers, notes: ExtractNotes::default() }
    }

    fn written(widths: &[u32]) -> Vec<u8> {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("out.safetensors");
        let metadata = BTreeMap::from([("model", "m".to_owned())]);
        let mut file = EmbeddingFile::create(&path, &[Mean, Cls], 3, widths, &metadata).expect("created");
        file.write(2, &pooled(widths, 1)).expect("written");
        file.write(0, &pooled(widths, 2)).expect("written");
        assert!(!path.exists(), "it must not be there before it is complete");
        file.finish().expect("finished");
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 1);
        std::fs::read(&path).expect("read")
    }

    #[test]
    fn rows_land_where_they_belong() {
        let bytes = written(&[2, 2]);
        let file = SafeTensors::deserialize(&bytes).expect("sound");
        let mean = file.tensor("mean").expect("there");
        assert_eq!(mean.shape(), [2, 3, 2]);
        let (floats, _) = mean.data().as_chunks::<4>();
        let values: Vec<f32> = floats.iter().map(|x| f32::from_le_bytes(*x)).collect();
        assert_eq!(values, [0., 1., 2., 3., 0., 1., 1., 2., 3., 4., 1., 2.]);
    }

    #[test]
    fn layers_of_different_widths_get_a_tensor_each() {
        let bytes = written(&[2, 1]);
        let file = SafeTensors::deserialize(&bytes).expect("sound");
        assert_eq!(file.tensor("cls.layer1").expect("there").shape(), [3, 1]);
        assert_eq!(file.len(), 4);
    }

    #[test]
    fn an_unfinished_file_leaves_nothing() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("out.safetensors");
        drop(EmbeddingFile::create(&path, &[Mean], 3, &[2], &BTreeMap::new()).expect("created"));
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 0);
    }
}
