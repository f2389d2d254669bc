//! Real weights against stored results of the Python library; see `fixtures/minilm/README.md`.

use std::fs;
use std::path::{Path, PathBuf};

use lsa_common::model::{Dtype, Pooling};
use lsa_common::model_source;
use lsa_tests::inputs::minilm;
use lsa_worker::device;
use lsa_worker::extract::{ExtractRequest, Extractor, Pooled};
use safetensors::SafeTensors;
use tch::Device;

/// Largest relative Frobenius error of a layer: what is promised to users. Rounding alone stays near 1e-6.
const ERROR_MAX: f64 = 2e-5;
/// The length at which the reference was made.
const MAX_LENGTH: u32 = 512;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/minilm")
}

fn texts() -> Vec<String> {
    let content = fs::read_to_string(fixtures().join("texts.txt")).expect("fixture");
    content.strip_suffix('\n').unwrap_or(&content).split('\n').map(str::to_owned).collect()
}

fn extract(extractor: &Extractor, token_budget: u64, threads: usize) -> Pooled {
    let request = ExtractRequest {
        max_length: MAX_LENGTH,
        token_budget,
        layers: (0..7).collect(),
        poolings: Pooling::ALL.to_vec(),
        skip_empty: false,
    };
    extractor.extract(&texts(), &request, threads, &|_| true).expect("extracted")
}

fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let pairs = || found.iter().zip(expected).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let error: f64 = pairs().map(|(a, b)| (a - b) * (a - b)).sum();
    let norm: f64 = pairs().map(|(_, b)| b * b).sum();
    (error / norm).sqrt()
}

#[test]
fn every_layer_and_pooling_is_that_of_the_library_at_batch_size_one() {
    device::prepare_libtorch();
    let folder = minilm();
    let model = model_source::local(folder.to_str().expect("utf-8"), None)
        .expect("a folder")
        .expect("a path")
        .pin()
        .expect("sound");
    let extractor = Extractor::load(&model, &model.folder, Dtype::Float32, Device::Cpu).expect("loaded");
    let golden = fs::read(fixtures().join("golden.safetensors")).expect("fixture");
    let golden = SafeTensors::deserialize(&golden).expect("sound");

    let by_budget: Vec<Pooled> =
        [1, 2048, 16_384].iter().map(|budget| extract(&extractor, *budget, 2)).collect();
    for pooled in &by_budget {
        for pooling in Pooling::ALL {
            let (expected, _) =
                golden.tensor(pooling.as_str()).expect("in the fixture").data().as_chunks::<4>();
            let expected: Vec<f32> = expected.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            let layers = &pooled.rows[&pooling];
            for (layer, (found, expected)) in
                layers.iter().zip(expected.chunks_exact(layers[0].len())).enumerate()
            {
                let error = relative_error(found, expected);
                // Written so that a NaN fails.
                assert!(error <= ERROR_MAX, "{pooling} of layer {layer}: {error:e}");
            }
        }
    }
    for (pooled, budget) in by_budget.iter().zip([1, 2048, 16_384]) {
        assert_eq!(
            *pooled,
            extract(&extractor, budget, 1),
            "bytes differ by threads at a budget of {budget}"
        );
    }
}
