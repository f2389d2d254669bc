//! The metrics over pairs of rows against their definitions in numpy, and at their edges.

use lsa_common::metric::{Inner, MetricName, MetricSpec, Number};
use lsa_tests::layers::{changed, noise, picked, related, trial};
use lsa_tests::python::skipped;
use lsa_tests::reference::{Rows, reference};

/// Metrics with values near 1: sums of some thousand terms in float64, in another order than numpy's.
const TOLERANCE: f64 = 1e-12;
/// Kernels and distances of 1025 rows and more are kept as float32; half a million roundings average out.
const TOLERANCE_ROUNDED: f64 = 1e-8;
/// Rows far from the origin are nearly parallel: 1 - cosine is 1e-9 and has lost nine digits, numpy's as ours.
const TOLERANCE_NEARLY_PARALLEL: f64 = 1e-6;
/// Differences of numbers of any size, as a part of the largest difference of the case; Lanczos' iteration stops at
/// 1e-12, and squared distances are right to 1e-10 where they have cancelled.
const TOLERANCE_DIFFERENCE: f64 = 1e-10;

/// Every metric over pairs of rows, with each way to compare rows.
fn specs() -> Vec<MetricSpec> {
    let plain = [
        MetricName::MinibatchCka,
        MetricName::RbfCka,
        MetricName::SecondOrderCosineSimilarity,
        MetricName::RsmNormDifference,
        MetricName::UniformityDifference,
        MetricName::MagnitudeDifference,
        MetricName::ConcentricityDifference,
    ];
    let mut specs: Vec<MetricSpec> = plain.into_iter().map(MetricSpec::new).collect();
    for name in [MetricName::SecondOrderCosineSimilarity, MetricName::RsmNormDifference] {
        let own = MetricSpec::new(name).inner;
        let others = Inner::ALL.into_iter().filter(|inner| Some(*inner) != own);
        specs.extend(others.map(|inner| MetricSpec { inner: Some(inner), ..MetricSpec::new(name) }));
    }
    specs
}

/// Whether the metric has values of any size.
fn is_unbounded(name: MetricName) -> bool {
    name.info().range.1.is_infinite()
}

/// Holds every metric of `specs` against the reference, and checks what is declared of it.
fn check(case: &str, layers: &[Rows], specs: &[MetricSpec], tolerance: f64) {
    for spec in specs {
        let info = spec.name.info();
        let metrics = std::slice::from_ref(spec);
        let result = trial(layers, metrics, &[], 2).unwrap();
        let matrix = &result.matrices[0].1;
        let l = layers.len();
        let largest = matrix.iter().copied().filter(|cell| !cell.is_nan()).fold(0.0, f64::max);
        let scale = if is_unbounded(spec.name) { largest } else { 1.0 };
        let tolerance =
            if is_unbounded(spec.name) { TOLERANCE_DIFFERENCE.max(tolerance) } else { tolerance } * scale;
        for (cell, got) in matrix.iter().enumerate() {
            let (i, j) = (cell / l, cell % l);
            let what = format!("{case}, {spec} ({i}, {j}): {got}");
            assert_eq!(got.to_bits(), matrix[j * l + i].to_bits(), "{what}: not symmetric");
            if got.is_nan() {
                continue;
            }
            let (low, high) = info.range;
            assert!((low - TOLERANCE..=high + TOLERANCE).contains(got), "{what}: out of range");
            assert!(i != j || (got - info.identical).abs() <= TOLERANCE, "{what}: of a layer and itself");
        }
        match reference(layers, metrics, &[]) {
            Ok((expected, _)) => {
                for (cell, (got, expected)) in matrix.iter().zip(&expected[0]).enumerate() {
                    let what =
                        format!("{case}, {spec} ({}, {}): {got} instead of {expected}", cell / l, cell % l);
                    assert_eq!(got.is_nan(), expected.is_nan(), "{what}");
                    let off = (got - expected).abs();
                    assert!(got.is_nan() || off <= tolerance, "{what}: off by {off:e} of {scale:e}");
                }
            }
            Err(why) => skipped(&format!("{case}: {spec} against numpy"), &why),
        }
    }
}

/// Two narrow layers and one wider than it has rows.
fn regular() -> Vec<Rows> {
    related(120, &[12, 20, 150])
}

fn small_batches(batch_size: u32) -> MetricSpec {
    MetricSpec { batch_size: Some(batch_size), ..MetricSpec::new(MetricName::MinibatchCka) }
}

#[test]
fn regular_layers() {
    check("regular", &regular(), &specs(), TOLERANCE);
    for batch_size in [4, 7, 40, 61, 120] {
        check("batches", &regular(), &[small_batches(batch_size)], TOLERANCE);
    }
    for sigma in [0.1, 0.5, 3.0, 100.0] {
        let sigma = Number::new(sigma);
        let spec = MetricSpec { sigma, ..MetricSpec::new(MetricName::RbfCka) };
        // numpy's own kernel of a wide Gaussian is 1 - 1e-4 and loses four digits by centring.
        check("sigma", &regular(), &[spec], 1e-10);
    }
}

#[test]
fn more_rows_than_are_kept_in_float64() {
    check("many rows", &related(1100, &[10, 30]), &specs(), TOLERANCE_ROUNDED);
}

#[test]
fn repeated_rows() {
    let thrice: Vec<usize> = (0..120).map(|i| i * 7 % 40).collect();
    let mut all = specs();
    all.push(small_batches(10));
    check("every row three times", &picked(&regular(), &thrice), &all, TOLERANCE);
    // Fifteen rows are equal in one layer, or in both, so that all of their ten neighbours are at no distance.
    let equal: Vec<usize> = (0..120).map(|i| if i < 15 { 0 } else { i }).collect();
    let layers = [picked(&regular(), &equal), regular()].concat();
    check("fifteen equal rows", &layers, &all, TOLERANCE);
}

#[test]
fn a_zero_row() {
    let layers = changed(&regular(), |value, row| if row == 5 { 0.0 } else { value });
    check("a zero row", &layers, &specs(), TOLERANCE);
    let layers = changed(&layers, |value, row| if row % 40 == 7 { 0.0 } else { value });
    check("four zero rows", &layers, &specs(), TOLERANCE);
}

#[test]
fn scale() {
    for factor in [1e-20, 1e20, 1e150] {
        let layers = changed(&regular(), |value, _| factor * value);
        check(&format!("times {factor:e}"), &layers, &specs(), TOLERANCE);
    }
    let far = [changed(&regular(), |value, _| 1e-20 * value), changed(&regular(), |value, _| 1e20 * value)];
    check("far apart", &far.concat(), &specs(), TOLERANCE);
}

#[test]
fn offset() {
    let layers = changed(&regular(), |value, _| value + 1e4);
    let (parallel, others): (Vec<_>, Vec<_>) =
        specs().into_iter().partition(|spec| spec.inner == Some(Inner::Cosine));
    check("an offset of 1e4", &layers, &others, 1e-10);
    check("an offset of 1e4", &layers, &parallel, TOLERANCE_NEARLY_PARALLEL);
}

#[test]
fn the_fewest_rows() {
    for spec in specs() {
        let n = spec.rows_min() as usize;
        check("the fewest rows", &related(n, &[12, 20, 150]), std::slice::from_ref(&spec), TOLERANCE);
        let error = trial(&related(n - 1, &[12]), &[spec], &[], 1).unwrap_err();
        assert!(error.to_string().contains(&format!("at least {n} rows")), "{error}");
    }
}

#[test]
fn constant_layers_are_nan_with_a_reason() {
    let mut layers = regular();
    layers.push((5, vec![0.7; 120 * 5]));
    check("a constant layer", &layers, &specs(), TOLERANCE);
    let result = trial(&layers, &specs(), &[], 2).unwrap();
    assert_eq!(result.undefined.len(), 1);
    assert_eq!(result.undefined[&3], "all rows are equal up to rounding");
}

/// A layer that one metric says nothing about, beside a regular one.
fn check_undefined(layer: Rows, spec: &MetricSpec, expected: &str) {
    let n = layer.1.len() / layer.0;
    let layers = [related(n, &[12]), vec![layer]].concat();
    let result = trial(&layers, std::slice::from_ref(spec), &[], 1).unwrap();
    let nan: Vec<bool> = result.matrices[0].1.iter().map(|cell| cell.is_nan()).collect();
    assert_eq!(nan, [false, true, true, true], "{spec}");
    assert!(result.undefined[&1].contains(expected), "{spec}: {:?}", result.undefined);
}

#[test]
fn layers_that_one_metric_says_nothing_about() {
    let mostly_equal: Vec<usize> = (0..120).map(|i| if i < 100 { 0 } else { i }).collect();
    let layer = picked(&regular()[..1], &mostly_equal).remove(0);
    check_undefined(layer, &MetricSpec::new(MetricName::RbfCka), "the median distance of two rows is 0");

    let wide = MetricSpec { sigma: Number::new(1e200), ..MetricSpec::new(MetricName::RbfCka) };
    let result = trial(&regular(), &[wide], &[], 1).unwrap();
    assert_eq!(result.undefined.len(), 3);
    assert!(result.undefined[&0].contains("take a smaller sigma"), "{:?}", result.undefined);

    let corners = |n: usize| (0..n * n).map(|place| f64::from(u8::from(place / n == place % n))).collect();
    check_undefined((16, corners(16)), &small_batches(8), "the same inner product about their mean");

    let half = noise(3, 60 * 4);
    let mirrored = half.iter().copied().chain(half.iter().map(|value| -value)).collect();
    check_undefined(
        (4, mirrored),
        &MetricSpec::new(MetricName::ConcentricityDifference),
        "the mean row is zero",
    );

    let huge = |name, beyond: f64| {
        let layer = (4, noise(4, 120 * 4).into_iter().map(|value| (value + 1.0) * beyond).collect());
        check_undefined(layer, &MetricSpec::new(name), "beyond the range of float64");
    };
    huge(MetricName::RsmNormDifference, f64::MAX / 2.0);
    huge(MetricName::MagnitudeDifference, f64::MAX / 2.0);
}

#[test]
fn parameters_that_say_nothing_are_refused() {
    let error = trial(&regular(), &[small_batches(3)], &[], 1).unwrap_err();
    assert!(error.to_string().contains("batch_size has to be at least 4"), "{error}");
    let spec = MetricSpec { sigma: Number::new(0.0), ..MetricSpec::new(MetricName::RbfCka) };
    let error = trial(&regular(), &[spec], &[], 1).unwrap_err();
    assert!(error.to_string().contains("sigma has to be above 0"), "{error}");
}

#[test]
fn the_bytes_do_not_depend_on_the_number_of_threads() {
    let layers = related(200, &[12, 20, 40, 250, 7]);
    let bits = |threads| -> Vec<u64> {
        let result = trial(&layers, &specs(), &[], threads).unwrap();
        result.matrices.iter().flat_map(|(_, matrix)| matrix).map(|cell| cell.to_bits()).collect()
    };
    assert!(bits(1) == bits(3));
}
