//! `lsa-coordinator run`: everything on one machine, through the real coordinator, workers and bucket.

use std::fs;
use std::path::{Path, PathBuf};

use lsa_coordinator::unpickle::read_matrix;
use lsa_tests::bucket;
use lsa_tests::inputs::{dataset, tiny_model};
use lsa_tests::process::{command, succeed};
use lsa_tests::results::{Tree, assert_same, npz_array, read_all, read_tree, tensor_values, without_timings};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::TempDir;

const METRICS: [&str; 4] = ["CKA", "RSA", "JaccardSimilarity", "DistanceCorrelation"];
/// Hidden states of the tiny model.
const LAYERS: u64 = 4;
/// More than one shard of 2048.
const LONG: usize = 2500;
const SHORT: usize = 700;

/// `embed` cuts other batches than a run does; kernels round differently for other batch shapes, by some units of the
/// last place of numbers around 1.
const BATCH_SHAPE_ERROR_MAX: f32 = 1e-4;

/// A folder with two datasets, a store and whatever a test writes.
struct Place {
    folder: TempDir,
    long: String,
    short: String,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let long = dataset(folder.path(), "long.txt", 1, LONG);
        let short = dataset(folder.path(), "short.txt", 2, SHORT);
        Self { folder, long, short }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `run`, or `plan`, of the tiny model with this place's store; its answer as JSON.
    fn coordinator(&self, verb: &str, args: &[&str]) -> Value {
        let mut coordinator = command("lsa-coordinator", self.folder.path());
        coordinator.arg(verb).args(args).arg("--model").arg(tiny_model());
        coordinator.args(["--sample-size", "150", "--device", "cpu", "--json"]);
        if !args.contains(&"--store") {
            coordinator.arg("--store").arg(self.path("store"));
        }
        succeed(coordinator).json()
    }

    /// `run` into the folder `output`; the units that it ran.
    fn run(&self, output: &str, args: &[&str]) -> u64 {
        let output = self.path(output);
        let output = ["--output-dir", output.to_str().expect("a plain path")];
        let summary = self.coordinator("run", &[args, &output].concat());
        assert_eq!(summary["state"], "done", "{summary:#}");
        summary["units_run"].as_u64().expect("a count")
    }

    fn tree(&self, name: &str) -> Tree {
        read_tree(&self.path(name))
    }
}

#[test]
fn a_grid_gives_every_file_that_users_know() {
    let place = Place::new();
    let grid = ["--dataset", &place.long, &place.short, "--pooling", "mean", "cls", "--trials", "2"];
    assert!(place.run("out", &grid) > 0);

    let experiments = ["bert_mean_long", "bert_cls_long", "bert_mean_short", "bert_cls_short"];
    let mut expected: Vec<String> = vec!["grid_search_summary.json".into(), "similarities.parquet".into()];
    for experiment in experiments {
        expected.push(format!("{experiment}/metadata.json"));
        expected.push(format!("{experiment}/similarities/similarities.npz"));
        for metric in METRICS {
            for file in ["similarities/METRIC.pkl", "similarities/METRIC_std.pkl"] {
                expected.push(format!("{experiment}/{}", file.replace("METRIC", metric)));
            }
            for figure in ["heatmap.png", "heatmap.svg", "dendrogram.png", "dendrogram.svg"] {
                expected.push(format!("{experiment}/figures/{metric}_{figure}"));
            }
        }
    }
    expected.sort();
    let tree = place.tree("out");
    assert_eq!(tree.keys().cloned().collect::<Vec<_>>(), expected);
    for experiment in experiments {
        let is_log =
            |path: &&String| path.starts_with(&format!("{experiment}/pipeline_")) && path.ends_with(".log");
        assert_eq!(read_all(&place.path("out")).keys().filter(is_log).count(), 1, "{experiment}");
        let npz = &tree[&format!("{experiment}/similarities/similarities.npz")];
        METRICS.iter().for_each(|metric| check_matrices(&tree, npz, experiment, metric));
        let metadata: Value =
            serde_json::from_slice(&tree[&format!("{experiment}/metadata.json")]).expect("JSON");
        assert_eq!((&metadata["num_layers"], &metadata["trials"]), (&LAYERS.into(), &2.into()));
    }

    let table = fs::File::open(place.path("out/similarities.parquet")).expect("listed above");
    let table = SerializedFileReader::new(table).expect("a parquet file");
    let cells = experiments.len() as u64 * METRICS.len() as u64 * LAYERS * LAYERS;
    assert_eq!(u64::try_from(table.metadata().file_metadata().num_rows()), Ok(cells));
    let summary: Value = serde_json::from_slice(&tree["grid_search_summary.json"]).expect("JSON");
    assert_eq!((&summary["total"], &summary["done"]), (&4.into(), &4.into()));
}

/// Exactly symmetric, in range, the mean of the trials, and the same in the pickle.
fn check_matrices(tree: &Tree, npz: &[u8], experiment: &str, metric: &str) {
    let (shape, mean) = npz_array(npz, metric);
    let (trials_shape, trials) = npz_array(npz, &format!("{metric}_trials"));
    assert_eq!((shape, trials_shape), (vec![LAYERS; 2], vec![2, LAYERS, LAYERS]));
    let side = LAYERS as usize;
    for (cell, value) in mean.iter().enumerate() {
        let (row, column) = (cell / side, cell % side);
        let mirrored = mean[column * side + row];
        assert_eq!(value.to_bits(), mirrored.to_bits(), "{experiment} {metric} [{row}, {column}]");
        let of_trials = (trials[cell] + trials[side * side + cell]) / 2.0;
        assert!(value.is_nan() == of_trials.is_nan());
        // `cls` at layer 0 is the same vector for every text, so it has no similarity to anything.
        let is_constant = experiment.contains("_cls_") && (row == 0 || column == 0);
        assert_eq!(value.is_nan(), is_constant, "{experiment} {metric} [{row}, {column}]");
        if !is_constant {
            assert!((value - of_trials).abs() < 1e-15 && (-1.0..=1.0 + 1e-12).contains(value), "{value}");
            assert!(row != column || (value - 1.0).abs() < 1e-12, "{experiment} {metric} [{row}, {row}]");
        }
    }
    let pickle = read_matrix(&tree[&format!("{experiment}/similarities/{metric}.pkl")]).expect("a matrix");
    let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!((pickle.shape, bits(&pickle.values)), ([side; 2], bits(&mean)));
}

#[test]
fn what_is_done_is_not_done_again() {
    let place = Place::new();
    let data = ["--dataset", &place.long, &place.short];
    let two = [&data[..], &["--pooling", "mean", "cls", "--trials", "2"]].concat();
    // Two prepares, three shards, two trials of each of four experiments.
    assert_eq!(place.run("out", &two), 2 + 3 + 8);
    let first = place.tree("out");
    assert_eq!(place.run("out", &two), 0);
    assert_same(&place.tree("out"), &first);
    fs::remove_dir_all(place.path("out")).expect("just written");
    assert_eq!(place.run("out", &two), 0);
    assert_same(&place.tree("out"), &first);

    let before = bucket_records(&place.path("store"));
    let three = [&data[..], &["--pooling", "mean", "cls", "max", "--trials", "2"]].concat();
    assert_eq!(place.run("three", &three), 3 + 4, "only the new pooling is extracted and compared");
    let after = bucket_records(&place.path("store"));
    assert!(before.iter().all(|(path, bytes)| after.get(path) == Some(bytes)), "records are never touched");
    let new = after.keys().filter(|path| !before.contains_key(*path));
    assert!(
        new.clone().count() > 0 && new.clone().all(|path| path.contains("/max/")),
        "{:?}",
        Vec::from_iter(new)
    );

    let more = [&data[..], &["--pooling", "mean", "cls", "--trials", "4"]].concat();
    assert_eq!(place.run("more", &more), 4 * 2, "two more trials of each of four experiments");
    let more = place.tree("more");
    for experiment in ["bert_mean_long", "bert_cls_short"] {
        let npz = format!("{experiment}/similarities/similarities.npz");
        let (_, two) = npz_array(&first[&npz], "RSA_trials");
        let (shape, four) = npz_array(&more[&npz], "RSA_trials");
        assert_eq!(shape, [4, LAYERS, LAYERS]);
        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&four[..two.len()]), bits(&two), "the first trials stay what they were");
    }
}

/// The records of shards, path → bytes.
fn bucket_records(store: &Path) -> Tree {
    let mut tree = read_all(&store.join("embeddings"));
    tree.retain(|path, _| path.contains("/commits/"));
    tree
}

#[test]
fn one_experiment_by_flags_is_written_into_the_directory_itself() {
    let place = Place::new();
    place.run("out", &["--dataset", &place.short, "--trials", "1", "--metrics", "CKA"]);
    let tree = place.tree("out");
    let names: Vec<&str> = tree.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "figures/CKA_dendrogram.png",
            "figures/CKA_dendrogram.svg",
            "figures/CKA_heatmap.png",
            "figures/CKA_heatmap.svg",
            "metadata.json",
            "similarities.parquet",
            "similarities/CKA.pkl",
            "similarities/CKA_std.pkl",
            "similarities/similarities.npz",
        ]
    );
}

#[test]
fn embeddings_are_saved_in_text_order() {
    const BATCH: usize = 96;
    let place = Place::new();
    let batch = BATCH.to_string();
    let args = ["--dataset", &place.long, "--trials", "1", "--save-embeddings", "--batch-size", &batch];
    place.run("out", &args);
    let tree = place.tree("out");

    let embedded = place.path("mean.safetensors");
    let mut embed = command("lsa-worker", place.folder.path());
    embed.arg("embed").arg("--model").arg(tiny_model()).args(["--pooling", "mean", "--texts"]);
    embed.arg(place.long.trim_start_matches("file:")).arg("--output").arg(&embedded);
    succeed(embed);
    let embedded = fs::read(embedded).expect("just written");
    let embedded = SafeTensors::deserialize(&embedded).expect("safetensors");
    let expected = embedded.tensor("mean").expect("the pooling asked for");
    let [layers, rows, width] = *expected.shape() else { panic!("{:?}", expected.shape()) };
    assert_eq!((layers as u64, rows), (LAYERS, LONG));
    let number = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    let expected: Vec<f32> = expected.data().chunks_exact(4).map(number).collect();

    let n_files = tree.keys().filter(|path| path.starts_with("embeddings/")).count();
    assert_eq!(n_files, layers * LONG.div_ceil(BATCH));
    for (layer, expected) in expected.chunks_exact(rows * width).enumerate() {
        for (batch, expected) in expected.chunks(BATCH * width).enumerate() {
            let path = format!("embeddings/layer_{layer}/batch_{batch}.pt");
            let found = tensor_values(&tree[&path]);
            assert_eq!(found.len(), expected.len(), "{path}");
            let error = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(error <= BATCH_SHAPE_ERROR_MAX, "{path}: {error}");
        }
    }
}

#[test]
fn plans_touch_nothing() {
    let place = Place::new();
    let grid = ["--dataset", &place.long, &place.short, "--pooling", "mean", "cls", "--trials", "2"];
    let units = |plan: &Value, key: &str| -> u64 {
        plan["works"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|work| work[key].as_u64().expect("a count"))
            .sum()
    };
    let out = place.path("out");
    let dry = [&grid[..], &["--dry-run", "--output-dir", out.to_str().expect("a plain path")]].concat();
    for (verb, args) in [("plan", &grid[..]), ("run", &dry)] {
        let plan = place.coordinator(verb, args);
        assert_eq!((units(&plan, "units"), units(&plan, "units_done")), (13, 0), "{verb}");
        assert_eq!(plan["experiments"].as_array().map(Vec::len), Some(4));
        assert!(!place.path("store").exists() && !out.exists(), "{verb} made a folder");
    }

    place.run("out", &grid);
    let store = read_all(&place.path("store"));
    let results = read_all(&out);
    for (verb, args) in [("plan", &grid[..]), ("run", &dry)] {
        let plan = place.coordinator(verb, args);
        assert_eq!((units(&plan, "units"), units(&plan, "units_done")), (13, 13), "{verb}");
        assert_eq!((&plan["flop_left"], &plan["bytes_left"]), (&0.into(), &0.into()), "{verb}");
    }
    assert_same(&read_all(&place.path("store")), &store);
    assert_same(&read_all(&out), &results);
}

#[test]
fn workers_and_threads_do_not_change_the_bytes() {
    let place = Place::new();
    let grid = ["--dataset", &place.long, &place.short, "--pooling", "mean", "cls", "--trials", "3"];
    let mut reference: Option<Tree> = None;
    for (workers, threads) in [("1", "1"), ("1", "2"), ("3", "1")] {
        let name = format!("{workers}-{threads}");
        let store = place.path(&format!("store-{name}"));
        let machine =
            ["--store", store.to_str().expect("a plain path"), "--workers", workers, "--threads", threads];
        assert_eq!(place.run(&name, &[&grid[..], &machine].concat()), 2 + 3 + 12);
        if workers == "3" {
            let records = bucket::trials(&store);
            assert_eq!(records.len(), 12);
        }
        let tree = without_timings(place.tree(&name));
        match &reference {
            Some(reference) => assert_same(&tree, reference),
            None => reference = Some(tree),
        }
    }
}

/// How far the widest 95 % confidence interval reaches after the first trials of an archive's `CKA` and `RSA`.
fn widest(npz: &[u8], n_trials: usize) -> f64 {
    // Student's t for 95 % and so many trials, from a table.
    let t = [(10, 2.262_157), (15, 2.144_787), (20, 2.093_024), (25, 2.063_899), (30, 2.045_230)];
    let t = t.iter().find(|(n, _)| *n == n_trials).map(|(_, t)| *t).expect("a look");
    let n = n_trials as f64;
    let of_metric = |metric: &str| {
        let (shape, trials) = npz_array(npz, &format!("{metric}_trials"));
        let cells = (shape[1] * shape[2]) as usize;
        let half_width = |cell: usize| {
            let values: Vec<f64> = (0..n_trials).map(|trial| trials[trial * cells + cell]).collect();
            let mean = values.iter().sum::<f64>() / n;
            let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            t * (squares / (n - 1.0)).sqrt() / n.sqrt()
        };
        (0..cells).map(half_width).fold(0.0, f64::max)
    };
    of_metric("CKA").max(of_metric("RSA"))
}

#[test]
fn trials_end_when_intervals_are_narrow() {
    const NPZ: &str = "similarities/similarities.npz";
    let place = Place::new();
    let grid = ["--dataset", &place.short, "--metrics", "CKA", "RSA"];
    let auto = |width: f64| {
        [&grid[..], &["--trials", "auto", "--max-trials", "30"]]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .chain(["--ci-half-width".to_owned(), width.to_string()])
            .collect::<Vec<String>>()
    };
    let run = |output: &str, args: &[String], more: &[&str]| {
        let args: Vec<&str> = args.iter().map(String::as_str).chain(more.iter().copied()).collect();
        place.run(output, &args)
    };
    let n_trials = |tree: &Tree| npz_array(&tree[NPZ], "CKA_trials").0[0] as usize;

    assert_eq!(run("wide", &auto(1.0), &[]), 1 + 1 + 2, "texts, rows, and two units of five trials");
    let wide = place.tree("wide");
    assert_eq!(n_trials(&wide), 10);
    let (_, low) = npz_array(&wide[NPZ], "RSA_ci_low");
    let (_, mean) = npz_array(&wide[NPZ], "RSA");
    let reach = low.iter().zip(&mean).map(|(low, mean)| mean - low).fold(0.0, f64::max);
    assert!(reach > 0.0 && reach <= widest(&wide[NPZ], 10) * 1.000_001, "{reach}");

    // An interval shrinks by a fifth and more from ten trials to fifteen, as a rule.
    let width = widest(&wide[NPZ], 10) * 0.7;
    let run_units = run("narrow", &auto(width), &[]);
    let narrow = place.tree("narrow");
    let n_narrow = n_trials(&narrow);
    assert!((15..=30).contains(&n_narrow), "{n_narrow}");
    assert_eq!(run_units as usize, n_narrow / 5 - 2, "five more trials at a time");
    for look in (10..n_narrow).step_by(5) {
        assert!(widest(&narrow[NPZ], look) > width, "it was enough after {look} trials");
    }
    let metadata: Value = serde_json::from_slice(&narrow["metadata.json"]).expect("JSON");
    assert_eq!((&metadata["trials"], &metadata["ci_half_width"]), (&n_narrow.into(), &width.into()));
    let warned =
        metadata["warnings"].as_array().expect("a list").iter().any(|w| w.to_string().contains("widest"));
    assert_eq!(warned, widest(&narrow[NPZ], n_narrow) > width);

    assert_eq!(run("again", &auto(width), &[]), 0);
    assert_same(&place.tree("again"), &narrow);

    // Trials that are missing are made again, and nothing else.
    let trials = bucket::trials(&place.path("store"));
    for ((_, trial, _), path) in &trials {
        if *trial == 3 || *trial as usize == n_narrow - 2 {
            fs::remove_file(path).expect("listed");
        }
    }
    assert_eq!(run("mended", &auto(width), &[]), 2);
    assert_same(&without_timings(place.tree("mended")), &without_timings(narrow.clone()));

    // More trials than are needed change nothing; neither do more workers.
    let store = place.path("other-store");
    let other = ["--store", store.to_str().expect("a plain path"), "--workers", "3"];
    let fixed = [&grid[..], &["--trials", "30"], &other].concat();
    place.run("fixed", &fixed);
    assert_eq!(run("other", &auto(width), &other), 0);
    assert_same(&without_timings(place.tree("other")), &without_timings(narrow));
}

#[test]
fn trials_end_at_the_most_that_are_allowed() {
    let place = Place::new();
    let grid = ["--dataset", &place.short, "--metrics", "CKA", "--trials", "auto"];
    let units = place.run("out", &[&grid[..], &["--ci-half-width", "1e-9", "--max-trials", "12"]].concat());
    assert_eq!(units, 1 + 1 + 2 + 1);
    let metadata: Value = serde_json::from_slice(&place.tree("out")["metadata.json"]).expect("JSON");
    assert_eq!(metadata["trials"], 12);
    let warnings = metadata["warnings"].to_string();
    assert!(warnings.contains("after 12 trials, the most that were allowed"), "{warnings}");
}

#[test]
fn unrelated_rows_are_compared_where_asked_for() {
    let place = Place::new();
    place.run("out", &["--dataset", &place.short, "--metrics", "CKA", "--trials", "2", "--calibrate"]);
    let tree = place.tree("out");
    let npz = &tree["similarities/similarities.npz"];
    let (_, mean) = npz_array(npz, "CKA");
    let (_, null) = npz_array(npz, "CKA_null");
    let (_, calibrated) = npz_array(npz, "CKA_calibrated");
    for cell in 0..mean.len() {
        assert!(null[cell] < mean[cell], "unrelated rows are less alike");
        let expected = (mean[cell] - null[cell]) / (1.0 - null[cell]);
        assert_eq!(calibrated[cell].to_bits(), expected.to_bits());
    }
    assert!(tree.contains_key("figures/CKA_calibrated_heatmap.png"));
}

#[test]
fn damage_is_found_and_mended() {
    let place = Place::new();
    let grid = ["--dataset", &place.long, "--pooling", "mean", "cls", "--trials", "2"];
    let store = place.path("store");
    place.run("out", &grid);
    let first = without_timings(place.tree("out"));
    let rows = |pooling: &str, shard, generation| {
        let record = &bucket::shard_records(&store)[&(pooling.to_owned(), shard, generation)];
        store.join(&record.layers[2].object.key)
    };
    let newest = |pooling: &str, shard| {
        let records = bucket::shard_records(&store);
        let of_shard = records.keys().filter(|key| key.0 == pooling && key.1 == shard);
        of_shard.map(|key| key.2).max().expect("a record")
    };
    let redone = |units: u64, what: &str| {
        assert_eq!(place.run("out", &grid), units, "{what}");
        assert_same(&without_timings(place.tree("out")), &first);
    };
    let forget_trials = || fs::remove_dir_all(store.join("trials")).expect("trials of the last run");

    // A bit that flipped: nobody knows before the rows are read for a comparison.
    bucket::flip_last_byte(&rows("mean", 1, 0));
    forget_trials();
    redone(4 + 1, "four trials, and the shard that one of them found damaged");
    assert_eq!((newest("mean", 1), newest("mean", 0), newest("cls", 1)), (1, 0, 0));

    // An object that is gone: the listing tells.
    fs::remove_file(rows("cls", 0, 0)).expect("an object of a record");
    forget_trials();
    redone(4 + 1, "four trials, and the shard of which an object was gone");
    assert_eq!((newest("cls", 0), newest("mean", 0)), (1, 0));

    // A record that is no JSON.
    let record = place.path("record.json");
    let records = read_all(&store.join("embeddings"));
    let path = records.keys().find(|path| path.ends_with("/cls/commits/1.0.json")).expect("a record");
    fs::write(&record, b"{").expect("the test's folder");
    fs::rename(&record, store.join("embeddings").join(path)).expect("one file system");
    redone(1, "the shard whose record was damaged");

    // A trial that was cut short.
    let trials = bucket::trials(&store);
    let ((comparison, trial, generation), path) = trials.iter().next().expect("trials of the last run");
    let whole = fs::read(path).expect("an object");
    fs::write(path, &whole[..whole.len() / 2]).expect("the test's folder");
    redone(1, "the trial that was cut short");
    assert!(bucket::trials(&store).contains_key(&(comparison.clone(), *trial, generation + 1)));

    // Prepared texts that are damaged, with nothing left of what was made from them.
    fs::remove_dir_all(store.join("embeddings")).expect("rows of the last run");
    forget_trials();
    let texts = read_all(&store.join("texts"));
    let part = texts.keys().find(|path| path.ends_with(".parquet")).expect("one part");
    bucket::flip_last_byte(&store.join("texts").join(part));
    redone(1 + 2 + 4, "everything");

    assert_eq!(place.run("out", &grid), 0, "now everything is sound");
}

#[test]
fn damaged_embeddings_are_not_saved() {
    let place = Place::new();
    let grid = ["--dataset", &place.short, "--pooling", "mean", "cls", "--trials", "1", "--save-embeddings"];
    place.run("out", &grid);
    let first = without_timings(place.tree("out"));
    let records = bucket::shard_records(&place.path("store"));
    let record = &records[&("mean".to_owned(), 0, 0)];
    bucket::flip_last_byte(&place.path("store").join(&record.layers[3].object.key));
    fs::remove_dir_all(place.path("out")).expect("just written");
    assert_eq!(place.run("out", &grid), 1, "the shard, although every trial is there");
    assert_same(&without_timings(place.tree("out")), &first);
    let records = bucket::shard_records(&place.path("store"));
    assert!(records.contains_key(&("mean".to_owned(), 0, 1)) && records.len() == 3);
}
