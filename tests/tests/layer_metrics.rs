//! The quantities of one layer against their definitions in numpy, at their edges and under what they must not depend on.

use std::path::{Path, PathBuf};

use lsa_common::metric::{LayerMetricName, MetricName, MetricSpec};
use lsa_tests::layers::{changed, noise, picked, related, trial};
use lsa_tests::python::skipped;
use lsa_tests::reference::{Rows, reference};
use lsa_worker::array_file::npy_bytes;
use lsa_worker::resources::MemoryArgs;
use lsa_worker::similarity::{SimilarityArgs, run};

/// Sums of some hundred terms, products and eigenvalues in float64, as a part of the value.
const TOLERANCE: f64 = 1e-12;
/// The squares of distances between rows far from the origin are right to 1e-10, and so are ratios of them.
const TOLERANCE_DISTANCES: f64 = 1e-9;
/// A mean cosine or entropy near 0 is put together from numbers near 1.
const TOLERANCE_NEAR_ZERO: f64 = 1e-12;

const ALL: [LayerMetricName; 8] = LayerMetricName::ALL;

/// The values of one layer metric by layer.
fn values(layers: &[Rows], name: LayerMetricName) -> Vec<f64> {
    let mut result = trial(layers, &[], &[name], 2).unwrap();
    assert_eq!(result.layer_metrics[0].0, name);
    result.layer_metrics.remove(0).1
}

/// Holds every layer metric against the reference.
fn check(case: &str, layers: &[Rows]) {
    let result = trial(layers, &[], &ALL, 2).unwrap();
    match reference(layers, &[], &ALL) {
        Ok((_, expected)) => {
            for ((name, got), expected) in result.layer_metrics.iter().zip(expected) {
                let distances = *name == LayerMetricName::IntrinsicDimension;
                let relative = if distances { TOLERANCE_DISTANCES } else { TOLERANCE };
                for (layer, (got, expected)) in got.iter().zip(expected).enumerate() {
                    let what = format!("{case}, {name} of layer {layer}: {got} instead of {expected}");
                    assert_eq!(got.is_nan(), expected.is_nan(), "{what}");
                    let near_zero = match name {
                        LayerMetricName::Anisotropy | LayerMetricName::DatasetEntropy => TOLERANCE_NEAR_ZERO,
                        _ => 0.0,
                    };
                    // A deviation is put together from numbers as large as the largest norm.
                    let spread_of = match name {
                        LayerMetricName::NormStd => norm_max(&layers[layer]) * 1e-3,
                        _ => expected.abs(),
                    };
                    let off = (got - expected).abs();
                    let allowed = relative * spread_of.max(expected.abs()) + near_zero;
                    assert!(got.is_nan() || off <= allowed, "{what}: off by {off:e}");
                }
            }
        }
        Err(why) => skipped(&format!("{case}: layer metrics against numpy"), &why),
    }
}

fn norm_max(layer: &Rows) -> f64 {
    values(std::slice::from_ref(layer), LayerMetricName::NormMax)[0]
}

fn regular() -> Vec<Rows> {
    related(120, &[12, 20, 150])
}

#[test]
fn values_agree_with_their_definitions() {
    check("regular", &regular());
    check("noise", &[(12, noise(7, 120 * 12)), (1, noise(8, 120)), (2, noise(9, 240))]);
    check("many rows", &related(1100, &[30]));
    let thrice: Vec<usize> = (0..120).map(|i| i * 7 % 40).collect();
    check("every row three times", &picked(&regular(), &thrice));
    check("zero rows", &changed(&regular(), |value, row| if row % 40 == 7 { 0.0 } else { value }));
    for factor in [1e-20, 1e20, 1e-150, 1e150] {
        check("scaled", &changed(&regular(), |value, _| factor * value));
    }
    check("an offset of 1e4", &changed(&regular(), |value, _| value + 1e4));
    check("three rows", &related(3, &[12, 2]));
    // Rank 3 of 120 rows: most singular values are rounding.
    let flat: Vec<usize> = (0..120).map(|i| i % 3).collect();
    let flat = picked(&regular(), &flat);
    check("three distinct rows", &flat);
}

#[test]
fn what_is_defined_for_equal_rows_is_computed() {
    let constant = (5, vec![0.7; 120 * 5]);
    check("equal rows", std::slice::from_ref(&constant));
    let norm = 0.7 * 5f64.sqrt();
    let expected = [1.0, 0.0, 1.0, f64::NAN, norm, 0.0, norm, norm];
    for (name, expected) in ALL.into_iter().zip(expected) {
        let got = values(std::slice::from_ref(&constant), name)[0];
        assert!((got - expected).abs() < 1e-10 || got.is_nan() && expected.is_nan(), "{name}: {got}");
    }
    // The similarities of such a layer stay undefined.
    let cka = MetricSpec::new(MetricName::Cka);
    let result = trial(&[regular().remove(0), constant], &[cka], &[LayerMetricName::NormMean], 1).unwrap();
    assert!(result.matrices[0].1[3].is_nan() && result.layer_metrics[0].1[1].is_finite());
    assert_eq!(result.undefined[&1], "all rows are equal up to rounding");
}

#[test]
fn layers_that_say_nothing_are_nan_with_a_reason() {
    let check = |layer: Rows, name, expected: &str| {
        let result = trial(std::slice::from_ref(&layer), &[], &[name], 1).unwrap();
        assert!(result.layer_metrics[0].1[0].is_nan(), "{name}");
        assert!(result.undefined[&0].contains(expected), "{name}: {:?}", result.undefined);
    };
    let zeros = || (3, vec![0.0; 60]);
    check(zeros(), LayerMetricName::EffectiveRank, "all rows are zero");
    check(zeros(), LayerMetricName::DatasetEntropy, "all rows are zero");
    check(zeros(), LayerMetricName::Anisotropy, "all rows are zero");
    check(zeros(), LayerMetricName::IntrinsicDimension, "all rows are equal");
    check((3, vec![1.0; 3]), LayerMetricName::Anisotropy, "fewer than 2 rows");
    check((1, vec![1.0, 2.0, 1.0]), LayerMetricName::IntrinsicDimension, "fewer than 3 rows");
    check((1, vec![0.0, 1e-200, 1.0, 2.0]), LayerMetricName::IntrinsicDimension, "distance 0 in float64");
}

#[test]
fn steps_of_one_size_have_no_intrinsic_dimension() {
    // The corners of a simplex are all as far from one another, bit by bit.
    let corners = (0..81).map(|place| f64::from(u8::from(place / 9 == place % 9))).collect();
    let result = trial(&[(9, corners)], &[], &[LayerMetricName::IntrinsicDimension], 1).unwrap();
    assert!(result.layer_metrics[0].1[0].is_nan());
    assert!(result.undefined[&0].contains("as far from the nearest row"), "{:?}", result.undefined);
}

#[test]
fn known_values() {
    // Orthogonal rows of one norm: every direction counts the same.
    let square: Vec<f64> = (0..36).map(|place| if place / 6 == place % 6 { 3.0 } else { 0.0 }).collect();
    let layer = [(6, square)];
    let check = |name, expected: f64| {
        let got = values(&layer, name)[0];
        assert!((got - expected).abs() <= TOLERANCE * 10.0, "{name}: {got} instead of {expected}");
    };
    check(LayerMetricName::EffectiveRank, 6.0);
    check(LayerMetricName::DatasetEntropy, 6f64.ln());
    check(LayerMetricName::Anisotropy, 0.0);
    check(LayerMetricName::NormMean, 3.0);
    check(LayerMetricName::NormStd, 0.0);
    // Rows drawn from a square have two dimensions.
    let drawn = [(2, noise(5, 2 * 2000))];
    let dimension = values(&drawn, LayerMetricName::IntrinsicDimension)[0];
    assert!((1.85..2.15).contains(&dimension), "{dimension}");
}

#[test]
fn too_large_norms_are_nan_and_no_rows_an_error() {
    let huge = (4, vec![f64::MAX; 8].into_iter().enumerate().map(|(i, x)| x / (i + 1) as f64).collect());
    let result = trial(&[huge], &[], &[LayerMetricName::NormMax], 1).unwrap();
    assert!(result.layer_metrics[0].1[0].is_nan());
    assert!(result.undefined[&0].contains("beyond the range of float64"), "{:?}", result.undefined);
    let error = trial(&[(4, Vec::new())], &[], &ALL, 1).unwrap_err();
    assert!(error.to_string().contains("at least 1 row"), "{error}");
}

#[test]
fn the_bytes_do_not_depend_on_the_number_of_threads() {
    let layers = related(200, &[12, 20, 40, 250, 7]);
    let bits = |threads| -> Vec<u64> {
        let result = trial(&layers, &[], &ALL, threads).unwrap();
        result.layer_metrics.iter().flat_map(|(_, values)| values).map(|value| value.to_bits()).collect()
    };
    assert!(bits(1) == bits(3));
}

#[test]
fn the_command_writes_layer_metrics_beside_matrices() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: Vec<u8>| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let layers = related(40, &[6, 6]);
    let input = file("layers.npy", npy_bytes(&[2, 40, 6], &[&*layers[0].1, &*layers[1].1].concat()));
    let arguments = |rows: Option<PathBuf>, output: &Path| SimilarityArgs {
        memory: MemoryArgs::default(),
        input: input.clone(),
        pooling: None,
        metrics: vec![MetricName::Cka],
        output: output.to_owned(),
        rows,
        against: None,
        layer_metrics: vec![
            LayerMetricName::NormMean,
            LayerMetricName::EffectiveRank,
            LayerMetricName::NormMean,
        ],
        k: None,
        inner: None,
        sigma: None,
        batch_size: None,
        variance: None,
        threads: Some(2),
        device: lsa_worker::device::DeviceChoice::Cpu,
    };
    let read = |path: PathBuf| -> (Vec<u64>, Vec<f64>) {
        let bytes = std::fs::read(path).unwrap();
        let file = npyz::NpyFile::new(&bytes[..]).unwrap();
        (file.shape().to_vec(), file.into_vec().unwrap())
    };
    let whole = folder.path().join("whole");
    run(arguments(None, &whole)).unwrap();
    assert_eq!(std::fs::read_dir(&whole).unwrap().count(), 3);
    for name in [LayerMetricName::NormMean, LayerMetricName::EffectiveRank] {
        let (shape, cells) = read(whole.join(format!("{name}.npy")));
        assert_eq!((shape, cells), (vec![2], values(&layers, name)));
    }

    // The first and the last 20 rows, as an integer array: its header differs from that of float64 in the type alone.
    let mut rows = npy_bytes(&[2, 20], &(0..40).map(f64::from).collect::<Vec<_>>());
    let data = rows.len() - 40 * 8;
    let place = rows.windows(3).position(|bytes| bytes == b"<f8").unwrap();
    rows[place..place + 3].copy_from_slice(b"<i8");
    for (slot, row) in rows[data..].chunks_exact_mut(8).zip(0u64..) {
        slot.copy_from_slice(&row.to_le_bytes());
    }
    let by_trial = folder.path().join("by_trial");
    run(arguments(Some(file("rows.npy", rows)), &by_trial)).unwrap();
    let (shape, all) = read(by_trial.join("NormMean.trials.npy"));
    assert_eq!(shape, [2, 2]);
    let first: Vec<usize> = (0..20).collect();
    assert_eq!(all[..2], values(&picked(&layers, &first), LayerMetricName::NormMean));
    let (_, mean) = read(by_trial.join("NormMean.mean.npy"));
    let (_, std) = read(by_trial.join("NormMean.std.npy"));
    for layer in 0..2 {
        let (a, b) = (all[layer], all[2 + layer]);
        assert!((mean[layer] - f64::midpoint(a, b)).abs() < 1e-15);
        assert!((std[layer] - (a - b).abs() / 2.0).abs() < 1e-15);
    }
}
