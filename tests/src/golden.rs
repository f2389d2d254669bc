//! Tiny models with the hidden states that the Python library gives for them; see `fixtures/models/README.md`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lsa_common::model::{Dtype, PinnedModel, Pooling};
use lsa_common::model_source;
use lsa_worker::device;
use lsa_worker::extract::{ExtractRequest, Extractor, Pooled};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use tch::Device;

/// The folder of all tiny models.
pub fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models")
}

/// Every tiny model with stored results, as `open/bert`.
pub fn all() -> Vec<String> {
    let listed = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).expect("fixtures").map(|entry| entry.expect("listed"));
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_str().expect("utf-8").to_owned()).collect();
        names.sort();
        names
    };
    let groups = listed(&models()).into_iter().filter(|group| models().join(group).is_dir());
    let names = groups.flat_map(|group| {
        listed(&models().join(&group)).into_iter().map(move |name| format!("{group}/{name}"))
    });
    names.filter(|name| models().join(name).join("golden.safetensors").is_file()).collect()
}

/// What the Python library computes from one of the tiny models.
pub struct Golden {
    /// The texts, in order.
    pub texts: Vec<String>,
    /// The token ids of each.
    pub ids: Vec<Vec<u32>>,
    /// The types of these tokens; empty where all are of type 0.
    pub types: Vec<Vec<u32>>,
    /// Per pooling and layer: [n, width], row-major.
    pub rows: BTreeMap<Pooling, Vec<Vec<f32>>>,
}

impl Golden {
    /// The stored results of `open/bert`, for instance.
    pub fn of(name: &str) -> Self {
        let content = fs::read(models().join(name).join("golden.safetensors")).expect("fixture");
        let file = SafeTensors::deserialize(&content).expect("sound");
        let n_texts = file.tensor("n_tokens").expect("there").shape()[0];
        let texts = ["texts.txt", "texts_few.txt"].map(texts);
        let texts = texts.into_iter().find(|texts| texts.len() == n_texts).expect("as many texts as rows");
        let numbers = |tensor: TensorView<'_>| -> Vec<u32> {
            let (words, _) = tensor.data().as_chunks::<8>();
            words.iter().map(|word| u32::try_from(i64::from_le_bytes(*word)).expect("a number")).collect()
        };
        let ids = |row| numbers(file.tensor(&format!("input_ids.{row}")).expect("there"));
        let types = |row| file.tensor(&format!("token_type_ids.{row}")).map(numbers).unwrap_or_default();
        let (ids, types) = ((0..n_texts).map(ids).collect(), (0..n_texts).map(types).collect());
        let mut rows = BTreeMap::new();
        for pooling in Pooling::ALL {
            let of_layer = |layer| floats(&file, &format!("{pooling}.layer{layer}"));
            let layers: Vec<Vec<f32>> = match file.tensor(pooling.as_str()) {
                Ok(tensor) => {
                    let values = floats(&file, pooling.as_str()).expect("there");
                    let n_values = tensor.shape()[1] * tensor.shape()[2];
                    values.chunks_exact(n_values).map(<[f32]>::to_vec).collect()
                }
                // Layers of different widths have an array each.
                Err(_) => (0..).map_while(of_layer).collect(),
            };
            if !layers.is_empty() {
                rows.insert(pooling, layers);
            }
        }
        Self { texts, ids, types, rows }
    }

    /// The largest relative error over all layers and poolings, with where it is.
    pub fn worst_error(&self, pooled: &Pooled) -> (f64, String) {
        let mut worst = (0.0, String::new());
        assert_eq!(pooled.rows.keys().collect::<Vec<_>>(), self.rows.keys().collect::<Vec<_>>());
        for (pooling, layers) in &pooled.rows {
            assert_eq!(layers.len(), self.rows[pooling].len());
            for (layer, (found, expected)) in layers.iter().zip(&self.rows[pooling]).enumerate() {
                let error = relative_error(found, expected);
                // A NaN is the worst of all.
                if error > worst.0 || error.is_nan() {
                    worst = (error, format!("{pooling} of layer {layer}"));
                }
            }
        }
        worst
    }
}

fn texts(file: &str) -> Vec<String> {
    // A file that is not there has no texts.
    let content = fs::read_to_string(models().join(file)).unwrap_or_default();
    content.strip_suffix('\n').unwrap_or(&content).split('\n').map(str::to_owned).collect()
}

/// The float32 tensor of that name, if it is there.
pub fn floats(file: &SafeTensors<'_>, name: &str) -> Option<Vec<f32>> {
    let tensor = file.tensor(name).ok()?;
    let (values, _) = tensor.data().as_chunks::<4>();
    Some(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

/// Frobenius norm of the difference over that of what is expected.
pub fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let pairs = || found.iter().zip(expected).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let error: f64 = pairs().map(|(a, b)| (a - b) * (a - b)).sum();
    let norm: f64 = pairs().map(|(_, b)| b * b).sum();
    (error / norm).sqrt()
}

/// The model in a folder.
pub fn pin(folder: &Path) -> PinnedModel {
    let found =
        model_source::local(folder.to_str().expect("utf-8"), None).expect("a folder").expect("a path");
    found.pin().unwrap_or_else(|error| panic!("{}: {}", folder.display(), lsa_worker::chain(&error)))
}

/// The model in a folder, on the CPU.
pub fn load(folder: &Path, dtype: Dtype) -> Extractor {
    device::prepare_libtorch();
    let model = pin(folder);
    Extractor::load(&model, &model.folder, dtype, Device::Cpu)
        .unwrap_or_else(|error| panic!("{}: {}", folder.display(), lsa_worker::chain(&error)))
}

/// Every layer and every pooling that the model can serve.
pub fn request(model: &PinnedModel, token_budget: u64) -> ExtractRequest {
    let served = |pooling: &Pooling| *pooling != Pooling::Pooler || model.facts.has_pooler;
    ExtractRequest {
        max_length: model.facts.max_length,
        token_budget,
        layers: (0..model.facts.n_layers).collect(),
        poolings: Pooling::ALL.into_iter().filter(served).collect(),
        skip_empty: false,
    }
}

/// Progress that nobody watches.
pub fn go_on(_: u64) -> bool {
    true
}
