//! Bad input, given to the real programs: exit code 2, a message that says what, where and how to mend, and nothing
//! written, for nothing has begun. What turns out bad in the middle of the work is named in the summary, and the rest
//! is done.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use lsa_worker::array_file::npy_bytes;
use serde_json::Value;
use tempfile::TempDir;

const DONE: i32 = 0;
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const PARTIAL: i32 = 3;

/// A command that takes longer hangs; the slowest here take some seconds.
const COMMAND_LIMIT_S: &str = "120";
/// Lines of `texts.txt`: more than every metric needs.
const N_TEXTS: usize = 40;

/// A folder that is the working directory, the home and the cache of every command.
struct Scratch(TempDir);

/// How a command ended.
struct Ended {
    line: String,
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn is(&self, code: i32, expected: &[&str]) {
        let Self { line, stdout, stderr, .. } = self;
        assert_eq!(self.code, Some(code), "{line}\n{stdout}\n{stderr}");
        for words in expected {
            assert!(stderr.contains(words), "{line}\nexpected {words:?} in:\n{stderr}");
        }
        assert!(!stderr.contains("panicked"), "{line}\n{stderr}");
    }
}

impl Scratch {
    /// With `texts.txt` and the tiny model as `tiny`.
    fn new() -> Self {
        let scratch = Self(tempfile::tempdir().expect("a temporary folder"));
        let texts: String = (0..N_TEXTS).map(|n| format!("this is text {n}\n")).collect();
        scratch.write("texts.txt", texts.as_bytes());
        symlink(fixture("open/bert"), scratch.path("tiny")).expect("a link to the tiny model");
        scratch
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("below the scratch folder")).expect("a folder");
        fs::write(path, bytes).expect("a file in the scratch folder");
    }

    /// A copy of the tiny model in which one file is another.
    fn model(&self, name: &str, file: &str, bytes: &[u8]) {
        self.model_without(name, file);
        self.write(&format!("{name}/{file}"), bytes);
    }

    fn model_without(&self, name: &str, file: &str) {
        for entry in fs::read_dir(fixture("open/bert")).expect("the tiny model") {
            let path = entry.expect("an entry").path();
            let own = path.file_name().and_then(|own| own.to_str()).expect("plain names");
            if own != file {
                self.write(&format!("{name}/{own}"), &fs::read(&path).expect("a file"));
            }
        }
    }

    /// A command of this workspace, free of the settings of whoever runs the tests.
    fn command(&self, line: &str) -> Command {
        let mut words = line.split_whitespace();
        let program = words.next().expect("a program");
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", COMMAND_LIMIT_S]).arg(binary(program)).args(words);
        for (variable, _) in std::env::vars_os() {
            if ["LSA_", "HF_", "OTEL_", "HUGGINGFACE_"]
                .iter()
                .any(|own| variable.to_string_lossy().starts_with(own))
            {
                command.env_remove(&variable);
            }
        }
        command.current_dir(self.0.path()).stdin(Stdio::null());
        command.env("HOME", self.0.path()).env("XDG_CACHE_HOME", self.path("cache"));
        command.env("HF_HUB_OFFLINE", "1");
        command
    }

    fn run(&self, line: &str) -> Ended {
        let output = self.command(line).output().expect("the coreutils have timeout");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ended {
            line: line.to_owned(),
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// The command ends with exit code 2 and these words, and has changed nothing.
    fn refuses(&self, line: &str, expected: &[&str]) {
        let before = self.everything();
        self.run(line).is(USAGE, expected);
        assert_eq!(self.everything(), before, "{line} wrote something");
    }

    /// Every file and folder with its content's length.
    fn everything(&self) -> BTreeMap<PathBuf, u64> {
        fn add(folder: &Path, found: &mut BTreeMap<PathBuf, u64>) {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                let known = path.symlink_metadata().expect("it was listed");
                found.insert(path.clone(), if known.is_dir() { 0 } else { known.len() });
                if known.is_dir() {
                    add(&path, found);
                }
            }
        }
        let mut found = BTreeMap::new();
        add(self.0.path(), &mut found);
        found
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models").join(name)
}

/// A program of this workspace: it lies beside the folder of the test executables.
fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a running test has an executable");
    let folder = own.parent().and_then(Path::parent).expect("tests lie in <profile>/deps");
    let binary = folder.join(name);
    assert!(
        binary.is_file(),
        "{} is missing; run `cargo build --release -p lsa-coordinator -p lsa-worker` first",
        binary.display()
    );
    binary
}

const RUN: &str = "lsa-coordinator run --model ./tiny --dataset file:texts.txt --output-dir out";

#[test]
fn flags() {
    let scratch = Scratch::new();
    scratch.write("file", b"");
    let check = |flags: &str, expected: &[&str]| scratch.refuses(&format!("{RUN} {flags}"), expected);
    check("--metrcs CKA", &["unexpected argument '--metrcs'", "'--metrics'"]);
    check("--metrics CKKA", &["--metrics", "unknown metric \"CKKA\"", "did you mean \"CKA\"?"]);
    check(
        "--pooling meen",
        &["--pooling", "unknown pooling \"meen\"", "last_token", "did you mean \"mean\"?"],
    );
    check("--dtype flaot16", &["--dtype", "bfloat16", "did you mean \"float16\"?"]);
    check("--dtype bfloat16 --fp16", &["--fp16 and --dtype bfloat16 contradict each other"]);
    check("--trials 0", &["--trials", "whole number from 1", "got 0"]);
    check("--trials -1", &["--trials", "whole number from 1", "got -1"]);
    check("--trials atuo", &["--trials", "\"auto\" or a whole number", "did you mean \"auto\"?"]);
    check("--trials auto --ci-half-width 2", &["--ci-half-width", "above 0 and at most 1", "got 2"]);
    check("--trials auto --num-samples 20 --sample-size 20", &["--sample-size", "needs draws that differ"]);
    check("--layer-metrics Rank", &["--layer-metrics", "unknown layer metric \"Rank\"", "EffectiveRank"]);
    check("--set similarity.trails=3", &["unknown key \"trails\"", "did you mean \"trials\"?"]);
    check("--sample-size 5", &["--sample-size", "JaccardSimilarity", "at least 11 rows"]);
    check("--device gpu", &["--device", "auto, cpu, cuda or cuda:N"]);
    check("--workers 0", &["--workers", "whole number from 1"]);
    check("--store-limit 5GB", &["--store-limit", "GiB"]);
    check(
        "--pooling mean cls max --max-experiments 2",
        &["1 models × 3 poolings × 1 datasets = 3", "max_experiments = 2"],
    );
    check("--pooling mean cls mean", &["--pooling", "names \"mean\" twice", "keep one"]);
    check("--model ./tiny", &["--model", "names \"./tiny\" twice"]);
    check("--dataset file:texts.txt", &["--dataset", "twice"]);
    check("--store ftp://bucket/lsa", &["ftp://bucket/lsa", "\"ftp\" is no kind of store"]);
    check("--store /proc/lsa", &["/proc/lsa", "name a directory that you may write to"]);
    check("--log nonsense=nonsense", &["--log \"nonsense=nonsense\" is not a filter"]);
}

#[test]
fn several_faults_of_flags_at_once() {
    let scratch = Scratch::new();
    let line = format!("{RUN} --pooling meen --trials 0 --metrics CKKA --workers none --dtype f");
    scratch.refuses(&line, &["--pooling", "--trials", "--metrics", "--workers", "--dtype"]);
    let ended = scratch.run(&line);
    assert_eq!(
        ended.stderr.lines().filter(|line| line.starts_with("error: --")).count(),
        5,
        "{}",
        ended.stderr
    );
}

#[test]
fn grid_files() {
    let scratch = Scratch::new();
    let check = |name: &str, text: &str, expected: &[&str]| {
        scratch.write(name, text.as_bytes());
        scratch.refuses(&format!("lsa-coordinator run {name} --output-dir out"), expected);
        scratch.refuses(&format!("lsa-coordinator plan {name}"), expected);
        // No coordinator is there to be asked: faults are found before.
        scratch.refuses(&format!("lsa-coordinator submit {name} --coordinator http://127.0.0.1:9"), expected);
    };
    let good = "[grid]\nmodels = [\"./tiny\"]\ndatasets = [\"file:texts.txt\"]\n";
    check(
        "faults.toml",
        "[grid]\nmodels = [\"./tiny\", \"./tiny\"]\ndatasets = [\"file:texts.txt\", \"c44\"]\npooling = [\"meen\"]\n\
         [similarity]\ntrails = 3\ntrials = 0\nmetrics = [\"CKA\", \"RSB\"]\n\
         [extraction]\ndtype = \"float31\"\n[data]\nnum_samples = \"many\"\n",
        &[
            "error: faults.toml:2:21: grid.models names \"./tiny\" twice",
            "error: faults.toml:3:31: grid.datasets: there is no dataset \"c44\"; did you mean \"c4\"?",
            "error: faults.toml:4:12: grid.pooling: unknown pooling \"meen\"",
            "error: faults.toml:6:1: unknown key \"trails\" in similarity; did you mean \"trials\"?",
            "error: faults.toml:7:10: similarity.trials must be a whole number from 1",
            "error: faults.toml:8:19: similarity.metrics: unknown metric \"RSB\"",
            "error: faults.toml:10:9: extraction.dtype",
            "error: faults.toml:12:15: data.num_samples must be a whole number",
        ],
    );
    check("cut.toml", "[grid\nmodels = 1", &["cut.toml:1:"]);
    check("cut.json", "{\"grid\": {", &["cut.json:1:"]);
    check("cut.yaml", "grid: [\n", &["cut.yaml:"]);
    check("empty.toml", "", &["there is nothing to run", "[grid]"]);
    check("grid.ini", "", &["ends in .toml, .yaml, .yml or .json"]);
    check("many.toml", &format!("{good}[run]\nmax_experiments = 0\n"), &["run.max_experiments", "from 1"]);
    check("random.toml", &format!("{good}[data]\nsampling = \"random\"\n"), &["\"shuffle\" or \"streams\""]);
    check(
        "same.toml",
        &format!(
            "{good}[[experiment]]\nmodel = \"./tiny\"\ndataset = \"file:texts.txt\"\npooling = \"mean\"\n"
        ),
        &["same.toml:4:", "already there", "remove one"],
    );
    let models: Vec<String> = (0..501).map(|n| format!("\"./m{n}\"")).collect();
    let text = format!(
        "[grid]\nmodels = [{}]\npooling = [\"mean\", \"cls\"]\ndatasets = [\"file:texts.txt\"]\n",
        models.join(", ")
    );
    check(
        "large.toml",
        &text,
        &["501 models × 2 poolings × 1 datasets = 1002", "run.max_experiments = 1000"],
    );
    scratch.refuses(
        "lsa-coordinator run missing.toml -o out",
        &["missing.toml", "cannot be read", "No such file"],
    );
    scratch.refuses("lsa-coordinator run tiny -o out", &["tiny", ".toml"]);
    scratch.refuses("lsa-coordinator run -o out", &["there is nothing to run", "--model"]);
    scratch.refuses("lsa-coordinator run faults.toml", &["--output-dir"]);
}

#[test]
fn datasets() {
    let scratch = Scratch::new();
    scratch.write("latin.txt", b"one\ntwo\nth\xEEs\n");
    scratch.write("blank.txt", b"\n \n\n");
    scratch.write("table.csv", b"title,stars\nbook,3\n");
    scratch.write("cut.txt.gz", b"\x1f\x8b\x08");
    let check = |dataset: &str, expected: &[&str]| {
        let flags = format!("--model ./tiny --dataset {dataset}");
        scratch.refuses(&format!("lsa-coordinator run {flags} -o out"), expected);
        scratch.refuses(&format!("lsa-coordinator plan {flags}"), expected);
        scratch
            .refuses(&format!("lsa-coordinator submit {flags} --coordinator http://127.0.0.1:9"), expected);
    };
    check("file:missing.txt", &["missing.txt cannot be read", "check the path", "No such file"]);
    check("file:latin.txt", &["latin.txt, line 3", "not UTF-8 at byte 3", "bad_rows = \"skip\""]);
    check("file:blank.txt", &["blank.txt holds no texts", "3 blank"]);
    check("file:table.csv#body", &["table.csv has no column \"body\"", "title"]);
    check("file:cut.txt.gz", &["cut.txt.gz", "decompress"]);
    check("file:tiny.txt/", &["tiny.txt/"]);
    check("file:texts.pdf", &["unknown ending", ".jsonl"]);
    check("texts.txt", &["looks like a path", "file:texts.txt"]);
    for flags in [
        "--dataset hf:owner/name",
        "--dataset c4",
        "--dataset Banking77Classification",
        // The default is c4.
        "",
    ] {
        scratch.refuses(
            &format!("lsa-coordinator run --model ./tiny {flags} -o out"),
            &["is not in the cache", "HF_HUB_OFFLINE is set"],
        );
    }
    check("imdb", &["there is no dataset \"imdb\"", "lsa-coordinator datasets"]);
    check("owner/name", &["there is no dataset \"owner/name\"", "hf:owner/name"]);
    check("Bankng77Classification", &["did you mean \"Banking77Classification\"?"]);
    check("AESDD", &["AESDD cannot be read: it holds no text"]);
    scratch.refuses(
        &format!("{RUN} --sample-size {}", N_TEXTS + 1),
        &["sample_size 41 is larger than the 40 texts of \"file:texts.txt\"", "lower it"],
    );
    scratch.write("few.txt", b"one\ntwo\nthree\n");
    check("file:few.txt", &["JaccardSimilarity", "at least 11 rows", "add texts, or leave the metric out"]);
}

#[test]
fn models() {
    let scratch = Scratch::new();
    let weights = fs::read(fixture("open/bert/model.safetensors")).expect("the weights");
    let config = fs::read_to_string(fixture("open/bert/config.json")).expect("the config");
    scratch.model_without("no_weights", "model.safetensors");
    scratch.model_without("no_config", "config.json");
    scratch.model_without("no_tokenizer", "tokenizer.json");
    scratch.model("cut_weights", "model.safetensors", &weights[..weights.len() / 2]);
    scratch.model("cut_header", "model.safetensors", &weights[..100]);
    scratch.model("no_json", "config.json", b"{\"model_type\": bert}");
    let mamba = config.replace("\"model_type\": \"bert\"", "\"model_type\": \"mamba\"");
    scratch.model("mamba", "config.json", mamba.as_bytes());
    let wider = config.replace("\"intermediate_size\": 80", "\"intermediate_size\": 96");
    scratch.model("wider", "config.json", wider.as_bytes());
    let other = config.replace("\"hidden_act\": \"gelu\"", "\"hidden_act\": \"swish7\"");
    scratch.model("other_activation", "config.json", other.as_bytes());
    let check = |model: &str, expected: &[&str]| {
        let flags = format!("--model {model} --dataset file:texts.txt");
        scratch.refuses(&format!("lsa-coordinator run {flags} -o out"), expected);
        scratch.refuses(&format!("lsa-coordinator plan {flags}"), expected);
        scratch.refuses(&format!("lsa-worker inspect {model}"), expected);
        scratch.refuses(
            &format!(
                "lsa-worker embed --model {model} --texts texts.txt --pooling mean --output e.safetensors"
            ),
            expected,
        );
    };
    check("./missing", &["model folder ./missing does not exist"]);
    check("./texts.txt", &["texts.txt", "is no folder"]);
    check("./no_weights", &["no_weights has no weights", "supported: model.safetensors, "]);
    check("./no_config", &["no_config has no config.json"]);
    check("./no_tokenizer", &["no_tokenizer", "tokenizer.json", "vocab.txt"]);
    check(
        "./cut_weights",
        &["cut_weights cannot be used", "model.safetensors is not a sound", "fetch it again"],
    );
    check("./cut_header", &["cut_header cannot be used", "model.safetensors is neither", "again"]);
    check("./no_json", &["model \"./no_json\" cannot be used", "config.json is not a JSON object", "line 1"]);
    check("./mamba", &["model \"./mamba\"", "model_type \"mamba\" is not supported", "supported: bert"]);
    check("./wider", &["wider cannot be used", "weights and config.json disagree", "one revision"]);
    check("./other_activation", &["\"hidden_act\" is", "swish7", "supported: "]);
    check(
        "bert-base-uncased",
        &["model \"bert-base-uncased\" cannot be had", "is not in the cache", "HF_HUB_OFFLINE is set"],
    );
    check("owner/name@v1", &["model \"owner/name\" cannot be had", "at revision \"v1\""]);
    check("./tiny@v1", &["model folder ./tiny@v1 does not exist"]);

    symlink(fixture("variants/bert-relu-nopooler"), scratch.path("poolerless")).expect("a link");
    scratch.refuses(
        "lsa-coordinator run --model ./poolerless --pooling mean pooler --dataset file:texts.txt -o out",
        &[
            "poolerless_pooler_texts: model \"./poolerless\" has no trained pooler",
            "leave pooling \"pooler\" out",
        ],
    );
    scratch.refuses(
        "lsa-worker embed --model ./poolerless --texts texts.txt --pooling pooler --output e.safetensors",
        &["no trained pooler"],
    );
    scratch.refuses(
        "lsa-coordinator run --model ./tiny --layers 9 --dataset file:texts.txt -o out",
        &["layer 9 does not exist", "layers 0 to 3"],
    );
}

#[test]
fn a_missing_model_is_told_once_for_all_its_experiments() {
    let scratch = Scratch::new();
    let ended = scratch.run(
        "lsa-coordinator run --model ./a ./b --pooling mean cls --dataset file:texts.txt file:missing.txt -o out",
    );
    ended.is(
        USAGE,
        &["a_mean_texts, a_cls_texts, a_mean_missing, a_cls_missing: model folder ./a", "b_mean_texts"],
    );
    assert_eq!(ended.stderr.lines().count(), 2, "{}", ended.stderr);
}

#[test]
fn output_directories() {
    let scratch = Scratch::new();
    scratch.write("file", b"");
    for directory in ["file", "file/below", "file/far/below"] {
        scratch.refuses(
            &format!("lsa-coordinator run --model ./tiny --dataset file:texts.txt --output-dir {directory}"),
            &[&format!("cannot write \"{directory}\""), "name a directory that you may write to"],
        );
    }
    scratch.refuses(
        "lsa-worker embed --model ./tiny --texts texts.txt --pooling mean --output file/e.safetensors",
        &["file/e.safetensors"],
    );
    scratch.write("x.npy", &npy_bytes(&[1, 12, 2], &(0..24).map(f64::from).collect::<Vec<_>>()));
    scratch.refuses("lsa-worker similarity --input x.npy --output file/below", &["cannot write file/below"]);
}

#[test]
fn embed() {
    let scratch = Scratch::new();
    scratch.write("latin.txt", b"one\ntwo\nth\xEEs\n");
    scratch.write("none.txt", b"");
    let check = |flags: &str, expected: &[&str]| {
        scratch.refuses(&format!("lsa-worker embed --model ./tiny --output e.safetensors {flags}"), expected);
    };
    check("--texts missing.txt --pooling mean", &["missing.txt", "No such file"]);
    check("--texts latin.txt --pooling mean", &["latin.txt:3: not UTF-8", "iconv"]);
    check("--texts none.txt --pooling mean", &["none.txt"]);
    check(
        "--texts texts.txt --pooling meen --dtype f8",
        &["--pooling", "\"meen\"", "last_token", "--dtype", "bfloat16"],
    );
    check("--texts texts.txt --pooling mean --max-length 0", &["--max-length", "1 or more"]);
    check("--texts texts.txt --pooling mean --max-length 5000", &["max", "67"]);
    check("--texts texts.txt --pooling mean --device tpu", &["tpu", "cpu, cuda:0"]);
    check("--texts texts.txt", &["--pooling"]);
}

#[test]
fn similarity() {
    let scratch = Scratch::new();
    let values = |count: usize| (0..count).map(|n| (n * n % 17) as f64).collect::<Vec<f64>>();
    let mut holed = values(3 * 12 * 4);
    holed[12 * 4 + 5 * 4 + 1] = f64::NAN;
    scratch.write("nan.npy", &npy_bytes(&[3, 12, 4], &holed));
    scratch.write("few.npy", &npy_bytes(&[3, 10, 4], &values(120)));
    scratch.write("good.npy", &npy_bytes(&[3, 12, 4], &values(144)));
    scratch.write("flat2.npy", &npy_bytes(&[1, 12], &values(12)));
    scratch.write("flat.npy", &npy_bytes(&[12], &values(12)));
    let header = "{'descr': '|O', 'fortran_order': False, 'shape': (3, 12, 4), }";
    let object = format!("{header:<117}\n");
    scratch.write("object.npy", &[b"\x93NUMPY\x01\x00\x76\x00", object.as_bytes(), b"\x80\x04N."].concat());
    scratch.write("cut.npy", &npy_bytes(&[3, 12, 4], &values(144))[..600]);
    scratch.write("noise.safetensors", b"\xff\xff\xff\xff\xff\xff\xff\x7f{}");
    let check = |flags: &str, expected: &[&str]| {
        scratch.refuses(&format!("lsa-worker similarity --output matrices {flags}"), expected);
    };
    check("--input missing.npy", &["missing.npy", "No such file"]);
    check("--input texts.txt", &["texts.txt", ".npy, .npz, .safetensors or a folder"]);
    check("--input few.npy", &["few.npy", "JaccardSimilarity", "at least 11 rows", "got 10"]);
    check("--input object.npy", &["object.npy", "object"]);
    check("--input cut.npy", &["cut.npy"]);
    check("--input flat.npy", &["flat.npy", "[layers, n, d]"]);
    check("--input noise.safetensors", &["noise.safetensors"]);
    check("--input good.npy --metrics CKKA", &["CKKA", "DistanceCorrelation"]);
    check("--input good.npy --k 12", &["JaccardSimilarity", "at least 13 rows"]);
    check("--input good.npy --against few.npy", &["good.npy has 12 rows", "few.npy has 10"]);
    check("--input good.npy --rows good.npy", &["good.npy", "[trials, rows]"]);
    check("--input good.npy --rows flat2.npy", &["flat2.npy", "integers"]);
    check("--input nan.npy", &["nan.npy", "layer 1", "row 5"]);
}

#[test]
fn a_device_that_is_not_there() {
    if Path::new("/dev/nvidiactl").exists() {
        eprintln!("SKIPPED: this machine has an NVIDIA device, so that cuda:0 may well be usable");
        return;
    }
    let scratch = Scratch::new();
    let embed = "lsa-worker embed --model ./tiny --texts texts.txt --pooling mean --output e.safetensors";
    scratch.refuses(
        &format!("{embed} --device cuda:0"),
        &["device cuda:0 is not usable", "--device cpu or auto"],
    );
    scratch.refuses(
        "lsa-worker serve --coordinator http://127.0.0.1:9 --device cuda:0",
        &["device cuda:0 is not usable", "--device cpu or auto"],
    );
    // The worker finds out, at once and once only; nothing was computed.
    let ended = scratch.run(&format!("{RUN} --device cuda:0"));
    ended.is(USAGE, &["device cuda:0 is not usable", "--device cpu or auto", "--device cuda:0: the worker"]);
    assert_eq!(ended.stderr.matches("is not usable").count(), 1, "{}", ended.stderr);
    for untouched in ["out", "cache/lsa/texts", "cache/lsa/embeddings", "cache/lsa/trials"] {
        assert!(!scratch.path(untouched).exists(), "{untouched}");
    }
}

/// A coordinator that listens on a port of its own choice; killed when dropped.
struct Serving {
    child: Child,
    url: String,
}

impl Serving {
    fn start(scratch: &Scratch) -> Self {
        let mut command = scratch.command("lsa-coordinator serve --store bucket --listen 127.0.0.1:0");
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the coordinator");
        let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let address = lines
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("listening on ")?.1.split_whitespace().next()?.to_owned()));
        Self { child, url: format!("http://{}", address.expect("it says where it listens")) }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // `timeout` passes SIGTERM on to the coordinator.
        let pid = i32::try_from(self.child.id()).expect("a process id");
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

#[test]
fn what_a_coordinator_does_not_know() {
    let scratch = Scratch::new();
    let serving = Serving::start(&scratch);
    let no_job = ["there is no job \"nothing\"", "`lsa-coordinator jobs` lists them"];
    for command in ["status", "watch", "cancel", "logs", "fetch --output-dir out"] {
        let ended = scratch.run(&format!("lsa-coordinator {command} nothing --coordinator {}", serving.url));
        ended.is(USAGE, &no_job);
        assert_eq!(ended.stderr.matches("there is no job").count(), 1, "{}", ended.stderr);
    }
    assert!(!scratch.path("out").exists());
}

#[test]
fn coordinators_that_cannot_be() {
    let scratch = Scratch::new();
    for flag in ["--listen", "--listen-http"] {
        scratch.refuses(
            &format!("lsa-coordinator serve --store bucket {flag} 0.0.0.0:0"),
            &[&format!("{flag} 0.0.0.0:0 can be reached from other machines"), "127.0.0.1", "--insecure"],
        );
    }
    scratch.refuses(
        "lsa-coordinator serve --store s3://key:secret@bucket/lsa",
        &["s3://…@bucket/lsa", "credentials do not belong into an address"],
    );
    scratch.refuses("lsa-coordinator serve", &["--store"]);
    scratch.refuses("lsa-coordinator serve --store bucket --lease-ttl 0", &["--lease-ttl"]);
    scratch.refuses("lsa-coordinator status job --coordinator here", &["\"here\"", "http://host:7300"]);

    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("its address");
    drop(free);
    let before = scratch.everything();
    for command in ["jobs", "workers", "status job", "fetch job -o out"] {
        scratch.run(&format!("lsa-coordinator {command} --coordinator http://{address}")).is(
            FAILED,
            &["cannot reach the coordinator", "lsa-coordinator serve", "--coordinator", "refused"],
        );
    }
    assert_eq!(scratch.everything(), before);
}

#[test]
fn report_of_nothing() {
    let scratch = Scratch::new();
    scratch.write("empty/readme", b"");
    scratch.refuses(
        "lsa-coordinator report missing",
        &["missing cannot be read", "give a directory with results"],
    );
    scratch.refuses("lsa-coordinator report empty", &["no .pkl file in empty", "metadata.json"]);
}

fn summary(scratch: &Scratch) -> Value {
    let json = fs::read(scratch.path("out/grid_search_summary.json")).expect("a summary");
    serde_json::from_slice(&json).expect("JSON")
}

#[test]
fn one_bad_model_beside_a_good_one() {
    let scratch = Scratch::new();
    let line = "lsa-coordinator run --model ./tiny ./missing --dataset file:texts.txt --trials 2 -o out";
    scratch.refuses(line, &["missing_mean_texts: model folder ./missing does not exist"]);

    let ended = scratch.run(&format!("{line} --continue-on-error"));
    ended.is(PARTIAL, &["failed: missing_mean_texts: model folder ./missing does not exist"]);
    let summary = summary(&scratch);
    assert_eq!((&summary["total"], &summary["done"], &summary["failed"]), (&2.into(), &1.into(), &1.into()));
    let named = |name: &str| {
        let all = summary["experiments"].as_array().expect("a list");
        all.iter().find(|experiment| experiment["name"] == name).cloned().expect("it is listed")
    };
    assert_eq!(named("tiny_mean_texts")["state"], "done");
    let failed = named("missing_mean_texts");
    assert_eq!(failed["state"], "failed");
    let error = failed["error"].as_str().expect("a text");
    assert!(error.contains("./missing does not exist"), "{error}");
    assert!(scratch.path("out/tiny_mean_texts/similarities/CKA.pkl").is_file());
    assert!(!scratch.path("out/missing_mean_texts").exists());

    // Nothing but bad ones: there is nothing to go on with.
    scratch
        .run("lsa-coordinator run --model ./missing --dataset file:texts.txt -o none --continue-on-error")
        .is(USAGE, &["./missing does not exist"]);
    assert!(!scratch.path("none").exists());
}

/// The tiny model's weights with NaN in the output of block 1: what no header shows.
fn broken_weights() -> Vec<u8> {
    let mut bytes = fs::read(fixture("open/bert/model.safetensors")).expect("the weights");
    let header_len =
        usize::try_from(u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"))).expect("small");
    let header: Value = serde_json::from_slice(&bytes[8..8 + header_len]).expect("a header");
    let (_, tensor) = header
        .as_object()
        .expect("a table")
        .iter()
        .find(|(name, _)| name.ends_with("encoder.layer.1.output.LayerNorm.beta"))
        .expect("a BERT has it");
    let start =
        tensor["data_offsets"][0].as_u64().and_then(|start| usize::try_from(start).ok()).expect("small");
    bytes[8 + header_len + start..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    bytes
}

#[test]
fn a_model_that_fails_while_it_runs() {
    let scratch = Scratch::new();
    scratch.model("broken", "model.safetensors", &broken_weights());
    let line = "lsa-coordinator run --model ./broken ./tiny --dataset file:texts.txt --trials 2";
    let ended = scratch.run(&format!("{line} -o out --continue-on-error"));
    ended.is(PARTIAL, &["failed: broken_mean_texts: ", "layer 2"]);
    let summary = summary(&scratch);
    assert_eq!((&summary["done"], &summary["failed"]), (&1.into(), &1.into()));
    assert!(scratch.path("out/tiny_mean_texts/similarities/CKA.pkl").is_file());

    let ended = scratch.run(&format!("{line} -o strict"));
    ended.is(FAILED, &["failed: broken_mean_texts: ", "layer 2"]);
    // The good one was done already, so that its results cost nothing.
    scratch
        .run("lsa-coordinator run --model ./tiny --dataset file:texts.txt --trials 2 -o good")
        .is(DONE, &[]);
}
