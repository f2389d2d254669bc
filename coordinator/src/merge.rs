//! From the matrices of single trials to the mean and spread over trials. Pure: matrices in, matrices out.
//!
//! Sums run over the trials in their given order, so that the same trials always give the same bytes.

use std::collections::BTreeMap;

use lsa_common::metric::MetricSpec;
use lsa_common::trial_matrices::TrialMatrices;

use crate::metadata::Metadata;

/// One metric of one experiment: every trial's matrix, and their mean and spread.
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
    /// The mean over trials; NaN where any trial is NaN.
    pub mean: Vec<f64>,
    /// The standard deviation over trials with ddof 0; NaN where any trial is NaN.
    pub std: Vec<f64>,
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
    /// Why a layer has no similarity to any, by hidden-state index; from all trials together.
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
    /// A matrix must have one number per pair of layers.
    #[error("the {metric} matrix of trial {trial} has {found} numbers, expected {expected}")]
    Shape {
        /// The trial.
        trial: usize,
        /// The metric's name.
        metric: String,
        /// The numbers it has.
        found: usize,
        /// Layers squared.
        expected: usize,
    },
}

/// Mean and standard deviation over `trials`, metric by metric.
///
/// Fails where the trials differ in layers or metrics, or where a matrix is not square.
pub fn merge(trials: &[TrialMatrices]) -> Result<Vec<MetricResult>, MergeError> {
    let first = trials.first().ok_or(MergeError::NoTrials)?;
    for (trial, matrices) in trials.iter().enumerate() {
        check(trial, matrices, first)?;
    }
    let merged = first.matrices.iter().enumerate().map(|(place, (metric, _))| {
        let trials: Vec<Vec<f64>> = trials.iter().map(|trial| trial.matrices[place].1.clone()).collect();
        let (mean, std) = mean_and_std(&trials);
        MetricResult { metric: metric.clone(), n_layers: first.n_layers, trials, mean, std }
    });
    Ok(merged.collect())
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
    if !matrices.matrices.iter().map(|(metric, _)| metric).eq(first.matrices.iter().map(|(metric, _)| metric))
    {
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
        if side.checked_mul(side) != Some(values.len()) {
            let expected = side.saturating_mul(side);
            return Err(MergeError::Shape {
                trial,
                metric: metric.name.to_string(),
                found: values.len(),
                expected,
            });
        }
    }
    Ok(())
}

fn metric_list(trial: &TrialMatrices) -> String {
    let name = |metric: &MetricSpec| match metric.k {
        Some(k) => format!("{} (k = {k})", metric.name),
        None => metric.name.to_string(),
    };
    trial.matrices.iter().map(|(metric, _)| name(metric)).collect::<Vec<_>>().join(", ")
}

/// Cell by cell over the trials, in their order; NaN in any trial makes both NaN.
fn mean_and_std(trials: &[Vec<f64>]) -> (Vec<f64>, Vec<f64>) {
    let n_trials = trials.len() as f64;
    let cell = |place: usize| {
        let mean = trials.iter().map(|trial| trial[place]).sum::<f64>() / n_trials;
        let squares = trials.iter().map(|trial| (trial[place] - mean).powi(2)).sum::<f64>();
        (mean, (squares / n_trials).sqrt())
    };
    (0..trials[0].len()).map(cell).unzip()
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
            undefined: BTreeMap::new(),
        }
    }

    #[test]
    fn mean_and_population_deviation() {
        let trials = [trial([1.0, 0.5, 0.5, 1.0]), trial([1.0, 0.7, 0.7, 1.0]), trial([1.0, 0.9, 0.9, 1.0])];
        let merged = merge(&trials).unwrap();
        assert_eq!(merged[0].metric.name, MetricName::Cka);
        assert_eq!(merged[0].trials.len(), 3);
        assert_eq!(merged[0].mean[0], 1.0);
        assert_eq!(merged[0].std[0], 0.0);
        assert!((merged[0].mean[1] - 0.7).abs() < 1e-15);
        // sqrt(((0.2)² + 0 + (0.2)²) / 3): divided by the number of trials, not by one less.
        assert!((merged[0].std[1] - (0.08f64 / 3.0).sqrt()).abs() < 1e-15);
        assert_eq!(merged[1].std, [0.0; 4]);
    }

    #[test]
    fn nan_in_one_trial_is_nan_in_the_result() {
        let trials = [trial([1.0, f64::NAN, 0.5, 1.0]), trial([1.0, 0.7, 0.5, 1.0])];
        let merged = merge(&trials).unwrap();
        assert!(merged[0].mean[1].is_nan() && merged[0].std[1].is_nan());
        assert_eq!(merged[0].mean[2], 0.5);
    }

    #[test]
    fn a_single_trial_is_its_own_mean() {
        let merged = merge(&[trial([0.1, 0.2, 0.3, 0.4])]).unwrap();
        assert_eq!(merged[0].mean, [0.1, 0.2, 0.3, 0.4]);
        assert_eq!(merged[0].std, [0.0; 4]);
    }

    #[test]
    fn trials_that_do_not_match_are_refused() {
        assert_eq!(merge(&[]), Err(MergeError::NoTrials));
        let good = trial([1.0; 4]);

        let mut other = good.clone();
        other.n_layers = 3;
        assert!(matches!(merge(&[good.clone(), other]), Err(MergeError::Layers { trial: 1, .. })));

        let mut other = good.clone();
        other.matrices[1].0.k = Some(5);
        let error = merge(&[good.clone(), other]).unwrap_err();
        assert!(error.to_string().contains("k = 5"), "{error}");

        let mut other = good.clone();
        other.matrices[0].1.pop();
        assert!(matches!(merge(&[good.clone(), other]), Err(MergeError::Shape { found: 3, .. })));

        let mut twice = good.clone();
        twice.matrices[1].0 = MetricSpec::new(MetricName::Cka);
        assert!(matches!(merge(&[twice]), Err(MergeError::Duplicate { .. })));
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
