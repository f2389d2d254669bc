//! Layers made for tests, and trials over them.

use lsa_common::metric::{Invariance, LayerMetricName, MetricSpec};
use lsa_common::trial_matrices::TrialMatrices;
use lsa_worker::resources::Resources;
use lsa_worker::trial::{LayerRows, LayerSource, SourceError, TrialError, Wanted, run_trial};

use crate::reference::Rows;

/// Layers in memory.
pub struct InMemory(pub Vec<Rows>);

impl LayerSource for InMemory {
    fn n_layers(&self) -> usize {
        self.0.len()
    }

    fn n_rows(&self) -> u32 {
        let (width, values) = &self.0[0];
        u32::try_from(values.len() / width).expect("few rows")
    }

    fn width(&self, layer: usize) -> usize {
        self.0[layer].0
    }

    fn rows(&self, layer: usize, rows: &[u32]) -> Result<LayerRows, SourceError> {
        let (width, all) = &self.0[layer];
        let values = rows.iter().flat_map(|row| &all[*row as usize * width..][..*width]).copied().collect();
        Ok(LayerRows { width: *width, values })
    }
}

/// All rows of the layers, in order.
pub fn trial(
    layers: &[Rows],
    metrics: &[MetricSpec],
    layer_metrics: &[LayerMetricName],
    threads: usize,
) -> Result<TrialMatrices, TrialError> {
    let source = InMemory(layers.to_vec());
    let rows: Vec<u32> = (0..source.n_rows()).collect();
    run_trial(
        &source,
        &rows,
        None,
        Wanted { metrics, layer_metrics },
        &Resources::available(threads),
        &|_| true,
    )
}

/// Numbers in [-1, 1) without a pattern, the same for the same seed.
pub fn noise(seed: u64, count: usize) -> Vec<f64> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = state;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// Layers of these widths over the same `n` rows: each a map of the same eight hidden numbers with noise of its own.
pub fn related(n: usize, widths: &[usize]) -> Vec<Rows> {
    const HIDDEN: usize = 8;
    let hidden = noise(1, n * HIDDEN);
    let layer = |(place, width): (usize, &usize)| {
        let seed = 10 + 2 * place as u64;
        let (map, own) = (noise(seed, HIDDEN * width), noise(seed + 1, n * width));
        let value = |row: usize, column: usize| {
            let parts = (0..HIDDEN).map(|i| hidden[row * HIDDEN + i] * map[i * width + column]);
            parts.sum::<f64>() / 2.0 + 0.3 * own[row * width + column] + 0.1
        };
        let cells = (0..n).flat_map(|row| (0..*width).map(move |column| (row, column)));
        (*width, cells.map(|(row, column)| value(row, column)).collect())
    };
    widths.iter().enumerate().map(layer).collect()
}

/// Every value changed by a function of itself and its row.
pub fn changed(layers: &[Rows], change: impl Fn(f64, usize) -> f64) -> Vec<Rows> {
    let layer = |(width, values): &Rows| {
        let values = values.iter().enumerate().map(|(place, value)| change(*value, place / width));
        (*width, values.collect())
    };
    layers.iter().map(layer).collect()
}

/// The rows of these indices, of every layer.
pub fn picked(layers: &[Rows], rows: &[usize]) -> Vec<Rows> {
    let layer = |(width, values): &Rows| {
        (*width, rows.iter().flat_map(|row| &values[row * width..][..*width]).copied().collect())
    };
    layers.iter().map(layer).collect()
}

/// What the invariance allows to be done to a layer.
pub fn transformed((d, values): &Rows, invariance: Invariance) -> Rows {
    let d = *d;
    let n = values.len() / d;
    let (per_row, per_column) = (noise(11, n), noise(12, d));
    let each = |change: &dyn Fn(f64, usize, usize) -> f64| -> Vec<f64> {
        values.iter().enumerate().map(|(place, x)| change(*x, place / d, place % d)).collect()
    };
    let values = match invariance {
        Invariance::Rotation => reflected(values, d, 20),
        Invariance::Scaling => each(&|x, _, _| 3.7 * x),
        Invariance::Translation => each(&|x, _, column| x + 2.0 * per_column[column]),
        Invariance::RowOffset => each(&|x, row, _| x + 2.0 * per_row[row]),
        Invariance::RowScaling => each(&|x, row, _| x * (1.5 + per_row[row])),
        Invariance::LinearMap => {
            // Far from orthogonal, and far from singular.
            let map = noise(13, d * d);
            let entry = |i: usize, j: usize| {
                let x = map[i * d + j];
                if i == j { 2.0 + x } else { x / d as f64 }
            };
            let mapped = |row: &[f64], column| (0..d).map(|i| row[i] * entry(i, column)).sum::<f64>();
            values.chunks_exact(d).flat_map(|row| (0..d).map(move |column| mapped(row, column))).collect()
        }
        Invariance::ColumnOrder => {
            values.chunks_exact(d).flat_map(|row| (0..d).map(move |i| row[(i * 5 + 3) % d])).collect()
        }
        Invariance::RowOrder => (0..n).flat_map(|i| &values[(i * 7 + 3) % n * d..][..d]).copied().collect(),
    };
    (d, values)
}

/// Rows times an orthogonal matrix: two Householder reflections.
pub fn reflected(values: &[f64], d: usize, seed: u64) -> Vec<f64> {
    let mut out = values.to_vec();
    for seed in [seed, seed + 1] {
        let v = noise(seed, d);
        let size: f64 = v.iter().map(|x| x * x).sum();
        for row in out.chunks_exact_mut(d) {
            let along: f64 = row.iter().zip(&v).map(|(x, v)| x * v).sum();
            row.iter_mut().zip(&v).for_each(|(x, v)| *x -= 2.0 * along / size * v);
        }
    }
    out
}
