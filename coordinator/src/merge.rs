//! From the matrices of single trials to what all of them say. Pure: matrices in, matrices out.
//!
//! Sums run over the trials in their given order, so that the same trials always give the same bytes.

mod interval;
mod look;

use std::collections::BTreeMap;
use std::ops::Range;

use lsa_common::metric::{LayerMetricName, MetricSpec};
use lsa_common::trial_matrices::TrialMatrices;

use crate::metadata::Metadata;

pub use interval::{Draws, Estimates};
pub use look::{Look, look};

/// One metric of one experiment: every trial's matrix, and what they say together.
///
/// All matrices are [n_layers, n_layers], row-major, float64.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricResult {
    /// Which metric, with its parameters.
    pub metric: MetricSpec,
    /// The side of every matrix.
    pub n_layers: u32,
    /// The matrix of each trial, in trial order.
    pub trials: Vec<Vec<f64>>,
    /// Mean, spread and confidence interval of each cell.
    pub estimates: Estimates,
    /// What the metric gives for unrelated rows, where that was asked for.
    pub calibration: Option<Calibration>,
}

/// A metric beside what it gives for unrelated rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// The mean over trials of the matrix of unrelated rows: those of one side in another order.
    pub null: Vec<f64>,
    /// (mean - null) / (identical - null), from the means: 0 for unrelated rows, 1 for a layer and itself. NaN where
    /// the metric cannot tell the two apart, and where either mean is NaN.
    pub calibrated: Vec<f64>,
}

/// One quantity of the layers of one experiment: every trial's values, and what they say together.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerMetricResult {
    /// Which quantity.
    pub name: LayerMetricName,
    /// The value for each layer, in each trial.
    pub trials: Vec<Vec<f64>>,
    /// Mean, spread and confidence interval of each layer's value.
    pub estimates: Estimates,
}

/// What the trials of one experiment say together.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// The metrics, in the order in which they were asked for.
    pub metrics: Vec<MetricResult>,
    /// Quantities of single layers, in the order in which they were asked for.
    pub layer_metrics: Vec<LayerMetricResult>,
}

impl MetricResult {
    /// The same of some of the layers only, which follow one another: `columns` of `rows`.
    pub fn block(&self, rows: Range<usize>, columns: Range<usize>) -> Self {
        let side = self.n_layers as usize;
        let of = |matrix: &Vec<f64>| -> Vec<f64> {
            let row = |row: usize| &matrix[row * side..(row + 1) * side][columns.clone()];
            rows.clone().flat_map(row).copied().collect()
        };
        Self {
            metric: self.metric.clone(),
            n_layers: u32::try_from(rows.len()).expect("no more than there are"),
            trials: self.trials.iter().map(of).collect(),
            estimates: self.estimates.map(of),
            calibration: self.calibration.as_ref().map(|calibration| Calibration {
                null: of(&calibration.null),
                calibrated: of(&calibration.calibrated),
            }),
        }
    }
}

impl LayerMetricResult {
    /// The same of some of the layers only.
    pub fn part(&self, layers: Range<usize>) -> Self {
        let of = |values: &Vec<f64>| values[layers.clone()].to_vec();
        Self {
            name: self.name,
            trials: self.trials.iter().map(of).collect(),
            estimates: self.estimates.map(of),
        }
    }
}

/// What one experiment found, ready to be written into files.
#[derive(Clone, Debug, PartialEq)]
pub struct ExperimentResult {
    /// The experiment's name, which is also the name of its directory.
    pub name: String,
    /// The hidden-state index of each row and column of the matrices.
    pub layers: Vec<u32>,
    /// The metrics, in the order in which they were asked for.
    pub metrics: Vec<MetricResult>,
    /// Quantities of single layers, in the order in which they were asked for.
    pub layer_metrics: Vec<LayerMetricResult>,
    /// Why values of a layer are undefined, by hidden-state index; from all trials together.
    pub undefined: BTreeMap<u32, String>,
    /// Where the numbers come from.
    pub metadata: Metadata,
}

impl ExperimentResult {
    /// Why the cell of these two layers (hidden-state indices) is undefined, where a layer of it is.
    pub fn reason(&self, layer_a: u32, layer_b: u32) -> Option<String> {
        [layer_a, layer_b]
            .into_iter()
            .find_map(|layer| self.undefined.get(&layer).map(|reason| format!("layer {layer}: {reason}")))
    }
}

/// Why trials do not add up to one result.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MergeError {
    /// There is nothing to average.
    #[error("no trial to merge")]
    NoTrials,
    /// Trials of one comparison have the same layers; these do not.
    #[error("trial {trial} compares {found} layers, trial 0 compares {expected}")]
    Layers {
        /// The trial that differs.
        trial: usize,
        /// Its number of layers.
        found: u32,
        /// The number of layers of the first trial.
        expected: u32,
    },
    /// Trials of one comparison have the same metrics in the same order; these do not.
    #[error("trial {trial} has the metrics [{found}], trial 0 has [{expected}]")]
    Metrics {
        /// The trial that differs.
        trial: usize,
        /// Its metrics.
        found: String,
        /// The metrics of the first trial.
        expected: String,
    },
    /// A metric may appear once.
    #[error("the metric {metric} appears twice in a trial")]
    Duplicate {
        /// The metric's name.
        metric: String,
    },
    /// A matrix must have one number per pair of layers, a quantity of layers one per layer.
    #[error("{what} of trial {trial} has {found} numbers, expected {expected}")]
    Shape {
        /// The trial.
        trial: usize,
        /// The metric's name, and which of its matrices.
        what: String,
        /// The numbers it has.
        found: usize,
        /// Layers squared, or layers.
        expected: usize,
    },
    /// Trials of one comparison are all calibrated, or none is.
    #[error("trial {trial} has {found} matrices of unrelated rows, expected {expected}")]
    Nulls {
        /// The trial.
        trial: usize,
        /// The matrices it has.
        found: usize,
        /// One for each metric, or none.
        expected: usize,
    },
}

/// What `trials` say together, metric by metric.
///
/// Fails where the trials differ in layers or metrics, or where a matrix is not square.
pub fn merge(trials: &[TrialMatrices], draws: Draws) -> Result<Merged, MergeError> {
    let first = trials.first().ok_or(MergeError::NoTrials)?;
    for (trial, matrices) in trials.iter().enumerate() {
        check(trial, matrices, first)?;
    }
    let metric = |(place, (metric, _)): (usize, &(MetricSpec, Vec<f64>))| {
        let own: Vec<Vec<f64>> = trials.iter().map(|trial| trial.matrices[place].1.clone()).collect();
        let estimates = Estimates::of(&own, draws);
        let nulls: Vec<Vec<f64>> =
            trials.iter().filter_map(|trial| trial.nulls.get(place).cloned()).collect();
        let calibration =
            (!nulls.is_empty()).then(|| calibrate(&estimates.mean, &nulls, metric.name.info().identical));
        MetricResult { metric: metric.clone(), n_layers: first.n_layers, trials: own, estimates, calibration }
    };
    let layer_metric = |(place, (name, _)): (usize, &(LayerMetricName, Vec<f64>))| {
        let own: Vec<Vec<f64>> = trials.iter().map(|trial| trial.layer_metrics[place].1.clone()).collect();
        LayerMetricResult { name: *name, estimates: Estimates::of(&own, draws), trials: own }
    };
    Ok(Merged {
        metrics: first.matrices.iter().enumerate().map(metric).collect(),
        layer_metrics: first.layer_metrics.iter().enumerate().map(layer_metric).collect(),
    })
}

/// Puts a metric on the scale from unrelated rows to identical layers.
fn calibrate(mean: &[f64], nulls: &[Vec<f64>], identical: f64) -> Calibration {
    let null = Estimates::of(nulls, Draws::Same).mean;
    let cell = |(mean, null): (&f64, &f64)| {
        let room = identical - null;
        if room == 0.0 { f64::NAN } else { (mean - null) / room }
    };
    Calibration { calibrated: mean.iter().zip(&null).map(cell).collect(), null }
}

/// Why layers are undefined, over all trials; the first trial that gives a reason is believed.
pub fn undefined(trials: &[TrialMatrices]) -> BTreeMap<u32, String> {
    let mut union = BTreeMap::new();
    for (layer, reason) in trials.iter().flat_map(|trial| &trial.undefined) {
        union.entry(*layer).or_insert_with(|| reason.clone());
    }
    union
}

fn check(trial: usize, matrices: &TrialMatrices, first: &TrialMatrices) -> Result<(), MergeError> {
    if matrices.n_layers != first.n_layers {
        return Err(MergeError::Layers { trial, found: matrices.n_layers, expected: first.n_layers });
    }
    let metrics =
        |of: &TrialMatrices| of.matrices.iter().map(|(metric, _)| metric.clone()).collect::<Vec<_>>();
    let quantities = |of: &TrialMatrices| of.layer_metrics.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    if metrics(matrices) != metrics(first) || quantities(matrices) != quantities(first) {
        return Err(MergeError::Metrics {
            trial,
            found: metric_list(matrices),
            expected: metric_list(first),
        });
    }
    let side = matrices.n_layers as usize;
    for (place, (metric, values)) in matrices.matrices.iter().enumerate() {
        // Files are named after the metric, so two of one name could not both be written.
        if matrices.matrices[..place].iter().any(|(earlier, _)| earlier.name == metric.name) {
            return Err(MergeError::Duplicate { metric: metric.name.to_string() });
        }
        check_shape(trial, metric.name.to_string(), values, side.saturating_mul(side))?;
    }
    let n_nulls = first.nulls.len();
    if matrices.nulls.len() != n_nulls || !(n_nulls == 0 || n_nulls == first.matrices.len()) {
        let expected = if n_nulls == 0 { 0 } else { first.matrices.len() };
        return Err(MergeError::Nulls { trial, found: matrices.nulls.len(), expected });
    }
    for ((metric, _), null) in matrices.matrices.iter().zip(&matrices.nulls) {
        check_shape(trial, format!("{} of unrelated rows", metric.name), null, side.saturating_mul(side))?;
    }
    for (name, values) in &matrices.layer_metrics {
        check_shape(trial, name.to_string(), values, side)?;
    }
    Ok(())
}

fn check_shape(trial: usize, what: String, values: &[f64], expected: usize) -> Result<(), MergeError> {
    match values.len() {
        found if found == expected => Ok(()),
        found => Err(MergeError::Shape { trial, what, found, expected }),
    }
}

fn metric_list(trial: &TrialMatrices) -> String {
    let metrics = trial.matrices.iter().map(|(metric, _)| metric.to_string());
    let quantities = trial.layer_metrics.iter().map(|(name, _)| name.to_string());
    metrics.chain(quantities).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use lsa_common::metric::MetricName;

    use super::*;

    fn trial(cka: [f64; 4]) -> TrialMatrices {
        TrialMatrices {
            n_layers: 2,
            matrices: vec![
                (MetricSpec::new(MetricName::Cka), cka.to_vec()),
                (MetricSpec::new(MetricName::JaccardSimilarity), vec![0.5; 4]),
            ],
            nulls: Vec::new(),
            layer_metrics: Vec::new(),
            undefined: BTreeMap::new(),
        }
    }

    #[test]
    fn mean_and_population_deviation() {
        let trials = [trial([1.0, 0.5, 0.5, 1.0]), trial([1.0, 0.7, 0.7, 1.0]), trial([1.0, 0.9, 0.9, 1.0])];
        let merged = merge(&trials, Draws::Differ).unwrap().metrics;
        assert_eq!(merged[0].metric.name, MetricName::Cka);
        assert_eq!(merged[0].trials.len(), 3);
        assert_eq!(merged[0].estimates.mean[0], 1.0);
        assert_eq!(merged[0].estimates.std[0], 0.0);
        assert!((merged[0].estimates.mean[1] - 0.7).abs() < 1e-15);
        // sqrt(((0.2)² + 0 + (0.2)²) / 3): divided by the number of trials, not by one less.
        assert!((merged[0].estimates.std[1] - (0.08f64 / 3.0).sqrt()).abs() < 1e-15);
        assert_eq!(merged[1].estimates.std, [0.0; 4]);
    }

    #[test]
    fn nan_in_one_trial_is_nan_in_the_result() {
        let trials = [trial([1.0, f64::NAN, 0.5, 1.0]), trial([1.0, 0.7, 0.5, 1.0])];
        let merged = merge(&trials, Draws::Differ).unwrap().metrics;
        assert!(merged[0].estimates.mean[1].is_nan() && merged[0].estimates.std[1].is_nan());
        assert_eq!(merged[0].estimates.mean[2], 0.5);
    }

    #[test]
    fn a_single_trial_is_its_own_mean() {
        let merged = merge(&[trial([0.1, 0.2, 0.3, 0.4])], Draws::Differ).unwrap().metrics;
        assert_eq!(merged[0].estimates.mean, [0.1, 0.2, 0.3, 0.4]);
        assert_eq!(merged[0].estimates.std, [0.0; 4]);
    }

    #[test]
    fn trials_that_do_not_match_are_refused() {
        assert_eq!(merge(&[], Draws::Differ), Err(MergeError::NoTrials));
        let good = trial([1.0; 4]);

        let mut other = good.clone();
        other.n_layers = 3;
        assert!(matches!(
            merge(&[good.clone(), other], Draws::Differ),
            Err(MergeError::Layers { trial: 1, .. })
        ));

        let mut other = good.clone();
        other.matrices[1].0.k = Some(5);
        let error = merge(&[good.clone(), other], Draws::Differ).unwrap_err();
        assert!(error.to_string().contains("k = 5"), "{error}");

        let mut other = good.clone();
        other.matrices[0].1.pop();
        assert!(matches!(
            merge(&[good.clone(), other], Draws::Differ),
            Err(MergeError::Shape { found: 3, .. })
        ));

        let mut twice = good.clone();
        twice.matrices[1].0 = MetricSpec::new(MetricName::Cka);
        assert!(matches!(merge(&[twice], Draws::Differ), Err(MergeError::Duplicate { .. })));

        let mut other = good.clone();
        other.nulls = vec![vec![0.0; 4]; 2];
        let error = merge(&[good.clone(), other.clone()], Draws::Differ).unwrap_err();
        assert_eq!(error, MergeError::Nulls { trial: 1, found: 2, expected: 0 });
        other.nulls[1].pop();
        assert!(matches!(merge(&[other], Draws::Differ), Err(MergeError::Shape { found: 3, .. })));

        let mut other = good.clone();
        other.layer_metrics = vec![(LayerMetricName::NormMean, vec![1.0; 2])];
        assert!(matches!(
            merge(&[good, other.clone()], Draws::Differ),
            Err(MergeError::Metrics { trial: 1, .. })
        ));
        other.layer_metrics[0].1.pop();
        assert!(matches!(merge(&[other], Draws::Differ), Err(MergeError::Shape { expected: 2, .. })));
    }

    #[test]
    fn a_metric_is_put_between_unrelated_and_identical() {
        let mut first = trial([1.0, 0.625, 0.5, 1.0]);
        first.nulls = vec![vec![0.25, 0.125, 0.5, 1.0], vec![0.5; 4]];
        let mut second = first.clone();
        second.nulls[0][1] = 0.375;
        let merged = merge(&[first, second], Draws::Differ).unwrap();
        let calibration = merged.metrics[0].calibration.as_ref().unwrap();
        assert_eq!(calibration.null, [0.25, 0.25, 0.5, 1.0]);
        assert_eq!(calibration.calibrated[..3], [1.0, 0.5, 0.0]);
        assert!(calibration.calibrated[3].is_nan(), "1 for unrelated rows says nothing");
        assert_eq!(merged.metrics[1].calibration.as_ref().unwrap().calibrated, [0.0; 4]);
    }

    #[test]
    fn distances_are_calibrated_the_same_way() {
        let distance = |values: [f64; 4], null: [f64; 4]| TrialMatrices {
            matrices: vec![(MetricSpec::new(MetricName::MagnitudeDifference), values.to_vec())],
            nulls: vec![null.to_vec()],
            ..trial([0.0; 4])
        };
        let trials = [distance([0.0, 1.0, 5.0, 0.0], [4.0, 4.0, 4.0, 0.0])];
        let merged = merge(&trials, Draws::Differ).unwrap();
        let calibrated = &merged.metrics[0].calibration.as_ref().unwrap().calibrated;
        assert_eq!(calibrated[..3], [1.0, 0.75, -0.25]);
        assert!(calibrated[3].is_nan());
    }

    #[test]
    fn quantities_of_layers_are_merged_like_cells() {
        let with = |values: [f64; 2]| TrialMatrices {
            layer_metrics: vec![(LayerMetricName::EffectiveRank, values.to_vec())],
            ..trial([1.0; 4])
        };
        let merged = merge(&[with([1.0, f64::NAN]), with([3.0, 2.0])], Draws::Differ).unwrap();
        let [rank] = merged.layer_metrics.as_slice() else { panic!("one was asked for") };
        assert_eq!((rank.name, rank.trials.len()), (LayerMetricName::EffectiveRank, 2));
        assert_eq!((rank.estimates.mean[0], rank.estimates.std[0]), (2.0, 1.0));
        assert!(rank.estimates.mean[1].is_nan() && rank.estimates.ci_high[1].is_nan());
        assert!(rank.estimates.ci_low[0] < -10.0, "two trials say little, and nothing is cut off");
    }

    #[test]
    fn reasons_are_united_over_trials() {
        let mut first = trial([1.0; 4]);
        first.undefined.insert(0, "all rows are equal".to_owned());
        let mut second = trial([1.0; 4]);
        second.undefined.insert(0, "another".to_owned());
        second.undefined.insert(1, "all rows are equal".to_owned());
        let union = undefined(&[first, second]);
        assert_eq!(union.len(), 2);
        assert_eq!(union[&0], "all rows are equal");
    }
}
