//! From the bucket to one experiment's result: trials are read, verified and merged, records tell where they came from.
//!
//! A result is a function of the bucket alone: exporting it again gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};

use lsa_common::artifact::decode_trial;
use lsa_common::dataset::{Place, Sampling, SourceFile, TextsPlan};
use lsa_common::hub::ContentId;
use lsa_common::id::{AttemptId, JobId};
use lsa_common::job::{Experiment, JobSpec, Trials};
use lsa_common::key::texts_key;
use lsa_common::layout;
use lsa_common::model::PinnedModel;
use lsa_common::record::{ShardRecord, TextsRecord, TrialRecord};
use lsa_common::store::{Store, StoreError};
use lsa_common::trial_matrices::TrialMatrices;

use crate::across::AcrossResult;
use crate::across::group::{Group, models};
use crate::merge::{self, Draws, ExperimentResult, Look, MergeError, Merged};
use crate::metadata::Metadata;
use crate::scheduler::event::MergeKeys;
use crate::survey;

/// Why an experiment's result cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum ResultError {
    /// A trial's object is missing or corrupt; it has to be computed again.
    #[error("trial {trial} is damaged: {fault}")]
    Damaged {
        /// Which.
        trial: u32,
        /// What is wrong with it.
        fault: String,
    },
    /// The result takes more trials than there are.
    #[error("{trials} trials are needed, not all of which are there")]
    TooFew {
        /// How many, those that are there included.
        trials: u32,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Trials do not fit together.
    #[error(transparent)]
    Merge(#[from] MergeError),
}

/// Reads, verifies and merges the trials of experiment `number`: all of them, or as many as are enough.
///
/// Fails with [`ResultError::TooFew`] where more trials decide on the result than `keys` says there are.
pub async fn load(
    store: &Store,
    job: &JobId,
    spec: &JobSpec,
    number: usize,
    keys: &MergeKeys,
) -> Result<ExperimentResult, ResultError> {
    let experiment = &spec.experiments[number];
    let n_texts = spec.texts[experiment.texts].n_texts;
    let mut trials = read_trials(store, keys).await?;
    let mut matrices: Vec<TrialMatrices> = trials.iter().map(|(matrices, _)| matrices.clone()).collect();
    let shards = survey::sound_shard_records(store, keys.extraction_key, experiment.pooling).await?;
    let settings = &experiment.similarity;
    let draws = Draws::of(settings.sample_size, n_texts.saturating_sub(n_left_out(&shards)));
    let (n_trials, too_wide) = match merge::look(&matrices, settings.trials, draws)? {
        Look::Enough { trials, too_wide } => (trials as usize, too_wide),
        Look::More { trials } => return Err(ResultError::TooFew { trials }),
    };
    trials.truncate(n_trials);
    matrices.truncate(n_trials);
    let layers = &experiment.extraction.layers;
    let by_place = merge::undefined(&matrices);
    let named = |(place, reason): (u32, String)| {
        let own = place.checked_sub(keys.first_layer)?;
        layers.get(own as usize).map(|layer| (*layer, reason))
    };
    let own = keys.first_layer as usize..keys.first_layer as usize + layers.len();
    let undefined = by_place.into_iter().filter_map(named).collect();
    let Merged { metrics, layer_metrics } = merge::merge(&matrices, draws)?;
    let metrics = metrics.iter().map(|metric| metric.block(own.clone(), own.clone())).collect();
    let layer_metrics = layer_metrics.iter().map(|quantity| quantity.part(own.clone())).collect();
    let mut metadata = metadata(store, job, spec, experiment, keys, &trials, &shards).await?;
    if let Trials::Auto { ci_half_width, .. } = settings.trials {
        metadata.ci_half_width = Some(ci_half_width.get());
        metadata.warnings.extend(too_wide.map(|width| {
            format!(
                "after {n_trials} trials, the most that were allowed, the widest 95 % confidence interval reaches \
                 {width:.3e} to either side, further than the {ci_half_width} asked for"
            )
        }));
    }
    if draws == Draws::Same && n_trials > 1 {
        metadata.warnings.push(format!(
            "every trial has all {} texts, so that all {n_trials} trials are the same and no confidence interval is \
             defined; take a smaller sample_size, or one trial",
            settings.sample_size
        ));
    }
    Ok(ExperimentResult {
        name: experiment.name.clone(),
        layers: layers.clone(),
        metrics,
        layer_metrics,
        undefined,
        metadata,
    })
}

/// Reads, verifies and merges the trials of a comparison across models; `keys` are those of any of its experiments.
pub async fn load_across(
    store: &Store,
    spec: &JobSpec,
    group: &Group,
    keys: &MergeKeys,
) -> Result<AcrossResult, ResultError> {
    let experiment = &spec.experiments[group.experiments[0]];
    let trials = read_trials(store, keys).await?;
    let mut matrices: Vec<TrialMatrices> = trials.into_iter().map(|(matrices, _)| matrices).collect();
    let texts = &spec.texts[experiment.texts];
    // Every text has a row: models are not compared where each could leave out others.
    let draws = Draws::of(experiment.similarity.sample_size, texts.n_texts);
    match merge::look(&matrices, experiment.similarity.trials, draws)? {
        Look::Enough { trials, .. } => matrices.truncate(trials as usize),
        Look::More { trials } => return Err(ResultError::TooFew { trials }),
    }
    Ok(AcrossResult {
        name: group.name.clone(),
        models: models(spec, group),
        metrics: merge::merge(&matrices, draws)?.metrics,
        undefined: merge::undefined(&matrices),
        metadata: Metadata {
            pooling: experiment.pooling.to_string(),
            dataset: texts.plan.dataset.clone(),
            num_samples: u64::from(texts.n_texts),
            sample_size: u64::from(experiment.similarity.sample_size),
            seed: experiment.similarity.seed,
            trials: u32::try_from(matrices.len()).unwrap_or(u32::MAX),
            ..Metadata::default()
        },
    })
}

/// Texts that have no row.
fn n_left_out(shards: &BTreeMap<u32, ShardRecord>) -> u32 {
    let left_out = shards.values().map(|shard| shard.notes.rows_without_tokens.len()).sum::<usize>();
    u32::try_from(left_out).unwrap_or(u32::MAX)
}

type Trial = (TrialMatrices, TrialRecord);

async fn read_trials(store: &Store, keys: &MergeKeys) -> Result<Vec<Trial>, ResultError> {
    let generations = survey::trial_generations(store, keys.comparison_key).await?;
    let mut trials = Vec::new();
    for trial in 0..keys.n_trials {
        let damaged = |fault: String| ResultError::Damaged { trial, fault };
        let generation = generations.get(&trial).ok_or_else(|| damaged("it is missing".to_owned()))?;
        let key = layout::trial(keys.comparison_key, trial, *generation);
        let object = store.try_get(&key).await?.ok_or_else(|| damaged("it is missing".to_owned()))?;
        let (matrices, record) = decode_trial(&object).map_err(|e| damaged(e.to_string()))?;
        let record = record.ok_or_else(|| damaged("it has no record".to_owned()))?;
        let fits = matrices.n_layers == keys.n_layers && record.trial == trial;
        if !fits {
            return Err(damaged("it is of another comparison".to_owned()));
        }
        trials.push((matrices, record));
    }
    Ok(trials)
}

async fn metadata(
    store: &Store,
    job: &JobId,
    spec: &JobSpec,
    experiment: &Experiment,
    keys: &MergeKeys,
    trials: &[Trial],
    shards: &BTreeMap<u32, ShardRecord>,
) -> Result<Metadata, ResultError> {
    let model = &spec.models[experiment.model];
    let texts = &spec.texts[experiment.texts].plan;
    let n_texts = spec.texts[experiment.texts].n_texts;
    let texts_key = texts_key(texts);
    let prepared = texts_record(store, texts_key).await?;

    let mut digests: BTreeMap<String, String> =
        model.files.iter().map(|file| (format!("model/{}", file.name), file.sha256.to_string())).collect();
    digests.extend(dataset_digests(&texts.files));
    digests.insert("texts_key".to_owned(), texts_key.to_string());
    digests.insert("extraction_key".to_owned(), keys.extraction_key.to_string());
    digests.insert("comparison_key".to_owned(), keys.comparison_key.to_string());

    let yes_no = |skip: bool| Some(if skip { "skip" } else { "error" }.to_owned());
    Ok(Metadata {
        experiment: experiment.name.clone(),
        job_id: job.to_string(),
        model: model.id.clone(),
        hidden_size: model.facts.hidden_size,
        pooling: experiment.pooling.to_string(),
        dataset: texts.dataset.clone(),
        sampling: Some(sampling_name(texts.settings.sampling).to_owned()),
        dedupe: Some(texts.settings.dedupe),
        bad_rows: yes_no(texts.settings.skip_bad_rows),
        empty_texts: yes_no(experiment.extraction.skip_empty),
        num_samples: u64::from(n_texts),
        sample_size: u64::from(experiment.similarity.sample_size),
        seed: experiment.similarity.seed,
        max_length: experiment.extraction.max_length,
        batch_size: experiment.extraction.batch_size,
        dtype: experiment.extraction.dtype.to_string(),
        revisions: revisions(model, &texts.files),
        digests,
        profile: BTreeMap::from([
            ("extraction".to_owned(), keys.extraction_profile.clone()),
            ("comparison".to_owned(), keys.comparison_profile.clone()),
        ]),
        versions: BTreeMap::from([("lsa".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]),
        timings: timings(prepared.as_ref(), shards, trials),
        warnings: warnings(experiment, texts, prepared.as_ref(), shards),
        ..Metadata::default()
    })
}

fn sampling_name(sampling: Sampling) -> &'static str {
    match sampling {
        Sampling::First => "first",
        Sampling::Shuffle { .. } => "shuffle",
        Sampling::Streams { .. } => "streams",
    }
}

/// The commits of what came from a hub: `model`, and `dataset/<repository>` for each that the texts are from.
fn revisions(model: &PinnedModel, files: &[SourceFile]) -> BTreeMap<String, String> {
    let of_model = model.revision.iter().map(|revision| ("model".to_owned(), revision.clone()));
    let of_dataset = files.iter().filter_map(|file| match &file.place {
        Place::Hub { repo, commit, .. } => Some((format!("dataset/{}", repo.id), commit.clone())),
        Place::Local { .. } => None,
    });
    of_model.chain(of_dataset).collect()
}

/// Files of a dataset that are listed one by one; of more, the key of the texts stands for all of them.
const FILES_LISTED_MAX: usize = 64;

/// What the files of a dataset are: `dataset` for the only one, else `dataset/<n>` in their order.
fn dataset_digests(files: &[SourceFile]) -> impl Iterator<Item = (String, String)> {
    let listed = if files.len() > FILES_LISTED_MAX { &[] } else { files };
    listed.iter().enumerate().filter_map(|(place, file)| {
        let name = if files.len() == 1 { "dataset".to_owned() } else { format!("dataset/{place}") };
        let digest = match file.content.as_ref()? {
            ContentId::Sha256(digest) => digest.to_string(),
            ContentId::GitSha1(digest) => format!("git:{digest}"),
        };
        Some((name, digest))
    })
}

async fn texts_record(
    store: &Store,
    texts_key: lsa_common::id::Digest,
) -> Result<Option<TextsRecord>, StoreError> {
    let found = survey::texts(store, texts_key).await?;
    let Some(found) = found.values().next() else { return Ok(None) };
    store.get_json(&layout::texts_commit(texts_key, found.generation)).await.map(Some)
}

/// Worker seconds per stage, from the records, so that they are the same whenever they are written out.
fn timings(
    prepared: Option<&TextsRecord>,
    shards: &BTreeMap<u32, ShardRecord>,
    trials: &[Trial],
) -> BTreeMap<String, f64> {
    let seconds = |ms: u64| ms as f64 / 1000.0;
    // Trials of one unit share its attempt and its time.
    let attempts: BTreeSet<(AttemptId, u64)> =
        trials.iter().map(|(_, record)| (record.writer.attempt, record.writer.elapsed_ms)).collect();
    BTreeMap::from([
        ("prepare".to_owned(), seconds(prepared.map_or(0, |record| record.writer.elapsed_ms))),
        ("extract".to_owned(), seconds(shards.values().map(|shard| shard.writer.elapsed_ms).sum())),
        ("compare".to_owned(), seconds(attempts.iter().map(|(_, ms)| ms).sum())),
    ])
}

/// What a reader should know before trusting the numbers.
fn warnings(
    experiment: &Experiment,
    texts: &TextsPlan,
    prepared: Option<&TextsRecord>,
    shards: &BTreeMap<u32, ShardRecord>,
) -> Vec<String> {
    let mut warnings = experiment.warnings.clone();
    // Those of local files are known since the job was resolved.
    if texts.files.iter().any(|file| matches!(file.place, Place::Hub { .. })) {
        warnings.extend(prepared.iter().flat_map(|record| record.warnings.iter().cloned()));
    }
    let mut count = |n: u64, what: &str| {
        if n > 0 {
            warnings.push(format!("{n} {what}"));
        }
    };
    if let Some(record) = prepared {
        count(record.n_blank, "whitespace-only lines were skipped");
        count(record.n_bad, "unreadable rows were skipped");
        count(record.n_duplicates, "texts repeat an earlier one");
    }
    let notes = || shards.values().map(|shard| &shard.notes);
    count(
        notes().map(|note| note.n_truncated).sum(),
        &format!("texts were cut to {} tokens", experiment.extraction.max_length),
    );
    count(
        notes().map(|note| note.rows_without_tokens.len() as u64).sum(),
        "texts without tokens were left out",
    );
    let redone = notes().flat_map(|note| &note.rows_redone).map(|(_, rows)| rows).sum();
    count(redone, "row and layer values were not finite in half precision and were redone in float32");
    if notes().any(|note| note.split) {
        warnings.push(
            "a batch did not fit the device and was split; bytes may differ from an unsplit run".to_owned(),
        );
    }
    warnings
}
