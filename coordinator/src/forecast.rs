//! `plan` and `--dry-run`: what would run, what it costs, what is done already. Touches nothing.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use lsa_common::cost::trial_scratch_bytes;
use lsa_common::dataset::DatasetName;
use lsa_common::id::{Digest, JobId};
use lsa_common::job::{JobSpec, SimilaritySettings};
use lsa_common::key::{comparison_key, extraction_key};
use lsa_common::layout;
use lsa_common::record::ProfileBinding;
use lsa_common::store::{Store, StoreError};
use serde::Serialize;

use crate::plan::{Extraction, Plan, What, Work, WorkId, plan};
use crate::scheduler::work::WorkState;
use crate::survey;

/// Comparisons that keep more than this say that some of it may go to disk.
const SCRATCH_TOLD_BYTES: u64 = 1 << 30;

/// What a job would do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// The job's id.
    pub job: JobId,
    /// Experiments, in the spec's order.
    pub experiments: Vec<ExperimentForecast>,
    /// The shared works behind them, in the order in which they can run.
    pub works: Vec<WorkForecast>,
    /// Experiments that cannot be run, with the reason.
    pub unresolved: Vec<(String, String)>,
    /// Floating-point operations that are left, an upper bound: every text is taken to have max_length tokens.
    pub flop_left: u64,
    /// Bytes that the bucket grows by.
    pub bytes_left: u64,
    /// The largest unit's device memory.
    pub memory_bytes: u64,
}

/// One experiment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExperimentForecast {
    /// Its name.
    pub name: String,
    /// Its model.
    pub model: String,
    /// Its pooling.
    pub pooling: String,
    /// Its dataset.
    pub dataset: String,
    /// Texts.
    pub rows: u32,
    /// Hidden states compared.
    pub layers: usize,
    /// Texts per trial.
    pub sample_size: u32,
    /// Trials, at most.
    pub trials: u32,
    /// What the user should know beforehand.
    pub warnings: Vec<String>,
}

/// One shared work.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkForecast {
    /// prepare, extract or compare.
    pub stage: &'static str,
    /// Of what.
    pub what: String,
    /// Texts read.
    pub rows: u32,
    /// Units in all.
    pub units: u64,
    /// Units done already.
    pub units_done: u64,
    /// Floating-point operations of all units, an upper bound.
    pub flop: u64,
    /// Bytes that all units write.
    pub bytes: u64,
    /// Device memory of a unit: the least that it can do with.
    pub memory_bytes: u64,
    /// Memory of a unit that puts nothing on disk.
    pub memory_roomy_bytes: u64,
    /// Scratch disk of a unit that has to do with the least memory.
    pub scratch_bytes: u64,
    /// How many experiments need it.
    pub shared_by: usize,
}

/// Looks at a spec and, where there is one, at the bucket.
pub async fn forecast(spec: &JobSpec, store: Option<&Store>) -> Result<Forecast, StoreError> {
    let plan = plan(spec);
    let index = Index::new(&plan);
    let bindings = match store {
        Some(store) => Bindings::read(store).await?,
        None => Bindings::default(),
    };
    let mut works = Vec::new();
    let mut keys: HashMap<WorkId, Digest> = HashMap::new();
    for work in &plan.works {
        let best = match store {
            Some(store) => most_done(store, work, &bindings, &keys).await?,
            None => MostDone::default(),
        };
        let (stage, what, rows, bytes) = index.describe(work);
        works.push(WorkForecast {
            stage,
            what,
            rows,
            units: u64::from(work.n_units_max()),
            units_done: best.units_done,
            flop: work.flop,
            bytes,
            memory_bytes: work.memory_bytes,
            memory_roomy_bytes: work.memory_bytes.saturating_add(spilled(work)),
            scratch_bytes: spilled(work),
            shared_by: index.n_users.get(&work.id).copied().unwrap_or(0),
        });
        keys.extend(best.key.map(|key| (work.id, key)));
    }
    let left = |work: &WorkForecast, amount: u64| {
        let share = work.units.saturating_sub(work.units_done) as u128 * u128::from(amount);
        u64::try_from(share / u128::from(work.units.max(1))).unwrap_or(u64::MAX)
    };
    Ok(Forecast {
        job: spec.id(),
        experiments: spec
            .experiments
            .iter()
            .map(|experiment| describe_experiment(spec, experiment))
            .collect(),
        unresolved: spec.unresolved.iter().map(|u| (u.name.clone(), u.error.clone())).collect(),
        flop_left: works.iter().map(|work| left(work, work.flop)).sum(),
        bytes_left: works.iter().map(|work| left(work, work.bytes)).sum(),
        memory_bytes: works.iter().map(|work| work.memory_bytes).max().unwrap_or(0),
        works,
    })
}

fn describe_experiment(spec: &JobSpec, experiment: &lsa_common::job::Experiment) -> ExperimentForecast {
    let texts = &spec.texts[experiment.texts];
    ExperimentForecast {
        name: experiment.name.clone(),
        model: spec.models[experiment.model].id.clone(),
        pooling: experiment.pooling.to_string(),
        dataset: texts.plan.dataset.clone(),
        rows: texts.n_texts,
        layers: experiment.extraction.layers.len(),
        sample_size: experiment.similarity.sample_size,
        trials: experiment.similarity.trials.at_most(),
        warnings: experiment.warnings.clone(),
    }
}

/// Bytes that a unit keeps in memory, or on disk where it has only the least memory.
fn spilled(work: &Work) -> u64 {
    let What::Compare(comparison) = &work.what else { return 0 };
    let SimilaritySettings { metrics, layer_metrics, sample_size, calibrate, .. } = &comparison.settings;
    let scratch = trial_scratch_bytes(*sample_size, &comparison.widths(), metrics, layer_metrics, 1, 0);
    scratch.saturating_mul(if *calibrate { 2 } else { 1 })
}

/// A plan's works as they are looked up: a grid may have a hundred thousand.
struct Index<'a> {
    works: HashMap<WorkId, &'a Work>,
    /// By the key of the prepared texts.
    datasets: HashMap<Digest, &'a str>,
    /// How many experiments need a work.
    n_users: HashMap<WorkId, usize>,
}

impl<'a> Index<'a> {
    fn new(plan: &'a Plan) -> Self {
        let works: HashMap<WorkId, &Work> = plan.works.iter().map(|work| (work.id, &**work)).collect();
        let dataset = |work: &'a Arc<Work>| match &work.what {
            What::Prepare { texts_key, texts } => Some((*texts_key, texts.plan.dataset.as_str())),
            What::Mirror { .. } | What::Extract(_) | What::Compare(_) => None,
        };
        let datasets = plan.works.iter().filter_map(dataset).collect();
        let mut n_users = HashMap::new();
        for experiment in &plan.experiments {
            let (mut needed, mut open) = (HashSet::new(), vec![experiment.comparison]);
            while let Some(id) = open.pop() {
                if needed.insert(id) {
                    *n_users.entry(id).or_default() += 1;
                    open.extend(works.get(&id).into_iter().flat_map(|work| &work.depends_on));
                }
            }
        }
        Self { works, datasets, n_users }
    }

    /// Stage, what, rows and bytes written.
    fn describe(&self, work: &Work) -> (&'static str, String, u32, u64) {
        match &work.what {
            What::Prepare { texts, .. } => {
                ("prepare", texts.plan.dataset.clone(), texts.n_texts, texts.plan.n_bytes())
            }
            What::Mirror { model, .. } => {
                let bytes = model.files.iter().map(|file| file.size).sum();
                ("mirror", model.name().to_owned(), 0, bytes)
            }
            What::Extract(extraction) => {
                let poolings: Vec<&str> =
                    extraction.poolings.iter().map(|pooling| pooling.as_str()).collect();
                let layers = extraction.settings.layers.len() as u64;
                let row = u64::from(extraction.model.facts.hidden_size) * 4 * layers * poolings.len() as u64;
                let what = format!("{} · {}", self.names(extraction), poolings.join(" "));
                ("extract", what, extraction.n_texts, row * u64::from(extraction.n_texts))
            }
            What::Compare(comparison) => {
                let settings = &comparison.settings;
                let n_layers = comparison.n_layers() as u64;
                let matrices = settings.metrics.len() as u64 * if settings.calibrate { 2 } else { 1 };
                let numbers = n_layers * n_layers * matrices + n_layers * settings.layer_metrics.len() as u64;
                let bytes = numbers * 8 * u64::from(settings.trials.at_most());
                let first = self.works.get(&comparison.sides[0].extraction).map(|work| &work.what);
                let first = match first {
                    Some(What::Extract(extraction)) => self.names(extraction),
                    _ => String::new(),
                };
                let names = match comparison.sides.len() {
                    1 => first,
                    n => format!("{first} and {} other model{}", n - 1, if n == 2 { "" } else { "s" }),
                };
                let what = format!("{names} · {} · {} layers", comparison.pooling, comparison.n_layers());
                ("compare", what, settings.sample_size, bytes)
            }
        }
    }

    /// Model and dataset of an extraction.
    fn names(&self, extraction: &Extraction) -> String {
        let dataset = self.datasets.get(&extraction.texts_key);
        let dataset = dataset.and_then(|name| name.parse::<DatasetName>().ok());
        let stem = dataset.map_or(String::new(), |name| name.stem());
        format!("{} · {stem}", extraction.model.name())
    }
}

/// The key under which most of a work is done, and how much.
#[derive(Default)]
struct MostDone {
    key: Option<Digest>,
    units_done: u64,
}

/// Profiles to which runs in this bucket have bound base keys: under one of them work may be done already.
#[derive(Default)]
struct Bindings(BTreeSet<(Digest, String)>);

impl Bindings {
    async fn read(store: &Store) -> Result<Self, StoreError> {
        let mut known = BTreeSet::new();
        for object in store.list(layout::JOBS).await? {
            let base = object.key.rsplit_once("/profiles/").and_then(|(_, name)| name.strip_suffix(".json"));
            let Some(base) = base.and_then(|base| base.parse().ok()) else { continue };
            let binding: ProfileBinding = store.get_json(&object.key).await?;
            known.insert((base, binding.numeric_profile));
        }
        Ok(Self(known))
    }

    fn of(&self, base: Digest) -> impl Iterator<Item = &str> {
        let from_base = self.0.range((base, String::new())..);
        from_base.take_while(move |(known, _)| *known == base).map(|(_, profile)| profile.as_str())
    }
}

/// The profile under which most is done, and how much.
async fn most_done(
    store: &Store,
    work: &Arc<Work>,
    bindings: &Bindings,
    known: &HashMap<WorkId, Digest>,
) -> Result<MostDone, StoreError> {
    let mut keys: Vec<Option<Digest>> = Vec::new();
    match &work.what {
        What::Prepare { texts_key, .. } => keys.push(Some(*texts_key)),
        What::Mirror { files_key, .. } => keys.push(Some(*files_key)),
        What::Extract(extraction) => {
            let base = extraction.base_key;
            keys.extend(bindings.of(base).map(|profile| Some(extraction_key(base, profile))));
        }
        What::Compare(comparison) => {
            let base = comparison.base_key;
            let rows: Option<Vec<Digest>> =
                comparison.sides.iter().map(|side| known.get(&side.extraction).copied()).collect();
            let rows = rows.unwrap_or_default();
            let profiles = bindings.of(base).filter(|_| !rows.is_empty());
            keys.extend(profiles.map(|profile| Some(comparison_key(base, &rows, profile))));
        }
    }
    let mut best = MostDone::default();
    for key in keys {
        let survey = survey::look(store, work, key).await?;
        let mut state = WorkState::new(work.clone());
        state.open(survey);
        if best.key.is_none() || state.n_done() > best.units_done {
            best = MostDone { key, units_done: state.n_done() };
        }
    }
    Ok(best)
}

impl Forecast {
    /// The tables that a person reads.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |args: std::fmt::Arguments<'_>| {
            text.write_fmt(args).expect("a string grows");
            text.push('\n');
        };
        let names = self.experiments.iter().map(|e| e.name.chars().count()).max().unwrap_or(0).max(10);
        line(format_args!("job {}", self.job));
        line(format_args!(""));
        line(format_args!(
            "{:<names$}  {:>8}  {:>6}  {:>11}  {:>6}",
            "experiment", "rows", "layers", "sample size", "trials"
        ));
        for e in &self.experiments {
            line(format_args!(
                "{:<names$}  {:>8}  {:>6}  {:>11}  {:>6}",
                e.name, e.rows, e.layers, e.sample_size, e.trials
            ));
        }
        line(format_args!(""));
        let whats = self.works.iter().map(|w| w.what.chars().count()).max().unwrap_or(0).max(10);
        line(format_args!(
            "{:<8} {:<whats$}  {:>8}  {:>9}  {:>9}  {:>9}  {:>9}  {:>7}",
            "stage", "what", "rows", "FLOP ≤", "writes", "memory", "done", "used by"
        ));
        for w in &self.works {
            line(format_args!(
                "{:<8} {:<whats$}  {:>8}  {:>9}  {:>9}  {:>9}  {:>9}  {:>7}",
                w.stage,
                w.what,
                w.rows,
                si(w.flop),
                bytes(w.bytes),
                bytes(w.memory_bytes),
                format!("{}/{}", w.units_done, w.units),
                w.shared_by
            ));
        }
        line(format_args!(""));
        let units: u64 = self.works.iter().map(|work| work.units).sum();
        let done: u64 = self.works.iter().map(|work| work.units_done).sum();
        line(format_args!(
            "left to do: {} of {units} units, at most {} FLOP, {} more in the bucket, {} of memory for the largest unit",
            units - done,
            si(self.flop_left),
            bytes(self.bytes_left),
            bytes(self.memory_bytes)
        ));
        let warnings: BTreeSet<&String> = self.experiments.iter().flat_map(|e| &e.warnings).collect();
        for w in self.works.iter().filter(|w| w.scratch_bytes >= SCRATCH_TOLD_BYTES) {
            line(format_args!(
                "note: comparing {} takes {} of memory, or {} and {} of scratch disk (--memory-gib and --scratch of workers)",
                w.what,
                bytes(w.memory_roomy_bytes),
                bytes(w.memory_bytes),
                bytes(w.scratch_bytes)
            ));
        }
        for warning in warnings {
            line(format_args!("note: {warning}"));
        }
        for (name, error) in &self.unresolved {
            line(format_args!("cannot run {name}: {error}"));
        }
        text
    }
}

/// `12.3 G`, by powers of 1000.
fn si(number: u64) -> String {
    scaled(number, 1000.0, &["", "k", "M", "G", "T", "P", "E"])
}

/// `12.3 MiB`, by powers of 1024.
pub fn bytes(number: u64) -> String {
    scaled(number, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"])
}

fn scaled(number: u64, base: f64, units: &[&str]) -> String {
    let mut value = number as f64;
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 100.0 { 0 } else { 1 };
    format!("{value:.digits$} {}", units[unit]).trim_end().to_owned()
}

/// Rows and bytes of an extraction, for a check of free space.
pub fn embedding_bytes(spec: &JobSpec) -> u64 {
    let plan = plan(spec);
    let index = Index::new(&plan);
    plan.works.iter().map(|work| index.describe(work).3).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let check = |number: u64, as_si: &str, as_bytes: &str| {
            assert_eq!((si(number).as_str(), bytes(number).as_str()), (as_si, as_bytes));
        };
        check(0, "0", "0 B");
        check(999, "999", "999 B");
        check(1536, "1.5 k", "1.5 KiB");
        check(250_000_000, "250 M", "238 MiB");
    }
}
