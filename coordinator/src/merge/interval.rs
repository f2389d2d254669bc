//! What independent trials say of a number: its mean, how far trials lie from it, and how sure the mean is.
//!
//! The interval is for the expected value of a trial: the mean over all draws of so many rows, without replacement,
//! from the texts at hand. Given the texts the draws are independent of one another, so that the mean of T trials lies
//! around that value as the mean of any T independent numbers does; that two draws share rows changes how far trials
//! lie apart, and the spread that is measured with it. Nothing here speaks of other texts.

use statrs::distribution::{ContinuousCDF as _, StudentsT};

/// The share of intervals that hold what they are for.
const CONFIDENCE: f64 = 0.95;

/// Whether trials are draws at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draws {
    /// Each trial has rows of its own.
    Differ,
    /// Every trial has all texts: the same rows, and the same result.
    Same,
}

impl Draws {
    /// Of `sample_size` rows out of `n_texts`.
    pub fn of(sample_size: u32, n_texts: u32) -> Self {
        if sample_size < n_texts { Self::Differ } else { Self::Same }
    }
}

/// What trials say of each of several numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Estimates {
    /// The mean over trials; NaN where any trial is NaN.
    pub mean: Vec<f64>,
    /// The standard deviation over trials with ddof 0; NaN where any trial is NaN.
    pub std: Vec<f64>,
    /// The lower bound of the mean's 95 % confidence interval, mean - t s / √T with s of ddof 1; NaN where any trial
    /// is NaN, for a single trial, and where all draws are the same. Not cut off at the ends of a metric's range.
    pub ci_low: Vec<f64>,
    /// The upper bound.
    pub ci_high: Vec<f64>,
}

impl Estimates {
    /// From the numbers of each trial, of which there is at least one; sums run over trials in their order.
    pub fn of(trials: &[Vec<f64>], draws: Draws) -> Self {
        let n_trials = trials.len() as f64;
        let reach = reach(trials.len(), draws);
        let mut all = Self::default();
        for place in 0..trials[0].len() {
            let mean = trials.iter().map(|trial| trial[place]).sum::<f64>() / n_trials;
            let squares = trials.iter().map(|trial| (trial[place] - mean).powi(2)).sum::<f64>();
            let half_width = reach * squares.sqrt();
            all.mean.push(mean);
            all.std.push((squares / n_trials).sqrt());
            all.ci_low.push(mean - half_width);
            all.ci_high.push(mean + half_width);
        }
        all
    }

    /// The same of what `of` takes of each list of numbers.
    pub fn map(&self, of: impl Fn(&Vec<f64>) -> Vec<f64>) -> Self {
        let Self { mean, std, ci_low, ci_high } = self;
        Self { mean: of(mean), std: of(std), ci_low: of(ci_low), ci_high: of(ci_high) }
    }

    /// How far the widest interval reaches to either side; none where none is defined.
    pub fn half_width_max(&self) -> Option<f64> {
        let widths = self.ci_low.iter().zip(&self.ci_high).map(|(low, high)| (high - low) / 2.0);
        widths.filter(|width| !width.is_nan()).reduce(f64::max)
    }
}

/// How far the interval reaches for each unit of the root of the sum of squared deviations: t / √(T (T - 1)).
fn reach(n_trials: usize, draws: Draws) -> f64 {
    if n_trials < 2 || draws == Draws::Same {
        return f64::NAN;
    }
    let freedom = (n_trials - 1) as f64;
    let student = StudentsT::new(0.0, 1.0, freedom).expect("one degree of freedom at least");
    student.inverse_cdf(0.5 + CONFIDENCE / 2.0) / (n_trials as f64 * freedom).sqrt()
}

#[cfg(test)]
mod tests {
    use lsa_common::seed::{RowKeys, trial_rows};

    use super::*;

    #[test]
    fn intervals_by_hand() {
        // Mean 3, s² = 2.5, t(0.975, 4) = 2.776445 (Student's table).
        let trials: Vec<Vec<f64>> = (1..=5).map(|n| vec![f64::from(n)]).collect();
        let estimates = Estimates::of(&trials, Draws::Differ);
        let half_width = 2.776_445_105 * (2.5f64 / 5.0).sqrt();
        assert!((estimates.ci_high[0] - 3.0 - half_width).abs() < 1e-8, "{estimates:?}");
        assert!((estimates.ci_low[0] - 3.0 + half_width).abs() < 1e-8, "{estimates:?}");
        assert!(estimates.half_width_max().is_some_and(|width| (width - half_width).abs() < 1e-8));

        for (n_trials, t) in [(2, 12.706_204_736), (11, 2.228_138_852), (50, 2.009_575_234)] {
            let expected = t / f64::from(n_trials * (n_trials - 1)).sqrt();
            let found = reach(n_trials as usize, Draws::Differ);
            assert!((found / expected - 1.0).abs() < 1e-8, "{n_trials}: {found}");
        }
    }

    #[test]
    fn what_says_nothing_has_no_interval() {
        let two = [vec![1.0, 0.5, f64::NAN], vec![1.0, 0.7, 0.5]];
        let check = |trials: &[Vec<f64>], draws, defined: [bool; 3]| {
            let estimates = Estimates::of(trials, draws);
            let found: Vec<bool> = estimates.ci_low.iter().map(|low| !low.is_nan()).collect();
            assert_eq!(found, defined);
            assert_eq!(estimates.half_width_max().is_some(), defined != [false; 3]);
        };
        check(&two, Draws::Differ, [true, true, false]);
        check(&two[..1], Draws::Differ, [false; 3]);
        check(&two, Draws::Same, [false; 3]);
        assert_eq!(Draws::of(10, 10), Draws::Same);
        assert_eq!(Draws::of(9, 10), Draws::Differ);
    }

    /// A finite set of texts with two layers of two columns; the statistic of a draw is the linear CKA of its rows.
    struct Texts(Vec<[[f64; 2]; 2]>);

    impl Texts {
        fn new(seed: u64, n_texts: u32) -> Self {
            let (mut keys, mut n_drawn) = (RowKeys::new(seed, 0), 0..);
            let mut uniform = || keys.key(n_drawn.next().unwrap_or(0)) as f64 / u64::MAX as f64 - 0.5;
            let text = |_| {
                let (a, b) = (uniform(), uniform());
                // The second layer is a bent and noisy image of the first.
                [[a, 2.0 * b], [a * a + 0.5 * a + 0.2 * uniform(), b * b * b + 0.2 * uniform()]]
            };
            Self((0..n_texts).map(text).collect())
        }

        fn cka(&self, rows: &[u32]) -> f64 {
            let n = rows.len() as f64;
            let column = |layer: usize, column: usize| {
                let values: Vec<f64> = rows.iter().map(|row| self.0[*row as usize][layer][column]).collect();
                let mean = values.iter().sum::<f64>() / n;
                values.into_iter().map(|value| value - mean).collect::<Vec<f64>>()
            };
            let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
            let columns = [0, 1].map(|layer| [column(layer, 0), column(layer, 1)]);
            let norm = |a: usize, b: usize| {
                let pairs = columns[a].iter().flat_map(|x| columns[b].iter().map(move |y| dot(x, y).powi(2)));
                pairs.sum::<f64>()
            };
            norm(0, 1) / (norm(0, 0) * norm(1, 1)).sqrt()
        }
    }

    #[test]
    fn intervals_hold_the_expected_value_as_often_as_they_say() {
        const EXPERIMENTS: u32 = 3000;
        const EXPECTED_FROM: u32 = 60_000;
        // Shares of the texts in a draw of 0.1, 0.5 and 0.9.
        for (n_texts, sample_size, n_trials) in
            [(200, 20, 5), (200, 20, 20), (60, 30, 2), (60, 30, 5), (60, 30, 10), (50, 45, 5), (50, 45, 30)]
        {
            let texts = Texts::new(u64::from(n_texts), n_texts);
            let value = |seed: u64, trial: u32| texts.cka(&trial_rows(seed, trial, n_texts, sample_size));
            let sum: f64 = (0..EXPECTED_FROM).map(|trial| value(1, trial)).sum();
            let expected = sum / f64::from(EXPECTED_FROM);
            let holds = |experiment: &u32| {
                let seed = u64::from(*experiment) + 2;
                let trials: Vec<Vec<f64>> = (0..n_trials).map(|trial| vec![value(seed, trial)]).collect();
                let estimates = Estimates::of(&trials, Draws::of(sample_size, n_texts));
                (estimates.ci_low[0]..=estimates.ci_high[0]).contains(&expected)
            };
            let held = (0..EXPERIMENTS).filter(holds).count();
            let share = held as f64 / f64::from(EXPERIMENTS);
            println!("{sample_size} of {n_texts}, {n_trials} trials: {share}");
            assert!((0.92..=0.98).contains(&share), "{sample_size} of {n_texts}, {n_trials} trials: {share}");
        }
    }
}
