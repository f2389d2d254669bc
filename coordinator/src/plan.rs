//! A job's spec → the shared works behind its experiments. Pure.
//!
//! A *work* is everything of one stage under one content key: the texts of a dataset, the extraction of a model over
//! texts, the trials of a comparison. Experiments that need the same work share it, within a job and between jobs.

use std::collections::BTreeMap;
use std::sync::Arc;

use lsa_common::cost;
use lsa_common::dataset::TextsSpec;
use lsa_common::id::{Digest, UnitId};
use lsa_common::job::{Alike, ExtractionSettings, JobSpec, SimilaritySettings, Trials};
use lsa_common::key::{comparison_base_key, digest_of, extraction_base_key, model_files_key, texts_key};
use lsa_common::model::{PinnedModel, Pooling};
use lsa_common::wire::MESSAGE_BYTES_MAX;

/// Names a work: its base key together with the part of it that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkId(pub Digest);

/// A stage's share of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// Its name.
    pub id: WorkId,
    /// What there is to do.
    pub what: What,
    /// The works whose results it reads.
    pub depends_on: Vec<WorkId>,
    /// Bytes of device memory that a unit of it needs.
    pub memory_bytes: u64,
    /// Floating-point operations of all of it, for texts of full length; weighs progress.
    pub flop: u64,
}

/// What there is to do in a work.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Texts of a dataset into the bucket: one unit.
    Prepare {
        /// Their key.
        texts_key: Digest,
        /// Which texts.
        texts: TextsSpec,
    },
    /// A model's files from their hub into the bucket: one unit.
    Mirror {
        /// Their key.
        files_key: Digest,
        /// Whose files.
        model: PinnedModel,
    },
    /// Texts through a model: one unit per shard.
    Extract(Extraction),
    /// Layers against layers: some trials per unit.
    Compare(Comparison),
}

/// Texts through a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Extraction {
    /// Key without profile.
    pub base_key: Digest,
    /// The texts.
    pub texts_key: Digest,
    /// Number of texts.
    pub n_texts: u32,
    /// The model.
    pub model: PinnedModel,
    /// How.
    pub settings: ExtractionSettings,
    /// All poolings asked for.
    pub poolings: Vec<Pooling>,
}

/// Layers against layers.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Key without profile.
    pub base_key: Digest,
    /// The models whose layers are compared: one, or all that have the same texts, pooling and settings. In the order
    /// of their base keys, so that every job has them in the same order.
    pub sides: Vec<Side>,
    /// Which pooling of their rows.
    pub pooling: Pooling,
    /// Number of texts.
    pub n_texts: u32,
    /// Metrics, trials, seed.
    pub settings: SimilaritySettings,
}

/// The rows of one model in a comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    /// The extraction.
    pub extraction: WorkId,
    /// Its shards.
    pub n_shards: u32,
    /// Hidden states compared.
    pub layers: Vec<u32>,
    /// Width of a hidden state.
    pub hidden_size: u32,
}

/// The works of a job and what each experiment waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Every work once, each after those it depends on.
    pub works: Vec<Arc<Work>>,
    /// Per experiment of the spec, where its matrices come from.
    pub experiments: Vec<Planned>,
}

/// Where an experiment's matrices come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its comparison.
    pub comparison: WorkId,
    /// Which of the comparison's sides is its own.
    pub side: usize,
}

impl Extraction {
    /// Number of shards.
    pub fn n_shards(&self) -> u32 {
        self.n_texts.div_ceil(self.settings.shard_rows)
    }

    /// Rows of shard `shard`.
    pub fn shard_len(&self, shard: u32) -> u32 {
        let first = u64::from(shard) * u64::from(self.settings.shard_rows);
        let left = u64::from(self.n_texts).saturating_sub(first);
        u32::try_from(left.min(u64::from(self.settings.shard_rows))).expect("at most shard_rows")
    }
}

impl Comparison {
    /// Layers of all sides: the side of every matrix.
    pub fn n_layers(&self) -> usize {
        self.sides.iter().map(|side| side.layers.len()).sum()
    }

    /// The width of each layer.
    pub fn widths(&self) -> Vec<u32> {
        self.sides.iter().flat_map(|side| side.layers.iter().map(|_| side.hidden_size)).collect()
    }

    /// Trials that one unit takes: embeddings are read once for all of them, and units stay numerous enough to share.
    ///
    /// Where intervals decide on their number, those from one look to the next: a unit never reaches beyond a look. A
    /// report of all of them fits a message.
    pub fn trials_per_unit(&self) -> u32 {
        let fitting =
            (MESSAGE_BYTES_MAX / 2) as u64 / self.settings.trial_bytes(self.n_layers() as u64).max(1);
        let fitting = u32::try_from(fitting.max(1)).unwrap_or(u32::MAX);
        match self.settings.trials {
            Trials::Fixed(trials) => (trials / 4).clamp(1, 8).min(fitting),
            Trials::Auto { .. } if fitting < Trials::LOOK_EVERY => 1,
            Trials::Auto { .. } => Trials::LOOK_EVERY,
        }
    }

    /// The units that the first `n_trials` trials make.
    pub fn n_units(&self, n_trials: u32) -> u32 {
        n_trials.div_ceil(self.trials_per_unit())
    }

    /// The unit that computes a trial.
    pub fn unit_of(&self, trial: u32) -> u32 {
        trial / self.trials_per_unit()
    }
}

#[cfg(test)]
impl Comparison {
    /// A small one of one model, for tests: two layers, CKA.
    pub(crate) fn of_trials(trials: Trials) -> Self {
        Self {
            base_key: Digest::of(b"base"),
            sides: vec![Side {
                extraction: WorkId(Digest::of(b"rows")),
                n_shards: 2,
                layers: vec![0, 1],
                hidden_size: 8,
            }],
            pooling: Pooling::Mean,
            n_texts: 64,
            settings: SimilaritySettings {
                metrics: vec![lsa_common::metric::MetricSpec::new(lsa_common::metric::MetricName::Cka)],
                sample_size: 10,
                layer_metrics: Vec::new(),
                trials,
                compare: lsa_common::job::Compare::Within,
                calibrate: false,
                seed: 1,
            },
        }
    }
}

impl Work {
    /// The unit of this work with that number, once the work is bound to `key`: an attempt at the same unit under
    /// another key, for an earlier run, is an attempt at something else.
    pub fn unit_id(&self, index: u32, key: Digest) -> UnitId {
        let kind = match self.what {
            What::Prepare { .. } => "prepare",
            What::Mirror { .. } => "mirror",
            What::Extract(_) => "extract",
            What::Compare(_) => "compare",
        };
        format!("{kind}-{}-{index}-{}", self.id.0, key.short()).parse().expect("letters, digits and '-' only")
    }

    /// How many units there are at most, when nothing is done yet.
    pub fn n_units_max(&self) -> u32 {
        match &self.what {
            What::Prepare { .. } | What::Mirror { .. } => 1,
            What::Extract(extraction) => extraction.n_shards(),
            What::Compare(comparison) => comparison.n_units(comparison.settings.trials.at_most()),
        }
    }

    /// The work and number of a unit id.
    pub fn parse_unit_id(unit: &UnitId) -> Option<(WorkId, u32)> {
        let mut parts = unit.as_str().split('-');
        let (_, work, index, _) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        parts.next().is_none().then_some((WorkId(work.parse().ok()?), index.parse().ok()?))
    }
}

/// Finds the works that a job's experiments share. The spec has passed [`JobSpec::check`].
pub fn plan(spec: &JobSpec) -> Plan {
    let mut works = BTreeMap::new();
    let mut order = Vec::new();
    let mut add = |work: Work| {
        let id = work.id;
        works.entry(id).or_insert_with(|| {
            order.push(id);
            Arc::new(work)
        });
        id
    };

    let mut poolings: BTreeMap<Digest, Vec<Pooling>> = BTreeMap::new();
    let keys: Vec<(Digest, Digest)> = spec
        .experiments
        .iter()
        .map(|experiment| {
            let texts = texts_key(&spec.texts[experiment.texts].plan);
            let base = extraction_base_key(&spec.models[experiment.model], texts, &experiment.extraction);
            let asked = poolings.entry(base).or_default();
            if !asked.contains(&experiment.pooling) {
                asked.push(experiment.pooling);
                asked.sort_unstable();
            }
            (texts, base)
        })
        .collect();

    let mut sides: Vec<(Digest, Side)> = Vec::with_capacity(spec.experiments.len());
    for (experiment, (texts_key, base_key)) in spec.experiments.iter().zip(&keys) {
        let texts = &spec.texts[experiment.texts];
        let prepare = add(Work {
            id: WorkId(*texts_key),
            what: What::Prepare { texts_key: *texts_key, texts: texts.clone() },
            depends_on: Vec::new(),
            memory_bytes: 0,
            flop: 0,
        });
        let model = &spec.models[experiment.model];
        let mirror = (spec.run.mirror && model.revision.is_some()).then(|| add(mirror_work(model)));
        let extraction = Extraction {
            base_key: *base_key,
            texts_key: *texts_key,
            n_texts: texts.n_texts,
            model: model.clone(),
            settings: experiment.extraction.clone(),
            poolings: poolings[base_key].clone(),
        };
        let n_shards = extraction.n_shards();
        let reads = std::iter::once(prepare).chain(mirror).collect();
        let side = Side {
            extraction: add(extraction_work(extraction, reads)),
            n_shards,
            layers: experiment.extraction.layers.clone(),
            hidden_size: model.facts.hidden_size,
        };
        sides.push((*base_key, side));
    }

    let alike = Alike::new(spec);
    let mut experiments = Vec::with_capacity(spec.experiments.len());
    for (number, experiment) in spec.experiments.iter().enumerate() {
        let own = sides[number].0;
        let compared = alike.compared_with(number).into_iter();
        let compared: BTreeMap<Digest, &Side> =
            compared.map(|other| (sides[other].0, &sides[other].1)).collect();
        let base_keys: Vec<Digest> = compared.keys().copied().collect();
        let comparison = add(comparison_work(Comparison {
            base_key: comparison_base_key(&base_keys, experiment.pooling, &experiment.similarity),
            sides: compared.into_values().cloned().collect(),
            pooling: experiment.pooling,
            n_texts: spec.texts[experiment.texts].n_texts,
            settings: experiment.similarity.clone(),
        }));
        let side = base_keys.binary_search(&own).expect("a comparison has the experiment's own side");
        experiments.push(Planned { comparison, side });
    }
    let works = order.iter().map(|id| works[id].clone()).collect();
    Plan { works, experiments }
}

fn mirror_work(model: &PinnedModel) -> Work {
    let files_key = model_files_key(model);
    Work {
        id: WorkId(digest_of("mirror work", &files_key)),
        what: What::Mirror { files_key, model: model.clone() },
        depends_on: Vec::new(),
        memory_bytes: 0,
        flop: 0,
    }
}

fn extraction_work(extraction: Extraction, depends_on: Vec<WorkId>) -> Work {
    let facts = &extraction.model.facts;
    let tokens = u64::from(extraction.n_texts) * u64::from(extraction.settings.max_length);
    Work {
        id: WorkId(digest_of("extraction work", &(extraction.base_key, &extraction.poolings))),
        depends_on,
        memory_bytes: cost::extract_memory_bytes(facts, &extraction.settings, extraction.poolings.len()),
        flop: tokens.saturating_mul(cost::token_flop(facts, extraction.settings.max_length)),
        what: What::Extract(extraction),
    }
}

fn comparison_work(comparison: Comparison) -> Work {
    let settings = &comparison.settings;
    let widths = comparison.widths();
    // Unrelated rows are the same layers once more, and both are kept until they are compared.
    let times = if settings.calibrate { 2 } else { 1 };
    let one = cost::trial_flop(settings.sample_size, &widths, &settings.metrics, &settings.layer_metrics);
    let one = one.saturating_mul(times);
    let held = u64::from(settings.sample_size) * widths.iter().map(|w| u64::from(*w) * 4).sum::<u64>();
    // The least: a worker with more uses it, one with no more puts what does not fit on disk.
    let trial = cost::trial_memory_min_bytes(
        settings.sample_size,
        &widths,
        &settings.metrics,
        &settings.layer_metrics,
    );
    let trial = trial.saturating_mul(times);
    Work {
        id: WorkId(digest_of("comparison work", &(comparison.base_key, settings.trials))),
        depends_on: comparison.sides.iter().map(|side| side.extraction).collect(),
        memory_bytes: trial.saturating_add(held.saturating_mul(u64::from(comparison.trials_per_unit()))),
        flop: one.saturating_mul(u64::from(settings.trials.at_most())),
        what: What::Compare(comparison),
    }
}
