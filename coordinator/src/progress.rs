//! How far a job is, for a person: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::driver::handle::JobSnapshot;

/// Between two plain lines, unless something has happened.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Steps of the bar.
const STEPS: u64 = 10_000;

/// What is shown of a job, whoever runs it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sight {
    /// Share done, from 0 to 1.
    pub fraction: f64,
    /// Units done.
    pub units_done: u64,
    /// Units in all.
    pub units_total: u64,
    /// Experiments done.
    pub experiments_done: usize,
    /// Experiments in all.
    pub experiments_total: usize,
    /// What is being done.
    pub doing: String,
}

impl Sight {
    /// Of a job of this process.
    pub fn of(snapshot: &JobSnapshot) -> Self {
        let view = &snapshot.view;
        let doing = match (view.leases.as_slice(), &view.waiting) {
            ([], Some(waiting)) => format!("waiting: {waiting}"),
            ([], None) => String::new(),
            ([one], _) => one.what.clone(),
            ([one, more @ ..], _) => format!("{} (+{})", one.what, more.len()),
        };
        Self {
            fraction: view.fraction,
            units_done: view.units_done,
            units_total: view.units_total,
            experiments_done: view.experiments_done,
            experiments_total: view.experiments_total,
            doing,
        }
    }
}

/// Shows progress on standard error.
pub struct Progress {
    bar: Option<ProgressBar>,
    last: Option<(Instant, Sight)>,
}

#[expect(clippy::disallowed_methods, reason = "plain lines come at a pace that a person can read")]
impl Progress {
    /// A bar where standard error is a terminal, lines elsewhere.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(STEPS), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{elapsed_precise} {bar:32} {percent:>3}%  {wide_msg}");
            bar.set_style(style.expect("the template is a constant"));
            bar
        });
        Self { bar, last: None }
    }

    /// A line of its own.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// How far a job of this process is.
    pub fn show(&mut self, snapshot: &JobSnapshot) {
        self.show_sight(Sight::of(snapshot));
    }

    /// How far a job is.
    pub fn show_sight(&mut self, sight: Sight) {
        let counts = format!(
            "{}/{} experiments · {}/{} units",
            sight.experiments_done, sight.experiments_total, sight.units_done, sight.units_total
        );
        let message = if sight.doing.is_empty() { counts } else { format!("{counts} · {}", sight.doing) };
        if let Some(bar) = &self.bar {
            bar.set_position((sight.fraction * STEPS as f64) as u64);
            bar.set_message(message);
            return;
        }
        let due = self.last.as_ref().is_none_or(|(at, shown)| {
            let moved =
                (shown.units_done, shown.experiments_done) != (sight.units_done, sight.experiments_done);
            *shown != sight && (moved || at.elapsed() >= LINE_EVERY)
        });
        if due {
            eprintln!("{:>3.0}%  {message}", sight.fraction * 100.0);
            self.last = Some((Instant::now(), sight));
        }
    }

    /// Clears the bar.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
