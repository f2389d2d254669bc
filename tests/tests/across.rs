//! `compare = "across"`: one comparison for all models over the same texts and pooling.

use std::fs;
use std::path::{Path, PathBuf};

use lsa_tests::inputs::{checkout, dataset};
use lsa_tests::process::{command, succeed};
use lsa_tests::results::{Tree, assert_same, npz_array, read_tree, without_timings};
use npyz::WriterBuilder as _;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use serde_json::Value;

/// `embed` cuts other batches than a run does; kernels round differently for other batch shapes, by some units of the
/// last place of float32 numbers, of which metrics over 200 rows average most out.
const BATCH_SHAPE_ERROR_MAX: f64 = 1e-5;

/// Three models of different types and widths: 48, 40 and 64.
const MODELS: [&str; 3] = ["bert", "distilbert", "llama"];

fn model(name: &str) -> PathBuf {
    checkout().join("tests/fixtures/models/open").join(name)
}

fn grid(folder: &Path, texts: &str, compare: &str) -> PathBuf {
    let models: Vec<String> = MODELS.iter().map(|name| model(name).display().to_string()).collect();
    let text = format!(
        "[grid]\nmodels = {models:?}\npooling = [\"mean\", \"last_token\"]\ndatasets = [{texts:?}]\n\
         [extraction]\nbatch_size = 16\n\
         [similarity]\ncompare = {compare:?}\nsample_size = 120\ntrials = 3\nmetrics = [\"CKA\", \"JaccardSimilarity\"]\n"
    );
    let path = folder.join(format!("{compare}.toml"));
    fs::write(&path, text).expect("the test's folder can be written");
    path
}

fn run(folder: &Path, grid: &Path, store: &str, output: &str) -> (Value, Tree) {
    let mut coordinator = command("lsa-coordinator", folder);
    coordinator.arg("run").arg(grid).args(["--device", "cpu", "--json"]);
    coordinator.arg("--store").arg(folder.join(store)).arg("--output-dir").arg(folder.join(output));
    let summary = succeed(coordinator).json();
    assert_eq!(summary["state"], "done", "{summary:#}");
    (summary, read_tree(&folder.join(output)))
}

#[test]
fn models_are_compared_with_one_another_and_each_within_itself() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let texts = dataset(folder.path(), "texts.txt", 5, 200);
    let (_, within) = run(folder.path(), &grid(folder.path(), &texts, "within"), "store", "within");
    let (summary, across) = run(folder.path(), &grid(folder.path(), &texts, "across"), "store", "across");
    // Texts and rows were there already. Three trials are three units; six experiments share two comparisons.
    assert_eq!(summary["units_run"], 6, "{summary:#}");

    // Within a model nothing changes, to the last byte; only the key of the comparison is another one.
    let own = |tree: &Tree| -> Tree {
        let mut own = without_timings(tree.clone());
        own.retain(|path, _| path.contains("/similarities/"));
        own
    };
    let of_experiments = |tree: &Tree| {
        let mut tree = own(tree);
        tree.retain(|path, _| !path.starts_with("across/"));
        tree
    };
    assert_same(&of_experiments(&across), &of_experiments(&within));

    for pooling in ["mean", "last_token"] {
        check_summary(&across, pooling);
    }
    check_against_the_worker(folder.path(), &texts, &across);

    let rows = |output: &str| {
        let table = fs::File::open(folder.path().join(output).join("similarities.parquet")).expect("a table");
        SerializedFileReader::new(table).expect("a parquet file").metadata().file_metadata().num_rows()
    };
    // Two poolings, two metrics, three pairs of models of four layers each.
    assert_eq!(rows("across"), rows("within") + 2 * 2 * 3 * 4 * 4);

    let (again, same) = run(folder.path(), &grid(folder.path(), &texts, "across"), "other", "again");
    assert!(again["units_run"].as_u64() > Some(6));
    assert_same(&without_timings(same), &without_timings(across));
}

/// Every pair has its files, and the summary says what the matrices do.
fn check_summary(tree: &Tree, pooling: &str) {
    let folder = format!("across/texts_{pooling}");
    let summary: Value = serde_json::from_slice(&tree[&format!("{folder}/summary.json")]).expect("JSON");
    let names: Vec<&str> = summary["models"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|model| model["name"].as_str())
        .collect();
    assert_eq!(names, MODELS);
    for metric in ["CKA", "JaccardSimilarity"] {
        let of_metric = &summary["metrics"][metric];
        for a in 0..3 {
            assert_eq!(
                of_metric["best_match"][a][a].as_f64().map(|value| (value - 1.0).abs() < 1e-12),
                Some(true)
            );
            for b in a + 1..3 {
                let npz = &tree[&format!("{folder}/{metric}/{}__{}.npz", names[a], names[b])];
                let (shape, mean) = npz_array(npz, metric);
                assert_eq!(shape, [4, 4]);
                let (shape, trials) = npz_array(npz, &format!("{metric}_trials"));
                assert_eq!(shape, [3, 4, 4]);
                for (cell, mean) in mean.iter().enumerate() {
                    let sum: f64 = (0..3).map(|trial| trials[trial * 16 + cell]).sum();
                    assert_eq!(sum / 3.0, *mean);
                }
                let best: f64 = mean.chunks(4).map(|row| row.iter().copied().fold(f64::MIN, f64::max)).sum();
                let told = of_metric["best_match"][a][b].as_f64().expect("a number");
                assert!((told - best / 4.0).abs() < 1e-12, "{told} {best}");
                for kind in ["png", "svg"] {
                    let figure = format!("{folder}/{metric}/{}__{}.{kind}", names[a], names[b]);
                    assert!(tree.contains_key(&figure), "{figure} is missing: {:?}", tree.keys());
                }
            }
        }
    }
}

/// The mean over trials of what `lsa-worker similarity` finds for the rows of each trial.
fn check_against_the_worker(folder: &Path, texts: &str, across: &Tree) {
    let file = texts.strip_prefix("file:").expect("a file");
    let embeddings = |name: &str| folder.join(format!("{name}.safetensors"));
    for name in ["bert", "llama"] {
        let mut embed = command("lsa-worker", folder);
        embed.args(["embed", "--texts", file, "--pooling", "mean", "--batch-size", "16", "--device", "cpu"]);
        embed.arg("--model").arg(model(name)).arg("--output").arg(embeddings(name));
        succeed(embed);
    }
    let rows: Vec<i64> =
        (0..3).flat_map(|trial| lsa_common::seed::trial_rows(42, trial, 200, 120)).map(i64::from).collect();
    let mut npy = Vec::new();
    let options = npyz::WriteOptions::new().default_dtype().shape(&[3, 120]);
    let mut writer = options.writer(&mut npy).begin_nd().expect("a vector");
    writer.extend(rows).expect("a vector");
    writer.finish().expect("a vector");
    fs::write(folder.join("rows.npy"), npy).expect("the test's folder can be written");
    let summary: Value = serde_json::from_slice(&across["across/texts_mean/summary.json"]).expect("JSON");
    let order =
        summary["models"].as_array().expect("a list").iter().filter_map(|model| model["name"].as_str());
    let pair: Vec<&str> = order.filter(|name| *name != "distilbert").collect();
    let mut similarity = command("lsa-worker", folder);
    similarity.args(["similarity", "--metrics", "CKA"]).arg("--input").arg(embeddings(pair[0]));
    similarity.arg("--against").arg(embeddings(pair[1])).arg("--rows").arg(folder.join("rows.npy"));
    similarity.arg("--output").arg(folder.join("matrices"));
    succeed(similarity);
    let bytes = fs::read(folder.join("matrices/CKA.mean.npy")).expect("written by the worker");
    let expected: Vec<f64> =
        npyz::NpyFile::new(&bytes[..]).and_then(npyz::NpyFile::into_vec).expect("float64");
    let npz = &across[&format!("across/texts_mean/CKA/{}__{}.npz", pair[0], pair[1])];
    let (_, found) = npz_array(npz, "CKA");
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < BATCH_SHAPE_ERROR_MAX, "{found} {expected}");
    }
}
