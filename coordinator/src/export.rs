//! The files that a user opens, one module per format. Pure: results in, bytes out; the same results always give
//! the same bytes, so no file holds a time stamp of its own.

pub mod across;
pub mod layers;
pub mod npz;
pub mod parquet;
pub mod pickle;
pub mod summary;
pub mod torch;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::figure::{self, Figure, FigureError};
use crate::merge::{Calibration, Estimates, ExperimentResult, MetricResult};
use crate::metadata::Metadata;

/// Why a result cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A matrix and its labels disagree.
    #[error("the {metric} {what} of experiment {experiment} has {found} numbers, expected {expected}")]
    Shape {
        /// The experiment's name.
        experiment: String,
        /// The metric's name.
        metric: String,
        /// Which of its numbers.
        what: &'static str,
        /// The numbers it has.
        found: usize,
        /// Layers squared; for a quantity of layers their number.
        expected: usize,
    },
    /// A figure could not be drawn.
    #[error("a figure of experiment {experiment} could not be drawn")]
    Figure {
        /// The experiment's name.
        experiment: String,
        /// What went wrong.
        #[source]
        source: FigureError,
    },
    /// An archive could not be put together.
    #[error("{file} of experiment {experiment} could not be put together")]
    Archive {
        /// The experiment's name.
        experiment: String,
        /// The file's path inside the experiment's directory.
        file: &'static str,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
}

/// Every file of an experiment except its embeddings and its log: path inside its directory → bytes.
///
/// `metadata.json` says of layers, metrics, trials and undefined layers what the result itself says. Figures that
/// cannot show a matrix (more than [`figure::LAYERS_MAX`] layers) are left out and the metadata warn about it.
pub fn experiment_files(result: &ExperimentResult) -> Result<Vec<(String, Vec<u8>)>, ExportError> {
    check_shapes(result)?;
    let mut metadata = complete_metadata(result);
    let side = u32::try_from(result.layers.len()).unwrap_or(u32::MAX);
    let mut files = Vec::new();
    for metric in &result.metrics {
        let name = metric.metric.name;
        let pickles = [("", &metric.estimates.mean), ("_std", &metric.estimates.std)];
        // Those that earlier scripts wrote; all else is in the archive.
        for (ending, matrix) in pickles {
            let path = format!("similarities/{name}{ending}.pkl");
            files.push((path, pickle::square_matrix(side, matrix)));
        }
    }
    const NPZ: &str = "similarities/similarities.npz";
    let npz = npz::similarities(result).map_err(|source| ExportError::Archive {
        experiment: result.name.clone(),
        file: NPZ,
        source,
    })?;
    files.push((NPZ.to_owned(), npz));
    if !result.layer_metrics.is_empty() {
        files.push(("layers.csv".to_owned(), layers::csv(result).into_bytes()));
    }

    let drawable = result.layers.len() <= figure::LAYERS_MAX;
    if !drawable {
        let layers = result.layers.len();
        metadata.warnings.push(format!("no figures: {layers} layers, at most {} fit", figure::LAYERS_MAX));
    }
    let figures = if drawable { figures(result, &metadata) } else { Ok(Vec::new()) };
    let figures =
        figures.map_err(|source| ExportError::Figure { experiment: result.name.clone(), source })?;
    let figures = figures.into_iter().map(|(name, bytes)| (format!("figures/{name}"), bytes));
    files.push(("metadata.json".to_owned(), metadata.to_json().into_bytes()));
    files.extend(figures);
    Ok(files)
}

/// The figures of all metrics and quantities: file name → bytes.
fn figures(result: &ExperimentResult, metadata: &Metadata) -> Result<Vec<(String, Vec<u8>)>, FigureError> {
    let mut files = Vec::new();
    for metric in &result.metrics {
        let (name, side) = (metric.metric.name.as_str(), result.layers.len());
        files.extend(metric_figures(name, &metric.estimates.mean, side, metadata)?);
        if let Some(Calibration { calibrated, .. }) = &metric.calibration {
            let figure = Figure::calibrated(name, calibrated, side, metadata, &metadata.experiment)?;
            files.extend(both_figures(&format!("{name}_calibrated"), &figure)?);
        }
    }
    for metric in &result.layer_metrics {
        let name = metric.name.as_str();
        let svg = figure::layer_line(name, &metric.estimates, metadata, &metadata.experiment)?;
        files.extend(in_both_formats(&format!("{name}_layers"), svg)?);
    }
    Ok(files)
}

/// Heatmap and dendrogram of one [side, side] row-major matrix, as SVG and PNG: file name → bytes.
pub fn metric_figures(
    metric: &str,
    values: &[f64],
    side: usize,
    metadata: &Metadata,
) -> Result<Vec<(String, Vec<u8>)>, FigureError> {
    both_figures(metric, &Figure::new(metric, values, side, metadata, &metadata.experiment)?)
}

fn both_figures(stem: &str, figure: &Figure) -> Result<Vec<(String, Vec<u8>)>, FigureError> {
    let mut files = in_both_formats(&format!("{stem}_heatmap"), figure.heatmap())?;
    files.extend(in_both_formats(&format!("{stem}_dendrogram"), figure.dendrogram())?);
    Ok(files)
}

fn in_both_formats(stem: &str, svg: String) -> Result<Vec<(String, Vec<u8>)>, FigureError> {
    Ok(vec![(format!("{stem}.png"), figure::png(&svg)?), (format!("{stem}.svg"), svg.into_bytes())])
}

/// The metadata of a result, with what the result knows better.
pub fn complete_metadata(result: &ExperimentResult) -> Metadata {
    let parameters = |metric: &MetricResult| {
        let of_metric = metric.metric.parameters();
        let named: BTreeMap<String, Value> =
            of_metric.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        (!named.is_empty()).then(|| (metric.metric.name.to_string(), named))
    };
    Metadata {
        experiment: result.name.clone(),
        num_layers: u32::try_from(result.layers.len()).unwrap_or(u32::MAX),
        layers: result.layers.clone(),
        metrics: result.metrics.iter().map(|metric| metric.metric.name.to_string()).collect(),
        metric_parameters: result.metrics.iter().filter_map(parameters).collect(),
        layer_metrics: result.layer_metrics.iter().map(|metric| metric.name.to_string()).collect(),
        trials: trials(result),
        undefined: result.undefined.clone(),
        ..result.metadata.clone()
    }
}

/// The trials that were merged.
fn trials(result: &ExperimentResult) -> u32 {
    let trials = result.metrics.first().map_or(0, |metric| metric.trials.len());
    u32::try_from(trials).unwrap_or(u32::MAX)
}

fn check_shapes(result: &ExperimentResult) -> Result<(), ExportError> {
    let n_layers = result.layers.len();
    let check = |metric: String, what: &'static str, values: &[f64], expected: usize| match values.len() {
        found if found == expected => Ok(()),
        found => {
            let experiment = result.name.clone();
            Err(ExportError::Shape { experiment, metric, what, found, expected })
        }
    };
    let check_all = |metric: &str, trials: &[Vec<f64>], estimates: &Estimates, expected: usize| {
        let Estimates { mean, std, ci_low, ci_high } = estimates;
        let own = [("mean", mean), ("std", std), ("ci_low", ci_low), ("ci_high", ci_high)];
        let mut all = own.into_iter().chain(trials.iter().map(|trial| ("trial", trial)));
        all.try_for_each(|(what, values)| check(metric.to_owned(), what, values, expected))
    };
    for metric in &result.metrics {
        let (name, cells) = (metric.metric.name.as_str(), n_layers.saturating_mul(n_layers));
        check_all(name, &metric.trials, &metric.estimates, cells)?;
        if let Some(Calibration { null, calibrated }) = &metric.calibration {
            check(name.to_owned(), "null", null, cells)?;
            check(name.to_owned(), "calibrated", calibrated, cells)?;
        }
    }
    let mut layer_metrics = result.layer_metrics.iter();
    layer_metrics
        .try_for_each(|metric| check_all(metric.name.as_str(), &metric.trials, &metric.estimates, n_layers))
}

/// Results that the tests of this module and its formats share.
#[cfg(test)]
pub(crate) mod samples {
    use lsa_common::metric::{LayerMetricName, MetricName, MetricSpec};
    use lsa_common::trial_matrices::TrialMatrices;

    use super::*;
    use crate::merge::{Draws, Merged, merge, undefined};

    /// Four metrics over `side` layers and three trials; layer 0 is undefined where `with_undefined`.
    pub(crate) fn result(side: u32, with_undefined: bool) -> ExperimentResult {
        merged(&trials(side, with_undefined))
    }

    /// The same with unrelated rows and two quantities of layers.
    pub(crate) fn calibrated(side: u32) -> ExperimentResult {
        let mut trials = trials(side, false);
        for (number, trial) in (0u32..).zip(&mut trials) {
            trial.nulls = trial.matrices.iter().map(|(_, matrix)| vec![0.25; matrix.len()]).collect();
            let values = |steepness: f64| {
                let value = |layer: u32| 10.0 + steepness * f64::from(layer) + 0.1 * f64::from(number);
                (0..side).map(value).collect()
            };
            trial.layer_metrics = vec![
                (LayerMetricName::EffectiveRank, values(2.0)),
                (LayerMetricName::NormMean, values(-0.5)),
            ];
        }
        merged(&trials)
    }

    fn trials(side: u32, with_undefined: bool) -> Vec<TrialMatrices> {
        let matrix = |trial: u32, steepness: f64| {
            let cell = |a: u32, b: u32| {
                let apart = f64::from(a.abs_diff(b));
                let noise = if a == b { 0.0 } else { f64::from((a + b + trial) % 3) * 0.01 };
                let hole = with_undefined && (a == 0 || b == 0);
                if hole { f64::NAN } else { 1.0 / (1.0 + steepness * apart) - noise }
            };
            (0..side).flat_map(|a| (0..side).map(move |b| (a, b))).map(|(a, b)| cell(a, b)).collect()
        };
        let trial = |trial: u32| TrialMatrices {
            n_layers: side,
            matrices: MetricName::DEFAULT
                .into_iter()
                .zip([0.1, 0.2, 0.5, 0.05])
                .map(|(name, steepness)| (MetricSpec::new(name), matrix(trial, steepness)))
                .collect(),
            nulls: Vec::new(),
            layer_metrics: Vec::new(),
            undefined: with_undefined.then(|| (0, "all rows are equal".to_owned())).into_iter().collect(),
        };
        (0..3).map(trial).collect()
    }

    fn merged(trials: &[TrialMatrices]) -> ExperimentResult {
        let Merged { metrics, layer_metrics } = merge(trials, Draws::Differ).unwrap();
        ExperimentResult {
            name: "bert_base_uncased_mean_c4".to_owned(),
            layers: (0..trials[0].n_layers).collect(),
            metrics,
            layer_metrics,
            undefined: undefined(trials),
            metadata: Metadata {
                model: "bert-base-uncased".to_owned(),
                pooling: "mean".to_owned(),
                dataset: "c4".to_owned(),
                num_samples: 2000,
                sample_size: 1000,
                ..Metadata::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::result;
    use super::*;

    #[test]
    fn the_files_of_an_experiment() {
        let files = experiment_files(&result(4, true)).unwrap();
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        for expected in [
            "similarities/CKA.pkl",
            "similarities/DistanceCorrelation_std.pkl",
            "similarities/similarities.npz",
            "metadata.json",
            "figures/RSA_heatmap.png",
            "figures/RSA_heatmap.svg",
            "figures/JaccardSimilarity_dendrogram.png",
            "figures/JaccardSimilarity_dendrogram.svg",
        ] {
            assert!(names.contains(&expected), "{expected} is missing: {names:?}");
        }
        assert_eq!(files.len(), 4 * 2 + 1 + 1 + 4 * 4);
        assert!(files == experiment_files(&result(4, true)).unwrap(), "the same result, other bytes");
    }

    #[test]
    fn what_was_asked_for_besides_has_files_of_its_own() {
        let files = experiment_files(&super::samples::calibrated(4)).unwrap();
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        for expected in [
            "layers.csv",
            "figures/CKA_calibrated_heatmap.png",
            "figures/RSA_calibrated_dendrogram.svg",
            "figures/EffectiveRank_layers.png",
            "figures/NormMean_layers.svg",
        ] {
            assert!(names.contains(&expected), "{expected} is missing: {names:?}");
        }
        assert_eq!(files.len(), 4 * 2 + 1 + 1 + 1 + 4 * 8 + 2 * 2);
    }

    #[test]
    fn metadata_repeat_what_the_result_says() {
        let metadata = complete_metadata(&result(4, true));
        assert_eq!((metadata.num_layers, metadata.trials), (4, 3));
        assert_eq!(metadata.metrics, ["CKA", "RSA", "JaccardSimilarity", "DistanceCorrelation"]);
        assert_eq!(metadata.metric_parameters["JaccardSimilarity"]["k"], 10);
        assert_eq!(metadata.metric_title("JaccardSimilarity"), "JaccardSimilarity (k = 10)");
        assert_eq!(metadata.metric_title("RSA"), "RSA");
        assert_eq!(metadata.undefined[&0], "all rows are equal");
        assert_eq!(metadata.model, "bert-base-uncased");
    }

    #[test]
    fn labels_that_do_not_fit_the_matrices_are_refused() {
        let mut odd = result(4, false);
        odd.layers.pop();
        assert!(matches!(experiment_files(&odd), Err(ExportError::Shape { what: "mean", .. })));
        let mut odd = result(4, false);
        odd.metrics[1].trials[2].pop();
        assert!(matches!(experiment_files(&odd), Err(ExportError::Shape { what: "trial", found: 15, .. })));
    }

    #[test]
    fn too_many_layers_for_a_figure_still_give_the_numbers() {
        let files = experiment_files(&result(figure::LAYERS_MAX as u32 + 1, false)).unwrap();
        assert!(files.iter().all(|(name, _)| !name.starts_with("figures/")));
        let (_, metadata) = files.iter().find(|(name, _)| name == "metadata.json").unwrap();
        assert!(String::from_utf8_lossy(metadata).contains("no figures"));
    }
}
