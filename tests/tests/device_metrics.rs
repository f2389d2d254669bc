//! The metrics that tensors compute on a device, against the same metrics on the CPU without them.
//!
//! The tensors of the CPU go the same way as those of a GPU, so that all is checked where there is none.

use lsa_common::metric::{Inner, MetricName, MetricSpec};
use lsa_common::trial_matrices::TrialMatrices;
use lsa_tests::layers::{InMemory, noise};
use lsa_tests::python::skipped;
use lsa_tests::reference::Rows;
use lsa_worker::device::{self, DeviceChoice};
use lsa_worker::resources::Resources;
use lsa_worker::trial::{Wanted, run_trial};
use tch::Device;

/// Both ways are float64 throughout for so few rows, and sum some thousand terms in different orders.
const TOLERANCE: f64 = 1e-11;

const N: usize = 90;
const WIDTH: usize = 12;

/// The device of tensors under test: the CPU, and the first GPU if there is one that works.
fn devices() -> Vec<Device> {
    match device::open(DeviceChoice::Cuda(0)) {
        Ok(chosen) => vec![Device::Cpu, chosen.device],
        Err(error) => {
            skipped("metrics on a GPU", &error.to_string());
            vec![Device::Cpu]
        }
    }
}

/// Each metric with each way to compare rows that it takes.
fn metrics() -> Vec<MetricSpec> {
    let mut metrics =
        vec![MetricSpec::new(MetricName::Cka), MetricSpec::new(MetricName::DistanceCorrelation)];
    for name in
        [MetricName::Rsa, MetricName::JaccardSimilarity, MetricName::MutualKnn, MetricName::RankSimilarity]
    {
        for inner in [Inner::Cosine, Inner::Correlation, Inner::Euclidean] {
            metrics.push(MetricSpec { inner: Some(inner), ..MetricSpec::new(name) });
        }
    }
    metrics
}

/// Layers with what makes numbers hard: equal, negated and zero rows, rows near each other, a large common mean, sizes
/// far from 1, few different rows and so many ties, a constant layer, and rows that are all as far apart.
fn layers() -> Vec<Rows> {
    let plain = noise(1, N * WIDTH);
    let mut equal = plain.clone();
    equal.copy_within(3 * WIDTH..4 * WIDTH, 50 * WIDTH);
    equal.copy_within(3 * WIDTH..4 * WIDTH, 80 * WIDTH);
    let mut special = noise(2, N * WIDTH);
    special[..WIDTH].fill(0.0);
    special[WIDTH..2 * WIDTH].fill(0.7);
    for column in 0..WIDTH {
        special[6 * WIDTH + column] = -special[4 * WIDTH + column];
        special[8 * WIDTH + column] = special[7 * WIDTH + column] * (1.0 + 1e-8 * column as f64);
        special[9 * WIDTH + column] *= 1e-9;
    }
    let shifted = |by: f64| noise(3, N * WIDTH).iter().map(|x| x + by).collect::<Vec<f64>>();
    let times = |by: f64| noise(4, N * WIDTH).iter().map(|x| x * by).collect::<Vec<f64>>();
    let mut amplified = shifted(1e5);
    amplified[20 * WIDTH..24 * WIDTH].iter_mut().for_each(|x| *x -= 1e5);
    let few = noise(5, 7 * WIDTH);
    let few: Vec<f64> = (0..N).flat_map(|row| &few[row * row % 7 * WIDTH..][..WIDTH]).copied().collect();
    let mut simplex = vec![0.0; N * N];
    (0..N).for_each(|row| simplex[row * N + row] = 1.0);
    let mut layers: Vec<Rows> = [
        plain,
        equal,
        special,
        shifted(1e4),
        amplified,
        times(1e20),
        times(1e-20),
        few,
        vec![0.3; N * WIDTH],
    ]
    .map(|values| (WIDTH, values))
    .into();
    layers.push((N, simplex));
    layers.push((2, noise(6, N * 2)));
    layers.push((1, noise(7, N)));
    layers.push((200, noise(8, N * 200)));
    // More than one panel of layers.
    layers.extend((20..45).map(|seed| (4, noise(seed, N * 4))));
    layers
}

fn trial(layers: &[Rows], null: bool, metrics: &[MetricSpec], tensors: Option<Device>) -> TrialMatrices {
    trial_on(2, layers, null, metrics, tensors)
}

fn trial_on(
    threads: usize,
    layers: &[Rows],
    null: bool,
    metrics: &[MetricSpec],
    tensors: Option<Device>,
) -> TrialMatrices {
    let rows: Vec<u32> = (0..N as u32).collect();
    let reversed: Vec<u32> = rows.iter().rev().copied().collect();
    let resources = Resources { tensors, ..Resources::available(threads) };
    let wanted = Wanted { metrics, layer_metrics: &[] };
    let null_rows = null.then_some(&*reversed);
    run_trial(&InMemory(layers.to_vec()), &rows, null_rows, wanted, &resources, &|_| true).unwrap()
}

fn bits(matrix: &[f64]) -> Vec<u64> {
    matrix.iter().map(|cell| cell.to_bits()).collect()
}

/// Of [`layers`], the one whose rows are all as far apart: which of them are the nearest is up to rounding.
const SIMPLEX: usize = 9;

/// Whether a cell depends on the order of neighbours that only rounding tells apart.
fn is_of_equal_neighbours(spec: &MetricSpec, place: usize, n_layers: usize) -> bool {
    let of_neighbours = [MetricName::JaccardSimilarity, MetricName::MutualKnn, MetricName::RankSimilarity];
    let of_simplex = place / n_layers == SIMPLEX || place % n_layers == SIMPLEX;
    spec.inner == Some(Inner::Euclidean) && of_neighbours.contains(&spec.name) && of_simplex
}

/// Panics where a cell of `got` is not that of `expected`.
fn check(what: &str, spec: &MetricSpec, got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len());
    let n_layers = got.len().isqrt();
    for (place, (got, expected)) in got.iter().zip(expected).enumerate() {
        if is_of_equal_neighbours(spec, place, n_layers) {
            continue;
        }
        // A product near zero is known to rounding, and its root to the root of that.
        let allowed = match spec.name {
            MetricName::DistanceCorrelation => TOLERANCE / expected.max(1e-4),
            _ => TOLERANCE,
        };
        let near = (got.is_nan() && expected.is_nan()) || (got - expected).abs() <= allowed;
        assert!(near, "{what}: {spec:?}, cell {place}: {got} {expected}");
    }
}

#[test]
fn tensors_agree_with_the_cpu() {
    let (layers, metrics) = (layers(), metrics());
    let expected = trial(&layers, true, &metrics, None);
    for device in devices() {
        let got = trial(&layers, true, &metrics, Some(device));
        assert_eq!(got.undefined, expected.undefined);
        for ((spec, got), (_, expected)) in got.matrices.iter().zip(&expected.matrices) {
            check(&format!("{device:?}"), spec, got, expected);
        }
        assert_eq!(got.nulls.len(), metrics.len());
        for (spec, (got, expected)) in metrics.iter().zip(got.nulls.iter().zip(&expected.nulls)) {
            check(&format!("{device:?}, unrelated rows"), spec, got, expected);
        }
    }
}

#[test]
fn a_panel_of_layers_that_say_nothing_is_nan() {
    let mut layers = vec![(WIDTH, noise(13, N * WIDTH))];
    layers.extend((0..70).map(|_| (WIDTH, vec![1.0; N * WIDTH])));
    for device in devices() {
        for (spec, matrix) in trial(&layers, false, &metrics(), Some(device)).matrices {
            assert!((matrix[0] - 1.0).abs() < TOLERANCE, "{spec:?}: {}", matrix[0]);
            assert!(matrix[1..].iter().all(|cell| cell.is_nan()), "{spec:?}");
        }
    }
}

/// Distances of rows much nearer to one another than to the mean have no digit left in the Gram matrix.
#[test]
fn distances_within_clusters_are_computed_from_the_rows() {
    let centres = noise(10, 3 * WIDTH);
    let clusters = (0..N * WIDTH).map(|place| centres[place / WIDTH % 3 * WIDTH + place % WIDTH]);
    let clusters: Vec<f64> = clusters.zip(noise(11, N * WIDTH)).map(|(x, e)| x + 1e-9 * e).collect();
    let layers = [(WIDTH, clusters), (WIDTH, noise(12, N * WIDTH))];
    let mut metrics = metrics();
    metrics.retain(|spec| spec.inner.is_none_or(|inner| inner == Inner::Euclidean));
    let expected = trial(&layers, false, &metrics, None);
    for device in devices() {
        let got = trial(&layers, false, &metrics, Some(device));
        for ((spec, got), (_, expected)) in got.matrices.iter().zip(&expected.matrices) {
            check(&format!("{device:?}"), spec, got, expected);
        }
    }
}

#[test]
fn bytes_of_tensors_depend_neither_on_threads_nor_on_how_many_layers_there_are() {
    let (layers, metrics) = (layers(), metrics());
    for device in devices() {
        let all = trial(&layers, false, &metrics, Some(device));
        let again = trial_on(3, &layers, false, &metrics, Some(device));
        let few = trial(&layers[..5], false, &metrics, Some(device));
        for (place, (spec, matrix)) in all.matrices.iter().enumerate() {
            assert_eq!(bits(matrix), bits(&again.matrices[place].1), "{spec:?}");
            let corner: Vec<f64> =
                (0..5).flat_map(|row| &matrix[row * layers.len()..][..5]).copied().collect();
            assert_eq!(bits(&corner), bits(&few.matrices[place].1), "{spec:?}");
        }
    }
}

#[test]
fn layers_that_do_not_fit_are_compared_on_the_cpu() {
    let metrics = metrics();
    let resources = Resources { tensors: Some(Device::Cpu), ..Resources::available(1) };
    assert_eq!(resources.where_tensors_fit(N, 13, &metrics).tensors, Some(Device::Cpu));
    assert_eq!(resources.where_tensors_fit(1 << 16, 10_000, &metrics).tensors, None);
}
