//! Checkpoints that torch and safetensors wrote, in every format: what they hold, and that nothing in them can do harm.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use lsa_common::checkpoint::{self, CheckpointError, Index, StoredTensor, StoredTensors, WeightFile};
use lsa_common::failure::chain;
use lsa_common::model_source::{self, ModelFolder, ModelSourceError};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use safetensors::Dtype;

/// Every file that holds the tensors of expected.json.
const WHOLE: [&str; 8] = [
    "plain.safetensors",
    "zip.bin",
    "zip_protocol4.bin",
    "zip_nested.bin",
    "zip_parameters.bin",
    "legacy.bin",
    "legacy_protocol5.bin",
    "legacy_nested.bin",
];
/// Damaged copies of each file that are tried.
const MUTATIONS: u64 = 1500;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/checkpoints")
}

fn open(name: &str) -> WeightFile {
    let file = File::open(fixtures().join(name)).expect(name);
    let size = file.metadata().expect(name).len();
    WeightFile { name: Path::new(name).file_name().unwrap().to_str().unwrap().into(), file, size }
}

fn file_of(name: &str, bytes: &[u8]) -> WeightFile {
    let file = tempfile::tempfile().expect("temporary file");
    file.write_all_at(bytes, 0).expect("written");
    WeightFile { name: name.into(), file, size: bytes.len() as u64 }
}

/// The whole chain of an error.
fn told(error: CheckpointError) -> String {
    chain(&error)
}

#[derive(serde::Deserialize)]
struct Expected {
    dtype: String,
    shape: Vec<usize>,
    /// As texts, for not every JSON reader rounds numbers rightly.
    values: Vec<String>,
}

fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "float32",
        Dtype::F16 => "float16",
        Dtype::BF16 => "bfloat16",
        Dtype::F64 => "float64",
        Dtype::I64 => "int64",
        Dtype::I32 => "int32",
        Dtype::U8 => "uint8",
        Dtype::BOOL => "bool",
        other => panic!("{other} is not in the fixtures"),
    }
}

/// The numbers of a tensor in row-major order, read as its directory says.
fn values(files: &[WeightFile], tensor: &StoredTensor) -> Vec<f64> {
    let mut bytes = vec![0; tensor.size_bytes as usize];
    files[tensor.file].file.read_exact_at(&mut bytes, tensor.start).expect("inside of the file");
    let width = tensor.dtype.bitsize() / 8;
    let number = |at: usize| {
        let mut bits = [0; 8];
        bits[..width].copy_from_slice(&bytes[at * width..(at + 1) * width]);
        let bits = u64::from_le_bytes(bits);
        match tensor.dtype {
            Dtype::F64 => f64::from_bits(bits),
            Dtype::F32 => f32::from_bits(bits as u32).into(),
            Dtype::BF16 => f32::from_bits((bits as u32) << 16).into(),
            Dtype::F16 => float16(bits as u16),
            Dtype::I32 => (bits as i32).into(),
            _ => bits as f64,
        }
    };
    let n_numbers: usize = tensor.shape.iter().product();
    let place = |mut row_major: usize| match &tensor.strides {
        None => row_major,
        Some(strides) => tensor.shape.iter().zip(strides).rev().fold(0, |place, (side, stride)| {
            let step = row_major % side * stride;
            row_major /= side;
            place + step
        }),
    };
    (0..n_numbers).map(|at| number(place(at))).collect()
}

fn float16(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023) / 1024.0);
    let size =
        if exponent == 0 { fraction * 2f64.powi(-14) } else { (1.0 + fraction) * 2f64.powi(exponent - 15) };
    if bits >> 15 == 1 { -size } else { size }
}

fn assert_expected(name: &str, files: &[WeightFile], stored: &StoredTensors) {
    let expected = fs::read(fixtures().join("expected.json")).expect("there");
    let expected: BTreeMap<String, Expected> = serde_json::from_slice(&expected).expect("JSON");
    let names = |of: Vec<&String>| of.into_iter().cloned().collect::<Vec<_>>();
    assert_eq!(names(stored.tensors.keys().collect()), names(expected.keys().collect()), "{name}");
    for (tensor, expected) in &expected {
        let found = &stored.tensors[tensor];
        assert_eq!(
            (dtype_name(found.dtype), &found.shape),
            (expected.dtype.as_str(), &expected.shape),
            "{name}: {tensor}"
        );
        let numbers: Vec<f64> = expected.values.iter().map(|text| text.parse().expect("a number")).collect();
        assert_eq!(values(files, found), numbers, "{name}: {tensor}");
    }
}

#[test]
fn every_format_holds_the_same_tensors() {
    for name in WHOLE {
        let files = [open(name)];
        let stored = checkpoint::read(&files).unwrap_or_else(|error| panic!("{name}: {}", told(error)));
        assert_expected(name, &files, &stored);
    }
}

#[test]
fn views_lie_in_the_storage_of_what_they_view() {
    for name in ["zip.bin", "legacy.bin"] {
        let tensors = checkpoint::read(&[open(name)]).expect(name).tensors;
        let strides = |tensor: &str| tensors[tensor].strides.clone();
        assert_eq!(tensors["tied.first"], tensors["tied.second"], "{name}");
        assert_eq!(strides("transposed"), Some(vec![1, 4]), "{name}");
        assert_eq!(strides("permuted"), Some(vec![1, 12, 4]), "{name}");
        assert_eq!(strides("column"), Some(vec![4]), "{name}");
        // What is not a view, or a piece of one, is read as it is.
        for contiguous in ["float32", "slice", "scalar", "empty", "tied.first"] {
            assert_eq!(strides(contiguous), None, "{name}: {contiguous}");
        }
        assert_eq!(tensors["slice"].start, tensors["transposed"].start + 5 * 4, "{name}");
        assert_eq!(tensors["column"].size_bytes, (3 * 4 + 1) * 4, "{name}");
    }
}

fn shards(index: &str) -> (Index, Vec<WeightFile>) {
    let json = fs::read(fixtures().join("sharded").join(index)).expect(index);
    let index = Index::read(index, &json).expect("sound");
    let files = index.files().into_iter().map(|name| open(&format!("sharded/{name}"))).collect();
    (index, files)
}

#[test]
fn shards_hold_what_their_index_lists() {
    for name in ["model.safetensors.index.json", "pytorch_model.bin.index.json"] {
        let (index, files) = shards(name);
        assert_eq!(files.len(), 2);
        let stored = checkpoint::read(&files).expect("sound");
        index.check(&files, &stored).expect("as listed");
        assert_expected(name, &files, &stored);
        let one = checkpoint::read(&files[..1]).expect("sound");
        let error = told(index.check(&files[..1], &one).expect_err("a shard lacks"));
        assert!(
            error.contains(name) && error.contains("missing") && error.contains("\"tied.first\""),
            "{error}"
        );
    }
}

#[test]
fn compressed_archives_are_refused() {
    let error = told(checkpoint::read(&[open("deflated.bin")]).expect_err("compressed"));
    assert!(error.contains("deflated.bin") && error.contains("zip/byteorder\" is compressed"), "{error}");
}

/// A legacy file, and a zip archive, whose checkpoint is this pickle.
fn around(pickle: &[u8]) -> [Vec<u8>; 2] {
    let head =
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}X\r\0\0\0little_endian\x88s.";
    let legacy = [head, pickle, b"\x80\x02]."].concat();
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    archive.start_file("archive/data.pkl", stored).expect("begun");
    std::io::Write::write_all(&mut archive, pickle).expect("written");
    [legacy, archive.finish().expect("finished").into_inner()]
}

#[test]
fn a_hostile_pickle_is_refused_by_name_and_does_nothing() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mark = folder.path().join("executed");
    let command = format!("touch {}", mark.display());
    let text = [&[b'X'][..], &(command.len() as u32).to_le_bytes(), command.as_bytes()].concat();
    let class = b"ccollections\nOrderedDict\n)R";
    let pickles: [(&str, Vec<u8>); 8] = [
        ("os.system", [b"cos\nsystem\n", &text[..], b"\x85R."].concat()),
        ("posix.system", [b"\x8c\x05posix\x8c\x06system\x93", &text[..], b"\x85R."].concat()),
        ("os.system", [b"(", &text[..], b"ios\nsystem\n."].concat()),
        ("os.system", [b"(cos\nsystem\n", &text[..], b"o."].concat()),
        ("os.system", [b"cos\nsystem\n", &text[..], b"\x85\x81."].concat()),
        ("builtins.setattr", [&class[..], b"}X\x03\0\0\0runcbuiltins\nsetattr\nsb."].concat()),
        (
            "torch.storage._load_from_bytes",
            [b"ctorch.storage\n_load_from_bytes\n", &text[..], b"\x85R."].concat(),
        ),
        // Hidden in an entry that would be ignored.
        ("os.system", [b"}(X\x01\0\0\0acos\nsystem\n", &text[..], b"\x85Ru."].concat()),
    ];
    for (name, pickle) in pickles {
        let pickle = [b"\x80\x04", &pickle[..]].concat();
        for bytes in around(&pickle) {
            let error = told(checkpoint::read(&[file_of("evil.bin", &bytes)]).expect_err(name));
            assert!(error.contains("evil.bin") && error.contains(&format!("refers to {name:?}")), "{error}");
        }
    }
    // Known names called, and given a state, in ways that make no tensor.
    for body in
        [&b"ctorch\nFloatStorage\n)R."[..], b"ctorch._utils\n_rebuild_tensor_v2\n}b.", b"NQ.", b"cos\n"]
    {
        let pickle = [b"\x80\x02", body].concat();
        for bytes in around(&pickle) {
            let error = told(checkpoint::read(&[file_of("evil.bin", &bytes)]).expect_err("no checkpoint"));
            assert!(error.contains("evil.bin"), "{error}");
        }
    }
    assert!(!mark.exists(), "something was executed");
}

/// A checkpoint of one float32 tensor over a storage of 4 numbers, with a part of its pickle replaced.
fn one_tensor(offset: &[u8], shape: &[u8], strides: &[u8], view: &[u8]) -> Vec<u8> {
    let pickle: Vec<u8> = [
        b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n",
        &b"X\x01\0\0\0kX\x03\0\0\0cpuK\x04"[..],
        view,
        b"tQ",
        offset,
        shape,
        strides,
        b"\x89ccollections\nOrderedDict\n)RtRs.",
    ]
    .concat();
    let [mut bytes, _] = around(&pickle);
    bytes.truncate(bytes.len() - 1);
    bytes.extend(b"X\x01\0\0\0ka.\x04\0\0\0\0\0\0\0");
    bytes.extend([1.0f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat());
    bytes
}

#[test]
fn tensors_stay_inside_of_their_storage() {
    let (two, one) = (&b"K\x02\x85"[..], &b"K\x01\x85"[..]);
    let sound = |bytes: &[u8]| {
        let files = [file_of("one.bin", bytes)];
        let stored = checkpoint::read(&files).unwrap_or_else(|error| panic!("{}", told(error)));
        values(&files, &stored.tensors["a"])
    };
    assert_eq!(sound(&one_tensor(b"K\x02", two, one, b"")), [3.0, 4.0]);
    // The form of torch before 0.4: a view of 3 numbers from the second on.
    let view = b"(X\x01\0\0\0vK\x01K\x03t";
    assert_eq!(sound(&one_tensor(b"K\x01", two, one, view)), [3.0, 4.0]);
    // A stride of 0 repeats what is there.
    assert_eq!(sound(&one_tensor(b"K\x03", two, b"K\0\x85", b"N")), [4.0, 4.0]);
    let check = |bytes: Vec<u8>, expected: &str| {
        let error = told(checkpoint::read(&[file_of("one.bin", &bytes)]).expect_err(expected));
        assert!(error.contains("one.bin") && error.contains(expected), "{expected:?} not in {error}");
    };
    let max = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f";
    check(one_tensor(b"K\x03", two, one, b""), "tensor \"a\" reaches beyond its storage");
    check(one_tensor(b"K\x02", two, one, view), "reaches beyond its storage");
    check(one_tensor(b"K\0", two, &[max, &b"\x85"[..]].concat(), b""), "reaches beyond its storage");
    check(one_tensor(max, one, one, b""), "reaches beyond its storage");
    check(
        one_tensor(b"K\0", &[max, &b"\x85"[..]].concat(), b"K\0\x85", b""),
        "more numbers than the whole file",
    );
    // A million numbers out of one.
    check(one_tensor(b"K\0", b"J\0\0\x10\0\x85", b"K\0\x85", b""), "more numbers than the whole file");
    check(one_tensor(b"K\0", &[max, max, &b"\x86"[..]].concat(), b"K\0K\0\x86", b""), "more numbers than");
    check(one_tensor(b"K\0", two, b"K\x01K\x01\x86", b""), "other numbers of sides and strides");
    check(one_tensor(b"J\xff\xff\xff\xff", two, one, b""), "offset is none");
    check(one_tensor(b"K\0", b"J\xff\xff\xff\xff\x85", one, b""), "a shape or strides that are none");
    check(one_tensor(b"K\0", two, one, b"(X\x01\0\0\0vK\x02K\x03t"), "not inside of it");
    let nothing =
        one_tensor(b"K\x04", &[&b"K\0"[..], max, max, b"\x87"].concat(), b"K\x01K\x01K\x01\x87", b"");
    assert!(sound(&nothing).is_empty());
}

#[test]
fn a_small_pickle_cannot_grow() {
    // One list of pairs, made into a dict again and again.
    let mut again = b"\x80\x02](".to_vec();
    again.extend(b"NN\x86".repeat(100_000));
    again.extend(b"e\x85q\0ccollections\nOrderedDict\nq\x01");
    again.extend(b"h\x01h\0R".repeat(100_000));
    again.push(b'.');
    // Tuples as deep as the file is long, and nothing but values.
    let deep = [&b"\x80\x02)"[..], &b"\x85".repeat(4_000_000), b"."].concat();
    let wide = [&b"\x80\x02"[..], &b"N".repeat(4_000_000), b"."].concat();
    for (pickle, expected) in
        [(again, "again and again"), (deep, "more instructions"), (wide, "more instructions")]
    {
        for bytes in around(&pickle) {
            let error = told(checkpoint::read(&[file_of("bomb.bin", &bytes)]).expect_err(expected));
            assert!(error.contains("bomb.bin") && error.contains(expected), "{error}");
        }
    }
}

/// That damaged bytes give an error that names the file, or tensors inside of the file.
fn assert_harmless(bytes: &[u8], what: &str) {
    let files = [file_of("damaged.file", bytes)];
    match checkpoint::read(&files) {
        Ok(stored) => {
            for (name, tensor) in stored.tensors {
                assert!(tensor.start + tensor.size_bytes <= files[0].size, "{what}: {name:?}");
                assert!(tensor.n_numbers() <= files[0].size, "{what}: {name:?}");
            }
        }
        Err(error) => {
            let error = told(error);
            assert!(error.contains("damaged.file"), "{what}: {error}");
            assert!(error.len() < 4096, "{what}: {error}");
        }
    }
}

#[test]
fn every_cut_is_an_error() {
    let check = |name: &str, bytes: &[u8]| {
        for length in 0..bytes.len() {
            let result = checkpoint::read(&[file_of("damaged.file", &bytes[..length])]);
            let error = told(result.err().unwrap_or_else(|| panic!("{name} cut to {length} was read")));
            assert!(error.contains("damaged.file"), "{error}");
        }
    };
    for name in WHOLE {
        check(name, &fs::read(fixtures().join(name)).expect(name));
    }
    // Torch may have put a storage of nothing last; here numbers end the file.
    check("one tensor", &one_tensor(b"K\0", b"K\x04\x85", b"K\x01\x85", b""));
}

#[test]
fn damage_is_never_a_panic() {
    for name in WHOLE.into_iter().chain(["deflated.bin"]) {
        let bytes = fs::read(fixtures().join(name)).expect(name);
        for seed in 0..MUTATIONS {
            assert_harmless(&mutated(&bytes, seed), &format!("{name}, seed {seed}"));
        }
    }
}

#[test]
fn damaged_json_is_never_a_panic() {
    let index = fs::read(fixtures().join("sharded/pytorch_model.bin.index.json")).expect("there");
    let config = fs::read(fixtures().join("bert/config.json")).expect("there");
    for seed in 0..4 * MUTATIONS {
        if let Err(error) = Index::read("some.index.json", &mutated(&index, seed)) {
            let error = told(error);
            assert!(error.contains("some.index.json") && error.len() < 4096, "seed {seed}: {error}");
        }
        if let Err(error) = lsa_common::architecture::read(&mutated(&config, seed)) {
            assert!(
                error.to_string().contains("config.json") || error.to_string().contains("model_type"),
                "{error}"
            );
        }
    }
}

/// `bytes` with a few bytes changed, repeated, left out or put in.
fn mutated(bytes: &[u8], seed: u64) -> Vec<u8> {
    const TELLING: [u8; 12] = [0, 1, 0x7f, 0x80, 0xff, b'(', b'.', b'R', b'Q', b'"', b'{', b'9'];
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + random.next_u32() % 4 {
        let place = random.next_u32() as usize % bytes.len();
        let end = bytes.len().min(place + 1 + random.next_u32() as usize % 16);
        match random.next_u32() % 5 {
            0 => bytes[place] ^= 1 << (random.next_u32() % 8),
            1 => bytes[place] = TELLING[random.next_u32() as usize % TELLING.len()],
            2 => bytes[place..end].fill(0xff),
            3 => drop(bytes.drain(place..end)),
            _ => {
                let again = bytes[place..end].to_vec();
                bytes.splice(place..place, again);
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

/// A folder with the config and the tokenizer of `bert`, and these of its weights.
fn model_with(weights: &[&str]) -> (tempfile::TempDir, ModelFolder) {
    let folder = tempfile::tempdir().expect("temporary folder");
    for name in ["config.json", "vocab.txt"].iter().chain(weights) {
        fs::copy(fixtures().join("bert").join(name), folder.path().join(name)).expect(name);
    }
    let model = ModelFolder { id: "tiny".into(), revision: None, folder: folder.path().into() };
    (folder, model)
}

const SAFETENSORS: [&str; 3] =
    ["model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
const BIN: [&str; 3] =
    ["pytorch_model.bin.index.json", "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"];

#[test]
fn a_model_is_pinned_and_opened_in_each_form_the_preferred_one_first() {
    let forms: [&[&str]; 4] = [&["model.safetensors"], &SAFETENSORS, &["pytorch_model.bin"], &BIN];
    let mut facts = Vec::new();
    for (place, form) in forms.into_iter().enumerate() {
        // Every form that is preferred less is there too.
        let (folder, model) = model_with(&forms[place..].concat());
        let pinned = model.pin().unwrap_or_else(|error| panic!("{form:?}: {}", chain(&error)));
        let weights = |name: &&str| is_weights(name);
        let names: Vec<&str> = pinned.files.iter().map(|file| file.name.as_str()).filter(weights).collect();
        let mut expected = form.to_vec();
        expected.sort_unstable();
        assert_eq!(names, expected);
        let opened = model_source::open(&pinned, folder.path()).expect("unchanged");
        opened.verify_while(|| ()).expect("unchanged");
        assert_eq!(opened.weights.len(), form.len().div_ceil(2));
        let stored = checkpoint::read(&opened.weights).expect("sound");
        assert_eq!(stored.tensors.len(), 21);
        facts.push(pinned.facts.clone());
        for changed in form {
            let path = folder.path().join(changed);
            let mut content = fs::read(&path).expect("there");
            content[20] ^= 1;
            fs::write(&path, &content).expect("written");
            let opened = model_source::open(&pinned, folder.path());
            let error = opened.and_then(|opened| opened.verify_while(|| ())).expect_err("changed");
            assert!(matches!(error, ModelSourceError::Changed { .. }), "{error}");
            assert!(error.to_string().contains(changed), "{error}");
            content[20] ^= 1;
            fs::write(&path, &content).expect("written");
        }
    }
    assert!(facts.iter().all(|one| *one == facts[0]), "{facts:?}");
}

#[test]
fn parts_that_lack_or_do_not_belong_are_named() {
    let check = |folder: &Path, model: &ModelFolder, expected: &[&str]| {
        let error = model.pin().err().unwrap_or_else(|| panic!("{} was pinned", folder.display()));
        let error = chain(&error);
        for part in expected {
            assert!(error.contains(part), "{part:?} not in {error}");
        }
    };
    let (folder, model) = model_with(&SAFETENSORS[..2]);
    check(
        folder.path(),
        &model,
        &["no \"model-00002-of-00002.safetensors\", which model.safetensors.index.json"],
    );
    let (folder, model) = model_with(&BIN);
    fs::copy(folder.path().join(BIN[1]), folder.path().join(BIN[2])).expect("copied");
    check(
        folder.path(),
        &model,
        &["is in pytorch_model-00001-of-00002.bin and in pytorch_model-00002-of-00002.bin"],
    );
    let (folder, model) = model_with(&BIN);
    let index = folder.path().join(BIN[0]);
    let listed = fs::read_to_string(&index).expect("there");
    fs::write(&index, listed.replace("bert.embeddings.LayerNorm.bias", "bert.other")).expect("written");
    check(
        folder.path(),
        &model,
        &[BIN[0], "missing: \"bert.other\"", "not listed: \"bert.embeddings.LayerNorm.bias\""],
    );
    fs::write(&index, listed.replace(BIN[1], "../x.bin")).expect("written");
    check(folder.path(), &model, &[BIN[0], "\"../x.bin\" is no weight file beside the index"]);
    fs::write(&index, "{").expect("written");
    check(folder.path(), &model, &[BIN[0], "not an index"]);
}

#[test]
fn pinned_names_do_not_leave_the_folder() {
    let (folder, model) = model_with(&["pytorch_model.bin"]);
    let pinned = model.pin().expect("sound");
    for name in ["../pytorch_model.bin", "/etc/pytorch_model.bin", "sub/pytorch_model.bin", "other.txt"] {
        let mut pinned = pinned.clone();
        pinned.files.iter_mut().find(|file| file.name == "pytorch_model.bin").expect("there").name =
            name.into();
        let error = model_source::open(&pinned, folder.path()).err().expect(name);
        assert!(matches!(error, ModelSourceError::MalformedName(_)), "{error}");
    }
    let mut without = pinned;
    without.files.retain(|file| !is_weights(&file.name));
    let error = model_source::open(&without, folder.path()).err().expect("no weights");
    assert!(matches!(error, ModelSourceError::Weights { .. }), "{error}");
}

/// Whether a pinned file is one of the weights, or their index.
fn is_weights(name: &str) -> bool {
    [".safetensors", ".bin", ".index.json"].iter().any(|end| name.ends_with(end))
}
