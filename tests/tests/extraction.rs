//! What an extraction does beside the numbers: overflow, empty texts, refusals, the `embed` command.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use lsa_common::model::{Dtype, Pooling};

use lsa_tests::golden::{self, Golden, go_on, load, models, pin, relative_error, request};
use lsa_worker::extract::{ExtractError, ExtractRequest, Extractor, Pooled};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::Value;
use tch::Device;

/// See `golden_models.rs`.
const FLOAT32_ERROR_MAX: f64 = 1e-5;

fn texts() -> Vec<String> {
    Golden::of("open/bert").texts
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
        // 16000 in float16: queries, keys and values of some texts exceed 65504.
        for place in (start..start + data.len()).step_by(2) {
            content[place..place + 2].copy_from_slice(&0x73d0u16.to_le_bytes());
        }
        content
    });
    let what = request(&pin(folder.path()), 200);
    let half = load(folder.path(), Dtype::Float16);
    let all_layers = half.extract(&texts(), &what, 2, &go_on).expect("extracted");
    assert!(all_layers.rows.values().flatten().flatten().all(|x| x.is_finite()));
    // The residual stream is float32, so the embedding output never overflows; the first block does in some rows.
    let what = ExtractRequest { layers: vec![1], ..what };
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
        let loaded = Extractor::load(&model, &model.folder, Dtype::Float32, Device::Cpu);
        let error = loaded.err().expect("refused").to_string();
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
    let golden = Golden::of("open/bert");
    assert_eq!(found.len(), Pooling::ALL.len());
    for pooling in Pooling::ALL {
        let name = pooling.as_str();
        assert_eq!(found.tensor(name).expect(name).shape(), [4, 47, 48]);
        let values = golden::floats(&found, name).expect("there");
        let error = relative_error(&values, &golden.rows[&pooling].concat());
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

fn fixture(name: &str) -> String {
    models().join(name).to_str().expect("utf-8").to_owned()
}

#[test]
fn the_binary_verifies_a_model_against_stored_results() {
    let golden = |name: &str| format!("{}/golden.safetensors", fixture(name));
    let verify = |model: &str, stored: &str| {
        worker(&["verify-model", &fixture(model), "--golden", &golden(stored), "--device", "cpu", "--json"])
    };
    let run = verify("open/mpnet", "open/mpnet");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let report: Value = serde_json::from_slice(&run.stdout).expect("json");
    let layers = report["layers"].as_array().expect("an array");
    assert_eq!((report["passed"].as_bool(), layers.len()), (Some(true), 5 * 4));
    assert!(layers.iter().all(|layer| layer["cosine"].as_f64().expect("a number") > 0.999_999));
    let (model, stored) = (fixture("open/mpnet"), golden("open/mpnet"));
    let strict =
        worker(&["verify-model", &model, "--golden", &stored, "--device", "cpu", "--tolerance", "1e-12"]);
    assert_eq!(strict.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&strict.stdout).contains("beyond the tolerance"));
    let run = verify("open/mpnet", "more/opt-350m");
    let message = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(2), "{message}");
    assert!(message.contains("has layers of widths"), "{message}");
}

#[test]
fn stored_types_are_what_the_model_was_given() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let model = fixture("more/xlnet");
    let content = fs::read(Path::new(&model).join("golden.safetensors")).expect("fixture");
    let file = SafeTensors::deserialize(&content).expect("sound");
    // The stored results with other types in the place of those of the first text.
    let verify = |types: Option<&TensorView<'_>>| {
        let with_types = |(name, _): &(String, TensorView<'_>)| name != "token_type_ids.0";
        let mut tensors: Vec<_> = file.tensors().into_iter().filter(with_types).collect();
        tensors.extend(types.map(|types| ("token_type_ids.0".to_owned(), types.clone())));
        let golden = folder.path().join("golden.safetensors");
        fs::write(&golden, safetensors::serialize(tensors, None).expect("serialized")).expect("written");
        let golden = golden.to_str().expect("utf-8");
        let run = worker(&["verify-model", &model, "--golden", golden, "--device", "cpu"]);
        (run.status.code(), String::from_utf8_lossy(&run.stderr).into_owned())
    };
    let stored = file.tensor("token_type_ids.0").expect("there");
    assert_eq!(verify(Some(&stored)), (Some(0), String::new()));
    let (code, message) = verify(None);
    assert_eq!(code, Some(1), "{message}");
    let numbers =
        |numbers: &[i64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let n_tokens = stored.shape()[0];
    let check = |numbers: &[u8], expected: &str| {
        let types =
            TensorView::new(safetensors::Dtype::I64, vec![numbers.len() / 8], numbers).expect("whole");
        let (code, message) = verify(Some(&types));
        assert!(code == Some(2) && message.contains(expected), "{message}");
    };
    check(&numbers(&vec![0; n_tokens + 1]), "token_type_ids.0 has 4 numbers for 3 tokens");
    check(&numbers(&vec![-1; n_tokens]), "token_type_ids.0 holds a number that is no token id or type");
}

#[test]
fn the_binary_says_what_a_model_is() {
    let inspect = |name: &str| -> Value {
        let run = worker(&["inspect", &fixture(name), "--json"]);
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        serde_json::from_slice(&run.stdout).expect("json")
    };
    let llama = inspect("open/llama");
    assert_eq!((&llama["model_type"], &llama["final_norm"]), (&"llama".into(), &true.into()));
    assert_eq!(llama["layer_names"][0], "embed");
    assert_eq!(llama["layer_names"][1], "block.1");
    assert_eq!(llama["tokenizer"], "tokenizer.json");
    let uneven = inspect("more/opt-350m");
    let widths = uneven["layer_widths"].as_array().expect("an array");
    assert_ne!(widths.first(), widths.last());
    assert_eq!(uneven["final_norm"], false);
    let poolings = inspect("variants/bert-relu-nopooler")["poolings"].to_string();
    assert!(!poolings.contains("pooler"), "{poolings}");
}

#[test]
fn layers_of_different_widths_are_written_apart_and_compared() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("utf-8").to_owned();
    let (texts, output, matrices) = (fixture("texts_few.txt"), path("out.safetensors"), path("matrices"));
    let run = worker(&[
        "embed",
        "--model",
        &fixture("more/opt-350m"),
        "--texts",
        &texts,
        "--pooling",
        "mean",
        "--output",
        &output,
        "--device",
        "cpu",
    ]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let content = fs::read(&output).expect("written");
    let file = SafeTensors::deserialize(&content).expect("sound");
    let golden = Golden::of("more/opt-350m");
    for (layer, expected) in golden.rows[&Pooling::Mean].iter().enumerate() {
        let found = golden::floats(&file, &format!("mean.layer{layer}")).expect("there");
        assert!(relative_error(&found, expected) <= FLOAT32_ERROR_MAX, "layer {layer}");
    }
    let run = worker(&["similarity", "--input", &output, "--metrics", "CKA,RSA", "--output", &matrices]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(Path::new(&matrices).join("CKA.npy").is_file());
}
