//! What a user typed → a spec in which every default is filled in, every file digested and every limit applied.
//!
//! Nothing is loaded but configs and headers; each file is read once. All faults are collected, so that a user mends
//! them in one go.

use std::collections::BTreeMap;

use lsa_common::cost;
use lsa_common::dataset::{self, DatasetError, ReadLimits, ReadSettings, Survey};
use lsa_common::job::{
    Experiment, ExtractionSettings, JobSpec, RunSettings, SPEC_FORMAT, SimilaritySettings, Unresolved,
};
use lsa_common::model::{LayerError, PinnedModel, Pooling};
use lsa_common::model_source::{self, ModelSourceError};

use crate::chain;
use crate::grid::{Grid, Request};

/// Rows of a trial where the user names none and there are enough texts.
pub const SAMPLE_SIZE_DEFAULT: u32 = 3000;

/// Why one experiment cannot be run.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    // Both say themselves which model or file they speak of.
    #[error(transparent)]
    Model(#[from] ModelSourceError),
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    #[error(transparent)]
    Layers(#[from] LayerError),
    #[error(
        "model {0:?} has no trained pooler, and one is never initialised at random; leave pooling \"pooler\" out for it"
    )]
    NoPooler(String),
    #[error("sample_size {asked} is larger than the {n_texts} texts of {name:?}; lower it or leave it out")]
    SampleSize { asked: u32, n_texts: u32, name: String },
    #[error("{0}; add texts, or leave the metric out")]
    TooFewRows(String),
}

/// A grid of which nothing, or not enough, can be run.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ResolveErrors(pub Vec<String>);

/// Pins everything that `grid` names. `told` hears what is being looked at.
///
/// With `continue_on_error` experiments that cannot be resolved are kept in [`JobSpec::unresolved`], as long as one
/// can; otherwise each of them is an error.
pub fn resolve(grid: &Grid, told: &dyn Fn(&str)) -> Result<JobSpec, ResolveErrors> {
    let mut known = Known::default();
    let mut experiments = Vec::new();
    let mut unresolved: Vec<Unresolved> = Vec::new();
    for request in &grid.requests {
        match known.experiment(request, told) {
            Ok(experiment) => experiments.push(experiment),
            Err(error) => unresolved.push(Unresolved { name: request.name.clone(), error: chain(&error) }),
        }
    }
    if !unresolved.is_empty() && (experiments.is_empty() || !grid.run.continue_on_error) {
        let mut lines: Vec<String> = Vec::new();
        for Unresolved { name, error } in unresolved {
            // One missing model would otherwise be told once per pooling and dataset.
            match lines.iter_mut().find(|line| line.ends_with(&format!(": {error}"))) {
                Some(line) => *line = format!("{}, {name}: {error}", &line[..line.len() - error.len() - 2]),
                None => lines.push(format!("{name}: {error}")),
            }
        }
        return Err(ResolveErrors(lines));
    }
    Ok(JobSpec {
        format: SPEC_FORMAT,
        name: grid.name.clone(),
        experiments,
        models: known.models,
        texts: known.surveys.into_iter().map(|survey| survey.spec).collect(),
        run: RunSettings {
            continue_on_error: grid.run.continue_on_error,
            max_attempts: grid.run.max_attempts,
            priority: grid.run.priority,
            single: !grid.is_list,
        },
        unresolved,
    })
}

/// What has been looked at: each model and each file once.
#[derive(Default)]
struct Known {
    models: Vec<PinnedModel>,
    model_of: BTreeMap<(String, Option<String>), Result<usize, String>>,
    surveys: Vec<Survey>,
    survey_of: BTreeMap<String, Result<usize, String>>,
}

impl Known {
    fn experiment(&mut self, request: &Request, told: &dyn Fn(&str)) -> Result<Experiment, Fault> {
        let model = self.model(request, told)?;
        let texts = self.texts(request, told)?;
        let facts = &self.models[model].facts;
        let survey = &self.surveys[texts];
        let mut warnings = survey.warnings.clone();

        if request.pooling == Pooling::Pooler && !facts.has_pooler {
            return Err(RequestError::NoPooler(request.model.id.clone()).into());
        }
        let asked = request.data.max_length;
        let max_length = asked.min(facts.max_length);
        if max_length < asked {
            warnings.push(format!("max_length {asked} was lowered to {max_length}, the model's limit"));
        }
        let layers = request.extraction.layers.resolve(facts.n_layers).map_err(RequestError::from)?;
        let n_texts = survey.spec.n_texts;
        if n_texts < request.data.num_samples {
            let wanted = request.data.num_samples;
            warnings.push(format!("num_samples is {wanted}, {} has {n_texts} texts", survey.spec.dataset));
        }
        let name = || survey.spec.dataset.clone();
        let sample_size = match request.similarity.sample_size {
            Some(asked) if asked > n_texts => {
                return Err(RequestError::SampleSize { asked, n_texts, name: name() }.into());
            }
            Some(asked) => asked,
            None => SAMPLE_SIZE_DEFAULT.min(n_texts),
        };
        let refused =
            request.similarity.metrics.iter().find_map(|metric| metric.refuses(u64::from(sample_size)));
        if let Some(reason) = refused {
            return Err(RequestError::TooFewRows(reason).into());
        }
        Ok(Experiment {
            name: request.name.clone(),
            model,
            texts,
            pooling: request.pooling,
            extraction: ExtractionSettings {
                max_length,
                batch_size: request.extraction.batch_size,
                dtype: request.extraction.dtype,
                layers,
                shard_rows: cost::shard_rows(facts, max_length),
                skip_empty: request.data.skip_empty_texts,
            },
            similarity: SimilaritySettings {
                metrics: request.similarity.metrics.clone(),
                sample_size,
                trials: request.similarity.trials,
                seed: request.similarity.seed,
            },
            save_embeddings: request.extraction.save_embeddings,
            warnings,
        })
    }

    fn model(&mut self, request: &Request, told: &dyn Fn(&str)) -> Result<usize, Fault> {
        let key = (request.model.id.clone(), request.model.revision.clone());
        if let Some(known) = self.model_of.get(&key) {
            return known.clone().map_err(Fault);
        }
        told(&format!("reading model {}", request.model.id));
        let pinned = model_source::find(&request.model.id, request.model.revision.as_deref())
            .and_then(|folder| folder.pin())
            .map_err(|error| Fault::from(RequestError::from(error)));
        let place = pinned.map(|model| {
            self.models.push(model);
            self.models.len() - 1
        });
        self.model_of.insert(key, place.clone().map_err(|fault| fault.0));
        place
    }

    fn texts(&mut self, request: &Request, told: &dyn Fn(&str)) -> Result<usize, Fault> {
        let settings = ReadSettings {
            num_samples: request.data.num_samples,
            dedupe: request.data.dedupe,
            skip_bad_rows: request.data.skip_bad_rows,
            limits: ReadLimits::default(),
        };
        let key = format!("{} {settings:?}", request.dataset);
        if let Some(known) = self.survey_of.get(&key) {
            return known.clone().map_err(Fault);
        }
        told(&format!("reading dataset {}", request.dataset));
        let survey = dataset::survey(&request.dataset, &settings)
            .map_err(|error| Fault::from(RequestError::from(error)));
        let place = survey.map(|survey| {
            self.surveys.push(survey);
            self.surveys.len() - 1
        });
        self.survey_of.insert(key, place.clone().map_err(|fault| fault.0));
        place
    }
}

/// A fault with all its causes, as it is told to every experiment that meets it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
struct Fault(String);

impl From<RequestError> for Fault {
    fn from(error: RequestError) -> Self {
        Self(chain(&error))
    }
}
