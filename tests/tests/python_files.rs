//! The files that users open in Python, opened in Python.
//!
//! numpy 1.26 and 2.x are installed into virtual environments of the test's own, below the build directory, once;
//! later runs need no network. torch is too large to install for a test: its part runs where
//! `LSA_TEST_TORCH_PYTHON` names a Python that can `import torch`; without, `export::torch` is still held against
//! files that torch wrote. A part that cannot run says so on stderr.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lsa_common::metric::{MetricName, MetricSpec};
use lsa_common::trial_matrices::TrialMatrices;
use lsa_coordinator::export::{experiment_files, torch};
use lsa_coordinator::merge::{Draws, ExperimentResult, merge};
use lsa_coordinator::metadata::Metadata;
use lsa_tests::python::{run, skipped, venv_python};

/// Names a Python that can import torch.
const TORCH_PYTHON: &str = "LSA_TEST_TORCH_PYTHON";

/// Opens every matrix file below argv[1] as a user would, with warnings as errors, and compares it with the bytes
/// of `<Metric>.mean`, `<Metric>.std` and `<Metric>.trials` beside the script.
const CHECK_NUMPY: &str = r#"
import json, pathlib, pickle, sys, warnings
import numpy as np
warnings.simplefilter("error")
root, expected = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
metrics = json.loads((root / "metadata.json").read_text())["metrics"]
npz = np.load(root / "similarities/similarities.npz", allow_pickle=False)
opened = 0
for metric in metrics:
    for suffix, kind in (("", "mean"), ("_std", "std")):
        want = (expected / f"{metric}.{kind}").read_bytes()
        with open(root / f"similarities/{metric}{suffix}.pkl", "rb") as file:
            array = pickle.load(file)
        assert type(array) is np.ndarray and array.dtype == np.float64, (metric, array.dtype)
        assert array.shape == (5, 5) and array.flags.writeable and array.flags.c_contiguous
        assert array.tobytes() == want, metric
        array[0, 0] = 7.0
        assert npz[metric + suffix].tobytes() == want, metric
        assert pickle.loads(pickle.dumps(array)).tobytes() == array.tobytes()
        opened += 1
    trials = npz[metric + "_trials"]
    assert trials.shape == (3, 5, 5) and trials.tobytes() == (expected / f"{metric}.trials").read_bytes()
    np.testing.assert_allclose(np.mean(trials, axis=0), npz[metric], rtol=1e-14, equal_nan=True)
    np.testing.assert_allclose(np.std(trials, axis=0), npz[metric + "_std"], atol=1e-15, equal_nan=True)
    # Student's t for 95 % and two degrees of freedom.
    reach = 4.302652729911275 * np.std(trials, axis=0, ddof=1) / np.sqrt(3)
    for end, sign in (("_ci_low", -1), ("_ci_high", 1)):
        np.testing.assert_allclose(npz[metric] + sign * reach, npz[metric + end], rtol=1e-9, equal_nan=True)
assert npz["layers"].dtype == np.int64 and npz["layers"].tolist() == [0, 3, 6, 9, 12]
endings = ("", "_std", "_ci_low", "_ci_high", "_trials")
assert sorted(npz.files) == sorted(["layers"] + [m + s for m in metrics for s in endings])
print(f"opened {opened}")
"#;

/// Opens every `.pt` file below argv[1] in each way that users do.
const CHECK_TORCH: &str = r#"
import pathlib, sys, warnings
import torch
warnings.simplefilter("error")
opened = 0
for path in sorted(pathlib.Path(sys.argv[1]).rglob("*.pt")):
    for tensor in (torch.load(path, weights_only=True), torch.load(path, weights_only=True, mmap=True)):
        assert type(tensor) is torch.Tensor and tensor.dtype == torch.float32 and tensor.is_contiguous()
        rows, columns = map(int, path.parent.name.removeprefix("layer_").split("x"))
        assert tuple(tensor.shape) == (rows, columns)
        want = torch.arange(rows * columns, dtype=torch.float32).reshape(rows, columns) / 8 - 1
        assert torch.equal(tensor, want), path
    opened += 1
print(f"opened {opened}")
"#;

#[test]
fn numpy_1_opens_the_matrices() {
    numpy_opens_the_matrices("numpy-1.26", "numpy==1.26.4");
}

#[test]
fn numpy_2_opens_the_matrices() {
    numpy_opens_the_matrices("numpy-2", "numpy>=2,<3");
}

#[test]
fn torch_opens_the_embeddings() {
    let Some(python) = std::env::var_os(TORCH_PYTHON) else {
        return skipped("torch.load of .pt files", &format!("{TORCH_PYTHON} names no Python with torch"));
    };
    let dir = tempfile::tempdir().unwrap();
    for (rows, columns) in [(1u64, 1u64), (2, 3), (64, 384), (3000, 7)] {
        let values: Vec<f32> = (0..rows * columns).map(|k| k as f32 / 8.0 - 1.0).collect();
        let path = dir.path().join(format!("layer_{rows}x{columns}/batch_{rows}.pt"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let bytes = torch::tensor_file(&format!("batch_{rows}"), [rows, columns], &values).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let output = run(Path::new(&python), CHECK_TORCH, &[dir.path()]);
    assert_eq!(output.trim(), "opened 4");
}

fn numpy_opens_the_matrices(venv: &str, requirement: &str) {
    let python = match venv_python(venv, requirement) {
        Ok(python) => python,
        Err(why) => return skipped(&format!("opening .pkl and .npz with {requirement}"), &why),
    };
    let dir = tempfile::tempdir().unwrap();
    let result = result();
    let expected = dir.path().join("expected");
    fs::create_dir(&expected).unwrap();
    for metric in &result.metrics {
        let name = metric.metric.name;
        fs::write(expected.join(format!("{name}.mean")), little_endian(&metric.estimates.mean)).unwrap();
        fs::write(expected.join(format!("{name}.std")), little_endian(&metric.estimates.std)).unwrap();
        fs::write(expected.join(format!("{name}.trials")), little_endian(&metric.trials.concat())).unwrap();
    }
    let root = dir.path().join("experiment");
    for (name, bytes) in experiment_files(&result).unwrap() {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let output = run(&python, CHECK_NUMPY, &[&root, &expected]);
    assert_eq!(output.trim(), "opened 8");
}

/// Four metrics over five layers and three trials, the first layer undefined.
fn result() -> ExperimentResult {
    let layers: Vec<u32> = vec![0, 3, 6, 9, 12];
    let cell = |metric: usize, trial: usize, a: usize, b: usize| {
        let apart = a.abs_diff(b) as f64;
        if a == 0 || b == 0 {
            f64::NAN
        } else {
            (-apart * (0.1 + metric as f64 * 0.2)).exp() * (1.0 - trial as f64 * apart * 0.01)
        }
    };
    let matrix = |metric: usize, trial: usize| {
        (0..25).map(|place| cell(metric, trial, place / 5, place % 5)).collect::<Vec<f64>>()
    };
    let undefined = BTreeMap::from([(0, "all rows are equal".to_owned())]);
    let trial = |trial: usize| TrialMatrices {
        n_layers: 5,
        matrices: MetricName::DEFAULT
            .into_iter()
            .enumerate()
            .map(|(place, name)| (MetricSpec::new(name), matrix(place, trial)))
            .collect(),
        nulls: Vec::new(),
        layer_metrics: Vec::new(),
        undefined: undefined.clone(),
    };
    let trials: Vec<TrialMatrices> = (0..3).map(trial).collect();
    ExperimentResult {
        name: "tiny_mean_reviews".to_owned(),
        layers,
        metrics: merge(&trials, Draws::Differ).unwrap().metrics,
        layer_metrics: Vec::new(),
        undefined,
        metadata: Metadata { model: "tiny".to_owned(), ..Metadata::default() },
    }
}

fn little_endian(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
