//! Layers read from array files of other programs: `.npy`, `.npz`, `.safetensors`, and folders of torch files.
//!
//! A file holds one array [layers, n, d], or one array [n, d] per layer, ordered by the numbers in their names; files
//! of `lsa-worker embed` hold either form once per pooling. Headers are checked against the length of the file when it
//! is opened, rows are read when they are asked for, and a damaged file is an error.

use std::path::{Path, PathBuf};

use lsa_common::failure::FailureClass;
use lsa_common::model::Pooling;

use crate::trial::{LayerRows, LayerSource, SourceError};

mod archive;
mod batches;
mod npy;
mod stored;

pub use batches::BatchFolder;
pub use npy::npy_bytes;
use stored::StoredArray;

/// The most bytes of one file that are held in memory: arrays of `.npz` files and those in Fortran order.
pub const LOADED_BYTES_MAX: u64 = 16 << 30;

/// The most layers of one file; their matrices grow with the square of it.
const LAYERS_MAX: u64 = 4096;

/// Why a file does not give layers.
#[derive(Debug, thiserror::Error)]
pub enum ArrayFileError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file's name does not say what it is.
    #[error("{}: unknown kind of file; expected .npy, .npz, .safetensors or a folder", .0.display())]
    UnknownKind(PathBuf),
    /// The bytes are not what the name says.
    #[error("{}: {fault}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        fault: String,
    },
    /// The arrays are sound, but do not make up layers.
    #[error("{}: {fault}", path.display())]
    NotLayers {
        /// The file.
        path: PathBuf,
        /// What was found and what is expected.
        fault: String,
    },
    /// The file holds several poolings, or not the one asked for.
    #[error("{}: {fault}; it holds {}", path.display(), found.join(", "))]
    Pooling {
        /// The file.
        path: PathBuf,
        /// What was asked.
        fault: String,
        /// The poolings in the file.
        found: Vec<String>,
    },
}

/// Opens a file of layers or a folder of them; `pooling` picks those of one pooling where a file holds several.
pub fn open(path: &Path, pooling: Option<&str>) -> Result<Box<dyn LayerSource>, ArrayFileError> {
    match (path.is_dir(), pooling) {
        (true, None) => Ok(Box::new(BatchFolder::open(path)?)),
        (true, Some(pooling)) => Err(ArrayFileError::Pooling {
            path: path.to_owned(),
            fault: format!("a folder has no pooling {pooling:?} to choose"),
            found: vec!["one kind of rows".to_owned()],
        }),
        (false, _) => Ok(Box::new(ArrayFile::open(path, pooling)?)),
    }
}

/// An open file of layers.
pub struct ArrayFile {
    path: PathBuf,
    arrays: Vec<StoredArray>,
    layers: Vec<Layer>,
    n_rows: u32,
}

/// Where one layer lies: element (i, k) is `start + i * row_stride + k * column_stride` of an array.
struct Layer {
    array: usize,
    start: u64,
    row_stride: u64,
    column_stride: u64,
    width: usize,
}

impl ArrayFile {
    /// Opens a file and finds its layers; `pooling` picks those of one pooling where the file holds several.
    pub fn open(path: &Path, pooling: Option<&str>) -> Result<Self, ArrayFileError> {
        let mut arrays = archive::open(path)?;
        let chosen = choose(path, &arrays, pooling)?;
        for array in &chosen {
            arrays[*array].load_if_needed(path)?;
        }
        Self::of_layers(path, arrays, &chosen)
    }

    /// Shapes to layers: one array of three axes, or arrays of two axes and equal height.
    fn of_layers(path: &Path, arrays: Vec<StoredArray>, chosen: &[usize]) -> Result<Self, ArrayFileError> {
        let not_layers = |fault| ArrayFileError::NotLayers { path: path.to_owned(), fault };
        let mut layers = Vec::new();
        let mut n_rows = None;
        for place in chosen {
            let array = &arrays[*place];
            let strides = array.strides();
            let (n_layers, n, width, layer_stride, row_stride, column_stride) =
                match (&*array.shape, &*strides) {
                    ([n, d], [of_row, of_column]) => (1, *n, *d, 0, *of_row, *of_column),
                    ([l, n, d], [of_layer, of_row, of_column]) => {
                        (*l, *n, *d, *of_layer, *of_row, *of_column)
                    }
                    _ => {
                        return Err(not_layers(format!(
                            "array {:?} has shape {:?}",
                            array.name, array.shape
                        )));
                    }
                };
            if n_layers == 0 || n == 0 || width == 0 {
                return Err(not_layers(format!(
                    "array {:?} of shape {:?} is empty",
                    array.name, array.shape
                )));
            }
            let rows = u32::try_from(n).map_err(|_| not_layers(format!("{n} rows are too many")))?;
            if *n_rows.get_or_insert(rows) != rows {
                return Err(not_layers(format!(
                    "array {:?} has {rows} rows, those before it have {}; all layers need the same rows",
                    array.name,
                    n_rows.unwrap_or(rows)
                )));
            }
            if n_layers > LAYERS_MAX - layers.len() as u64 {
                return Err(not_layers(format!("there are more than {LAYERS_MAX} layers")));
            }
            // The data fit the file, so the counts fit the machine.
            let width = usize::try_from(width).map_err(|_| not_layers(format!("rows of width {width}")))?;
            layers.extend((0..n_layers).map(|layer| Layer {
                array: *place,
                start: layer * layer_stride,
                row_stride,
                column_stride,
                width,
            }));
        }
        match n_rows {
            Some(n_rows) => Ok(Self { path: path.to_owned(), arrays, layers, n_rows }),
            None => Err(not_layers("there are no arrays in the file".to_owned())),
        }
    }
}

impl LayerSource for ArrayFile {
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
        let Layer { array, start, row_stride, column_stride, width } = self.layers[layer];
        let mut values = Vec::with_capacity(rows.len() * width);
        for row in rows {
            let first = start + u64::from(*row) * row_stride;
            self.arrays[array].read(first, column_stride, width, &mut values).map_err(|cause| {
                SourceError {
                    class: FailureClass::Reject,
                    message: format!("{}: row {row} cannot be read", self.path.display()),
                    cause: Some(Box::new(cause)),
                }
            })?;
        }
        Ok(LayerRows { width, values })
    }
}

/// Reads the rows of trials from an integer `.npy` array `[trials, s]` or `[s]`.
pub fn read_trial_rows(path: &Path) -> Result<Vec<Vec<u32>>, ArrayFileError> {
    let fault = |fault: String| ArrayFileError::NotLayers { path: path.to_owned(), fault };
    let mut arrays = archive::open(path)?;
    let [array] = &mut *arrays else {
        return Err(fault("expected one integer array [trials, rows]".to_owned()));
    };
    array.load_if_needed(path)?;
    let strides = array.strides();
    let (n_trials, n_rows, of_trial, of_row) = match (&*array.shape, &*strides) {
        ([n_rows], [of_row]) => (1, *n_rows, 0, *of_row),
        ([n_trials, n_rows], [of_trial, of_row]) => (*n_trials, *n_rows, *of_trial, *of_row),
        _ => return Err(fault(format!("expected an array [trials, rows], got shape {:?}", array.shape))),
    };
    if !array.element.is_integer() {
        return Err(fault(format!("expected integers, got {}", array.element)));
    }
    if n_trials == 0 || n_rows == 0 {
        return Err(fault(format!("there are no rows in shape {:?}", array.shape)));
    }
    let length = usize::try_from(n_rows).map_err(|_| fault(format!("{n_rows} rows are too many")))?;
    (0..n_trials)
        .map(|trial| {
            let mut values = Vec::new();
            let read = array.read(trial * of_trial, of_row, length, &mut values);
            read.map_err(|source| ArrayFileError::Read { path: path.to_owned(), source })?;
            let row = |value: &f64| {
                // Integers beyond 2^53 are rounded here, and far outside the range of a row all the same.
                if (0.0..=f64::from(u32::MAX)).contains(value) {
                    Ok(*value as u32)
                } else {
                    Err(fault(format!("trial {trial} names row {value}; rows are numbered from 0")))
                }
            };
            values.iter().map(row).collect()
        })
        .collect()
}

/// Which arrays are the layers, in order.
fn choose(path: &Path, arrays: &[StoredArray], pooling: Option<&str>) -> Result<Vec<usize>, ArrayFileError> {
    let error = |fault: &str, found| {
        Err(ArrayFileError::Pooling { path: path.to_owned(), fault: fault.to_owned(), found })
    };
    let found = poolings(arrays);
    let listed = || {
        if found.is_empty() { vec!["no poolings".to_owned()] } else { found.clone() }
    };
    match (pooling, &*found) {
        (Some(pooling), found) if found.iter().any(|name| name == pooling) => {
            return Ok(in_natural_order(arrays, |name| pooling_of(name) == pooling));
        }
        (Some(pooling), _) => {
            return error(&format!("there is no pooling {pooling:?} in the file"), listed());
        }
        (None, [only]) => return Ok(in_natural_order(arrays, |name| pooling_of(name) == *only)),
        (None, [_, _, ..]) => return error("--pooling has to say which pooling to compare", listed()),
        (None, []) => {}
    }
    let all = in_natural_order(arrays, |_| true);
    let axes = |place: &usize| arrays[*place].shape.len();
    let unnamed = arrays.len() == 1 && arrays[0].name.is_empty();
    if (all.len() == 1 && axes(&all[0]) == 3) || (!unnamed && all.iter().all(|place| axes(place) == 2)) {
        return Ok(all);
    }
    let shapes: Vec<String> = all.iter().take(8).map(|place| format!("{:?}", arrays[*place].shape)).collect();
    Err(ArrayFileError::NotLayers {
        path: path.to_owned(),
        fault: format!(
            "expected one array [layers, n, d] or one array [n, d] per layer, got {} of shape {}",
            all.len(),
            shapes.join(", ")
        ),
    })
}

/// The poolings that the arrays are named after; none unless every array is named after one.
fn poolings(arrays: &[StoredArray]) -> Vec<String> {
    let mut found: Vec<String> = arrays.iter().map(|array| pooling_of(&array.name).to_owned()).collect();
    found.sort_unstable();
    found.dedup();
    if found.iter().all(|name| Pooling::parse(name).is_some()) { found } else { Vec::new() }
}

/// `mean` of both `mean` and `mean.layer3`.
fn pooling_of(name: &str) -> &str {
    match name.rsplit_once(".layer") {
        Some((pooling, digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => pooling,
        _ => name,
    }
}

/// Arrays whose names pass, so that `layer_10` comes after `layer_9`.
fn in_natural_order(arrays: &[StoredArray], passes: impl Fn(&str) -> bool) -> Vec<usize> {
    let mut places: Vec<usize> = (0..arrays.len()).filter(|place| passes(&arrays[*place].name)).collect();
    places.sort_by_cached_key(|place| natural_key(&arrays[*place].name));
    places
}

/// The name cut into text and numbers; a number is its length without leading zeros and its digits.
fn natural_key(name: &str) -> Vec<(String, usize, String)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let text = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, after) = rest.split_at(text);
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let (digits, after) = after.split_at(digits);
        let digits = digits.trim_start_matches('0');
        parts.push((text.to_owned(), digits.len(), digits.to_owned()));
        rest = after;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_sort_as_numbers() {
        let mut names = ["layer_10", "layer_9", "layer_1", "layer_010b", "a"];
        names.sort_by_cached_key(|name| natural_key(name));
        assert_eq!(names, ["a", "layer_1", "layer_9", "layer_10", "layer_010b"]);
    }

    #[test]
    fn names_of_poolings() {
        assert_eq!(pooling_of("mean.layer12"), "mean");
        assert_eq!(pooling_of("last_token"), "last_token");
        assert_eq!(pooling_of("x.layers"), "x.layers");
    }

    #[test]
    fn a_file_in_fortran_order_and_its_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        // [2, 2, 3] in Fortran order: element (l, i, k) at l + 2 i + 4 k.
        let mut bytes = npy_bytes(&[2, 2, 3], &(0..12).map(f64::from).collect::<Vec<_>>());
        let header = String::from_utf8_lossy(&bytes[..128]).into_owned();
        let place = header.find("False,").unwrap() - 3;
        let place = bytes.windows(6).position(|w| w == b"False,").unwrap_or(place);
        bytes[place..place + 6].copy_from_slice(b"True, ");
        std::fs::write(&path, bytes).unwrap();
        let file = ArrayFile::open(&path, None).unwrap();
        assert_eq!((file.n_layers(), file.n_rows()), (2, 2));
        let rows = file.rows(1, &[1, 0]).unwrap();
        assert_eq!((rows.width, rows.values), (3, vec![3.0, 7.0, 11.0, 1.0, 5.0, 9.0]));
    }

    #[test]
    fn rows_of_trials_are_integers_from_zero() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.npy");
        std::fs::write(&path, npy_bytes(&[2, 2], &[0.0, 1.0, 2.0, 3.0])).unwrap();
        let error = read_trial_rows(&path).unwrap_err().to_string();
        assert!(error.contains("expected integers, got float64"), "{error}");
    }
}
