//! The resolved spec of a job: every default filled in, every file digested.
//!
//! A spec is written once to the bucket and is all that a new coordinator needs to go on with a job. Values that
//! came over the wire or from the bucket have passed [`JobSpec::check`] before anything trusts an index in them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dataset::TextsSpec;
use crate::id::{Digest, JobId};
use crate::key::digest_of;
use crate::metric::{LayerMetricName, MetricSpec, Number};
use crate::model::{Dtype, PinnedModel, Pooling};
use crate::wire::MESSAGE_BYTES_MAX;

/// The version of the spec's form; raised when an older coordinator could misread a newer spec.
pub const SPEC_FORMAT: u32 = 2;

/// The most bytes that one trial may yield: a message and room for what stands beside.
const REPORT_BYTES_MAX: u64 = MESSAGE_BYTES_MAX as u64 / 8 * 7;

/// Shards of an extraction, and trials of a comparison: more would not fit a scheduler's memory.
const UNITS_MAX: u32 = 1_000_000;

/// A grid, expanded and pinned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// [`SPEC_FORMAT`].
    pub format: u32,
    /// As the grid file names the job.
    pub name: String,
    /// One directory of results each.
    pub experiments: Vec<Experiment>,
    /// The models that experiments point to.
    pub models: Vec<PinnedModel>,
    /// The texts that experiments point to.
    pub texts: Vec<TextsSpec>,
    /// How the job is run.
    pub run: RunSettings,
    /// Experiments that turned out impossible when the grid was resolved; listed among the failed ones.
    pub unresolved: Vec<Unresolved>,
}

/// An experiment that cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unresolved {
    /// Its name.
    pub name: String,
    /// Why.
    pub error: String,
}

/// One model, pooling and dataset with the settings of extraction and comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Experiment {
    /// The directory of its results, unique within the job.
    pub name: String,
    /// Index into [`JobSpec::models`].
    pub model: usize,
    /// Index into [`JobSpec::texts`].
    pub texts: usize,
    /// How token vectors become one.
    pub pooling: Pooling,
    /// How texts become representations.
    pub extraction: ExtractionSettings,
    /// How representations are compared.
    pub similarity: SimilaritySettings,
    /// Whether the representations are part of the results.
    pub save_embeddings: bool,
    /// What the user should know beside the results: a clipped length, skipped rows.
    pub warnings: Vec<String>,
}

/// How texts become representations; every field changes their bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtractionSettings {
    /// Tokens of a text that are kept, special tokens included.
    pub max_length: u32,
    /// Texts of `max_length` tokens that a batch holds; its token budget is `batch_size * max_length`.
    pub batch_size: u32,
    /// The dtype of the forward pass.
    pub dtype: Dtype,
    /// Hidden states that are kept, ascending.
    pub layers: Vec<u32>,
    /// Rows of a shard: a power of two from 32 to 2048.
    pub shard_rows: u32,
    /// Whether a text without tokens is left out rather than an error.
    pub skip_empty: bool,
}

impl ExtractionSettings {
    /// The tokens that a batch may hold.
    pub fn token_budget(&self) -> u64 {
        u64::from(self.batch_size) * u64::from(self.max_length)
    }
}

/// How representations are compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SimilaritySettings {
    /// The metrics, each once.
    pub metrics: Vec<MetricSpec>,
    /// Quantities of single layers, each once.
    pub layer_metrics: Vec<LayerMetricName>,
    /// Rows of a trial.
    pub sample_size: u32,
    /// Monte Carlo draws.
    pub trials: Trials,
    /// Which layers are compared.
    pub compare: Compare,
    /// Whether each trial is compared with its own rows in another order, too.
    pub calibrate: bool,
    /// The seed of the draws.
    pub seed: u64,
}

impl SimilaritySettings {
    /// Bytes of what one trial over so many layers yields.
    pub fn trial_bytes(&self, n_layers: u64) -> u64 {
        let matrices = self.metrics.len() as u64 * if self.calibrate { 2 } else { 1 };
        let numbers = n_layers.saturating_mul(matrices).saturating_add(self.layer_metrics.len() as u64);
        numbers.saturating_mul(n_layers).saturating_mul(8)
    }
}

/// How many Monte Carlo draws there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Trials {
    /// So many.
    Fixed(u32),
    /// As many as it takes.
    Auto {
        /// Draws end when no cell's 95 % confidence interval reaches further than this to either side.
        ci_half_width: Number,
        /// The most draws.
        max_trials: u32,
    },
}

impl Trials {
    /// Draws before the width of an interval is first looked at: fewer say little about it. A multiple of
    /// [`Self::LOOK_EVERY`].
    pub const LOOK_FIRST: u32 = 10;
    /// Draws from one look to the next.
    pub const LOOK_EVERY: u32 = 5;

    /// The draws made before anything is known of their results.
    pub fn at_first(self) -> u32 {
        match self {
            Self::Fixed(trials) => trials,
            Self::Auto { max_trials, .. } => max_trials.min(Self::LOOK_FIRST),
        }
    }

    /// The most draws there can be.
    pub fn at_most(self) -> u32 {
        match self {
            Self::Fixed(trials) => trials,
            Self::Auto { max_trials, .. } => max_trials,
        }
    }

    /// How many draws come next where `trials` turned out too few; `None` where there are no more.
    pub fn after(self, trials: u32) -> Option<u32> {
        match self {
            Self::Auto { max_trials, .. } if trials < max_trials => {
                Some(trials.saturating_add(Self::LOOK_EVERY).min(max_trials))
            }
            _ => None,
        }
    }
}

/// Which layers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compare {
    /// Those of one model with one another.
    Within,
    /// Those of all models over the same texts and pooling.
    Across,
}

impl Compare {
    /// Every one, in the order in which they are listed.
    pub const ALL: [Self; 2] = [Self::Within, Self::Across];

    /// As it is written in grid files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Within => "within",
            Self::Across => "across",
        }
    }

    /// The one of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|compare| compare.as_str() == text)
    }
}

/// How a job is run; nothing here changes a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSettings {
    /// Go on with the other experiments when one fails.
    pub continue_on_error: bool,
    /// Attempts of a unit before it fails.
    pub max_attempts: u32,
    /// Between jobs of one coordinator; higher goes first.
    pub priority: i32,
    /// Model files that come from a hub go through the bucket, fetched by one worker; otherwise each worker asks the hub.
    pub mirror: bool,
    /// One experiment given by flags: its files lie in the output directory itself.
    pub single: bool,
}

/// Why a spec cannot be a job.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpecError {
    /// Written by another version of the software.
    #[error(
        "the spec has format {0}, this version reads {SPEC_FORMAT}; use matching versions of client and coordinator"
    )]
    Format(u32),
    /// A value that no resolved spec has.
    #[error("{place}: {fault}")]
    Invalid {
        /// Where in the spec.
        place: String,
        /// What is wrong with it.
        fault: String,
    },
}

impl JobSpec {
    /// Refuses a spec that resolving could not have made, so that later code may index and divide freely.
    pub fn check(&self) -> Result<(), SpecError> {
        if self.format != SPEC_FORMAT {
            return Err(SpecError::Format(self.format));
        }
        let invalid = |place: String, fault: &str| Err(SpecError::Invalid { place, fault: fault.to_owned() });
        if self.name.parse::<JobId>().is_err() {
            return invalid("name".to_owned(), "must be made of letters, digits, '_', '-' and '.'");
        }
        if self.experiments.is_empty() {
            return invalid("experiments".to_owned(), "there are none");
        }
        if self.run.max_attempts == 0 {
            return invalid("run.max_attempts".to_owned(), "must be at least 1");
        }
        for model in &self.models {
            if model.facts.n_layers == 0 || model.files.is_empty() {
                return invalid(format!("models[{}]", model.id), "has no layers or no files");
            }
            if let Some(file) = model.files.iter().find(|file| !is_plain_name(&file.name)) {
                return invalid(
                    format!("models[{}].files", model.id),
                    &format!("{:?} leaves the folder", file.name),
                );
            }
        }
        for TextsSpec { plan, .. } in &self.texts {
            if plan.files.is_empty() || plan.unpinned().is_some() {
                return invalid(format!("texts[{}]", plan.dataset), "has no files, or one without digest");
            }
        }
        self.check_sizes()?;
        let mut names = std::collections::BTreeSet::new();
        for experiment in &self.experiments {
            let place = || format!("experiments[{}]", experiment.name);
            // As strict as an id: the name is a folder of its own.
            if experiment.name.parse::<JobId>().is_err() || !names.insert(&experiment.name) {
                return invalid(place(), "the name is not a folder name of its own");
            }
            let (Some(model), Some(texts)) =
                (self.models.get(experiment.model), self.texts.get(experiment.texts))
            else {
                return invalid(place(), "its model or texts are not in the spec");
            };
            let extraction = &experiment.extraction;
            let layers = &extraction.layers;
            let ascending = layers.windows(2).all(|pair| pair[0] < pair[1]);
            if !ascending || layers.last().is_none_or(|last| *last >= model.facts.n_layers) {
                return invalid(place(), "its layers do not exist or are not ascending");
            }
            if extraction.max_length == 0 || extraction.batch_size == 0 {
                return invalid(place(), "max_length and batch_size must be at least 1");
            }
            if !extraction.shard_rows.is_power_of_two() || !(32..=2048).contains(&extraction.shard_rows) {
                return invalid(place(), "shard_rows must be a power of two from 32 to 2048");
            }
            if texts.n_texts / extraction.shard_rows > UNITS_MAX {
                return invalid(place(), "has too many shards; take fewer texts");
            }
            let similarity = &experiment.similarity;
            if !(1..=UNITS_MAX).contains(&similarity.trials.at_most()) || similarity.metrics.is_empty() {
                return invalid(place(), "needs at least one metric, and from one to 1,000,000 trials");
            }
            let metrics: std::collections::BTreeSet<_> = similarity.metrics.iter().map(|m| m.name).collect();
            if metrics.len() < similarity.metrics.len() {
                return invalid(place(), "names a metric twice");
            }
            let layer_metrics: std::collections::BTreeSet<_> = similarity.layer_metrics.iter().collect();
            if layer_metrics.len() < similarity.layer_metrics.len() {
                return invalid(place(), "names a layer metric twice");
            }
            if similarity.sample_size == 0 || similarity.sample_size > texts.n_texts {
                return invalid(place(), "sample_size must be from 1 to the number of texts");
            }
            if let Trials::Auto { ci_half_width, max_trials } = similarity.trials {
                let same = similarity.sample_size == texts.n_texts;
                if same || max_trials < 2 || ci_half_width.get() <= 0.0 {
                    return invalid(
                        place(),
                        "trials = \"auto\" needs a sample smaller than the texts, max_trials of at least 2 and a \
                         ci_half_width above 0",
                    );
                }
            }
        }
        Ok(())
    }

    /// That what one trial yields can be reported.
    fn check_sizes(&self) -> Result<(), SpecError> {
        let alike = Alike::new(self);
        for (number, experiment) in self.experiments.iter().enumerate() {
            let similarity = &experiment.similarity;
            let compared = alike.compared_with(number).into_iter();
            let n_layers: usize = compared.map(|other| self.experiments[other].extraction.layers.len()).sum();
            let bytes = similarity.trial_bytes(n_layers as u64);
            if bytes > REPORT_BYTES_MAX {
                return Err(SpecError::Invalid {
                    place: format!("experiments[{}]", experiment.name),
                    fault: format!(
                        "the matrices of {n_layers} layers take {bytes} bytes for each trial, at most {REPORT_BYTES_MAX} \
                         can be reported; compare fewer models, layers or metrics at once"
                    ),
                });
            }
        }
        Ok(())
    }

    /// The job's id: its name and a digest of everything that changes its results.
    pub fn id(&self) -> JobId {
        let digest =
            digest_of("job", &(&self.name, &self.experiments, &self.model_files(), &self.texts_keys()));
        let name: String = self.name.chars().take(80).collect();
        format!("{name}-{}", digest.short())
            .parse()
            .expect("a job's name is made of letters, digits, '-' and '_'")
    }

    fn model_files(&self) -> Vec<&[crate::model::PinnedFile]> {
        self.models.iter().map(|model| model.files.as_slice()).collect()
    }

    fn texts_keys(&self) -> Vec<Digest> {
        self.texts.iter().map(|texts| crate::key::texts_key(&texts.plan)).collect()
    }
}

/// Which experiments of a spec are compared with one another.
pub struct Alike<'a> {
    experiments: &'a [Experiment],
    /// Those on the same texts with the same pooling: the only ones whose rows have anything to do with one another.
    of_texts: BTreeMap<(usize, Pooling), Vec<usize>>,
}

impl<'a> Alike<'a> {
    /// Of this spec.
    pub fn new(spec: &'a JobSpec) -> Self {
        let mut of_texts: BTreeMap<(usize, Pooling), Vec<usize>> = BTreeMap::new();
        for (number, experiment) in spec.experiments.iter().enumerate() {
            of_texts.entry((experiment.texts, experiment.pooling)).or_default().push(number);
        }
        Self { experiments: &spec.experiments, of_texts }
    }

    /// The experiments whose layers one matrix of that experiment has, itself among them, in the spec's order.
    pub fn compared_with(&self, number: usize) -> Vec<usize> {
        let experiment = &self.experiments[number];
        match experiment.similarity.compare {
            Compare::Within => vec![number],
            Compare::Across => {
                let same = |other: &usize| self.experiments[*other].similarity == experiment.similarity;
                self.of_texts[&(experiment.texts, experiment.pooling)].iter().copied().filter(same).collect()
            }
        }
    }
}

/// Whether `name` stays inside the folder it is joined to.
pub fn is_plain_name(name: &str) -> bool {
    let path = std::path::Path::new(name);
    let plain = |part| matches!(part, std::path::Component::Normal(_));
    !name.is_empty() && !name.contains(['\\', '\0']) && path.components().all(plain)
}
