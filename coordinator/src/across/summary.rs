//! What the layer × layer matrix of two models says in short. Pure.

use lsa_common::metric::MetricName;

use super::alignment::alignment;

/// Layers whose relative depths differ by at most this much belong to the diagonal band.
pub const BAND: f64 = 0.1;

/// What the [rows, columns] matrix of two models says in short; NaN where nothing is defined.
#[derive(Clone, Debug, PartialEq)]
pub struct PairSummary {
    /// For each layer of the first model the most similar layer of the second (its place) and their value; of equal
    /// ones the first. `None` where the layer is undefined.
    pub best_match: Vec<Option<(usize, f64)>>,
    /// The mean of the values of `best_match`.
    pub mean_best_match: f64,
    /// The mean over cells whose layers lie at about the same relative depth: see [`BAND`].
    pub diagonal_band: f64,
    /// The alignment of the layers with the smallest total dissimilarity, as places; empty where there is none.
    pub alignment: Vec<(usize, usize)>,
    /// The mean value along `alignment`.
    pub mean_alignment: f64,
}

/// Summarises the matrix `values` [rows, columns] of `metric`; `depths` has the relative depth in [0, 1] of each row
/// and each column.
pub fn summarise(metric: MetricName, values: &[f64], depths: (&[f64], &[f64])) -> PairSummary {
    let info = metric.info();
    let (rows, columns) = (depths.0.len(), depths.1.len());
    let cost = |value: f64| if info.larger_is_more_similar { info.identical - value } else { value };
    let at = |row: usize, column: usize| values[row * columns + column];

    let best = |row: usize| {
        let defined = (0..columns).filter(|column| !at(row, *column).is_nan());
        let better = |best: Option<usize>, column: usize| match best {
            Some(best) if cost(at(row, column)) >= cost(at(row, best)) => Some(best),
            _ => Some(column),
        };
        defined.fold(None, better).map(|column| (column, at(row, column)))
    };
    let best_match: Vec<Option<(usize, f64)>> = (0..rows).map(best).collect();
    let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    let in_band = cells.filter(|(row, column)| (depths.0[*row] - depths.1[*column]).abs() <= BAND);
    let costs: Vec<f64> = values.iter().map(|value| cost(*value)).collect();
    let alignment = alignment(&costs, rows, columns).unwrap_or_default();
    PairSummary {
        mean_best_match: mean(best_match.iter().flatten().map(|(_, value)| *value)),
        diagonal_band: mean(in_band.map(|(row, column)| at(row, column))),
        mean_alignment: mean(alignment.iter().map(|(row, column)| at(*row, *column))),
        best_match,
        alignment,
    }
}

/// The mean of those that are defined; NaN where none is.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) =
        values.filter(|value| !value.is_nan()).fold((0.0, 0u32), |(sum, n), value| (sum + value, n + 1));
    sum / f64::from(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPTHS: (&[f64], &[f64]) = (&[0.0, 0.5, 1.0], &[0.0, 1.0]);

    #[test]
    fn similarities_are_matched_by_the_largest() {
        let summary = summarise(MetricName::Cka, &[0.9, 0.1, 0.6, 0.7, 0.2, 0.8], DEPTHS);
        assert_eq!(summary.best_match, [Some((0, 0.9)), Some((1, 0.7)), Some((1, 0.8))]);
        assert!((summary.mean_best_match - 0.8).abs() < 1e-15);
        assert!((summary.diagonal_band - 0.85).abs() < 1e-15);
        assert_eq!(summary.alignment, [(0, 0), (1, 1), (2, 1)]);
        assert!((summary.mean_alignment - 0.8).abs() < 1e-15);
    }

    #[test]
    fn distances_are_matched_by_the_smallest() {
        let values = [0.1, 0.9, 0.4, 0.3, 0.8, 0.2];
        let summary = summarise(MetricName::ProcrustesSizeAndShapeDistance, &values, DEPTHS);
        assert_eq!(summary.best_match, [Some((0, 0.1)), Some((1, 0.3)), Some((1, 0.2))]);
        assert_eq!(summary.alignment, [(0, 0), (1, 1), (2, 1)]);
    }

    #[test]
    fn undefined_layers_are_left_out() {
        let nan = f64::NAN;
        let summary = summarise(MetricName::Cka, &[nan, nan, 0.6, 0.7, 0.2, 0.8], DEPTHS);
        assert_eq!(summary.best_match[0], None);
        assert!((summary.mean_best_match - 0.75).abs() < 1e-15);
        assert!(summary.alignment.is_empty() && summary.mean_alignment.is_nan());
    }
}
