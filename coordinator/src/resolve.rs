//! What a user typed → a spec in which every default is filled in, every file digested and every limit applied.
//!
//! Nothing is loaded but configs and headers; each file is read once. All faults are collected, so that a user mends
//! them in one go.

use std::collections::BTreeMap;

use lsa_common::cost;
use lsa_common::dataset::{DatasetName, HubName, ReadSettings, STREAMS_DEFAULT, Sampling};
use lsa_common::job::{
    Experiment, ExtractionSettings, JobSpec, RunSettings, SPEC_FORMAT, SimilaritySettings, Trials, Unresolved,
};
use lsa_common::mirror::MirrorMode;
use lsa_common::model::{LayerError, PinnedModel, Pooling};

use crate::chain;
use crate::grid::{self, DataSettings, Grid, Request};
use crate::sources::{self, FoundTexts, Repositories, SourceError, TextsRequest};

/// Rows of a trial where the user names none and there are enough texts.
pub const SAMPLE_SIZE_DEFAULT: u32 = 3000;

/// Why one experiment cannot be run.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    // It says itself which model, dataset or file it speaks of.
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Layers(#[from] LayerError),
    #[error(
        "model {0:?} has no trained pooler, and one is never initialised at random; leave pooling \"pooler\" out for it"
    )]
    NoPooler(String),
    #[error("sample_size {asked} is larger than the {n_texts} texts of {name:?}; lower it or leave it out")]
    SampleSize { asked: u32, n_texts: u32, name: String },
    #[error(
        "similarity.trials = \"auto\" needs draws that differ, but a draw has all {n_texts} texts of {name:?}; set \
         sample_size to fewer (a half, for instance), or take trials = 1"
    )]
    SameDraws { n_texts: u32, name: String },
    #[error("{0}; add texts, or leave the metric out")]
    TooFewRows(String),
}

/// A grid of which nothing, or not enough, can be run.
#[derive(Debug, thiserror::Error)]
#[error("{}", .lines.join("\n"))]
pub struct ResolveErrors {
    /// What is wrong, each once.
    pub lines: Vec<String>,
    /// Whether a hub or a bucket wants to know who asks.
    pub is_refused: bool,
}

/// Pins everything that `grid` names; what a hub has is asked of `repositories`. `told` hears what is being looked at.
///
/// With `continue_on_error` experiments that cannot be resolved are kept in [`JobSpec::unresolved`], as long as one
/// can; otherwise each of them is an error.
pub fn resolve(
    grid: &Grid,
    repositories: &dyn Repositories,
    told: &dyn Fn(&str),
) -> Result<JobSpec, ResolveErrors> {
    let mut known = Known::new(repositories);
    let mut experiments = Vec::new();
    let mut unresolved: Vec<Unresolved> = Vec::new();
    let mut is_refused = false;
    for request in &grid.requests {
        match known.experiment(request, told) {
            Ok(experiment) => experiments.push(experiment),
            Err(fault) => {
                is_refused |= fault.is_refused;
                unresolved.push(Unresolved { name: request.name.clone(), error: fault.message });
            }
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
        return Err(ResolveErrors { lines, is_refused });
    }
    Ok(JobSpec {
        format: SPEC_FORMAT,
        name: grid.name.clone(),
        experiments,
        models: known.models,
        texts: known.found.into_iter().map(|found| found.spec).collect(),
        run: RunSettings {
            continue_on_error: grid.run.continue_on_error,
            max_attempts: grid.run.max_attempts,
            priority: grid.run.priority,
            mirror: grid.run.mirror != MirrorMode::Off,
            single: !grid.is_list,
        },
        unresolved,
    })
}

/// What has been looked at: each model and each file once.
struct Known<'a> {
    repositories: &'a dyn Repositories,
    models: Vec<PinnedModel>,
    model_of: BTreeMap<(String, Option<String>), Result<usize, Fault>>,
    found: Vec<FoundTexts>,
    found_of: BTreeMap<String, Result<usize, Fault>>,
}

impl<'a> Known<'a> {
    fn new(repositories: &'a dyn Repositories) -> Self {
        let (models, found) = (Vec::new(), Vec::new());
        Self { repositories, models, model_of: BTreeMap::new(), found, found_of: BTreeMap::new() }
    }

    fn experiment(&mut self, request: &Request, told: &dyn Fn(&str)) -> Result<Experiment, Fault> {
        let model = self.model(request, told)?;
        let texts = self.texts(request, told)?;
        let facts = &self.models[model].facts;
        let found = &self.found[texts];
        let mut warnings = found.warnings.clone();

        if request.pooling == Pooling::Pooler && !facts.has_pooler {
            return Err(RequestError::NoPooler(request.model.id.clone()).into());
        }
        let asked = request.data.max_length;
        let max_length = asked.min(facts.max_length);
        if max_length < asked {
            warnings.push(format!("max_length {asked} was lowered to {max_length}, the model's limit"));
        }
        let layers = request.extraction.layers.resolve(facts.n_layers).map_err(RequestError::from)?;
        let n_texts = found.spec.n_texts;
        if n_texts < request.data.num_samples {
            let wanted = request.data.num_samples;
            warnings
                .push(format!("num_samples is {wanted}, {} has {n_texts} texts", found.spec.plan.dataset));
        }
        let name = || found.spec.plan.dataset.clone();
        let sample_size = match request.similarity.sample_size {
            Some(asked) if asked > n_texts => {
                return Err(RequestError::SampleSize { asked, n_texts, name: name() }.into());
            }
            Some(asked) => asked,
            None => SAMPLE_SIZE_DEFAULT.min(n_texts),
        };
        if sample_size == n_texts && matches!(request.similarity.trials, Trials::Auto { .. }) {
            return Err(RequestError::SameDraws { n_texts, name: name() }.into());
        }
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
                layer_metrics: request.similarity.layer_metrics.clone(),
                sample_size,
                trials: request.similarity.trials,
                compare: request.similarity.compare,
                calibrate: request.similarity.calibrate,
                seed: request.similarity.seed,
            },
            save_embeddings: request.extraction.save_embeddings,
            warnings,
        })
    }

    fn model(&mut self, request: &Request, told: &dyn Fn(&str)) -> Result<usize, Fault> {
        let key = (request.model.id.clone(), request.model.revision.clone());
        if let Some(known) = self.model_of.get(&key) {
            return known.clone();
        }
        told(&format!("reading model {}", request.model.id));
        let pinned = sources::model(self.repositories, &request.model).map_err(Fault::from);
        let place = pinned.map(|model| {
            self.models.push(model);
            self.models.len() - 1
        });
        self.model_of.insert(key, place.clone());
        place
    }

    fn texts(&mut self, request: &Request, told: &dyn Fn(&str)) -> Result<usize, Fault> {
        let wanted = texts_request(&request.dataset, &request.data, request.similarity.seed);
        let key = serde_json::to_string(&wanted).expect("plain data with string keys");
        if let Some(known) = self.found_of.get(&key) {
            return known.clone();
        }
        told(&format!("reading dataset {}", request.dataset));
        let place = sources::texts(self.repositories, &wanted).map_err(Fault::from).map(|found| {
            self.found.push(found);
            self.found.len() - 1
        });
        self.found_of.insert(key, place.clone());
        place
    }
}

/// The texts of a dataset that these settings stand for.
pub fn texts_request(dataset: &DatasetName, data: &DataSettings, seed: u64) -> TextsRequest {
    let streams = Sampling::Streams { streams: STREAMS_DEFAULT, seed };
    let sampling = match data.sampling {
        grid::Sampling::Auto if matches!(dataset, DatasetName::Hub(HubName::C4(_))) => streams,
        grid::Sampling::Auto | grid::Sampling::First => Sampling::First,
        grid::Sampling::Shuffle => Sampling::Shuffle { seed },
        grid::Sampling::Streams => streams,
    };
    let settings = ReadSettings {
        num_samples: data.num_samples,
        sampling,
        dedupe: data.dedupe,
        skip_bad_rows: data.skip_bad_rows,
        limits: data.limits,
    };
    TextsRequest { dataset: dataset.clone(), split: data.split.clone(), settings }
}

/// A fault with all its causes, as it is told to every experiment that meets it.
#[derive(Clone, Debug)]
struct Fault {
    message: String,
    is_refused: bool,
}

impl From<RequestError> for Fault {
    fn from(error: RequestError) -> Self {
        Self { message: chain(&error), is_refused: false }
    }
}

impl From<SourceError> for Fault {
    fn from(error: SourceError) -> Self {
        Self { message: chain(&error), is_refused: error.is_refused() }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use lsa_common::metric::MetricName;
    use tempfile::TempDir;
    use tokio::runtime::Handle;

    use super::*;
    use crate::grid::{self, GridSource, Language, Overlay};

    /// Nobody is to be asked.
    struct NoHub;

    impl Repositories for NoHub {
        fn runtime(&self) -> &Handle {
            panic!("nothing is fetched")
        }

        fn model(&self, name: &grid::ModelName) -> Result<PinnedModel, SourceError> {
            panic!("{name} is no folder")
        }

        fn texts(&self, dataset: &HubName, _: &TextsRequest) -> Result<FoundTexts, SourceError> {
            panic!("{dataset} is no file")
        }
    }

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
        resolve(&grid(folder.path(), more), &NoHub, &|_| {})
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
        assert_eq!(
            (similarity.sample_size, similarity.trials, similarity.seed),
            (N_TEXTS, lsa_common::job::Trials::Fixed(5), 42)
        );
        assert_eq!(similarity.metrics.len(), MetricName::DEFAULT.len());
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
        check("[similarity]\ntrials = \"auto\"\nsample_size = 19", |e| e.similarity.trials.at_first() == 10);
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
            resolve(&grid(folder.path(), more), &NoHub, &|line| told.borrow_mut().push(line.to_owned()))
                .unwrap();
        assert_eq!((spec.experiments.len(), spec.models.len(), spec.texts.len()), (5, 2, 2));
        assert_eq!(told.borrow().len(), 4, "two models, and one file with two settings: {told:?}");
        let last = &spec.experiments[4];
        assert_eq!((last.model, last.texts, spec.texts[1].n_texts), (0, 1, 15));
    }

    #[test]
    fn faults() {
        let check = |more: &str, expected: &[&str]| {
            let ResolveErrors { lines, .. } = resolved(more).expect_err(more);
            assert_eq!(lines.len(), expected.len(), "{more}: {lines:#?}");
            for (line, words) in lines.iter().zip(expected) {
                assert!(line.contains(words), "{more}: expected {words:?} in {line:?}");
            }
        };
        check(
            "[similarity]\nsample_size = 21",
            &["bert_mean_texts: sample_size 21 is larger than the 20 texts of \"file:"],
        );
        check("[similarity]\ntrials = \"auto\"", &["a draw has all 20 texts"]);
        check("[similarity]\ntrials = \"auto\"\nsample_size = 20", &["a draw has all 20 texts"]);
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
    fn what_a_trial_yields_has_to_fit_a_message() {
        let mut spec = resolved("[similarity]\ncompare = \"across\"\ntrials = 40").unwrap();
        let per_unit = |spec: &JobSpec| match &crate::plan::plan(spec).works.last().unwrap().what {
            crate::plan::What::Compare(comparison) => comparison.trials_per_unit(),
            _ => panic!("comparisons come last"),
        };
        assert_eq!(per_unit(&spec), 8);
        spec.experiments[0].extraction.layers = (0..600).collect();
        assert_eq!(per_unit(&spec), 2, "four matrices of 600 × 600 are 11 MiB");
        spec.experiments[0].extraction.layers = (0..3000).collect();
        let error = spec.check().unwrap_err().to_string();
        assert!(error.contains("3000 layers") && error.contains("fewer models"), "{error}");
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
        assert_eq!(errors.lines.len(), 1);
    }

    #[test]
    fn the_same_request_gives_the_same_job() {
        let folder = scratch();
        let id = |more: &str| resolve(&grid(folder.path(), more), &NoHub, &|_| {}).unwrap().id();
        assert_eq!(id(""), id("[similarity]\ntrials = 5\n"));
        assert_ne!(id(""), id("[similarity]\ntrials = 6\n"));
        let before = id("");
        fs::write(folder.path().join("texts.txt"), "other text\n".repeat(20)).unwrap();
        assert_ne!(before, id(""), "other content");
    }
}
