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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use lsa_common::metric::MetricName;
    use tempfile::TempDir;

    use super::*;
    use crate::grid::{self, GridSource, Language, Overlay};

    /// Lines of `texts.txt`.
    const N_TEXTS: u32 = 20;

    fn tiny(name: &str) -> String {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models").join(name);
        folder.display().to_string()
    }

    /// A folder with `texts.txt`.
    fn scratch() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let texts: String = (0..N_TEXTS).map(|n| format!("this is text {n}\n")).collect();
        fs::write(folder.path().join("texts.txt"), texts).unwrap();
        folder
    }

    /// The grid of the tiny model over `texts.txt`, with `more` in the file. In it MODEL and POOLERLESS stand for
    /// models, TEXTS for the file and FOLDER for its folder.
    fn grid(folder: &Path, more: &str) -> Grid {
        let lists = match more.contains("[grid]") {
            true => "",
            false => "[grid]\nmodels = [\"MODEL\"]\ndatasets = [\"file:TEXTS\"]\n",
        };
        let text = format!("{lists}{more}")
            .replace("MODEL", &tiny("open/bert"))
            .replace("POOLERLESS", &tiny("variants/bert-relu-nopooler"))
            .replace("TEXTS", &folder.join("texts.txt").display().to_string())
            .replace("FOLDER", &folder.display().to_string());
        let source = GridSource { path: PathBuf::from("g.toml"), text, language: Language::Toml };
        grid::build(Some(&source), Overlay::default()).unwrap_or_else(|errors| panic!("{errors}"))
    }

    fn resolved(more: &str) -> Result<JobSpec, ResolveErrors> {
        let folder = scratch();
        resolve(&grid(folder.path(), more), &|_| {})
    }

    #[test]
    fn every_default_is_filled_in() {
        let spec = resolved("").unwrap();
        spec.check().unwrap();
        assert_eq!((spec.models.len(), spec.texts.len(), spec.unresolved.len()), (1, 1, 0));
        assert!(!spec.run.single, "a grid file gives a folder to each experiment");
        let [experiment] = spec.experiments.as_slice() else { panic!("one experiment") };
        assert_eq!(experiment.name, "bert_mean_texts");
        assert_eq!(experiment.pooling, Pooling::Mean);
        assert_eq!(experiment.extraction.layers, [0, 1, 2, 3]);
        // The tiny model has 67 positions.
        assert_eq!((experiment.extraction.max_length, experiment.extraction.batch_size), (67, 64));
        assert!(experiment.extraction.shard_rows.is_power_of_two());
        let similarity = &experiment.similarity;
        assert_eq!((similarity.sample_size, similarity.trials, similarity.seed), (N_TEXTS, 5, 42));
        assert_eq!(similarity.metrics.len(), MetricName::ALL.len());
        assert_eq!(spec.texts[0].n_texts, N_TEXTS);
        let names: Vec<&str> = spec.models[0].files.iter().map(|file| file.name.as_str()).collect();
        assert!(names.contains(&"config.json") && names.contains(&"model.safetensors"), "{names:?}");
    }

    #[test]
    fn what_is_asked_for_is_kept() {
        let check = |more: &str, holds: fn(&Experiment) -> bool| {
            let spec = resolved(more).unwrap_or_else(|errors| panic!("{more}: {errors}"));
            assert!(spec.experiments.iter().all(holds), "{more}: {:?}", spec.experiments);
        };
        check("[similarity]\nsample_size = 20", |e| e.similarity.sample_size == 20);
        check("[similarity]\nsample_size = 11", |e| e.similarity.sample_size == 11);
        check("[data]\nnum_samples = 12", |e| e.similarity.sample_size == 12);
        check("[data]\nmax_length = 67", |e| {
            e.extraction.max_length == 67 && !e.warnings.iter().any(|w| w.contains("lowered"))
        });
        check("[data]\nmax_length = 16", |e| e.extraction.max_length == 16);
        check("[extraction]\nlayers = [-1, 0]", |e| e.extraction.layers == [0, 3]);
        check("[extraction]\nlayers = \"every:2\"", |e| e.extraction.layers == [0, 2, 3]);
        check("[extraction]\nsave_embeddings = true", |e| e.save_embeddings);
        check("[data]\nempty_texts = \"skip\"", |e| e.extraction.skip_empty);
        // One row more than CKA needs, far fewer than Jaccard does.
        check("[data]\nnum_samples = 3\n[similarity]\nmetrics = [\"CKA\"]", |e| {
            e.similarity.sample_size == 3
        });
    }

    #[test]
    fn what_was_changed_is_a_warning() {
        let check = |more: &str, expected: &[&str]| {
            let spec = resolved(more).unwrap();
            let warnings = &spec.experiments[0].warnings;
            assert_eq!(warnings.len(), expected.len(), "{more}: {warnings:?}");
            for words in expected {
                assert!(warnings.iter().any(|warning| warning.contains(words)), "{more}: {warnings:?}");
            }
        };
        check("", &["max_length 256 was lowered to 67", "num_samples is 20000"]);
        check("[data]\nnum_samples = 20\nmax_length = 67", &[]);
        check("[data]\nnum_samples = 21\nmax_length = 68", &["68 was lowered to 67", "has 20 texts"]);
    }

    #[test]
    fn models_and_files_are_looked_at_once() {
        let folder = scratch();
        let more = "[grid]\nmodels = [\"MODEL\", \"POOLERLESS\"]\npooling = [\"mean\", \"cls\"]\n\
                    datasets = [\"file:TEXTS\"]\n\
                    [[experiment]]\nmodel = \"MODEL\"\ndataset = \"file:TEXTS\"\ndata.num_samples = 15\n";
        let told = std::cell::RefCell::new(Vec::new());
        let spec =
            resolve(&grid(folder.path(), more), &|line| told.borrow_mut().push(line.to_owned())).unwrap();
        assert_eq!((spec.experiments.len(), spec.models.len(), spec.texts.len()), (5, 2, 2));
        assert_eq!(told.borrow().len(), 4, "two models, and one file with two settings: {told:?}");
        let last = &spec.experiments[4];
        assert_eq!((last.model, last.texts, spec.texts[1].n_texts), (0, 1, 15));
    }

    #[test]
    fn faults() {
        let check = |more: &str, expected: &[&str]| {
            let ResolveErrors(lines) = resolved(more).expect_err(more);
            assert_eq!(lines.len(), expected.len(), "{more}: {lines:#?}");
            for (line, words) in lines.iter().zip(expected) {
                assert!(line.contains(words), "{more}: expected {words:?} in {line:?}");
            }
        };
        check(
            "[similarity]\nsample_size = 21",
            &["bert_mean_texts: sample_size 21 is larger than the 20 texts of \"file:"],
        );
        check("[data]\nnum_samples = 10", &["JaccardSimilarity with k = 10 needs at least 11 rows"]);
        check("[extraction]\nlayers = [4]", &["layer 4 does not exist: the model has layers 0 to 3"]);
        check(
            "[grid]\nmodels = [\"POOLERLESS\"]\npooling = [\"mean\", \"pooler\"]\ndatasets = [\"file:TEXTS\"]",
            &["bert_relu_nopooler_pooler_texts: model "],
        );
        check(
            "[grid]\nmodels = [\"FOLDER/missing\"]\ndatasets = [\"file:TEXTS\"]",
            &["missing does not exist or is no folder"],
        );
        check(
            "[grid]\nmodels = [\"MODEL\"]\ndatasets = [\"file:FOLDER/missing.txt\"]",
            &["bert_mean_missing: "],
        );
        // Each model and file is told once, with all that need it.
        check(
            "[grid]\nmodels = [\"FOLDER/a\", \"MODEL\"]\npooling = [\"mean\", \"cls\"]\n\
             datasets = [\"file:TEXTS\", \"file:FOLDER/none.txt\"]",
            &[
                "a_mean_texts, a_cls_texts, a_mean_none, a_cls_none: model folder",
                "bert_mean_none, bert_cls_none: ",
            ],
        );
    }

    #[test]
    fn with_continue_on_error_the_good_ones_are_kept() {
        let lists = |models: &str| {
            format!(
                "[grid]\nmodels = [{models}]\ndatasets = [\"file:TEXTS\"]\n[run]\ncontinue_on_error = true"
            )
        };
        let spec = resolved(&lists("\"FOLDER/missing\", \"MODEL\"")).unwrap();
        spec.check().unwrap();
        assert_eq!(spec.experiments.len(), 1);
        let [unresolved] = spec.unresolved.as_slice() else { panic!("one: {:?}", spec.unresolved) };
        assert_eq!(unresolved.name, "missing_mean_texts");
        assert!(unresolved.error.contains("does not exist"), "{}", unresolved.error);
        let errors = resolved(&lists("\"FOLDER/missing\"")).expect_err("nothing is left to run");
        assert_eq!(errors.0.len(), 1);
    }

    #[test]
    fn the_same_request_gives_the_same_job() {
        let folder = scratch();
        let id = |more: &str| resolve(&grid(folder.path(), more), &|_| {}).unwrap().id();
        assert_eq!(id(""), id("[similarity]\ntrials = 5\n"));
        assert_ne!(id(""), id("[similarity]\ntrials = 6\n"));
        let before = id("");
        fs::write(folder.path().join("texts.txt"), "other text\n".repeat(20)).unwrap();
        assert_ne!(before, id(""), "other content");
    }
}
