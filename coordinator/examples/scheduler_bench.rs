//! How long the scheduler takes for an event at the size it is made for: a million units in about 20,000 works over
//! 10,000 workers, asked for, lent, progressed, reported and committed to the end.
//!
//! ```text
//! cargo run --release -p lsa-coordinator --example scheduler_bench [units] [workers] [jobs]
//! ```
//!
//! Prints the median and the 99th percentile of `State::apply` per kind of event, and the most memory that the process
//! has used. Nothing but the scheduler is measured: surveys, commits and merges succeed at once.

#[path = "bench/works.rs"]
mod works;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use lsa_common::dataset::{
    Compression, Format, Place, ReadLimits, ReadSettings, Sampling, SourceFile, TextsPlan, TextsSpec,
};
use lsa_common::hub::ContentId;
use lsa_common::id::{AttemptId, Digest, UnitId, WorkerId};
use lsa_common::job::{Compare, SimilaritySettings, Trials};
use lsa_common::key::digest_of;
use lsa_common::metric::{MetricName, MetricSpec};
use lsa_common::model::Pooling;
use lsa_common::record::ExtractNotes;
use lsa_common::report::{Extracted, Outcome, Prepared};
use lsa_common::time::Millis;
use lsa_common::unit::Unit;
use lsa_coordinator::plan::{Comparison, Plan, Planned, Side, What, Work, WorkId};
use lsa_coordinator::scheduler::event::{CommitEnd, Effect, Event, JobSettings, MergeEnd, Reported, Survey};
use lsa_coordinator::scheduler::{Settings, State};

/// Units of a work.
const SHARDS: u32 = 80;
const TRIAL_UNITS: u32 = 20;
const LAYERS: u32 = works::LAYERS;

/// How long the events of a kind took.
#[derive(Default)]
struct Samples(Vec<u64>);

/// The scheduler and all that surrounds it.
struct Bench {
    state: State,
    now: u64,
    took: BTreeMap<&'static str, Samples>,
    todo: VecDeque<Event>,
    /// What workers have been lent and not reported.
    lent: VecDeque<(WorkerId, UnitId, AttemptId, Unit)>,
    n_done: u64,
    n_jobs: usize,
    n_ended: usize,
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let mut argument = |default: u64| match arguments.next() {
        None => default,
        Some(number) => number.expect("units, workers, jobs: numbers"),
    };
    let (n_units, n_workers, n_jobs) = (argument(1_000_000), argument(10_000), argument(8));
    // An extraction and a comparison each.
    let n_experiments = n_units / u64::from(SHARDS + TRIAL_UNITS);
    let settings = Settings { lease_ttl_ms: 60_000 };
    let mut bench = Bench {
        state: State::new(settings, [1; 32], Millis(0)),
        now: 0,
        took: BTreeMap::new(),
        todo: VecDeque::new(),
        lent: VecDeque::new(),
        n_done: 0,
        n_jobs: usize::try_from(n_jobs).expect("few"),
        n_ended: 0,
    };
    let begun = clock();
    for job in 0..n_jobs {
        let plan = plan((0..n_experiments).filter(|experiment| experiment % n_jobs == job));
        let settings = JobSettings {
            continue_on_error: true,
            max_attempts: 4,
            priority: i32::from(job == 0),
            some_unresolved: false,
        };
        let job = format!("job-{job}").parse().expect("a plain name");
        bench.apply(Event::JobAccepted { job, plan, settings });
    }
    for worker in 0..n_workers {
        let worker: WorkerId = format!("worker-{worker}").parse().expect("a plain name");
        bench.apply(Event::WorkerJoined {
            worker: worker.clone(),
            numeric_profile: "bench".to_owned(),
            memory_bytes: 1 << 36,
            held: Vec::new(),
        });
        bench.apply(Event::WorkerAsked { worker });
    }
    bench.run();
    println!(
        "{} units by {n_workers} workers for {n_jobs} jobs, {} ended, in {:.1} s",
        bench.n_done,
        bench.n_ended,
        begun.elapsed().as_secs_f64()
    );
    println!("{:<12} {:>10} {:>12} {:>12} {:>12}", "event", "events", "median us", "99 % us", "most us");
    for (kind, Samples(took)) in &mut bench.took {
        took.sort_unstable();
        let at = |share: usize| took[(took.len() - 1) * share / 100] as f64 / 1e3;
        println!("{kind:<12} {:>10} {:>12.1} {:>12.1} {:>12.1}", took.len(), at(50), at(99), at(100));
    }
    println!("most memory used: {}", peak_memory());
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn clock() -> Instant {
    Instant::now()
}

/// As the kernel says; a person reads it.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or_else(|| "not known here".to_owned(), |peak| peak.trim().to_owned())
}

impl Bench {
    /// Until every job has ended.
    fn run(&mut self) {
        let mut n_steps = 0u64;
        while self.n_ended < self.n_jobs {
            n_steps += 1;
            if let Some(event) = self.todo.pop_front() {
                self.apply(event);
            } else if let Some((worker, unit, attempt, payload)) = self.lent.pop_front() {
                self.now += 1;
                let (who, what) = (worker.clone(), unit.clone());
                self.apply(Event::Progressed { worker: who, unit: what, attempt, done: 1, total: 2 });
                let (who, outcome) = (worker.clone(), data(&payload));
                let report = Reported { worker: who, unit, attempt, elapsed_ms: 1, outcome };
                self.apply(Event::Reported(Box::new(report)));
                self.apply(Event::WorkerAsked { worker });
            } else {
                self.now += 1_000;
                self.apply(Event::Tick);
            }
            if n_steps.is_multiple_of(200) {
                self.apply(Event::Tick);
            }
        }
    }

    fn apply(&mut self, event: Event) {
        let kind = match &event {
            Event::JobAccepted { .. } => "accepted",
            Event::WorkerJoined { .. } => "joined",
            Event::WorkerAsked { .. } => "asked",
            Event::Progressed { .. } => "progressed",
            Event::Reported(_) => "reported",
            Event::Surveyed { .. } => "surveyed",
            Event::Committed { .. } => "committed",
            Event::Merged { .. } => "merged",
            Event::Tick => "tick",
            _ => "others",
        };
        let begun = clock();
        let effects = self.state.apply(Millis(self.now), event);
        let took = u64::try_from(begun.elapsed().as_nanos()).expect("within centuries");
        self.took.entry(kind).or_default().0.push(took);
        for effect in effects {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Survey { work, number, numeric_profile, .. } => {
                let key = Some(digest_of("bench", &work.id.0));
                let survey = Survey { numeric_profile, key, ..Survey::default() };
                self.todo.push_back(Event::Surveyed { work: work.id, number, survey });
            }
            Effect::Lend { worker, unit, payload, attempt, .. } => {
                self.lent.push_back((worker, unit, attempt, *payload));
            }
            Effect::Commit(commit) => {
                self.n_done += 1;
                let (unit, attempt) = (commit.report.unit.clone(), commit.report.attempt);
                self.todo.push_back(Event::Committed { unit, attempt, end: CommitEnd::Recorded });
            }
            Effect::Merge { job, experiment, .. } => {
                self.todo.push_back(Event::Merged { job, experiment, end: MergeEnd::Written });
            }
            Effect::EndJob { .. } => self.n_ended += 1,
            Effect::Stop { .. }
            | Effect::Drain { .. }
            | Effect::Acknowledge { .. }
            | Effect::RollUp(_)
            | Effect::RecordFailure(_) => {}
        }
    }
}

/// An extraction and a comparison for each number, over the same texts.
fn plan(numbers: impl Iterator<Item = u64>) -> Plan {
    let texts = texts();
    let texts_key = digest_of("bench texts", &0);
    let prepare = Work {
        id: WorkId(texts_key),
        what: What::Prepare { texts_key, texts: texts.clone() },
        depends_on: Vec::new(),
        memory_bytes: 0,
        flop: 0,
    };
    let (mut works, mut experiments) = (vec![Arc::new(prepare)], Vec::new());
    for number in numbers {
        let base_key = works::base_key(number);
        let extraction = Work {
            id: WorkId(base_key),
            what: What::Extract(works::extraction(
                number,
                texts_key,
                texts.n_texts,
                (0..=LAYERS).collect(),
                vec![Pooling::Mean, Pooling::Cls],
            )),
            depends_on: vec![WorkId(texts_key)],
            memory_bytes: (1 + number % 16) << 30,
            flop: 1,
        };
        let comparison = Work {
            id: WorkId(digest_of("bench trials", &number)),
            what: What::Compare(Comparison {
                base_key,
                sides: vec![Side {
                    extraction: extraction.id,
                    n_shards: SHARDS,
                    layers: (0..=LAYERS).collect(),
                    hidden_size: 768,
                }],
                pooling: Pooling::Mean,
                n_texts: texts.n_texts,
                settings: SimilaritySettings {
                    metrics: vec![MetricSpec::new(MetricName::Cka)],
                    sample_size: 1_000,
                    layer_metrics: Vec::new(),
                    // Eight to a unit.
                    trials: Trials::Fixed(8 * TRIAL_UNITS),
                    compare: Compare::Within,
                    calibrate: false,
                    seed: 1,
                },
            }),
            depends_on: vec![extraction.id],
            memory_bytes: (1 + number % 8) << 30,
            flop: 1,
        };
        experiments.push(Planned { comparison: comparison.id, side: 0 });
        works.extend([Arc::new(extraction), Arc::new(comparison)]);
    }
    Plan { works, experiments }
}

fn texts() -> TextsSpec {
    let n_texts = SHARDS * works::SHARD_ROWS;
    let source = SourceFile {
        place: Place::Local { name: "texts.txt".to_owned(), hint: PathBuf::new() },
        size: 1,
        content: Some(ContentId::Sha256(Digest([0; 32]))),
        format: Format::Text,
        compression: Compression::None,
        columns: None,
    };
    let settings = ReadSettings {
        num_samples: n_texts,
        sampling: Sampling::First,
        dedupe: false,
        skip_bad_rows: false,
        limits: ReadLimits::default(),
    };
    TextsSpec { plan: TextsPlan::new("file:texts.txt".to_owned(), vec![source], settings), n_texts }
}

/// A report of the right kind; nobody looks into it.
fn data(unit: &Unit) -> Outcome {
    match unit {
        Unit::Mirror(_) => Outcome::Mirrored,
        Unit::Prepare(_) => Outcome::Prepared(Prepared {
            parts: Vec::new(),
            n_texts: 0,
            n_blank: 0,
            n_bad: 0,
            n_duplicates: 0,
            columns: Vec::new(),
            warnings: Vec::new(),
        }),
        Unit::Extract(_) => {
            Outcome::Extracted(Extracted { poolings: Vec::new(), notes: ExtractNotes::default() })
        }
        Unit::Compare(_) => Outcome::Compared(Vec::new()),
    }
}
