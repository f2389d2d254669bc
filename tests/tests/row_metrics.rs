//! The metrics over the rows themselves: against the numpy reference, and at their edges.

use lsa_common::metric::{Invariance, MetricName, MetricSpec, Number};
use lsa_common::trial_matrices::TrialMatrices;
use lsa_tests::layers::{InMemory, noise, trial};
use lsa_tests::python::skipped;
use lsa_tests::reference::{Rows, reference};
use lsa_worker::resources::Resources;
use lsa_worker::trial::{LayerSource, PreparedLayers, Wanted};

const METRICS: [MetricName; 12] = [
    MetricName::EigenspaceOverlapScore,
    MetricName::Svcca,
    MetricName::Pwcca,
    MetricName::Gulp,
    MetricName::LinearRegression,
    MetricName::OrthogonalProcrustesCenteredAndNormalized,
    MetricName::ProcrustesSizeAndShapeDistance,
    MetricName::OrthogonalAngularShapeMetricCentered,
    MetricName::AlignedCosineSimilarity,
    MetricName::PermutationProcrustes,
    MetricName::HardCorrelationMatch,
    MetricName::SoftCorrelationMatch,
];

/// Float64 throughout, by other routines and in another order: sums of some thousand terms near 1.
const TOLERANCE: f64 = 1e-11;
/// Distances of nearly equal shapes come from a rotation that is exact to ε divided by its least singular value.
const TOLERANCE_DISTANCE: f64 = 1e-9;
/// A common mean 10⁴ times larger than all else: its square enters products of 10⁸ times the size of what is compared.
const TOLERANCE_OFFSET: f64 = 1e-7;

fn specs(names: &[MetricName]) -> Vec<MetricSpec> {
    names.iter().copied().map(MetricSpec::new).collect()
}

fn compare_by(layers: &[Rows], metrics: &[MetricSpec], threads: usize) -> TrialMatrices {
    trial(layers, metrics, &[], threads).unwrap()
}

fn compare(layers: &[Rows], names: &[MetricName]) -> TrialMatrices {
    compare_by(layers, &specs(names), 2)
}

/// A layer of `d` columns that is a linear map of `base` and noise.
fn related(base: &Rows, d: usize, seed: u64) -> Rows {
    let (width, values) = base;
    let map = noise(seed, width * d);
    let rows = values.chunks_exact(*width).enumerate();
    let rows = rows.flat_map(|(row, x)| {
        let own = noise(seed + 1000 * (1 + row as u64), d);
        let mapped = |column: usize| (0..*width).map(|i| x[i] * map[i * d + column]).sum::<f64>();
        (0..d).map(|column| mapped(column) + 0.7 * own[column] + 0.3).collect::<Vec<_>>()
    });
    (d, rows.collect())
}

fn map_cells(rows: &Rows, change: impl Fn(f64, usize, usize) -> f64) -> Rows {
    let (width, values) = rows;
    let cells = values.iter().enumerate();
    (*width, cells.map(|(place, x)| change(*x, place / width, place % width)).collect())
}

/// Layers with all that makes trouble, and the tolerance that each set allows.
fn cases() -> Vec<(&'static str, Vec<Rows>, f64)> {
    let n = 120;
    let x = (12, noise(1, n * 12));
    let (y, z) = (related(&x, 20, 2), related(&x, 12, 3));
    let wide = related(&x, 150, 4);
    let duplicated_columns = |rows: &Rows| -> Rows {
        let (width, values) = rows;
        let double = |row: &[f64]| row.iter().chain(&row[..3]).copied().collect::<Vec<_>>();
        (width + 3, values.chunks_exact(*width).flat_map(double).collect())
    };
    let duplicated_rows = |rows: &Rows| -> Rows {
        let (width, values) = rows;
        (*width, (0..n).flat_map(|row| &values[row * 7 % 40 * width..][..*width]).copied().collect())
    };
    let zero_row = |rows: &Rows| map_cells(rows, |value, row, _| if row == 5 { 0.0 } else { value });
    let constant_column =
        |rows: &Rows| map_cells(rows, |value, _, column| if column == 2 { 0.1 } else { value });
    let scaled = |rows: &Rows, factor: f64| map_cells(rows, |value, _, _| factor * value);
    let offset = |rows: &Rows| map_cells(rows, |value, _, column| value + 1e4 * (1.0 + column as f64 / 40.0));
    let first = |rows: &Rows, n: usize| (rows.0, rows.1[..n * rows.0].to_vec());
    vec![
        ("regular", vec![x.clone(), y.clone(), z.clone()], TOLERANCE),
        ("wide", vec![x.clone(), wide.clone(), related(&x, 150, 5)], TOLERANCE),
        ("duplicated columns", vec![duplicated_columns(&x), y.clone(), duplicated_columns(&z)], TOLERANCE),
        ("duplicated rows", vec![duplicated_rows(&x), duplicated_rows(&y), duplicated_rows(&z)], TOLERANCE),
        ("zero row", vec![zero_row(&x), y.clone(), z.clone()], TOLERANCE),
        ("constant column", vec![constant_column(&x), y.clone(), constant_column(&z)], TOLERANCE),
        ("tiny and huge", vec![scaled(&x, 1e-20), scaled(&y, 1e20), scaled(&z, 1e20)], TOLERANCE),
        ("tiny", vec![scaled(&x, 1e-20), scaled(&y, 1e-20)], TOLERANCE),
        ("offset", vec![offset(&x), offset(&y), z.clone()], TOLERANCE_OFFSET),
        ("constant layer", vec![x.clone(), map_cells(&y, |_, _, column| column as f64)], TOLERANCE),
        ("seven rows", vec![first(&x, 7), first(&y, 7), first(&related(&x, 3, 6), 7)], TOLERANCE),
        ("three rows", vec![first(&x, 3), first(&y, 3), first(&related(&x, 1, 7), 3)], TOLERANCE),
    ]
}

/// The size of what a metric measures: the largest entry where that is its unit, else 1.
fn unit(name: MetricName, layers: &[Rows]) -> f64 {
    let entries = layers.iter().flat_map(|(_, values)| values);
    match name.info().invariances.contains(&Invariance::Scaling) {
        true => 1.0,
        false => entries.fold(0.0, |top, value| top.max(value.abs())),
    }
}

#[test]
fn values_are_those_of_the_reference() {
    let mut metrics = specs(&METRICS);
    for (case, layers, tolerance) in cases() {
        for share in [0.5, 0.9, 0.99] {
            for metric in &mut metrics {
                metric.variance = metric.variance.and(Number::new(share));
            }
            let expected = match reference(&layers, &metrics, &[]) {
                Ok((expected, _)) => expected,
                Err(reason) => return skipped("the comparison with numpy", &reason),
            };
            let result = compare_by(&layers, &metrics, 2);
            for ((spec, matrix), expected) in result.matrices.iter().zip(&expected) {
                let of_distance = !spec.name.info().larger_is_more_similar;
                let tolerance = if of_distance { tolerance.max(TOLERANCE_DISTANCE) } else { tolerance };
                let tolerance = tolerance * unit(spec.name, &layers);
                for (cell, (got, expected)) in matrix.iter().zip(expected).enumerate() {
                    let what = format!("{case}, {}, cell {cell}: {got} instead of {expected}", spec.name);
                    assert_eq!(got.is_nan(), expected.is_nan(), "{what}");
                    assert!(got.is_nan() || (got - expected).abs() <= tolerance, "{what}");
                }
            }
        }
    }
}

#[test]
fn symmetric_matrices_are_exactly_symmetric_and_layers_equal_themselves() {
    for (case, layers, _) in cases() {
        for (spec, matrix) in compare(&layers, &METRICS).matrices {
            let n = layers.len();
            let info = spec.name.info();
            for (i, (width, _)) in layers.iter().enumerate() {
                let own = matrix[i * n + i];
                let correlation =
                    matches!(spec.name, MetricName::HardCorrelationMatch | MetricName::SoftCorrelationMatch);
                // Constant columns have no correlation with themselves.
                let expected = if correlation && case == "constant column" && i != 1 {
                    (*width as f64 - 1.0) / *width as f64
                } else {
                    info.identical
                };
                let tolerance = TOLERANCE * unit(spec.name, &layers);
                assert!(own.is_nan() || (own - expected).abs() <= tolerance, "{case}, {}: {own}", spec.name);
                for j in 0..n {
                    let (value, turned) = (matrix[i * n + j], matrix[j * n + i]);
                    assert!(!info.symmetric || value.to_bits() == turned.to_bits(), "{case}, {}", spec.name);
                    let (low, high) = info.range;
                    let in_range = (low - TOLERANCE..=high + TOLERANCE).contains(&value);
                    assert!(value.is_nan() || in_range, "{case}, {}: {value}", spec.name);
                }
            }
        }
    }
}

#[test]
fn layers_of_two_sources_compare_to_the_same_bytes_either_way() {
    let metrics = specs(&METRICS);
    let wanted = Wanted { metrics: &metrics, layer_metrics: &[] };
    for (case, layers, _) in cases() {
        let prepared = |layers: &[Rows]| {
            let source = InMemory(layers.to_vec());
            let rows: Vec<u32> = (0..source.n_rows()).collect();
            PreparedLayers::new(&source, &rows, wanted, &Resources::available(2), &|_| true).unwrap()
        };
        let (left, right) = (prepared(&layers[..1]), prepared(&layers[1..]));
        let (there, back) = (left.compare_with(&right).unwrap(), right.compare_with(&left).unwrap());
        let within = compare_by(&layers, &metrics, 2);
        for place in 0..metrics.len() {
            let (name, own) = (metrics[place].name, &within.matrices[place].1);
            for (j, (a, b)) in there[place].1.iter().zip(&back[place].1).enumerate() {
                assert!(!name.info().symmetric || a.to_bits() == b.to_bits(), "{case}, {name}: {a} and {b}");
                assert_eq!(a.to_bits(), own[1 + j].to_bits(), "{case}, {name}");
            }
        }
    }
}

#[test]
fn the_bytes_do_not_depend_on_the_number_of_threads() {
    let (n, d) = (400, 40);
    let layers: Vec<Rows> =
        (0..5).map(|seed| (d + seed as usize, noise(seed, n * (d + seed as usize)))).collect();
    let bits = |threads| -> Vec<u64> {
        let result = compare_by(&layers, &specs(&METRICS), threads);
        result.matrices.iter().flat_map(|(_, matrix)| matrix).map(|cell| cell.to_bits()).collect()
    };
    let one = bits(1);
    assert!(bits(3) == one);
}

#[test]
fn layers_that_say_nothing_are_nan_with_the_reason() {
    let (n, d) = (40, 6);
    let regular = (d, noise(1, n * d));
    let constant = (d, vec![0.3; n * d]);
    let half_as_many = (n / 2, noise(2, n * n / 2));
    let result = compare(&[regular, constant, half_as_many], &METRICS);
    assert_eq!(result.undefined[&1], "all rows are equal up to rounding");
    assert!(result.undefined[&2].contains("PWCCA is undefined"), "{:?}", result.undefined);
    assert_eq!(result.undefined.len(), 2);
    for (spec, matrix) in &result.matrices {
        for (cell, value) in matrix.iter().enumerate() {
            let of = |layer: usize| cell / 3 == layer || cell % 3 == layer;
            let undefined = of(1) || (of(2) && spec.name == MetricName::Pwcca);
            assert_eq!(value.is_nan(), undefined, "{}: {matrix:?}", spec.name);
        }
    }
}

#[test]
fn small_distances_keep_their_digits() {
    // Layers 1e-7 of their size apart: 1 - ‖Xᵀ X'‖_* is 1e-14 there, of which float64 has two digits.
    let (n, d) = (90, 12);
    let x = (d, noise(1, n * d));
    let error = noise(2, n * d);
    let y = map_cells(&x, |value, row, column| value + 1e-7 * error[row * d + column]);
    let result = compare(&[x.clone(), y.clone()], &METRICS);
    let of = |name: MetricName| result.matrices.iter().find(|(spec, _)| spec.name == name).unwrap().1[1];
    let apart = error.iter().map(|value| value * value).sum::<f64>().sqrt() * 1e-7;
    assert!((of(MetricName::PermutationProcrustes) / apart - 1.0).abs() < 1e-7);
    // A rotation and a common mean take away some of it.
    let rotated = of(MetricName::ProcrustesSizeAndShapeDistance) / apart;
    assert!((0.9..1.0).contains(&rotated), "{rotated}");
    let chord = of(MetricName::OrthogonalProcrustesCenteredAndNormalized);
    let angle = of(MetricName::OrthogonalAngularShapeMetricCentered);
    assert!((chord / angle - 1.0).abs() < 1e-12, "{chord} {angle}");
}
