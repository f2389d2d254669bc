//! How many trials are enough: the looks that `trials = "auto"` takes at the widths of intervals.
//!
//! Looks are taken at fixed numbers of trials, each at the trials from the first on, so that the answer depends on the
//! trials alone: not on how many there happen to be, nor on when somebody looked.

use lsa_common::job::Trials;
use lsa_common::trial_matrices::TrialMatrices;

use super::{Draws, MergeError, merge};

/// What a look has shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Look {
    /// The result is made of the first so many trials.
    Enough {
        /// How many.
        trials: u32,
        /// How far the widest interval reaches to either side, where that is further than was asked for and no more
        /// trials may be made.
        too_wide: Option<f64>,
    },
    /// The next look needs so many trials, of which not all are there.
    More {
        /// How many, those that are there included.
        trials: u32,
    },
}

/// Looks at the trials from the first on; `made` are those that are there.
///
/// A fixed number is enough when it is there. Otherwise trials are enough at the first look at which no defined cell of
/// any metric has an interval that reaches further than asked for. Cells without an interval ask for nothing, and
/// neither do quantities of single layers: they have units of their own.
pub fn look(made: &[TrialMatrices], trials: Trials, draws: Draws) -> Result<Look, MergeError> {
    let mut n_trials = trials.at_first();
    loop {
        let Some(looked_at) = made.get(..n_trials as usize) else {
            return Ok(Look::More { trials: n_trials });
        };
        let Trials::Auto { ci_half_width, .. } = trials else {
            return Ok(Look::Enough { trials: n_trials, too_wide: None });
        };
        let merged = merge(looked_at, draws)?;
        let widths = merged.metrics.iter().filter_map(|metric| metric.estimates.half_width_max());
        let too_wide = widths.reduce(f64::max).filter(|width| *width > ci_half_width.get());
        match (too_wide, trials.after(n_trials)) {
            (Some(_), Some(next)) => n_trials = next,
            (too_wide, _) => return Ok(Look::Enough { trials: n_trials, too_wide }),
        }
    }
}

#[cfg(test)]
mod tests {
    use lsa_common::metric::{MetricName, MetricSpec, Number};

    use super::*;

    /// Trials of one cell: `spread` to either side by turns.
    fn trials(n: u32, spread: f64) -> Vec<TrialMatrices> {
        let trial = |trial: u32| TrialMatrices {
            n_layers: 1,
            matrices: vec![(
                MetricSpec::new(MetricName::Cka),
                vec![0.5 + if trial.is_multiple_of(2) { spread } else { -spread }],
            )],
            nulls: Vec::new(),
            layer_metrics: Vec::new(),
            undefined: Default::default(),
        };
        (0..n).map(trial).collect()
    }

    fn auto(max_trials: u32) -> Trials {
        Trials::Auto { ci_half_width: Number::new(0.01).unwrap(), max_trials }
    }

    fn check(made: u32, spread: f64, asked: Trials, expected: Look) {
        assert_eq!(look(&trials(made, spread), asked, Draws::Differ), Ok(expected), "{made} {spread}");
    }

    #[test]
    fn the_first_look_that_is_narrow_enough() {
        let enough = |trials| Look::Enough { trials, too_wide: None };
        // t(0.975, 9) · 0.01 · √(10 / 9) / √10 = 0.0075; with 0.02 it takes 20 trials: 2.093 · 0.02 / √19 = 0.0096.
        check(10, 0.01, auto(50), enough(10));
        check(50, 0.01, auto(50), enough(10));
        check(9, 0.01, auto(50), Look::More { trials: 10 });
        check(10, 0.02, auto(50), Look::More { trials: 15 });
        check(15, 0.02, auto(50), Look::More { trials: 20 });
        check(20, 0.02, auto(50), enough(20));
        check(23, 0.02, auto(50), enough(20));
        check(7, 0.01, Trials::Fixed(5), enough(5));
        check(4, 0.01, Trials::Fixed(5), Look::More { trials: 5 });
    }

    #[test]
    fn the_most_trials_end_it_all_the_same() {
        let found = look(&trials(12, 1.0), auto(12), Draws::Differ).unwrap();
        assert!(
            matches!(found, Look::Enough { trials: 12, too_wide: Some(width) } if width > 0.5),
            "{found:?}"
        );
        check(10, 1.0, auto(12), Look::More { trials: 12 });
    }

    #[test]
    fn what_has_no_interval_asks_for_nothing() {
        let enough = Look::Enough { trials: 10, too_wide: None };
        assert_eq!(look(&trials(10, f64::NAN), auto(50), Draws::Differ), Ok(enough));
        assert_eq!(look(&trials(10, 1.0), auto(50), Draws::Same), Ok(enough));
    }
}
