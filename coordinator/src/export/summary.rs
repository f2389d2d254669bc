//! `grid_search_summary.json`: every experiment of a run on one screen.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::merge::{ExperimentResult, MetricResult};

/// How an experiment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExperimentState {
    /// Its files are written.
    Done,
    /// It could not be finished; the error says why.
    Failed,
    /// It was stopped before its end.
    Cancelled,
}

/// One experiment in the summary.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExperimentOutcome {
    /// The experiment's name.
    pub name: String,
    /// How it ended.
    pub state: ExperimentState,
    /// Where its files are, relative to the summary; none where it has none.
    pub directory: Option<String>,
    /// Metric → the numbers to look at first.
    pub metrics: BTreeMap<String, Headline>,
    /// What went wrong, with all causes.
    pub error: Option<String>,
}

impl ExperimentOutcome {
    /// A finished experiment whose files are in `directory`.
    pub fn done(result: &ExperimentResult, directory: &str) -> Self {
        let headline = |metric: &MetricResult| (metric.metric.name.to_string(), Headline::of(metric));
        Self {
            name: result.name.clone(),
            state: ExperimentState::Done,
            directory: Some(directory.to_owned()),
            metrics: result.metrics.iter().map(headline).collect(),
            error: None,
        }
    }

    /// An experiment that ended without files.
    pub fn unfinished(name: &str, state: ExperimentState, error: Option<String>) -> Self {
        Self { name: name.to_owned(), state, directory: None, metrics: BTreeMap::new(), error }
    }
}

/// The numbers of a metric to look at first; undefined cells are left out of the means, null where none is left.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Headline {
    /// The mean similarity of two different layers.
    pub mean_off_diagonal: Option<f64>,
    /// The mean similarity of a layer and the next one.
    pub mean_adjacent: Option<f64>,
    /// The similarity of the first and the last layer.
    pub first_to_last: Option<f64>,
    /// The largest standard deviation over trials of any cell.
    pub std_max: Option<f64>,
    /// How far the widest 95 % confidence interval of any cell reaches to either side of its mean.
    pub ci_half_width_max: Option<f64>,
}

impl Headline {
    fn of(metric: &MetricResult) -> Self {
        let side = metric.n_layers as usize;
        let value = |row: usize, column: usize| metric.estimates.mean[row * side + column];
        let pairs = (0..side).flat_map(|row| (0..side).map(move |column| (row, column)));
        let off_diagonal =
            pairs.filter(|(row, column)| row != column).map(|(row, column)| value(row, column));
        let adjacent = (1..side).map(|row| value(row - 1, row));
        let first_to_last = (side > 1).then(|| value(0, side - 1));
        let stds = metric.estimates.std.iter().copied().filter(|std| std.is_finite());
        Self {
            mean_off_diagonal: defined_mean(off_diagonal),
            mean_adjacent: defined_mean(adjacent),
            first_to_last: first_to_last.filter(|value| value.is_finite()),
            std_max: stds.reduce(f64::max),
            ci_half_width_max: metric.estimates.half_width_max(),
        }
    }
}

/// The text of the file: the job, how many experiments ended how, and each of them.
pub fn grid_search_summary(job_id: &str, experiments: &[ExperimentOutcome]) -> String {
    #[derive(Serialize)]
    struct Summary<'a> {
        job_id: &'a str,
        total: usize,
        done: usize,
        failed: usize,
        cancelled: usize,
        experiments: &'a [ExperimentOutcome],
    }
    let count = |state| experiments.iter().filter(|experiment| experiment.state == state).count();
    let summary = Summary {
        job_id,
        total: experiments.len(),
        done: count(ExperimentState::Done),
        failed: count(ExperimentState::Failed),
        cancelled: count(ExperimentState::Cancelled),
        experiments,
    };
    let mut text = serde_json::to_string_pretty(&summary).expect("keys are texts, values plain data");
    text.push('\n');
    text
}

fn defined_mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values
        .filter(|value| value.is_finite())
        .fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::samples::result;

    #[test]
    fn headlines_leave_out_what_is_undefined() {
        let mut result = result(3, false);
        result.metrics[0].estimates.mean = vec![1.0, 0.5, 0.1, 0.5, 1.0, 0.9, 0.1, 0.9, 1.0];
        let headline = Headline::of(&result.metrics[0]);
        assert_eq!(headline.mean_off_diagonal, Some(0.5));
        assert_eq!(headline.mean_adjacent, Some(0.7));
        assert_eq!(headline.first_to_last, Some(0.1));

        for cell in [0, 1, 2, 3, 6] {
            result.metrics[0].estimates.mean[cell] = f64::NAN;
        }
        let headline = Headline::of(&result.metrics[0]);
        assert_eq!(headline.mean_off_diagonal, Some(0.9));
        assert_eq!(headline.first_to_last, None);
        assert!(headline.ci_half_width_max.is_some_and(|width| width > 0.0));
    }

    #[test]
    fn the_file_is_json_and_counts() {
        let done = ExperimentOutcome::done(&result(3, true), "bert_base_uncased_mean_c4");
        let failed =
            ExperimentOutcome::unfinished("x", ExperimentState::Failed, Some("no \"model\"".to_owned()));
        let text = grid_search_summary("job-1", &[done, failed]);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&json["total"], &json["done"], &json["failed"]), (&2.into(), &1.into(), &1.into()));
        assert_eq!(json["experiments"][0]["state"], "done");
        assert!(json["experiments"][0]["metrics"]["CKA"]["mean_adjacent"].is_f64());
        assert!(json["experiments"][0]["metrics"]["CKA"]["first_to_last"].is_null());
        assert_eq!(json["experiments"][1]["error"], "no \"model\"");
    }
}
