//! The similarity metrics against stored matrices of an independent reference, and at their edges.

use std::path::{Path, PathBuf};

use lsa_common::cost::{trial_memory_min_bytes, trial_scratch_bytes};
use lsa_common::failure::FailureClass;
use lsa_common::metric::{MetricName, MetricSpec};
use lsa_common::trial_matrices::TrialMatrices;
use lsa_tests::layers::{InMemory, noise, reflected};
use lsa_worker::array_file::{ArrayFile, npy_bytes};
use lsa_worker::device::DeviceChoice;
use lsa_worker::resources::{MemoryArgs, Resources};
use lsa_worker::similarity::{SimilarityArgs, run};
use lsa_worker::trial::{LayerRows, LayerSource, SourceError, TrialError, Wanted};

/// Regular data of 60 rows and more: float64 throughout but for one rounding to float32 of what is kept of a layer.
const TOLERANCE: f64 = 1e-9;
/// Eleven rows have 55 pairs, too few for that rounding to average out.
const TOLERANCE_FEW_ROWS: f64 = 1e-7;
/// A diagonal cell is a number divided by the product of its own roots.
const TOLERANCE_DIAGONAL: f64 = 1e-12;

fn all_metrics() -> Vec<MetricSpec> {
    MetricName::DEFAULT.into_iter().map(MetricSpec::new).collect()
}

/// The given rows by the given metrics.
fn run_trial(
    source: &dyn LayerSource,
    rows: &[u32],
    metrics: &[MetricSpec],
    threads: usize,
    progress: &(dyn Fn(u64) -> bool + Sync),
) -> Result<TrialMatrices, TrialError> {
    let wanted = Wanted { metrics, layer_metrics: &[] };
    lsa_worker::trial::run_trial(source, rows, None, wanted, &Resources::available(threads), progress)
}

/// All rows, by the given metrics, on two threads.
fn compare(source: &dyn LayerSource, metrics: &[MetricSpec]) -> Result<TrialMatrices, TrialError> {
    let rows: Vec<u32> = (0..source.n_rows()).collect();
    run_trial(source, &rows, metrics, 2, &|_| true)
}

fn compare_layers(layers: Vec<(usize, Vec<f64>)>, names: &[MetricName]) -> Result<TrialMatrices, TrialError> {
    compare(&InMemory(layers), &names.iter().copied().map(MetricSpec::new).collect::<Vec<_>>())
}

/// The one matrix of a result.
fn only(result: &TrialMatrices) -> &[f64] {
    let [(_, matrix)] = &*result.matrices else { panic!("one metric was asked for") };
    matrix
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/metrics").join(name)
}

fn read_npy(path: &Path) -> (Vec<u64>, Vec<f64>) {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = npyz::NpyFile::new(&bytes[..]).unwrap();
    (file.shape().to_vec(), file.into_vec().unwrap())
}

/// A layer and one related to it, so that no metric is near 0 or 1.
fn related(n: usize, d: usize) -> (Vec<f64>, Vec<f64>) {
    let x = noise(1, n * d);
    let y = x.iter().zip(noise(2, n * d)).map(|(x, e)| x + 0.5 * e + 0.1).collect();
    (x, y)
}

#[test]
fn stored_matrices_are_reproduced() {
    let check = |input: &str, tolerance: f64| {
        let case = input.split('.').next().unwrap();
        let source = ArrayFile::open(&fixture(input), None).unwrap();
        let result = compare(&source, &all_metrics()).unwrap();
        let n = result.n_layers as usize;
        for (spec, matrix) in &result.matrices {
            let (shape, expected) = read_npy(&fixture(&format!("{case}.{}.npy", spec.name)));
            assert_eq!(shape, [n as u64, n as u64], "{case} {}", spec.name);
            for (cell, (got, expected)) in matrix.iter().zip(&expected).enumerate() {
                let (i, j) = (cell / n, cell % n);
                let what = format!("{case} {} ({i}, {j}): {got} instead of {expected}", spec.name);
                assert_eq!(got.is_nan(), expected.is_nan(), "{what}");
                assert!(got.is_nan() || (got - expected).abs() <= tolerance, "{what}");
                assert_eq!(got.to_bits(), matrix[j * n + i].to_bits(), "{what}: not symmetric");
                assert!(i != j || got.is_nan() || (got - 1.0).abs() <= TOLERANCE_DIAGONAL, "{what}");
            }
        }
        result
    };
    check("fewer_rows_than_columns.npy", TOLERANCE);
    check("more_rows_than_columns.npy", TOLERANCE);
    check("as_many_rows_as_columns.npy", TOLERANCE);
    check("large_common_mean.npy", TOLERANCE);
    check("widths_that_differ.npz", TOLERANCE);
    check("eleven_rows.npy", TOLERANCE_FEW_ROWS);
    check("one_layer_transformed.npy", TOLERANCE);
    check("tiny_and_huge.npy", TOLERANCE);
    check("large_offset.npy", TOLERANCE);
    let result = check("zero_and_constant_rows.npy", TOLERANCE);
    let reasons: Vec<_> = result.undefined.iter().map(|(layer, reason)| (*layer, reason.as_str())).collect();
    assert_eq!(reasons, [(3, "all rows are equal up to rounding")]);
}

#[test]
fn the_bytes_do_not_depend_on_the_number_of_threads() {
    let (n, d) = (400, 40);
    let layers: Vec<_> = (0..5).map(|seed| (d, noise(seed, n * d))).collect();
    let rows: Vec<u32> = (0..n as u32).collect();
    let metrics: Vec<MetricSpec> = MetricName::ALL.into_iter().map(MetricSpec::new).collect();
    let bits = |threads| -> Vec<u64> {
        let result = run_trial(&InMemory(layers.clone()), &rows, &metrics, threads, &|_| true).unwrap();
        result.matrices.iter().flat_map(|(_, matrix)| matrix).map(|cell| cell.to_bits()).collect()
    };
    let one = bits(1);
    for threads in [2, 3, 4] {
        assert!(bits(threads) == one, "{threads} threads");
    }
}

#[test]
fn the_bytes_do_not_depend_on_where_parts_of_layers_lie() {
    let names = [&MetricName::DEFAULT[..], &[MetricName::DebiasedCka]].concat();
    let metrics: Vec<MetricSpec> = names.into_iter().map(MetricSpec::new).collect();
    let wanted = Wanted { metrics: &metrics, layer_metrics: &[] };
    // What is kept of up to 1024 rows is float64, and float32 of more.
    for n in [400, 1100] {
        let d = 40;
        let source = InMemory((0..5).map(|seed| (d, noise(seed, n * d))).collect());
        let rows: Vec<u32> = (0..n as u32).collect();
        let shuffled: Vec<u32> = rows.iter().rev().copied().collect();
        let bits = |resources: &Resources| -> Vec<u64> {
            let go_on = |_| true;
            let result =
                lsa_worker::trial::run_trial(&source, &rows, Some(&shuffled), wanted, resources, &go_on);
            let result = result.unwrap();
            let matrices = result.matrices.iter().map(|(_, matrix)| matrix).chain(&result.nulls);
            matrices.flatten().map(|cell| cell.to_bits()).collect()
        };
        let in_memory = bits(&Resources::available(2));
        let folder = tempfile::tempdir().unwrap();
        // With one side's layers prepared, the other side has what is left of it.
        let memory_bytes = 2 * trial_memory_min_bytes(n as u32, &[d as u32; 5], &metrics, &[]);
        assert!(trial_scratch_bytes(n as u32, &[d as u32; 5], &metrics, &[], 2, memory_bytes / 2) > 0);
        for threads in [1, 2] {
            let scratch = folder.path().to_owned();
            assert!(
                bits(&Resources { threads, memory_bytes, scratch, tensors: None }) == in_memory,
                "{n} rows, {threads} threads"
            );
        }
    }
}

#[test]
fn a_trial_without_memory_or_disk_says_how_to_mend_it() {
    let (n, d) = (400, 40);
    let source = InMemory((0..3).map(|seed| (d, noise(seed, n * d))).collect());
    let rows: Vec<u32> = (0..n as u32).collect();
    let metrics = all_metrics();
    let wanted = Wanted { metrics: &metrics, layer_metrics: &[] };
    let memory_bytes = trial_memory_min_bytes(n as u32, &[d as u32; 3], &metrics, &[]);
    let check = |resources: Resources, expected: &str| {
        let result = lsa_worker::trial::run_trial(&source, &rows, None, wanted, &resources, &|_| true);
        let error = result.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.class(), FailureClass::Retry);
    };
    let usual = Resources { threads: 1, memory_bytes, scratch: std::env::temp_dir(), tensors: None };
    check(Resources { memory_bytes: memory_bytes - 1, ..usual.clone() }, "allow more with --memory-gib");
    check(Resources { scratch: "/nowhere".into(), ..usual }, "in /nowhere, which failed; free space there");
}

#[test]
fn cka_of_rows_agrees_with_cka_of_their_pairs() {
    // Sums of some hundred products in float64, in two orders.
    const TOLERANCE: f64 = 1e-12;
    let (n, d) = (640, 20);
    let mut related: Vec<(usize, Vec<f64>)> =
        [related(n, d).0, related(n, d).1, noise(9, n * 30)].map(|values| (values.len() / n, values)).into();
    // Equal rows count as often as they occur.
    related[0].1.copy_within(0..d, 5 * d);
    let cka = |layers: Vec<(usize, Vec<f64>)>, names: &[MetricName]| {
        let result = compare_layers(layers, names).unwrap();
        result.matrices.into_iter().find(|(spec, _)| spec.name == MetricName::Cka).unwrap().1
    };
    let of_pairs = cka(related.clone(), &[MetricName::Cka, MetricName::DebiasedCka]);
    let check = |layers: Vec<(usize, Vec<f64>)>, expected: &[f64]| {
        let own = cka(layers, &[MetricName::Cka]);
        for (own, expected) in own.iter().zip(expected) {
            assert!((own - expected).abs() < TOLERANCE, "{own} {expected}");
        }
        let side = own.len().isqrt();
        assert!(
            (0..side * side)
                .all(|cell| own[cell].to_bits() == own[cell % side * side + cell / side].to_bits())
        );
    };
    check(related.clone(), &of_pairs);
    // A layer that is too wide for it among others that are not.
    related.push((50, noise(10, n * 50)));
    let of_pairs = cka(related.clone(), &[MetricName::Cka, MetricName::DebiasedCka]);
    check(related, &of_pairs);
}

#[test]
fn too_few_rows_are_refused_before_any_layer_is_read() {
    /// Fails the test when it is read.
    struct Unread(u32);
    impl LayerSource for Unread {
        fn n_layers(&self) -> usize {
            2
        }
        fn n_rows(&self) -> u32 {
            self.0
        }
        fn width(&self, _: usize) -> usize {
            3
        }
        fn rows(&self, _: usize, _: &[u32]) -> Result<LayerRows, SourceError> {
            panic!("a layer was read");
        }
    }
    let check = |n, name, expected: &str| {
        let error = compare(&Unread(n), &[MetricSpec::new(name)]).unwrap_err();
        assert_eq!(error.class(), FailureClass::Reject);
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(1, MetricName::Cka, "CKA needs at least 2 rows, got 1");
    check(1, MetricName::DistanceCorrelation, "DistanceCorrelation needs at least 2 rows, got 1");
    check(2, MetricName::Rsa, "RSA needs at least 3 rows, got 2");
    check(10, MetricName::JaccardSimilarity, "k = 10 needs at least 11 rows (k + 1), got 10");
    check(1 << 17, MetricName::Cka, "take a sample of at most 65536 rows");
    for (k, expected) in
        [(0, "of 20 rows with k = 0: k has to be"), (u32::MAX, "needs at least 4294967295 rows")]
    {
        let metric = MetricSpec { k: Some(k), ..MetricSpec::new(MetricName::JaccardSimilarity) };
        let error = compare(&Unread(20), &[metric]).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let error = run_trial(&Unread(5), &[0, 1, 5], &[], 1, &|_| true).unwrap_err();
    assert!(error.to_string().contains("row 5 is asked for, but the layers have 5 rows"), "{error}");
}

#[test]
fn the_fewest_rows_that_each_metric_takes() {
    let (x, y) = related(11, 6);
    let first = |n: usize| vec![(6, x[..n * 6].to_vec()), (6, y[..n * 6].to_vec())];
    let check = |n, name, expected: Option<f64>| {
        let result = compare_layers(first(n), &[name]).unwrap();
        for cell in only(&result) {
            assert!(cell.is_finite(), "{name} of {n} rows");
            // Two rows have one distance, and eleven rows ten neighbours, whatever the layer.
            assert!(
                expected.is_none_or(|expected| (cell - expected).abs() < TOLERANCE_FEW_ROWS),
                "{name}: {cell}"
            );
        }
    };
    check(2, MetricName::Cka, Some(1.0));
    check(2, MetricName::DistanceCorrelation, Some(1.0));
    check(3, MetricName::Cka, None);
    check(3, MetricName::Rsa, None);
    check(11, MetricName::JaccardSimilarity, Some(1.0));
}

#[test]
fn layers_that_say_nothing_are_nan_with_the_reason() {
    let (n, d) = (70, 8);
    let regular = noise(3, n * d);
    let all = MetricName::DEFAULT;
    let rows_of =
        |value: &dyn Fn(usize) -> f64| (0..n * d).map(|place| value(place / d)).collect::<Vec<f64>>();
    for constant in [rows_of(&|_| 0.1), rows_of(&|_| 0.0), rows_of(&|row| 1.0 + 1e-9 * row as f64)] {
        let result = compare_layers(vec![(d, regular.clone()), (d, constant)], &all).unwrap();
        assert_eq!(result.undefined[&1], "all rows are equal up to rounding");
        for (spec, matrix) in &result.matrices {
            let nan: Vec<bool> = matrix.iter().map(|cell| cell.is_nan()).collect();
            assert_eq!(nan, [false, true, true, true], "{}", spec.name);
        }
    }
    // Rows that are constant, each at a value of its own, have distances but no correlations.
    let steps = rows_of(&|row| 1.0 + (row * row) as f64);
    for constant_rows in [(d, steps.clone()), (1, steps.iter().step_by(d).copied().collect())] {
        let result = compare_layers(vec![(d, regular.clone()), constant_rows], &all).unwrap();
        assert!(result.undefined[&1].contains("equally similar"), "{:?}", result.undefined);
        for (spec, matrix) in &result.matrices {
            let undefined = spec.name == MetricName::Rsa;
            assert_eq!(matrix[1].is_nan(), undefined, "{}", spec.name);
            assert_eq!(matrix[3].is_nan(), undefined, "{}", spec.name);
        }
    }
}

#[test]
fn two_columns_give_numbers_in_range() {
    let (x, y) = related(100, 2);
    let result = compare_layers(vec![(2, x), (2, y)], &MetricName::DEFAULT).unwrap();
    for (spec, matrix) in &result.matrices {
        let (low, high) = spec.name.info().range;
        assert!(matrix.iter().all(|cell| (low..=high + TOLERANCE_DIAGONAL).contains(cell)), "{matrix:?}");
    }
    assert!(result.undefined.is_empty());
}

#[test]
fn a_number_that_is_none_is_an_error_naming_layer_and_row() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut spoiled = noise(4, 20 * 3);
        spoiled[3 * 7 + 1] = bad;
        let source = InMemory(vec![(3, noise(5, 20 * 3)), (3, spoiled)]);
        // Row 7 of the source is the third of those asked for.
        let error = run_trial(&source, &[1, 4, 7, 9], &all_metrics()[..1], 1, &|_| true).unwrap_err();
        assert!(error.to_string().contains("layer 1, row 7 holds a NaN or an infinity"), "{error}");
        assert_eq!(error.class(), FailureClass::Reject);
    }
}

#[test]
fn equal_rows_tie_exactly_and_ties_go_to_the_lower_index() {
    // Every row three times, in two layers with the same geometry computed from different numbers.
    let (n, d) = (40, 12);
    let distinct = noise(6, n * d);
    let place = |copy: usize| (0..3 * n).map(move |i| (i * 7 + copy) % n);
    let x: Vec<f64> = place(0).flat_map(|row| &distinct[row * d..][..d]).copied().collect();
    let turned = reflected(&x, d, 9);
    let result = compare_layers(vec![(d, x), (d, turned)], &MetricName::DEFAULT).unwrap();
    for (spec, matrix) in &result.matrices {
        assert!(
            (matrix[1] - 1.0).abs() < TOLERANCE || spec.name == MetricName::Rsa,
            "{}: {matrix:?}",
            spec.name
        );
    }
    let overlap =
        &result.matrices.iter().find(|(spec, _)| spec.name == MetricName::JaccardSimilarity).unwrap().1;
    assert_eq!(overlap[1], 1.0);
}

/// The further metrics against their definitions, from full matrices in float64.
#[test]
fn further_metrics_agree_with_their_definitions() {
    // Sums of some thousand terms near 1 in another order.
    const BY_DEFINITION: f64 = 1e-12;
    let (n, d, k) = (70, 9, 10);
    let (x, y) = related(n, d);
    let names = [MetricName::DebiasedCka, MetricName::MutualKnn, MetricName::RankSimilarity];
    let result = compare_layers(vec![(d, x.clone()), (d, y.clone())], &names).unwrap();
    let inner = |values: &[f64]| -> Vec<Vec<f64>> {
        let row = |i: usize| &values[i * d..][..d];
        let product = |i, j| row(i).iter().zip(row(j)).map(|(a, b)| a * b).sum();
        (0..n).map(|i| (0..n).map(|j| product(i, j)).collect()).collect()
    };
    let (gram_x, gram_y) = (inner(&x), inner(&y));

    // The estimator as its paper has it; it does not ask for centred rows.
    let hsic = |k: &[Vec<f64>], l: &[Vec<f64>]| {
        let off = |m: &[Vec<f64>], i: usize, j: usize| if i == j { 0.0 } else { m[i][j] };
        let sums =
            |m: &[Vec<f64>]| -> Vec<f64> { (0..n).map(|i| (0..n).map(|j| off(m, i, j)).sum()).collect() };
        let cells = (0..n).flat_map(|i| (0..n).map(move |j| (i, j)));
        let trace: f64 = cells.map(|(i, j)| off(k, i, j) * off(l, j, i)).sum();
        let (rows_k, rows_l) = (sums(k), sums(l));
        let (all_k, all_l) = (rows_k.iter().sum::<f64>(), rows_l.iter().sum::<f64>());
        let mixed: f64 = rows_k.iter().zip(&rows_l).map(|(a, b)| a * b).sum();
        let m = n as f64;
        trace + all_k * all_l / ((m - 1.0) * (m - 2.0)) - 2.0 * mixed / (m - 2.0)
    };
    let debiased = hsic(&gram_x, &gram_y) / (hsic(&gram_x, &gram_x) * hsic(&gram_y, &gram_y)).sqrt();

    let nearest = |gram: &[Vec<f64>]| -> Vec<Vec<usize>> {
        let cosine = |i: usize, j: usize| gram[i][j] / (gram[i][i] * gram[j][j]).sqrt();
        let of_row = |i: usize| {
            let mut others: Vec<usize> = (0..n).filter(|j| *j != i).collect();
            others.sort_by(|a, b| cosine(i, *b).total_cmp(&cosine(i, *a)));
            others.truncate(k);
            others
        };
        (0..n).map(of_row).collect()
    };
    let (near_x, near_y) = (nearest(&gram_x), nearest(&gram_y));
    let (mut mutual, mut ranked) = (0.0, 0.0);
    for (a, b) in near_x.iter().zip(&near_y) {
        let rank = |list: &[usize], j: usize| 1.0 + list.iter().position(|other| *other == j).unwrap() as f64;
        let common: Vec<usize> = a.iter().copied().filter(|j| b.contains(j)).collect();
        mutual += common.len() as f64 / k as f64 / n as f64;
        let harmonic: f64 = (1..=common.len()).map(|i| 1.0 / i as f64).sum();
        let score = |j: &usize| {
            let (r, s) = (rank(a, *j), rank(b, *j));
            2.0 / ((1.0 + (r - s).abs()) * (r + s))
        };
        if !common.is_empty() {
            ranked += common.iter().map(score).sum::<f64>() / harmonic / n as f64;
        }
    }
    for ((spec, matrix), expected) in result.matrices.iter().zip([debiased, mutual, ranked]) {
        assert!((matrix[1] - expected).abs() < BY_DEFINITION, "{}: {} {expected}", spec.name, matrix[1]);
        assert!(
            (matrix[0] - spec.name.info().identical).abs() < BY_DEFINITION,
            "{}: {} of a layer and itself",
            spec.name,
            matrix[0]
        );
    }
}

#[test]
fn rows_that_are_all_as_far_apart_have_no_debiased_cka() {
    let n = 12;
    let corners = (0..n * n).map(|place| f64::from(u8::from(place / n == place % n)) + 0.3).collect();
    let layers = vec![(n, corners), (5, noise(3, n * 5))];
    let result = compare_layers(layers, &[MetricName::DebiasedCka, MetricName::Cka]).unwrap();
    let [debiased, cka] = [0, 1].map(|place| &result.matrices[place].1);
    assert!(debiased[..3].iter().all(|cell| cell.is_nan()) && !debiased[3].is_nan(), "{debiased:?}");
    assert!(cka.iter().all(|cell| !cell.is_nan()), "{cka:?}");
    assert!(result.undefined[&0].contains("same inner product"), "{:?}", result.undefined);
}

#[test]
fn debiased_cka_of_unrelated_layers_is_near_zero_where_cka_is_not() {
    let (n, d) = (60, 50);
    let layers = vec![(d, noise(1, n * d)), (d, noise(2, n * d))];
    let result = compare_layers(layers, &[MetricName::Cka, MetricName::DebiasedCka]).unwrap();
    let [cka, debiased] = [0, 1].map(|place| result.matrices[place].1[1]);
    assert!(cka > 0.4 && debiased.abs() < 0.1, "CKA {cka}, debiased {debiased}");
}

#[test]
fn a_trial_can_be_stopped() {
    let source = InMemory((0..4).map(|seed| (3, noise(seed, 30))).collect());
    let rows: Vec<u32> = (0..10).collect();
    let error = run_trial(&source, &rows, &all_metrics()[..1], 2, &|done| done < 2).unwrap_err();
    assert!(matches!(error, TrialError::Stopped), "{error}");
}

fn arguments(input: PathBuf, output: &Path) -> SimilarityArgs {
    SimilarityArgs {
        input,
        pooling: None,
        metrics: Vec::new(),
        output: output.to_owned(),
        rows: None,
        against: None,
        layer_metrics: Vec::new(),
        k: None,
        inner: None,
        sigma: None,
        batch_size: None,
        variance: None,
        threads: Some(2),
        memory: MemoryArgs::default(),
        device: DeviceChoice::Cpu,
    }
}

/// A safetensors file of float32 tensors.
fn write_safetensors(path: &Path, tensors: &[(&str, &[usize], &[f64])]) {
    let stored: Vec<(&str, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, shape, values)| {
            (*name, shape.to_vec(), values.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect())
        })
        .collect();
    let views = stored.iter().map(|(name, shape, bytes)| {
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
        (*name, view.unwrap())
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn the_command_writes_matrices_that_numpy_reads() {
    let folder = tempfile::tempdir().unwrap();
    run(arguments(fixture("more_rows_than_columns.npy"), folder.path())).unwrap();
    let mut names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["CKA.npy", "DistanceCorrelation.npy", "JaccardSimilarity.npy", "RSA.npy"]);
    let (shape, cells) = read_npy(&folder.path().join("RSA.npy"));
    let (_, expected) = read_npy(&fixture("more_rows_than_columns.RSA.npy"));
    assert_eq!(shape, [4, 4]);
    assert!(cells.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < TOLERANCE));
}

#[test]
fn the_command_over_the_rows_of_trials() {
    let folder = tempfile::tempdir().unwrap();
    let rows_path = folder.path().join("rows.npy");
    let trials = [(0..200).collect::<Vec<u32>>(), (50..250).rev().collect()];
    let mut rows = npy_bytes(&[2, 200], &trials.concat().into_iter().map(f64::from).collect::<Vec<_>>());
    // The same numbers as integers: the header differs in the type alone, and both take eight bytes.
    let data = rows.len() - 400 * 8;
    let place = rows.windows(3).position(|bytes| bytes == b"<f8").unwrap();
    rows[place..place + 3].copy_from_slice(b"<i8");
    for (slot, row) in rows[data..].chunks_exact_mut(8).zip(trials.concat()) {
        slot.copy_from_slice(&u64::from(row).to_le_bytes());
    }
    std::fs::write(&rows_path, rows).unwrap();

    let output = folder.path().join("out");
    let input = fixture("more_rows_than_columns.npy");
    let metrics = vec![MetricName::Cka];
    run(SimilarityArgs { rows: Some(rows_path), metrics, ..arguments(input.clone(), &output) }).unwrap();
    let (shape, all) = read_npy(&output.join("CKA.trials.npy"));
    assert_eq!(shape, [2, 4, 4]);
    let source = ArrayFile::open(&input, None).unwrap();
    for (trial, rows) in trials.iter().enumerate() {
        let result = run_trial(&source, rows, &all_metrics()[..1], 1, &|_| true).unwrap();
        assert_eq!(all[trial * 16..][..16], *only(&result));
    }
    let (_, mean) = read_npy(&output.join("CKA.mean.npy"));
    let (_, std) = read_npy(&output.join("CKA.std.npy"));
    for cell in 0..16 {
        let (a, b) = (all[cell], all[16 + cell]);
        assert!((mean[cell] - (a + b) / 2.0).abs() < 1e-15);
        assert!((std[cell] - (a - b).abs() / 2.0).abs() < 1e-15, "std has no degrees of freedom taken off");
    }
}

#[test]
fn the_command_picks_a_pooling_and_compares_two_files() {
    let folder = tempfile::tempdir().unwrap();
    let (x, y) = related(40, 6);
    let both: Vec<f64> = x.iter().chain(&y).copied().collect();
    let [several, by_layer] =
        ["several.safetensors", "by_layer.safetensors"].map(|name| folder.path().join(name));
    write_safetensors(&several, &[("mean", &[2, 40, 6], &both), ("cls", &[1, 40, 6], &y)]);
    write_safetensors(
        &by_layer,
        &[("mean.layer10", &[40, 6], &x), ("mean.layer2", &[40, 6], &y), ("mean.layer1", &[40, 6], &x)],
    );
    let output = folder.path().join("out");
    let error = run(arguments(several.clone(), &output)).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("it holds cls, mean"), "{error}");

    let pooling = Some("mean".to_owned());
    run(SimilarityArgs { pooling: pooling.clone(), ..arguments(several.clone(), &output) }).unwrap();
    let (_, within) = read_npy(&output.join("CKA.npy"));
    run(SimilarityArgs { pooling, against: Some(by_layer), ..arguments(several, &output) }).unwrap();
    for name in MetricName::DEFAULT {
        let (shape, cells) = read_npy(&output.join(format!("{name}.npy")));
        // Layers of the other file in the order of their numbers: x, y, x.
        assert_eq!(shape, [2, 3]);
        assert_eq!((cells[0].to_bits(), cells[3].to_bits()), (cells[2].to_bits(), cells[5].to_bits()));
        assert!((cells[0] - 1.0).abs() < TOLERANCE && (cells[4] - 1.0).abs() < TOLERANCE);
        if name == MetricName::Cka {
            assert_eq!(cells[1].to_bits(), within[1].to_bits());
        }
    }
}

#[test]
fn bad_input_of_the_command_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let file = |name: &str, shape: &[usize], values: &[f64]| {
        let path = folder.path().join(name);
        std::fs::write(&path, npy_bytes(shape, values)).unwrap();
        path
    };
    let chain = |error: &dyn std::error::Error| {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    };
    let check = |args: SimilarityArgs, expected: &str| {
        let error = run(args).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        let text = chain(&error);
        assert!(text.contains(expected), "{text}");
        assert!(!output.exists(), "nothing is written before the input is known to be sound");
    };
    let regular = file("regular.npy", &[1, 12, 2], &noise(1, 24));
    check(arguments(folder.path().join("missing.npy"), &output), "cannot read");
    check(arguments(folder.path().join("x.txt"), &output), "unknown kind of file");
    check(arguments(file("flat.npy", &[12, 2], &noise(1, 24)), &output), "expected one array [layers, n, d]");
    check(arguments(file("few.npy", &[1, 5, 2], &noise(1, 10)), &output), "k = 10 needs at least 11 rows");
    let rows = Some(file("rows.npy", &[1, 2], &[0.0, 1.0]));
    check(SimilarityArgs { rows, ..arguments(regular.clone(), &output) }, "expected integers");
    let against = Some(file("other.npy", &[1, 13, 2], &noise(1, 26)));
    check(SimilarityArgs { against, ..arguments(regular.clone(), &output) }, "has 12 rows and");
    let pooling = Some("mean".to_owned());
    check(SimilarityArgs { pooling, ..arguments(regular, &output) }, "there is no pooling \"mean\"");
}
