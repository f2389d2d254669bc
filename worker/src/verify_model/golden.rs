//! Stored hidden states: token ids, and what another implementation made of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lsa_common::model::Pooling;
use lsa_common::tokenize::Encoded;
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use crate::extract::Extractor;

/// Files beyond this are refused; a hundred texts through the largest models take some hundred MB.
const FILE_BYTES_MAX: u64 = 8 << 30;

/// Why a file is not one of stored results, or not of this model.
#[derive(Debug, thiserror::Error)]
pub(super) enum GoldenError {
    #[error("cannot read {}", .0.display())]
    Io(PathBuf, #[source] std::io::Error),
    #[error("{} has {size} bytes; at most {FILE_BYTES_MAX} are read", .path.display())]
    TooLarge { path: PathBuf, size: u64 },
    #[error("{} is no sound safetensors file", .0.display())]
    Malformed(PathBuf, #[source] SafeTensorError),
    #[error("{}: {what}", .path.display())]
    Content { path: PathBuf, what: String },
}

/// The content of a file of stored results.
pub(super) struct Golden {
    path: PathBuf,
    tokens: Vec<Encoded>,
    /// Per pooling and layer: width and rows, row-major.
    layers: BTreeMap<Pooling, Vec<(usize, Vec<f32>)>>,
}

impl Golden {
    pub(super) fn read(path: &Path) -> Result<Self, GoldenError> {
        let io = |source| GoldenError::Io(path.to_owned(), source);
        let size = std::fs::metadata(path).map_err(io)?.len();
        if size > FILE_BYTES_MAX {
            return Err(GoldenError::TooLarge { path: path.to_owned(), size });
        }
        let content = std::fs::read(path).map_err(io)?;
        let file = SafeTensors::deserialize(&content)
            .map_err(|source| GoldenError::Malformed(path.to_owned(), source))?;
        let fault = |what: String| GoldenError::Content { path: path.to_owned(), what };
        let tokens = tokens(&file).map_err(fault)?;
        let mut layers = BTreeMap::new();
        for pooling in Pooling::ALL {
            let of_pooling = layers_of(&file, pooling, tokens.len()).map_err(fault)?;
            if !of_pooling.is_empty() {
                layers.insert(pooling, of_pooling);
            }
        }
        if layers.is_empty() {
            return Err(fault("no array is named after a pooling".to_owned()));
        }
        Ok(Self { path: path.to_owned(), tokens, layers })
    }

    pub(super) fn tokens(&self) -> Vec<Encoded> {
        self.tokens.clone()
    }

    pub(super) fn poolings(&self) -> Vec<Pooling> {
        self.layers.keys().copied().collect()
    }

    /// Whether layers and widths are those of the model.
    pub(super) fn check(&self, extractor: &Extractor) -> Result<(), GoldenError> {
        for (pooling, layers) in &self.layers {
            let stored: Vec<usize> = layers.iter().map(|(width, _)| *width).collect();
            let expected: Vec<usize> =
                (0..extractor.n_layers()).map(|layer| extractor.width(layer) as usize).collect();
            if stored != expected {
                let what = format!(
                    "{pooling} has layers of widths {stored:?}, the model has {expected:?}; take both from one model"
                );
                return Err(GoldenError::Content { path: self.path.clone(), what });
            }
        }
        Ok(())
    }

    /// The rows of a layer, row-major; they exist, as [`Self::check`] saw.
    pub(super) fn rows(&self, pooling: Pooling, layer: u32) -> &[f32] {
        &self.layers[&pooling][layer as usize].1
    }
}

/// The tokens of each text; where the file has no types, the model was given none.
fn tokens(file: &SafeTensors<'_>) -> Result<Vec<Encoded>, String> {
    let mut all = Vec::new();
    while let Some(ids) = numbers(file, &format!("input_ids.{}", all.len()))? {
        let name = format!("token_type_ids.{}", all.len());
        let types = numbers(file, &name)?.unwrap_or_default();
        if !types.is_empty() && types.len() != ids.len() {
            return Err(format!("{name} has {} numbers for {} tokens", types.len(), ids.len()));
        }
        all.push(Encoded { ids, types, truncated: false });
    }
    if all.is_empty() { Err("there is no input_ids.0".to_owned()) } else { Ok(all) }
}

/// The numbers of an array [tokens], where it is there.
fn numbers(file: &SafeTensors<'_>, name: &str) -> Result<Option<Vec<u32>>, String> {
    let Ok(tensor) = file.tensor(name) else { return Ok(None) };
    if tensor.dtype() != Dtype::I64 || tensor.shape().len() != 1 {
        return Err(format!("{name} is {:?} {:?}, expected I64 [tokens]", tensor.dtype(), tensor.shape()));
    }
    let (words, _) = tensor.data().as_chunks::<8>();
    let numbers: Option<Vec<u32>> =
        words.iter().map(|word| u32::try_from(i64::from_le_bytes(*word)).ok()).collect();
    numbers.map(Some).ok_or_else(|| format!("{name} holds a number that is no token id or type"))
}

/// Width and rows of each layer: from one array [layers, texts, width], or one array for each layer.
fn layers_of(
    file: &SafeTensors<'_>,
    pooling: Pooling,
    n_texts: usize,
) -> Result<Vec<(usize, Vec<f32>)>, String> {
    let name = pooling.as_str();
    let floats = |data: &[u8]| -> Vec<f32> {
        data.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
    };
    if let Ok(tensor) = file.tensor(name) {
        return match *tensor.shape() {
            [_, n, width] if n == n_texts && width > 0 && tensor.dtype() == Dtype::F32 => {
                let layers = tensor.data().chunks_exact(4 * n * width);
                Ok(layers.map(|layer| (width, floats(layer))).collect())
            }
            ref shape => Err(format!(
                "{name} is {:?} {shape:?}, expected F32 [layers, {n_texts}, width]",
                tensor.dtype()
            )),
        };
    }
    let mut layers = Vec::new();
    while let Ok(tensor) = file.tensor(&format!("{name}.layer{}", layers.len())) {
        match *tensor.shape() {
            [n, width] if n == n_texts && width > 0 && tensor.dtype() == Dtype::F32 => {
                layers.push((width, floats(tensor.data())));
            }
            ref shape => {
                let layer = layers.len();
                let found = format!("{:?} {shape:?}", tensor.dtype());
                return Err(format!("{name}.layer{layer} is {found}, expected F32 [{n_texts}, width]"));
            }
        }
    }
    Ok(layers)
}
