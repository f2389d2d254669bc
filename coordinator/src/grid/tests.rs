//! Grid files as users write them: what they give, and every fault they can have.

use lsa_common::metric::{MetricName, MetricSpec, Number};
use lsa_common::model::{Dtype, LayerChoice, Pooling};

use super::*;

fn source(name: &str, text: &str) -> GridSource {
    let path = PathBuf::from(name);
    GridSource { language: Language::of(&path).expect("a known ending"), path, text: text.to_owned() }
}

fn grid(name: &str, text: &str) -> Result<Grid, String> {
    build(Some(&source(name, text)), Overlay::default()).map_err(|errors| errors.to_string())
}

/// Every setting there is; the design's own example with a file instead of c4.
const FULL: &str = r#"
name = "notebook-reproduction"
[grid]
models   = ["bert-base-uncased", "princeton-nlp/sup-simcse-roberta-base@main"]
pooling  = ["mean", "cls", "max", "last_token", "pooler"]
datasets = ["file:c4.txt", "file:reviews.jsonl"]
[data]
num_samples = 15000
split = "test"
sampling = "shuffle"
max_length = 128
dedupe = true
bad_rows = "skip"
empty_texts = "skip"
text_bytes_max = 1000
record_bytes_max = 2000
decompressed_bytes_max = 3000
[extraction]
batch_size = 32
dtype = "bfloat16"
layers = [0, 6, -1]
save_embeddings = true
[similarity]
metrics = ["CKA", { name = "JaccardSimilarity", k = 20 }]
sample_size = 2000
trials = 7
ci_half_width = 0.005
max_trials = 50
compare = "within"
calibrate = false
[run]
seed = 43
continue_on_error = true
max_attempts = 2
priority = -1
max_experiments = 21
mirror = "only"
[[experiment]]
model = "BAAI/bge-large-en-v1.5"
pooling = "mean"
dataset = "file:c4.txt"
extraction.dtype = "float16"
data.num_samples = 3000
run.seed = 1
"#;

#[test]
fn every_setting_is_read() {
    let grid = grid("g.toml", FULL).expect("a valid grid");
    assert_eq!((grid.name.as_str(), grid.requests.len(), grid.is_list), ("notebook-reproduction", 21, true));
    let run = RunSettings {
        continue_on_error: true,
        max_attempts: 2,
        priority: -1,
        max_experiments: 21,
        mirror: MirrorMode::Only,
    };
    assert_eq!(grid.run, run);
    let first = &grid.requests[0];
    let data = DataSettings {
        num_samples: 15_000,
        split: Some("test".to_owned()),
        sampling: Sampling::Shuffle,
        max_length: 128,
        dedupe: true,
        skip_bad_rows: true,
        skip_empty_texts: true,
        limits: ReadLimits { text_bytes_max: 1000, record_bytes_max: 2000, decompressed_bytes_max: 3000 },
    };
    assert_eq!(first.data, data);
    let extraction = ExtractionSettings {
        batch_size: 32,
        dtype: Dtype::BFloat16,
        layers: LayerChoice::List(vec![0, 6, -1]),
        save_embeddings: true,
    };
    assert_eq!(first.extraction, extraction);
    let jaccard = MetricSpec { k: Some(20), ..MetricSpec::new(MetricName::JaccardSimilarity) };
    let metrics = vec![MetricSpec::new(MetricName::Cka), jaccard];
    assert_eq!(
        first.similarity,
        SimilaritySettings {
            metrics,
            sample_size: Some(2000),
            trials: Trials::Fixed(7),
            seed: 43,
            ..SimilaritySettings::default()
        }
    );
    assert_eq!(first.place, Some(Place::File { line: 4, column: 13 }));
    assert_eq!(first.name, "bert_base_uncased_mean_c4");
    // Models stand outermost, poolings innermost.
    assert_eq!(grid.requests[5].name, "bert_base_uncased_mean_reviews");
    let simcse = &grid.requests[10];
    assert_eq!(simcse.model.id, "princeton-nlp/sup-simcse-roberta-base");
    assert_eq!(simcse.model.revision.as_deref(), Some("main"));

    let last = &grid.requests[20];
    assert_eq!((last.name.as_str(), last.pooling), ("bge_large_en_v1_5_mean_c4", Pooling::Mean));
    assert_eq!(last.data, DataSettings { num_samples: 3000, ..data });
    assert_eq!(last.extraction, ExtractionSettings { dtype: Dtype::Float16, ..extraction });
    assert_eq!((last.similarity.seed, last.similarity.trials), (1, Trials::Fixed(7)));
}

#[test]
fn yaml_and_json_have_the_same_schema() {
    let toml = grid(
        "g.toml",
        "[grid]\nmodels = [\"a\"]\ndatasets = [\"file:t.txt\"]\n[similarity]\nmetrics = [\"RSA\"]\n",
    )
    .expect("valid TOML");
    let yaml = "grid:\n  models: a\n  datasets:\n    - file:t.txt\nsimilarity:\n  metrics: [RSA]\ndata:\n";
    let json =
        r#"{"grid": {"models": ["a"], "datasets": ["file:t.txt"]}, "similarity": {"metrics": ["RSA"]}}"#;
    for (name, text) in [("g.yaml", yaml), ("g.yml", yaml), ("g.json", json)] {
        let mut other = grid(name, text).expect(name);
        other.requests[0].place = toml.requests[0].place.clone();
        assert_eq!(other, toml, "{name}");
    }
}

#[test]
fn defaults() {
    let grid =
        grid("my job.toml", "[grid]\nmodels = [\"a\"]\ndatasets = [\"file:t.txt\"]\n").expect("a valid grid");
    assert_eq!((grid.name.as_str(), grid.is_list), ("my_job", true));
    let request = &grid.requests[0];
    assert_eq!(request.pooling, Pooling::Mean);
    assert_eq!(request.data, DataSettings::default());
    assert_eq!(request.extraction, ExtractionSettings::default());
    assert_eq!(request.similarity, SimilaritySettings::default());
    assert_eq!(grid.run, RunSettings::default());
}

const HEAD: &str = "[grid]\nmodels = [\"a\"]\ndatasets = [\"file:t.txt\"]\n";

#[test]
fn faults_of_settings() {
    // Each line stands as line 4 of a file that is valid without it.
    let check = |lines: &str, expected: &str| {
        let message = grid("g.toml", &format!("{HEAD}{lines}\n")).expect_err(lines);
        assert!(message.contains(expected), "{lines}: expected {expected:?} in {message:?}");
        assert_eq!(message.lines().count(), 1, "{lines}: {message}");
    };
    check("[dta]", "g.toml:4:2: unknown key \"dta\"; did you mean \"data\"?");
    check("pooing = []", "g.toml:4:1: unknown key \"pooing\" in grid; did you mean \"pooling\"?");
    check("trials = 5", "g.toml:4:1: unknown key \"trials\" in grid; it belongs in [similarity]");
    check("[run]\nxyzzy = 1", "g.toml:5:1: unknown key \"xyzzy\" in run");
    check(
        "[similarity]\ntrials = 0",
        "g.toml:5:10: similarity.trials must be a whole number from 1 to 100000, got 0",
    );
    check("[similarity]\ntrials = \"5\"", "a whole number from 1 to 100000, got \"5\"");
    check("[similarity]\ntrials = 2.5", "got 2.5");
    check(
        "[similarity]\ntrials = \"atuo\"",
        "g.toml:5:10: similarity.trials must be \"auto\" or a whole number from 1 to 100000, got \"atuo\"; did you mean \"auto\"?",
    );
    check(
        "[similarity]\ntrials = \"auto\"\nsample_size = 20000",
        "g.toml:6:15: similarity.trials = \"auto\" needs draws that differ, but similarity.sample_size = 20000 is all",
    );
    check("[similarity]\nsample_size = 0", "similarity.sample_size must be a whole number from 1");
    check(
        "[similarity]\nsample_size = 20001",
        "g.toml:5:15: similarity.sample_size = 20001 is larger than data.num_samples = 20000",
    );
    check(
        "[similarity]\nsample_size = 10",
        "sample_size = 10 is too small: JaccardSimilarity with k = 10 needs at least 11 rows",
    );
    check(
        "[similarity]\nmetrics = [\"CCA\"]",
        "g.toml:5:12: similarity.metrics: unknown metric \"CCA\"; known are \"CKA\", \"RSA\", \"JaccardSimilarity\", \"DistanceCorrelation\", ",
    );
    check("[similarity]\nmetrics = []", "similarity.metrics is empty; name at least one");
    check(
        "[similarity]\nmetrics = [\"CKA\", \"cka\"]",
        "g.toml:5:19: similarity.metrics names \"cka\" twice",
    );
    check(
        "[similarity]\nmetrics = [\"JaccardSimilarity\", {name = \"JaccardSimilarity\", k = 3}]",
        "named twice with different parameters",
    );
    check("[similarity]\nmetrics = [{name = \"CKA\", k = 3}]", "CKA has no parameter k");
    check("[similarity]\nmetrics = [{k = 3}]", "the metric's name is missing");
    check("[similarity]\nmetrics = [3]", "similarity.metrics must be a metric such as \"CKA\"");
    check("[similarity]\ncompare = \"withn\"", "got \"withn\"; did you mean \"within\"?");
    check("[similarity]\ncalibrate = 1", "similarity.calibrate must be true or false, got 1");
    check("[similarity]\nlayer_metrics = [\"Anisotropi\"]", "did you mean \"Anisotropy\"?");
    check("[similarity]\nlayer_metrics = [\"NormMean\", \"normmean\"]", "names \"normmean\" twice");
    check("[similarity]\nci_half_width = 0", "similarity.ci_half_width must be a number above 0");
    check("[similarity]\nmax_trials = 1", "similarity.max_trials must be a whole number from 2");
    check("[data]\nnum_samples = 0", "data.num_samples must be a whole number from 1");
    check("[data]\nmax_length = 0", "data.max_length must be a whole number from 1");
    check(
        "[data]\nsampling = \"random\"",
        "data.sampling must be \"auto\", \"first\", \"shuffle\" or \"streams\", got \"random\"",
    );
    check("[data]\nbad_rows = \"ignore\"", "data.bad_rows must be \"error\" or \"skip\", got \"ignore\"");
    check("[data]\ndedupe = \"yes\"", "data.dedupe must be true or false, got \"yes\"");
    check("[data]\nsplit = \"\"", "data.split must be a name such as \"train\"");
    check("[extraction]\nbatch_size = 0", "extraction.batch_size must be a whole number from 1");
    check(
        "[extraction]\ndtype = \"fp16\"",
        "extraction.dtype must be \"float32\", \"float16\" or \"bfloat16\", got \"fp16\"",
    );
    check("[extraction]\nlayers = []", "extraction.layers must be \"all\", \"every:2\" or a list");
    check("[extraction]\nlayers = \"every:0\"", "got \"every:0\"");
    check("[extraction]\nlayers = [0.5]", "got a list");
    check("[run]\nseed = -1", "run.seed must be a whole number from 0 to 18446744073709551615, got -1");
    check("[run]\nmirror = \"no\"", "run.mirror must be \"auto\", \"off\" or \"only\", got \"no\"");
    check("[run]\nmax_attempts = 0", "run.max_attempts must be");
    check("[[similarity]]\ntrials = 1", "similarity must be a table of settings, got a list");
}

#[test]
fn trials_may_be_as_many_as_it_takes() {
    let lists = "[grid]\nmodels = [\"a\"]\ndatasets = [\"file:t.txt\"]\n[similarity]\n";
    let check = |more: &str, expected: &[(f64, u32)]| {
        let grid = grid("g.toml", &format!("{lists}{more}")).unwrap_or_else(|message| panic!("{message}"));
        let expected: Vec<Trials> = expected
            .iter()
            .map(|(width, max_trials)| Trials::Auto {
                ci_half_width: Number::new(*width).unwrap(),
                max_trials: *max_trials,
            })
            .collect();
        let found: Vec<Trials> = grid.requests.iter().map(|request| request.similarity.trials).collect();
        assert_eq!(found, expected, "{more}");
    };
    check("trials = \"auto\"", &[(0.01, 50)]);
    check("trials = \"auto\"\nci_half_width = 0.005\nmax_trials = 20", &[(0.005, 20)]);
    check("trials = \"auto\"\nci_half_width = 1", &[(1.0, 50)]);
    let one = "\n[[experiment]]\nmodel = \"b\"\ndataset = \"file:t.txt\"\nsimilarity.ci_half_width = 0.1\n";
    check(&format!("trials = \"auto\"\nmax_trials = 20{one}"), &[(0.01, 20), (0.1, 20)]);
    let text = format!("{lists}ci_half_width = 0.005\nmax_trials = 20\n");
    let grid = grid("g.toml", &text).unwrap_or_else(|message| panic!("{message}"));
    assert_eq!(grid.requests[0].similarity.trials, Trials::Fixed(5), "they speak of \"auto\" only");
}

#[test]
fn faults_of_experiments() {
    let check = |text: &str, expected: &str| {
        let message = grid("g.toml", text).expect_err(text);
        assert!(message.contains(expected), "{text}: expected {expected:?} in {message:?}");
        assert_eq!(message.lines().count(), 1, "{text}: {message}");
    };
    check("", "g.toml: there is nothing to run; add a [grid]");
    check(
        "name = \"x y\"\n[grid]\nmodels = [\"a\"]\ndatasets = [\"file:t.txt\"]",
        "g.toml:1:8: name must be 1 to 100 letters",
    );
    check("[grid]\ndatasets = [\"file:t.txt\"]", "g.toml:1:2: no model is named");
    check("[grid]\nmodels = []\ndatasets = [\"file:t.txt\"]", "g.toml:2:10: grid.models is empty");
    check(
        "[grid]\nmodels = [\"a\", \"a\"]\ndatasets = [\"file:t.txt\"]",
        "g.toml:2:16: grid.models names \"a\" twice",
    );
    check("[grid]\nmodels = [\"\"]\ndatasets = [\"file:t.txt\"]", "grid.models: \"\" is no model");
    check("[grid]\nmodels = [\"a@\"]\ndatasets = [\"file:t.txt\"]", "write id@revision");
    check(
        "[grid]\nmodels = [1]\ndatasets = [\"file:t.txt\"]",
        "grid.models must be a model: a hub id or a folder, got 1",
    );
    check("[grid]\nmodels = 1\ndatasets = [\"file:t.txt\"]", "grid.models must be a list");
    check(
        "[grid]\nmodels = [\"a\"]\ndatasets = [\"c44\"]",
        "g.toml:3:13: grid.datasets: there is no dataset \"c44\"; did you mean \"c4\"?",
    );
    check(
        "[grid]\nmodels = [\"a\"]\ndatasets = [\"file:t.txt\"]\npooling = [\"avg\"]",
        "unknown pooling \"avg\"; known are \"mean\", \"cls\", \"max\", \"last_token\" or \"pooler\"",
    );
    let single = "[[experiment]]\nmodel = \"a\"\ndataset = \"file:t.txt\"\n";
    check(
        &format!("{HEAD}{single}"),
        "g.toml:4:1: the experiment a, mean, file:t.txt is already there (line 2)",
    );
    check(
        &format!("{single}{single}"),
        "g.toml:4:1: the experiment a, mean, file:t.txt is already there (line 1)",
    );
    check(
        &format!("{HEAD}[[experiment]]\ndataset = \"file:t.txt\""),
        "g.toml:4:1: this experiment names no model",
    );
    check(
        &format!("{single}num_samples = 3"),
        "g.toml:4:1: unknown key \"num_samples\" in experiment; it belongs in [data]",
    );
    check(&format!("{single}models = [\"b\"]"), "unknown key \"models\" in experiment");
    check(&format!("{single}run.priority = 3"), "run.priority holds for the whole job");
    check(&format!("{single}similarity.trials = 0"), "g.toml:4:21: experiment.similarity.trials must be");
    check(
        &format!("{single}data.num_samples = 99\n[similarity]\nsample_size = 100"),
        "sample_size = 100 is larger than data.num_samples = 99",
    );
    check("experiment = []", "experiment is empty");
    check("[experiment]\nmodel = \"a\"", "experiment must be a list of tables; in TOML write [[experiment]]");
    let many: Vec<String> = (0..40).map(|i| format!("\"m{i}\"")).collect();
    let many = format!(
        "[grid]\nmodels = [{}]\npooling = [\"mean\", \"cls\"]\ndatasets = [\"file:t.txt\"]\n[run]\nmax_experiments = 79",
        many.join(", ")
    );
    check(&many, "40 models × 2 poolings × 1 datasets = 80, more than run.max_experiments = 79");
    check("- a\n", "not valid TOML");
}

#[test]
fn a_file_that_is_no_table_is_refused() {
    for text in ["- a\n", "text"] {
        let message = grid("g.yaml", text).expect_err(text);
        assert!(message.contains("g.yaml:1:1: a grid file must be a table of settings"), "{message}");
    }
    assert!(grid("g.yaml", "").expect_err("an empty file").contains("there is nothing to run"));
}

#[test]
fn all_faults_are_told_at_once_in_file_order() {
    let text = "[grid]\nmodles = [\"a\"]\ndatasets = [\"c44\", \"file:t.txt\"]\npooling = [\"meen\"]\n\
                [similarity]\ntrials = 0\nmetrics = [\"CKAA\"]\n[extraction]\ndtype = 3\n";
    let message = grid("g.toml", text).expect_err("many faults");
    let places: Vec<&str> = message.lines().map(|line| line.split(": ").next().unwrap_or("")).collect();
    let expected = [
        "g.toml:1:2",
        "g.toml:2:1",
        "g.toml:3:13",
        "g.toml:4:12",
        "g.toml:6:10",
        "g.toml:7:12",
        "g.toml:9:9",
    ];
    assert_eq!(places, expected, "{message}");
    let text = text.replace("modles", "models");
    let message = grid("g.toml", &text).expect_err("many faults");
    assert_eq!(message.lines().count(), 5, "{message}");
}

#[test]
fn a_file_with_countless_faults_ends_in_a_short_message() {
    let keys: String = (0..10_000).map(|i| format!("k{i} = 1\n")).collect();
    let message = grid("g.toml", &keys).expect_err("many faults");
    assert_eq!(message.lines().count(), 51);
    assert!(message.ends_with("and 9951 more faults"), "{}", &message[message.len() - 100..]);
}

#[test]
fn the_largest_files_are_read_without_delay() {
    // Quadratic work anywhere would take minutes here.
    let names: Vec<String> = (0..90_000).map(|i| format!("\"m{i:05}\"")).collect();
    let names = names.join(",");
    let check = |name: &str, text: String, expected: &str| {
        assert!(text.len() as u64 <= GRID_BYTES_MAX);
        let message = grid(name, &text).expect_err(name);
        assert!(message.contains(expected), "{name}: {}", &message[..200]);
    };
    let too_many = "= 90000, more than run.max_experiments = 1000";
    check("g.toml", format!("[grid]\ndatasets = [\"file:t.txt\"]\nmodels = [{names}]"), too_many);
    check("g.yaml", format!("grid: {{datasets: ['file:t.txt'], models: [{names}]}}"), too_many);
    check(
        "g.json",
        format!("{{\"grid\": {{\"datasets\": [\"file:t.txt\"], \"models\": [{names}]}}}}"),
        too_many,
    );
    let keys: String = (0..90_000).map(|i| format!("m{i:05}: 1\n")).collect();
    check("g.yaml", keys[..40_000 * 10].to_owned(), "unknown key \"m00000\"");
    check("g.yaml", keys, "more than 100000 values");
}

#[test]
fn flags_fill_sections_that_a_file_leaves_empty() {
    let mut overlay = Overlay::default();
    overlay.number("--trials", "similarity.trials", "3");
    let text = "grid: {models: a, datasets: 'file:t.txt'}\nsimilarity:\n";
    let grid = build(Some(&source("g.yaml", text)), overlay).expect("a valid grid");
    assert_eq!(grid.requests[0].similarity.trials, Trials::Fixed(3));
}

#[test]
fn reading() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let check = |name: &str, bytes: Option<&[u8]>, expected: &str| {
        let path = folder.path().join(name);
        if let Some(bytes) = bytes {
            std::fs::write(&path, bytes).expect("write the file");
        }
        let message = read(&path).map(|source| source.text).expect_err(name).to_string();
        assert!(message.contains(expected), "{name}: {message}");
    };
    check("missing.toml", None, "cannot be read: No such file");
    check("grid.txt", Some(b""), "ends in .toml, .yaml, .yml or .json");
    check("latin.toml", Some(b"a = 1\nname = \"\xe9\"\n"), "latin.toml:2:1: this line is not UTF-8");
    check("large.toml", Some(&vec![b'#'; 1_048_577]), "at most 1048576 bytes");
    std::fs::create_dir(folder.path().join("folder.toml")).expect("make a folder");
    check("folder.toml", None, "not a regular file");
    let path = folder.path().join("ok.JSON");
    std::fs::write(&path, "{}").expect("write the file");
    assert_eq!(read(&path).expect("a file").language, Language::Json);
}

#[test]
fn the_examples_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("the examples") {
        let path = entry.expect("an entry of the folder").path();
        if Language::of(&path).is_none() {
            continue;
        }
        let source = read(&path).expect("a readable example");
        assert!(source.text.starts_with("# "), "{} starts with a comment", path.display());
        assert!(
            source.text.contains("lsa-coordinator run examples/"),
            "{} says how to run it",
            path.display()
        );
        let grid = build(Some(&source), Overlay::default()).unwrap_or_else(|errors| panic!("{errors}"));
        names.push((
            path.file_name().and_then(|name| name.to_str()).unwrap_or("").to_owned(),
            grid.requests.len(),
        ));
    }
    names.sort();
    let expected = [
        ("across-models.toml", 3),
        ("batch.yaml", 3),
        ("compare-models.toml", 3),
        ("dataset-effects.toml", 3),
        ("demo.toml", 4),
        ("large-models-fp16.toml", 2),
        ("large-scale-analysis.toml", 30),
        ("notebook-reproduction.toml", 6),
        ("pooling-strategies.toml", 5),
        ("quick-test.toml", 1),
    ];
    assert_eq!(names, expected.map(|(name, n)| (name.to_owned(), n)));
}
