//! Embeddings as folders of torch files, as the Python scripts and `save_embeddings` write them:
//! `layer_<l>/batch_<b>.pt`, one tensor [rows, d] each, in the order of the numbers: `batch_10` after `batch_9`.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use lsa_common::checkpoint::{self, WeightFile};
use lsa_common::failure::FailureClass;

use super::stored::Element;
use super::{ArrayFileError, LAYERS_MAX, natural_key};
use crate::trial::{LayerRows, LayerSource, SourceError};

/// A folder of layers. Files are opened when their rows are asked for, so that there may be any number of them.
pub struct BatchFolder {
    layers: Vec<Layer>,
    n_rows: u32,
}

struct Layer {
    width: usize,
    batches: Vec<Batch>,
}

struct Batch {
    path: PathBuf,
    element: Element,
    /// The first byte of the tensor.
    start: u64,
    first_row: u32,
    n_rows: u32,
}

impl BatchFolder {
    /// Finds the layers of a folder and looks at the head of every file.
    pub fn open(path: &Path) -> Result<Self, ArrayFileError> {
        let not_layers = |fault: String| ArrayFileError::NotLayers { path: path.to_owned(), fault };
        let folders = numbered(path, "layer_", "")?;
        if folders.is_empty() {
            return Err(not_layers(
                "expected folders layer_0, layer_1, … with files batch_0.pt, …".to_owned(),
            ));
        }
        if folders.len() as u64 > LAYERS_MAX {
            return Err(not_layers(format!("there are more than {LAYERS_MAX} layers")));
        }
        let mut layers = Vec::with_capacity(folders.len());
        let mut n_rows = None;
        for folder in folders {
            let (layer, rows) = open_layer(&folder)?;
            let expected = *n_rows.get_or_insert(rows);
            if rows != expected {
                return Err(not_layers(format!(
                    "{} has {rows} rows, the layers before it have {expected}; all layers need the same rows",
                    folder.display()
                )));
            }
            layers.push(layer);
        }
        Ok(Self { layers, n_rows: n_rows.unwrap_or(0) })
    }
}

fn open_layer(folder: &Path) -> Result<(Layer, u32), ArrayFileError> {
    let not_layers = |path: &Path, fault: String| ArrayFileError::NotLayers { path: path.to_owned(), fault };
    let mut batches = Vec::new();
    let mut width = None;
    let mut first_row = 0u32;
    for path in numbered(folder, "batch_", ".pt")? {
        let (element, [rows, columns], start) = look(&path)?;
        let expected = *width.get_or_insert(columns);
        if columns != expected {
            return Err(not_layers(&path, format!("rows of width {columns} after rows of width {expected}")));
        }
        let too_many = || not_layers(folder, "there are too many rows".to_owned());
        let n_rows = u32::try_from(rows).map_err(|_| too_many())?;
        batches.push(Batch { path, element, start, first_row, n_rows });
        first_row = first_row.checked_add(n_rows).ok_or_else(too_many)?;
    }
    match width {
        Some(width) if first_row > 0 => Ok((Layer { width, batches }, first_row)),
        _ => Err(not_layers(folder, "expected files batch_0.pt, batch_1.pt, … with rows".to_owned())),
    }
}

/// Entries `<prefix><number><suffix>` of a folder in the order of their numbers.
fn numbered(folder: &Path, prefix: &str, suffix: &str) -> Result<Vec<PathBuf>, ArrayFileError> {
    let read = |source| ArrayFileError::Read { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let name = entry.map_err(read)?.file_name();
        let Some(name) = name.to_str() else { continue };
        let number = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix));
        if number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())) {
            found.push(name.to_owned());
        }
    }
    found.sort_by_cached_key(|name| natural_key(name));
    Ok(found.into_iter().map(|name| folder.join(name)).collect())
}

/// Format, shape and place of the one tensor of a file.
fn look(path: &Path) -> Result<(Element, [usize; 2], u64), ArrayFileError> {
    let read = |source| ArrayFileError::Read { path: path.to_owned(), source };
    let damaged = |fault: String| ArrayFileError::Damaged { path: path.to_owned(), fault };
    let file = File::open(path).map_err(read)?;
    let size = file.metadata().map_err(read)?.len();
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let stored = checkpoint::read(&[WeightFile { name, file, size }]).map_err(|e| damaged(e.to_string()))?;
    let mut tensors = stored.tensors.into_values();
    let (Some(tensor), None) = (tensors.next(), tensors.next()) else {
        return Err(damaged("expected one tensor [rows, d]".to_owned()));
    };
    let [rows, columns] = *tensor.shape else {
        return Err(damaged(format!("expected one tensor [rows, d], got shape {:?}", tensor.shape)));
    };
    if tensor.strides.is_some() {
        return Err(damaged("its tensor is not contiguous; save tensor.contiguous()".to_owned()));
    }
    let element = Element::of(tensor.dtype).ok_or_else(|| {
        damaged(format!("its tensor holds {:?}, expected floating-point numbers", tensor.dtype))
    })?;
    if columns == 0 {
        return Err(damaged("its rows are empty".to_owned()));
    }
    Ok((element, [rows, columns], tensor.start))
}

impl LayerSource for BatchFolder {
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
        let Layer { width, batches } = &self.layers[layer];
        let failed = |path: &Path| {
            let message = format!("{} cannot be read", path.display());
            move |cause: std::io::Error| SourceError {
                class: FailureClass::Reject,
                message,
                cause: Some(Box::new(cause)),
            }
        };
        // Sorted, so that every file is opened once.
        let mut places: Vec<usize> = (0..rows.len()).collect();
        places.sort_by_key(|place| rows[*place]);
        let mut values = vec![0.0; rows.len() * width];
        let mut open: Option<(&Batch, File)> = None;
        for place in places {
            let row = rows[place];
            let holds = |batch: &Batch| row - batch.first_row < batch.n_rows;
            if !open.as_ref().is_some_and(|(batch, _)| holds(batch)) {
                // Batches without rows begin where the next one does.
                let batch = &batches[batches.partition_point(|batch| batch.first_row + batch.n_rows <= row)];
                open = Some((batch, File::open(&batch.path).map_err(failed(&batch.path))?));
            }
            let Some((batch, file)) = &open else { continue };
            let size = batch.element.size() as usize;
            let mut bytes = vec![0; width * size];
            let start = batch.start + u64::from(row - batch.first_row) * bytes.len() as u64;
            file.read_exact_at(&mut bytes, start).map_err(failed(&batch.path))?;
            let numbers = bytes.chunks_exact(size).map(|bytes| batch.element.decode_little(bytes));
            values[place * width..(place + 1) * width]
                .iter_mut()
                .zip(numbers)
                .for_each(|(to, from)| *to = from);
        }
        Ok(LayerRows { width: *width, values })
    }
}
