//! Small jobs that share works: other poolings of the same model, other numbers of trials of the same comparison, some of
//! them as many as it takes, models compared with one another.

use std::path::PathBuf;

use lsa_common::dataset::{
    Compression, Format, Place, ReadLimits, ReadSettings, Sampling, SourceFile, TextsPlan, TextsSpec,
};
use lsa_common::hub::ContentId;
use lsa_common::id::Digest;
use lsa_common::job::{
    Compare, Experiment, ExtractionSettings, JobSpec, RunSettings, SPEC_FORMAT, SimilaritySettings, Trials,
};
use lsa_common::metric::{MetricName, MetricSpec, Number};
use lsa_common::model::{Dtype, ModelFacts, PinnedFile, PinnedModel, Pooling};

/// Attempts of a unit in every job.
pub const MAX_ATTEMPTS: u32 = 4;
const SHARD_ROWS: u32 = 32;
const N_TEXTS: u32 = 100;

/// Number of the model, pooling, trials, and what is compared.
pub type Row = (usize, Pooling, Trials, Compare);

/// The jobs of every simulation.
pub fn specs(continue_on_error: [bool; 3]) -> Vec<JobSpec> {
    use Compare::{Across, Within};
    let fixed = Trials::Fixed;
    let auto = Trials::Auto { ci_half_width: Number::new(0.01).expect("finite"), max_trials: 22 };
    let rows: [&[Row]; 3] = [
        &[(0, Pooling::Mean, fixed(5), Within), (0, Pooling::Cls, auto, Within)],
        &[
            (0, Pooling::Mean, fixed(7), Within),
            (0, Pooling::Cls, fixed(3), Within),
            (1, Pooling::Mean, fixed(3), Within),
        ],
        &[
            (0, Pooling::Mean, auto, Across),
            (1, Pooling::Mean, auto, Across),
            (1, Pooling::Max, fixed(8), Across),
            (0, Pooling::Cls, auto, Within),
        ],
    ];
    let names = ["one", "two", "three"];
    (0..3).map(|job| spec(names[job], rows[job], continue_on_error[job])).collect()
}

fn spec(name: &str, rows: &[Row], continue_on_error: bool) -> JobSpec {
    let spec = JobSpec {
        format: SPEC_FORMAT,
        name: name.to_owned(),
        experiments: rows.iter().map(experiment).collect(),
        models: vec![model("first", None), model("second", Some("c0ffee"))],
        texts: vec![texts()],
        run: RunSettings {
            continue_on_error,
            max_attempts: MAX_ATTEMPTS,
            priority: 0,
            mirror: true,
            single: false,
        },
        unresolved: Vec::new(),
    };
    spec.check().expect("made as resolving makes it");
    spec
}

fn experiment((model, pooling, trials, compare): &Row) -> Experiment {
    Experiment {
        name: format!("{model}_{pooling}_{}_{}", trials.at_most(), compare.as_str()),
        model: *model,
        texts: 0,
        pooling: *pooling,
        extraction: ExtractionSettings {
            max_length: 16,
            batch_size: 4,
            dtype: Dtype::Float32,
            layers: vec![0, 1],
            shard_rows: SHARD_ROWS,
            skip_empty: false,
        },
        similarity: SimilaritySettings {
            metrics: vec![MetricSpec::new(MetricName::Cka)],
            sample_size: 10,
            layer_metrics: Vec::new(),
            trials: *trials,
            compare: *compare,
            calibrate: false,
            seed: 1,
        },
        save_embeddings: false,
        warnings: Vec::new(),
    }
}

fn file(name: &str) -> PinnedFile {
    PinnedFile { name: name.to_owned(), size: 1, sha256: Digest::of(name.as_bytes()) }
}

/// With a revision it comes from a hub, and goes through the bucket.
fn model(id: &str, revision: Option<&str>) -> PinnedModel {
    PinnedModel {
        id: id.to_owned(),
        revision: revision.map(str::to_owned),
        folder: PathBuf::new(),
        files: vec![file(id)],
        facts: ModelFacts {
            model_type: "bert".to_owned(),
            n_layers: 2,
            hidden_size: 8,
            n_params: 1_000,
            weight_bytes: 4_000,
            flop_linear: 2_000,
            flop_per_length: 16,
            activation_width: 32,
            max_length: 16,
            has_pooler: false,
            stored_dtype: "float32".to_owned(),

            tokenizer: "none".into(),
        },
    }
}

fn texts() -> TextsSpec {
    let source = SourceFile {
        place: Place::Local { name: "texts.txt".to_owned(), hint: PathBuf::new() },
        size: 1,
        content: Some(ContentId::Sha256(Digest::of(b"texts.txt"))),
        format: Format::Text,
        compression: Compression::None,
        columns: None,
    };
    let settings = ReadSettings {
        num_samples: N_TEXTS,
        sampling: Sampling::First,
        dedupe: false,
        skip_bad_rows: false,
        limits: ReadLimits::default(),
    };
    let plan = TextsPlan::new("file:texts.txt".to_owned(), vec![source], settings);
    TextsSpec { plan, n_texts: N_TEXTS }
}
