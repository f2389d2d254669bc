//! Models against stored results of the Python library; see `fixtures/models/README.md`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lsa_common::model::{Dtype, PinnedModel, Pooling};
use lsa_common::model_source;
use lsa_common::tokenize::{Tokenizer, TokenizerFiles};
use lsa_worker::device;
use lsa_worker::extract::{ExtractError, ExtractRequest, Extractor, Pooled};
use safetensors::SafeTensors;
use serde_json::Value;
use tch::Device;

const MODELS: [&str; 3] = ["open/bert", "variants/bert-relu-nopooler", "variants/bert-f16"];

/// Largest relative Frobenius error of a layer in float32. The library's own kernels differ from each other and
/// from float64 by up to 1e-6 on such models; ten times that is a defect, not rounding.
const FLOAT32_ERROR_MAX: f64 = 1e-5;
/// In float16, with 2^-11 of rounding per operation: some twenty roundings one after another through three
/// blocks, in random directions, and as much from the rounded weights.
const FLOAT16_ERROR_MAX: f64 = 5e-3;
/// In bfloat16, with 2^-8 of rounding: eight times the above.
const BFLOAT16_ERROR_MAX: f64 = 4e-2;

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models")
}

fn texts() -> Vec<String> {
    let content = fs::read_to_string(models().join("texts.txt")).expect("fixture");
    content.strip_suffix('\n').unwrap_or(&content).split('\n').map(str::to_owned).collect()
}

fn pin(folder: &Path) -> PinnedModel {
    let found = model_source::find(folder.to_str().expect("utf-8"), None).expect("a folder");
    found.pin().expect("a sound model")
}

fn load(folder: &Path, dtype: Dtype) -> Extractor {
    device::prepare_libtorch();
    let model = pin(folder);
    Extractor::load(&model, &model.folder, dtype, Device::Cpu).expect("loaded")
}

fn request(model: &PinnedModel, token_budget: u64) -> ExtractRequest {
    let served = |pooling: &Pooling| *pooling != Pooling::Pooler || model.facts.has_pooler;
    ExtractRequest {
        max_length: model.facts.max_length,
        token_budget,
        layers: (0..model.facts.n_layers).collect(),
        poolings: Pooling::ALL.into_iter().filter(served).collect(),
        skip_empty: false,
    }
}

fn go_on(_: u64) -> bool {
    true
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let (values, _) = file.tensor(name).expect(name).data().as_chunks::<4>();
    values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let pairs = || found.iter().zip(expected).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let error: f64 = pairs().map(|(a, b)| (a - b) * (a - b)).sum();
    let norm: f64 = pairs().map(|(_, b)| b * b).sum();
    (error / norm).sqrt()
}

/// The largest relative error over all layers and poolings, with where it is.
fn worst_error(pooled: &Pooled, golden: &SafeTensors<'_>) -> (f64, String) {
    let mut worst = (0.0, String::new());
    for (pooling, layers) in &pooled.rows {
        let expected = floats(golden, pooling.as_str());
        for (layer, (found, expected)) in
            layers.iter().zip(expected.chunks_exact(layers[0].len())).enumerate()
        {
            let error = relative_error(found, expected);
            // A NaN is the worst of all.
            if error > worst.0 || error.is_nan() {
                worst = (error, format!("{pooling} of layer {layer}"));
            }
        }
    }
    worst
}

#[test]
fn facts_come_from_headers_alone() {
    let model = pin(&models().join("variants/bert-f16"));
    let facts = &model.facts;
    assert_eq!((facts.model_type.as_str(), facts.n_layers, facts.hidden_size), ("bert", 4, 32));
    assert_eq!((facts.max_length, facts.has_pooler, facts.stored_dtype.as_str()), (67, true, "float16"));
    assert_eq!(facts.weight_bytes, 2 * facts.n_params);
    assert!(!pin(&models().join("variants/bert-relu-nopooler")).facts.has_pooler);
    let names: Vec<&str> = model.files.iter().map(|file| file.name.as_str()).collect();
    let expected = [
        "config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(names, expected);
}

#[test]
fn tokens_are_those_of_the_library() {
    for name in MODELS {
        let folder = models().join(name);
        let golden = fs::read(folder.join("golden.safetensors")).expect("fixture");
        let golden = SafeTensors::deserialize(&golden).expect("sound");
        let json = fs::read(folder.join("tokenizer.json")).expect("fixture");
        let vocab: Value = serde_json::from_slice(&json).expect("json");
        let vocab = vocab["model"]["vocab"].as_object().expect("an object");
        let mut lines = vec![String::new(); vocab.len()];
        for (token, id) in vocab {
            lines[id.as_u64().expect("an id") as usize] = format!("{token}\n");
        }
        let config = fs::read(folder.join("tokenizer_config.json")).ok();
        let from_json = TokenizerFiles {
            tokenizer_json: Some(json),
            tokenizer_config: config.clone(),
            ..TokenizerFiles::default()
        };
        let from_vocab = TokenizerFiles {
            vocab_txt: Some(lines.concat().into()),
            tokenizer_config: config,
            ..TokenizerFiles::default()
        };
        for files in [from_json, from_vocab] {
            let tokenizer = Tokenizer::load(&files).expect("sound");
            let encoded = tokenizer.encode_batch(&texts(), 67).expect("encoded");
            for (row, text) in encoded.iter().enumerate() {
                let (expected, _) =
                    golden.tensor(&format!("input_ids.{row}")).expect("there").data().as_chunks::<8>();
                let expected: Vec<u32> = expected.iter().map(|id| i64::from_le_bytes(*id) as u32).collect();
                assert_eq!(text.ids, expected, "{name}, text {row}");
            }
            assert!(encoded.iter().any(|text| text.truncated), "no text tests truncation");
        }
    }
}

#[test]
fn every_layer_and_pooling_agrees_in_float32_whatever_the_batches() {
    for name in MODELS {
        let folder = models().join(name);
        let golden = fs::read(folder.join("golden.safetensors")).expect("fixture");
        let golden = SafeTensors::deserialize(&golden).expect("sound");
        let model = pin(&folder);
        let extractor = load(&folder, Dtype::Float32);
        // One text at a time, a few texts, and all of them at once.
        for token_budget in [1, 200, 1 << 20] {
            let what = request(&model, token_budget);
            let pooled = extractor.extract(&texts(), &what, 1, &go_on).expect("extracted");
            assert_eq!(pooled.rows.len(), what.poolings.len());
            let (error, place) = worst_error(&pooled, &golden);
            assert!(error <= FLOAT32_ERROR_MAX, "{name}, budget {token_budget}, {place}: {error:e}");
            for threads in [2, 5] {
                let again = extractor.extract(&texts(), &what, threads, &go_on).expect("extracted");
                assert!(again == pooled, "{name}, budget {token_budget}: {threads} threads give other bytes");
            }
        }
    }
}

#[test]
fn half_precision_stays_within_its_rounding() {
    for name in MODELS {
        let folder = models().join(name);
        let golden = fs::read(folder.join("golden.safetensors")).expect("fixture");
        let golden = SafeTensors::deserialize(&golden).expect("sound");
        for (dtype, error_max) in [(Dtype::Float16, FLOAT16_ERROR_MAX), (Dtype::BFloat16, BFLOAT16_ERROR_MAX)]
        {
            let what = request(&pin(&folder), 200);
            let pooled = load(&folder, dtype).extract(&texts(), &what, 2, &go_on).expect("extracted");
            let (error, place) = worst_error(&pooled, &golden);
            assert!(error <= error_max, "{name} in {dtype}, {place}: {error:e}");
            assert!(error > FLOAT32_ERROR_MAX, "{name} in {dtype} was computed in another dtype");
        }
    }
}

/// A copy of a fixture in which one file was edited.
fn edited(name: &str, file: &str, edit: impl FnOnce(Vec<u8>) -> Vec<u8>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("temporary folder");
    for entry in fs::read_dir(models().join(name)).expect("fixture") {
        let entry = entry.expect("listed");
        fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("copied");
    }
    let path = folder.path().join(file);
    let content = fs::read(&path).expect("there");
    fs::write(path, edit(content)).expect("written");
    folder
}

fn edited_json(name: &str, file: &str, edit: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    edited(name, file, |content| {
        let mut value = serde_json::from_slice(&content).expect("json");
        edit(&mut value);
        value.to_string().into()
    })
}

#[test]
fn rows_that_overflow_in_half_precision_are_redone_in_float32() {
    let folder = edited("variants/bert-f16", "model.safetensors", |mut content| {
        let name = "embeddings.LayerNorm.weight";
        let file = SafeTensors::deserialize(&content).expect("sound");
        let data = file.tensor(name).expect("there").data();
        let start = data.as_ptr() as usize - content.as_ptr() as usize;
        // 20000 in float16: a hidden state beyond 3.3 standard deviations exceeds 65504.
        for place in (start..start + data.len()).step_by(2) {
            content[place..place + 2].copy_from_slice(&0x74e2u16.to_le_bytes());
        }
        content
    });
    let what = request(&pin(folder.path()), 200);
    let half = load(folder.path(), Dtype::Float16);
    let all_layers = half.extract(&texts(), &what, 2, &go_on).expect("extracted");
    assert!(all_layers.rows.values().flatten().flatten().all(|x| x.is_finite()));
    // Later layers overflow everywhere; the embedding output does so in some rows.
    let what = ExtractRequest { layers: vec![0], ..what };
    let half = half.extract(&texts(), &what, 2, &go_on).expect("extracted");
    let full = load(folder.path(), Dtype::Float32).extract(&texts(), &what, 1, &go_on).expect("extracted");
    assert_eq!(full.notes.nonfinite_rows_per_layer, [0]);
    let redone = half.notes.nonfinite_rows_per_layer[0];
    assert!(0 < redone && redone < 47, "{redone} rows overflowed: the test needs some, not all");
    // Rows that fitted carry float16's rounding, rows redone only float32's.
    let exact = |row: usize| {
        let rows = |pooled: &Pooled| pooled.rows[&Pooling::Mean][0][row * 32..(row + 1) * 32].to_vec();
        relative_error(&rows(&half), &rows(&full)) <= FLOAT32_ERROR_MAX
    };
    assert_eq!((0..47).filter(|row| exact(*row)).count() as u64, redone);
}

#[test]
fn texts_without_tokens_are_named_or_skipped() {
    let folder = edited_json("open/bert", "tokenizer.json", |tokenizer| {
        tokenizer["post_processor"] = Value::Null;
    });
    let extractor = load(folder.path(), Dtype::Float32);
    let mut what = request(&pin(folder.path()), 200);
    let texts: Vec<String> = ["a text", "", "another", " \t"].map(str::to_owned).into();
    let error = extractor.extract(&texts, &what, 1, &go_on).expect_err("an empty text");
    assert!(matches!(error, ExtractError::Empty { row: 1 }), "{error}");
    what.skip_empty = true;
    let pooled = extractor.extract(&texts, &what, 1, &go_on).expect("extracted");
    assert_eq!((pooled.n_rows, pooled.kept.as_slice()), (2, &[0, 2][..]));
    let alone = extractor.extract(&texts[2..3], &what, 1, &go_on).expect("extracted");
    let second = &pooled.rows[&Pooling::Cls][3][48..];
    assert!(relative_error(second, &alone.rows[&Pooling::Cls][3]) <= FLOAT32_ERROR_MAX);
}

#[test]
fn what_does_not_fit_the_model_is_refused() {
    let folder = models().join("variants/bert-relu-nopooler");
    let (extractor, what) = (load(&folder, Dtype::Float32), request(&pin(&folder), 200));
    let check = |what: ExtractRequest, expected: &str| {
        let error = extractor.extract(&texts(), &what, 1, &go_on).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(ExtractRequest { max_length: 68, ..what.clone() }, "more than the 67 positions");
    check(ExtractRequest { layers: vec![3], ..what.clone() }, "layers 0 to 2");
    check(ExtractRequest { poolings: vec![Pooling::Pooler], ..what.clone() }, "no trained pooler");
    let stopped = extractor.extract(&texts(), &what, 2, &|_| false);
    assert!(matches!(stopped, Err(ExtractError::Stopped)));
    let folder = edited_json("open/bert", "tokenizer.json", |tokenizer| {
        tokenizer["model"]["vocab"]["the"] = 703.into();
    });
    let error =
        load(folder.path(), Dtype::Float32).extract(&texts(), &request(&pin(folder.path()), 200), 1, &go_on);
    assert!(matches!(error, Err(ExtractError::UnknownToken { token: 703, .. })), "{error:?}");
}

#[test]
fn a_file_that_changed_after_it_was_pinned_is_refused() {
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let folder = edited("open/bert", file, |content| content);
        let model = pin(folder.path());
        let mut content = fs::read(folder.path().join(file)).expect("there");
        *content.last_mut().expect("not empty") ^= 1;
        fs::write(folder.path().join(file), content).expect("written");
        let error = model_source::open_verified(&model, &model.folder).err().expect("refused").to_string();
        assert!(error.contains(file) && error.contains("has changed"), "{error}");
    }
}

/// Runs the worker that was built beside this test.
fn worker(arguments: &[&str]) -> Output {
    let test = std::env::current_exe().expect("a path");
    let folder = test.parent().and_then(Path::parent).expect("target/<profile>/deps/<test>");
    let binary = folder.join("lsa-worker");
    assert!(binary.is_file(), "{} is missing; build the workspace first", binary.display());
    Command::new(binary).args(arguments).output().expect("started")
}

#[test]
fn the_binary_embeds_a_file() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (model, input) = (models().join("open/bert"), models().join("texts.txt"));
    let output = folder.path().join("out.safetensors");
    let path = |path: &Path| path.to_str().expect("utf-8").to_owned();
    let (model, input, output) = (path(&model), path(&input), path(&output));
    let embed = ["embed", "--model", &model, "--texts", &input, "--output", &output, "--device", "cpu"];
    let run = worker(
        &[&embed[..], &["--pooling", "mean,cls", "max", "--pooling", "pooler", "last_token"]].concat(),
    );
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let found = fs::read(&output).expect("written");
    let found = SafeTensors::deserialize(&found).expect("sound");
    let golden = fs::read(Path::new(&model).join("golden.safetensors")).expect("fixture");
    let golden = SafeTensors::deserialize(&golden).expect("sound");
    assert_eq!(found.len(), Pooling::ALL.len());
    for pooling in Pooling::ALL {
        let name = pooling.as_str();
        assert_eq!(found.tensor(name).expect(name).shape(), [4, 47, 48]);
        let error = relative_error(&floats(&found, name), &floats(&golden, name));
        assert!(error <= FLOAT32_ERROR_MAX, "{name}: {error:e}");
    }
}

#[test]
fn the_binary_refuses_bad_input_with_code_2() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let bad_text = folder.path().join("bad.txt");
    fs::write(&bad_text, b"sound\nnot \xff sound\n").expect("written");
    let path = |path: &Path| path.to_str().expect("utf-8").to_owned();
    let unsupported = edited_json("open/bert", "config.json", |config| config["model_type"] = "mamba".into());
    let (model, input) = (path(&models().join("open/bert")), path(&models().join("texts.txt")));
    let output = path(&folder.path().join("out.safetensors"));
    let no_pooler = path(&models().join("variants/bert-relu-nopooler"));
    let check = |changed: &[(&str, &str)], expected: &str| {
        let mut arguments = vec!["embed".to_owned()];
        let flags =
            [("--model", model.as_str()), ("--texts", &input), ("--pooling", "mean"), ("--output", &output)];
        for (flag, value) in flags {
            let changed = changed.iter().find(|(changed, _)| *changed == flag);
            arguments.extend([flag.to_owned(), changed.map_or(value, |(_, value)| *value).to_owned()]);
        }
        for (flag, value) in changed.iter().filter(|(flag, _)| !flags.iter().any(|(known, _)| known == flag))
        {
            arguments.extend([(*flag).to_owned(), (*value).to_owned()]);
        }
        let run = worker(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let message = String::from_utf8_lossy(&run.stderr).into_owned();
        assert_eq!(run.status.code(), Some(2), "{message}");
        assert!(message.contains(expected), "{expected:?} not in {message}");
        assert!(!Path::new(&output).exists());
    };
    check(&[("--pooling", "men"), ("--dtype", "float8")], "--dtype: \"float8\" is unknown; known: float32");
    check(&[("--pooling", "men"), ("--dtype", "float8")], "--pooling: \"men\" is unknown; known: mean, cls");
    check(&[("--texts", &path(&bad_text))], "bad.txt:2: not UTF-8");
    check(&[("--texts", "/nothing/here.txt")], "cannot read /nothing/here.txt");
    check(&[("--model", "/nothing/here")], "does not exist");
    check(
        &[("--model", &path(unsupported.path()))],
        "model_type \"mamba\" is not supported; supported: bert",
    );
    check(&[("--model", &no_pooler), ("--pooling", "pooler")], "no trained pooler");
    check(&[("--max-length", "68")], "more than the 67 positions");
    check(&[("--max-length", "2")], "no room");
    check(&[("--device", "cuda:99")], "cuda:99 is not usable");
}
