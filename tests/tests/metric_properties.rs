//! Every metric by its declared properties: what does not change it, what does, its range, its direction.

use lsa_common::metric::{Invariance, MetricName, MetricSpec, Number};
use lsa_tests::layers::{noise, transformed, trial};
use lsa_tests::reference::Rows;

/// Rotations and offsets change the last digits of rows; the distances of near rows lose some, and what is kept of a layer
/// may be rounded.
const TOLERANCE_INVARIANCE: f64 = 1e-9;
/// A layer and itself, and both orders of a pair: the same numbers in another order.
const TOLERANCE_DIAGONAL: f64 = 1e-12;
/// A distance of a layer and itself is the root of what rounding leaves of a difference.
const TOLERANCE_DISTANCE: f64 = 1e-7;

#[test]
fn declared_invariances_hold_and_no_others() {
    let n = 90;
    let d = 12;
    let x = noise(1, n * d);
    let y = x.iter().zip(noise(2, n * d)).map(|(x, e)| x + 0.5 * e + 0.1).collect();
    let (x, y): (Rows, Rows) = ((d, x), (d, y));
    let all = [
        Invariance::Rotation,
        Invariance::Scaling,
        Invariance::Translation,
        Invariance::RowOffset,
        Invariance::RowScaling,
        Invariance::LinearMap,
        Invariance::RowOrder,
        Invariance::ColumnOrder,
    ];
    for spec in telling_parameters() {
        let (name, properties) = (spec.name, spec.name.info());
        let values = |x: Rows, y: Rows| {
            let result = trial(&[x, y], std::slice::from_ref(&spec), &[], 2).unwrap();
            result.matrices[0].1[1..3].to_vec()
        };
        let before = values(x.clone(), y.clone());
        let size = before[0].abs();
        let far = (before[0] - properties.identical).abs();
        assert!(size > 1e-3 && far > 1e-3, "{name}: {before:?} is no good base for comparison");
        for invariance in all {
            // A common order of the rows is an invariance of the pair, the others of each layer alone.
            let both = invariance == Invariance::RowOrder;
            let (other_x, other_y) = (transformed(&x, invariance), transformed(&y, invariance));
            let cases = match both {
                true => vec![(other_x, other_y)],
                false => vec![(other_x, y.clone()), (x.clone(), other_y)],
            };
            let change = cases.into_iter().flat_map(|(x, y)| {
                let after = values(x, y);
                [(after[0] - before[0]).abs(), (after[1] - before[1]).abs()]
            });
            let change = change.fold(0.0, f64::max) / size;
            // An order of the columns is a rotation.
            let declared = properties.invariances.contains(&invariance)
                || invariance == Invariance::ColumnOrder
                    && properties.invariances.contains(&Invariance::Rotation);
            assert_eq!(
                change < TOLERANCE_INVARIANCE,
                declared,
                "{name}, {invariance:?}: changes by {change}"
            );
        }
        let turned = values(y.clone(), x.clone());
        assert_eq!(before[0].to_bits() == before[1].to_bits(), properties.symmetric, "{name}: {before:?}");
        let error = (turned[0] - before[1]).abs().max((turned[1] - before[0]).abs());
        assert!(error < TOLERANCE_DIAGONAL * size.max(1.0), "{name}: {before:?}, turned {turned:?}");
    }
}

/// Every metric, with batches of which there are several, and directions of which some are left out.
fn telling_parameters() -> Vec<MetricSpec> {
    let few_rows = |name: MetricName| {
        let default = MetricSpec::new(name);
        let variance = default.variance.and(Number::new(0.9));
        MetricSpec { batch_size: default.batch_size.map(|_| 30), variance, ..default }
    };
    MetricName::ALL.into_iter().map(few_rows).collect()
}

#[test]
fn values_stay_in_their_declared_range() {
    for seed in 0..10 {
        let n = 12 + 3 * seed as usize;
        let layers: Vec<Rows> = (0..4).map(|layer| (5, noise(100 * seed + layer, n * 5))).collect();
        let metrics: Vec<MetricSpec> = MetricName::ALL.into_iter().map(MetricSpec::new).collect();
        for (spec, matrix) in trial(&layers, &metrics, &[], 2).unwrap().matrices {
            let info = spec.name.info();
            let (low, high) = (info.range.0 - TOLERANCE_DIAGONAL, info.range.1 + TOLERANCE_DIAGONAL);
            assert!(matrix.iter().all(|cell| (low..=high).contains(cell)), "{}: {matrix:?}", spec.name);
            for own in matrix.iter().step_by(5) {
                // A distance is the root of what rounding leaves of a difference.
                let tolerance =
                    if info.larger_is_more_similar { TOLERANCE_DIAGONAL } else { TOLERANCE_DISTANCE };
                assert!(
                    (own - info.identical).abs() < tolerance,
                    "{}: {own} of a layer and itself",
                    spec.name
                );
            }
        }
    }
}
