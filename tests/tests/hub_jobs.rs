//! Whole jobs whose models and datasets come from a hub: how often it is asked, and what becomes of half a download.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flate2::write::GzEncoder;
use lsa_tests::cluster::Cluster;
use lsa_tests::inputs::{sentences, tiny_model};
use lsa_tests::process::{Running, command, finish, succeed};
use lsa_tests::results::{assert_same, read_tree, without_timings};
use lsa_tests::test_hub::{TestHub, TestRepo};
use lsa_tests::wait::until;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

const LIMIT: Duration = Duration::from_secs(120);
const N_TEXTS: usize = 300;
/// What the catalogue pins Banking77Classification to.
const BANKING77_COMMIT: &str = "0fd18e25b25c072e09e0d92ab615fda904d66300";

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// The tiny BERT as a repository, its weights large as those of real ones are.
fn model() -> TestRepo {
    let files = fs::read_dir(tiny_model()).expect("the fixture").map(|entry| entry.expect("an entry"));
    files.filter(|entry| entry.path().is_file()).fold(TestRepo::model("owner/tiny"), |repo, entry| {
        let (name, bytes) = (entry.file_name(), fs::read(entry.path()).expect("a file"));
        let name = name.to_str().expect("UTF-8");
        if name.ends_with(".safetensors") { repo.large_file(name, bytes) } else { repo.file(name, bytes) }
    })
}

fn jsonl(seed: u64, n: usize) -> String {
    let line = |text: &str| serde_json::json!({ "text": text, "label": 1 }).to_string() + "\n";
    sentences(seed, n).lines().map(line).collect()
}

fn banking77() -> TestRepo {
    TestRepo::dataset("mteb/banking77")
        .file("train.jsonl", jsonl(1, N_TEXTS))
        .file("test.jsonl", jsonl(2, N_TEXTS))
        .file("prepare_data.py", "raise SystemExit")
        .commit_is(BANKING77_COMMIT)
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}

fn run(home: &Path, hub: &TestHub, output: &Path, more: &[&str]) -> Command {
    let mut run = command("lsa-coordinator", home);
    run.args(["run", "--output-dir", text(output), "--device", "cpu", "--trials", "2"]).args(more);
    run.env("HF_ENDPOINT", hub.url());
    run
}

#[test]
fn a_hub_job_gives_what_the_same_files_give_and_asks_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = TestHub::start([model(), banking77()]);
    let home = folder.path();
    let from_hub = home.join("from_hub");
    let flags = ["--model", "owner/tiny", "--dataset", "banking77classification", "--pooling", "mean,cls"];
    let first = succeed(run(home, &hub, &from_hub, &flags));
    assert!(first.stderr.contains("num_samples is 20000"), "{}", first.stderr);
    for part in ["model.safetensors", "train.jsonl"] {
        let asked = hub.requests_for(part);
        let got = asked.iter().filter(|request| request.method == "GET" && request.status < 300);
        assert_eq!(got.count(), 1, "{part}: {asked:#?}");
    }
    assert!(hub.requests_for("test.jsonl").is_empty() && hub.requests_for("prepare_data.py").is_empty());

    // The same from a folder and a file: the same numbers.
    let local = home.join("train.jsonl");
    fs::write(&local, jsonl(1, N_TEXTS)).expect("the test's folder");
    let from_files = home.join("from_files");
    let (model, dataset) = (tiny_model(), format!("file:{}", local.display()));
    let flags_of_files = ["--model", text(&model), "--dataset", &dataset, "--pooling", "mean,cls"];
    succeed(run(home, &hub, &from_files, &flags_of_files));
    for pooling in ["mean", "cls"] {
        let npz = |folder: &Path, name: &str| {
            fs::read(folder.join(name).join("similarities/similarities.npz")).expect("a result")
        };
        let hub_name = format!("tiny_{pooling}_banking77classification");
        let file_name = format!("bert_{pooling}_train");
        assert_eq!(npz(&from_hub, &hub_name), npz(&from_files, &file_name), "{pooling}");
    }

    // Offline, nothing is asked, and everything is found done.
    let n_requests = hub.requests().len();
    let mut offline = run(home, &hub, &home.join("offline"), &flags);
    offline.env("HF_HUB_OFFLINE", "1");
    let again = succeed(offline);
    assert!(again.stdout.contains("0 units run"), "{}", again.stdout);
    assert_eq!(hub.requests().len(), n_requests);
    assert_same(&without_timings(read_tree(&home.join("offline"))), &without_timings(read_tree(&from_hub)));

    // On another machine the same texts have the same key and the same bytes.
    let elsewhere = home.join("elsewhere");
    succeed(run(&elsewhere, &hub, &home.join("from_elsewhere"), &flags));
    let (here, there) = (texts(home), texts(&elsewhere));
    assert_eq!(there.len(), 1);
    assert!(there.iter().all(|(name, bytes)| here.get(name) == Some(bytes)));
}

/// The prepared texts in the bucket of a home, by key and part: their bytes.
fn texts(home: &Path) -> BTreeMap<String, Vec<u8>> {
    let all = read_tree(&home.join("cache/lsa/texts"));
    let part = |(path, bytes): (String, Vec<u8>)| {
        let (name, _attempt) = path.split_once('.')?;
        path.ends_with(".parquet").then(|| (name.to_owned(), bytes))
    };
    all.into_iter().filter_map(part).collect()
}

#[test]
fn a_split_that_is_not_there_is_said_where_results_are_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = TestHub::start([
        model(),
        TestRepo::dataset("owner/only-test").file("test.csv", format!("text\n{}", sentences(3, 60))),
    ]);
    let output = folder.path().join("results");
    let flags = ["--model", "owner/tiny", "--dataset", "hf:owner/only-test", "--split", "train"];
    let ended = succeed(run(folder.path(), &hub, &output, &flags));
    assert!(ended.stderr.contains("split \"train\""), "{}", ended.stderr);
    let metadata = fs::read_to_string(output.join("metadata.json")).expect("a result");
    assert!(metadata.contains("split \\\"train\\\""), "{metadata}");
}

#[test]
fn what_cannot_be_had_is_told_before_any_work() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = TestHub::start([
        model(),
        banking77(),
        TestRepo::dataset("owner/gated").file("train.jsonl", jsonl(1, 30)).gated("secret"),
    ]);
    let check = |flags: &[&str], code: i32, expected: &[&str]| {
        let ended = finish(run(folder.path(), &hub, &folder.path().join("out"), flags));
        assert_eq!(ended.status.code(), Some(code), "{flags:?}: {}", ended.stderr);
        for words in expected {
            assert!(ended.stderr.contains(words), "{words:?} not in {}", ended.stderr);
        }
    };
    let tiny = ["--model", "owner/tiny", "--dataset"];
    check(&[&tiny[..], &["hf:owner/gated"]].concat(), 4, &["owner/gated", "HF_TOKEN"]);
    check(&[&tiny[..], &["hf:owner/none"]].concat(), 2, &["owner/none"]);
    check(&["--model", "owner/none", "--dataset", "hf:owner/gated"], 2, &["owner/none"]);
    let sample = ["Banking77Classification", "--sample-size", "301"];
    check(&[&tiny[..], &sample].concat(), 2, &["sample_size 301 is larger than the 300 texts"]);

    let mut mirror = command("lsa-coordinator", folder.path());
    mirror.args(["mirror", "--datasets", "hf:owner/gated"]).env("HF_ENDPOINT", hub.url());
    let ended = finish(mirror);
    assert_eq!(ended.status.code(), Some(4), "{}", ended.stderr);

    let mut allowed =
        run(folder.path(), &hub, &folder.path().join("out"), &[&tiny[..], &["hf:owner/gated"]].concat());
    allowed.env("HF_TOKEN", "secret");
    let ended = succeed(allowed);
    assert!(!ended.stderr.contains("secret") && !ended.stdout.contains("secret"));
}

/// Lines that take as much of a gzip file as those of C4 do: 0.9 kB.
fn documents(n: usize) -> String {
    let mut generator = ChaCha8Rng::seed_from_u64(1);
    let mut text = String::with_capacity(n * 2400);
    for number in 0..n {
        let words: Vec<String> = (0..104).map(|_| format!("{:016x}", generator.next_u64())).collect();
        let line = serde_json::json!({ "text": words.join(""), "timestamp": "2019", "url": number });
        writeln!(text, "{line}").expect("a string takes all");
    }
    text
}

#[test]
fn twenty_thousand_texts_of_c4_cost_a_small_part_of_its_files() {
    // Together more than is mirrored whole.
    const FILES: usize = 128;
    const N_TEXTS: usize = 20_000;
    /// As much as 16 streams need, and what a step asks for too much.
    const SENT_BYTES_MAX: u64 = 22_000_000;
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Larger than a file that is fetched whole; the same one under every name.
    let shard = Bytes::from(gzip(&documents(42_000)));
    assert!(shard.len() > 33 << 20, "{}", shard.len());
    let name = |number: usize| format!("en/c4-train.{number:05}-of-{FILES:05}.json.gz");
    let repo = (0..FILES)
        .fold(TestRepo::dataset("allenai/c4"), |repo, number| repo.large_file(&name(number), shard.clone()));
    let hub = TestHub::start([repo]);
    let mut mirror = command("lsa-coordinator", folder.path());
    let store = folder.path().join("store");
    mirror.args([
        "mirror",
        "--datasets",
        "c4",
        "--num-samples",
        &N_TEXTS.to_string(),
        "--store",
        text(&store),
    ]);
    mirror.env("HF_ENDPOINT", hub.url());
    succeed(mirror);
    let asked = (0..FILES).filter(|number| !hub.requests_for(&name(*number)).is_empty()).count();
    assert_eq!(asked, 16);
    let sent = hub.bytes_sent(".json.gz");
    assert!(sent < SENT_BYTES_MAX, "{sent} bytes");
    let record =
        read_tree(&store.join("texts")).into_iter().find(|(path, _)| path.ends_with("commits/0.json"));
    let record: serde_json::Value = serde_json::from_slice(&record.expect("a record").1).expect("JSON");
    assert_eq!(record["n_texts"], N_TEXTS);
    println!("{N_TEXTS} texts of C4 took {sent} bytes of gzip");
}

/// A Parquet file of a text column and another one that is much larger.
fn parquet(texts: &[String], other_bytes: usize) -> Vec<u8> {
    let schema = "message m { required binary text (UTF8); required binary image; }";
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    let properties = WriterProperties::builder().set_dictionary_enabled(false).build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).expect("a writer");
    let other = vec![7u8; other_bytes / texts.len()];
    let columns = [
        texts.iter().map(|text| ByteArray::from(text.as_str())).collect::<Vec<_>>(),
        vec![ByteArray::from(other); texts.len()],
    ];
    let mut group = writer.next_row_group().expect("a row group");
    for values in &columns {
        let mut column = group.next_column().expect("no fault").expect("a column");
        column.typed::<ByteArrayType>().write_batch(values, None, None).expect("written");
        column.close().expect("written");
    }
    group.close().expect("written");
    writer.into_inner().expect("written")
}

#[test]
fn a_column_of_parquet_costs_its_own_pages() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let texts: Vec<String> = sentences(5, 200).lines().map(str::to_owned).collect();
    let file = parquet(&texts, 40 << 20);
    let repo = TestRepo::dataset("owner/images").large_file("data/train-00000-of-00001.parquet", file);
    let hub = TestHub::start([model(), repo]);
    let output = folder.path().join("results");
    succeed(run(
        folder.path(),
        &hub,
        &output,
        &["--model", "owner/tiny", "--dataset", "hf:owner/images#//text"],
    ));
    let sent = hub.bytes_sent(".parquet");
    assert!(sent < 1 << 20, "{sent} bytes");
    let metadata = fs::read_to_string(output.join("metadata.json")).expect("a result");
    assert!(metadata.contains("\"num_samples\": 200"), "{metadata}");
}

#[test]
fn a_run_killed_during_a_download_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = TestHub::start([model(), banking77()]);
    let output = folder.path().join("results");
    let flags = ["--model", "owner/tiny", "--dataset", "Banking77Classification"];
    let weights = fs::metadata(tiny_model().join("model.safetensors")).expect("the fixture").len();
    let (half, texts) = (weights / 2, 5_000);
    hub.pause_after("model.safetensors", half, 1);
    let waiting = |part: &str, bytes: u64| {
        let asked = hub.requests_for(part);
        asked.iter().any(|request| request.is_running && request.sent >= bytes).then_some(())
    };
    let running = Running::start(run(folder.path(), &hub, &output, &flags));
    until("half of the weights to be sent", LIMIT, || waiting("model.safetensors", half));
    // What was sent has still to arrive: a process killed before that has nothing to go on with.
    let model_files = folder.path().join("huggingface/hub/models--owner--tiny");
    let begun = || {
        let blobs = fs::read_dir(model_files.join("blobs")).ok()?.flatten();
        let is_incomplete =
            |entry: &fs::DirEntry| entry.path().extension().is_some_and(|e| e == "incomplete");
        let mut written = blobs.filter(is_incomplete).filter_map(|entry| entry.metadata().ok());
        written.any(|file| file.len() > 0).then_some(())
    };
    until("some of the weights to be written", LIMIT, begun);
    running.kill();
    let blobs = read_tree(&model_files.join("snapshots"));
    assert!(!blobs.keys().any(|path| path.ends_with("model.safetensors")), "{:?}", blobs.keys());

    hub.pause_after("train.jsonl", texts, 1);
    let running = Running::start(run(folder.path(), &hub, &output, &flags));
    until("some texts to be sent", LIMIT, || waiting("train.jsonl", texts));
    running.kill();
    let resumed = hub.requests_for("model.safetensors");
    assert!(resumed.iter().any(|request| request.range.is_some()), "{resumed:#?}");
    let texts = folder.path().join("cache/lsa/texts");
    assert!(!texts.exists(), "nothing half is kept");

    succeed(run(folder.path(), &hub, &output, &flags));
    let undisturbed = folder.path().join("undisturbed");
    succeed(run(&folder.path().join("other"), &hub, &undisturbed, &flags));
    assert_same(&without_timings(read_tree(&output)), &without_timings(read_tree(&undisturbed)));
}

#[test]
fn fifty_workers_cause_one_download_per_file() {
    const N_WORKERS: usize = 50;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = TestHub::start([model(), banking77()]);
    let mut cluster = Cluster::start_with(folder.path(), 60, Some(hub.url()));
    cluster.start_workers(N_WORKERS);
    let output = folder.path().join("results");
    let flags = [
        "--model",
        "owner/tiny",
        "--dataset",
        "Banking77Classification",
        "--pooling",
        "mean,cls,max",
        "--trials",
        "50",
        "--watch",
        "--output-dir",
        text(&output),
    ];
    cluster.succeed(&[&["submit"], &flags[..]].concat());
    let requests = hub.requests();
    let mut downloads: BTreeMap<&str, usize> = BTreeMap::new();
    for request in requests.iter().filter(|request| request.method == "GET" && request.status < 300) {
        if let Some((_, file)) = request.path.rsplit_once('/').filter(|_| request.path.contains("/resolve/"))
        {
            let whole = request.range.is_none();
            *downloads.entry(file).or_default() += usize::from(whole);
        }
    }
    assert!(downloads.keys().any(|file| file.contains("config.json")), "{downloads:?}");
    assert!(downloads.values().all(|n| *n <= 1), "{downloads:?}");
    let of_weights = hub.bytes_sent("model.safetensors");
    let size = fs::metadata(tiny_model().join("model.safetensors")).expect("the fixture").len();
    assert!(of_weights < size + size / 2, "{of_weights} of {size} bytes: once, and its header");

    // What a run on one machine gives.
    let local = folder.path().join("local");
    let own = ["--pooling", "mean,cls,max", "--trials", "50"];
    let mut expected = command("lsa-coordinator", &folder.path().join("own"));
    expected.args([
        "run",
        "--model",
        "owner/tiny",
        "--dataset",
        "Banking77Classification",
        "--device",
        "cpu",
    ]);
    expected.args(own).args(["--output-dir", text(&local)]).env("HF_ENDPOINT", hub.url());
    succeed(expected);
    assert_same(&without_timings(read_tree(&output)), &without_timings(read_tree(&local)));
}

#[test]
fn a_cluster_without_internet_works_from_an_imported_mirror() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = TestHub::start([model(), banking77()]);
    let lsa = |home: &str, args: &[&str]| {
        let mut command = command("lsa-coordinator", &folder.path().join(home));
        command.args(args);
        command
    };
    let (outside, carried, inside) =
        (folder.path().join("outside"), folder.path().join("carried"), folder.path().join("inside"));
    let mut fill = lsa("here", &["mirror", "--store", text(&outside), "--models", "owner/tiny"]);
    fill.args(["--datasets", "Banking77Classification"]).env("HF_ENDPOINT", hub.url());
    succeed(fill);
    succeed(lsa("here", &["mirror", "export", text(&carried), "--store", text(&outside)]));
    let n_requests = hub.requests().len();
    succeed(lsa("there", &["mirror", "import", text(&carried), "--store", text(&inside)]));
    let output = folder.path().join("results");
    let flags = ["--model", "owner/tiny", "--dataset", "Banking77Classification", "--set", "run.mirror=only"];
    let place = ["--store", text(&inside), "--output-dir", text(&output), "--device", "cpu"];
    succeed(lsa("there", &[&["run"], &flags[..], &place].concat()));
    assert_eq!(hub.requests().len(), n_requests, "nobody was asked");

    // A cluster on such a bucket, whose machines know no hub.
    let mut cluster = Cluster::start(&folder.path().join("cluster"), 60);
    succeed(lsa("there", &["mirror", "import", text(&carried), "--store", text(&cluster.store())]));
    cluster.start_workers(2);
    let submitted = folder.path().join("submitted");
    cluster.succeed(&[&["submit"], &flags[..], &["--watch", "--output-dir", text(&submitted)]].concat());
    assert_same(&without_timings(read_tree(&submitted)), &without_timings(read_tree(&output)));

    let other =
        ["--model", "owner/other", "--dataset", "Banking77Classification", "--set", "run.mirror=only"];
    let ended = finish(lsa("there", &[&["run"], &other[..], &place].concat()));
    assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("lsa-coordinator mirror"), "{}", ended.stderr);
}
