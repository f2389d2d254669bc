//! `lsa-worker similarity` on folders `layer_*/batch_*.pt`, as the Python scripts left them and `save_embeddings` writes
//! them.

use std::fs;
use std::path::{Path, PathBuf};

use lsa_coordinator::export::torch::tensor_file;
use lsa_tests::process::{command, finish, succeed};
use lsa_worker::array_file::{self, BatchFolder, npy_bytes};
use lsa_worker::trial::LayerSource as _;

const WIDTH: usize = 5;

/// Three layers of rows that say where they belong, in batches of different sizes; `layer_10` after `layer_9`.
fn write_folder(folder: &Path, sizes: &[usize]) {
    for (layer, name) in ["layer_1", "layer_9", "layer_10"].into_iter().enumerate() {
        let mut row = 0;
        for (batch, size) in sizes.iter().enumerate() {
            let values: Vec<f32> = (row * WIDTH..(row + size) * WIDTH).map(|i| value(layer, i)).collect();
            let name = folder.join(name).join(format!("batch_{batch}.pt"));
            fs::create_dir_all(name.parent().expect("a folder")).expect("the test's folder can be written");
            let bytes = tensor_file("batch", [*size as u64, WIDTH as u64], &values).expect("a tensor");
            fs::write(name, bytes).expect("the test's folder can be written");
            row += size;
        }
    }
}

fn value(layer: usize, place: usize) -> f32 {
    ((place * (7 + 2 * layer)) % 101) as f32 / 8.0 + place as f32 / 64.0
}

#[test]
fn batches_follow_one_another_by_their_numbers() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // More than ten, so that batch_10 would come before batch_9 by name.
    let sizes = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8];
    write_folder(folder.path(), &sizes);
    let source = BatchFolder::open(folder.path()).expect("layers");
    let n_rows: usize = sizes.iter().sum();
    assert_eq!((source.n_layers(), source.n_rows() as usize), (3, n_rows));
    let mixed: Vec<u32> = (0..n_rows as u32).map(|i| i * 23 % n_rows as u32).collect();
    for layer in 0..3 {
        let found = source.rows(layer, &mixed).expect("rows");
        let expected: Vec<f64> = mixed
            .iter()
            .flat_map(|row| (0..WIDTH).map(move |k| f64::from(value(layer, *row as usize * WIDTH + k))))
            .collect();
        assert_eq!((found.width, found.values), (WIDTH, expected));
    }
}

#[test]
fn a_folder_gives_the_matrices_of_the_same_numbers_in_a_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let embeddings = folder.path().join("embeddings");
    write_folder(&embeddings, &[7, 20, 13]);
    let all: Vec<f64> =
        (0..3).flat_map(|layer| (0..40 * WIDTH).map(move |i| f64::from(value(layer, i)))).collect();
    let file = folder.path().join("all.npy");
    fs::write(&file, npy_bytes(&[3, 40, WIDTH], &all)).expect("the test's folder can be written");
    let matrix = |input: &Path, output: &str| {
        let output = folder.path().join(output);
        let mut similarity = command("lsa-worker", folder.path());
        similarity.arg("similarity").arg("--input").arg(input).arg("--against").arg(&embeddings);
        similarity.arg("--output").arg(&output);
        succeed(similarity);
        fs::read(output.join("CKA.npy")).expect("a matrix")
    };
    assert!(matrix(&embeddings, "one") == matrix(&file, "two"));
}

#[test]
fn what_torch_wrote_is_read() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/torch");
    let open = |name: &str| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path: PathBuf = folder.path().join("layer_0/batch_0.pt");
        fs::create_dir(folder.path().join("layer_0")).expect("the test's folder can be written");
        fs::copy(fixtures.join(name), &path).expect("a fixture");
        let rows = array_file::open(folder.path(), None).map(|source| {
            let rows: Vec<u32> = (0..source.n_rows()).collect();
            source.rows(0, &rows).expect("rows").values
        });
        rows.map_err(|error| error.to_string())
    };
    let expected: Vec<f64> = (0..12).map(|i| f64::from(i) / 8.0 - 0.5).collect();
    for name in ["half.pt", "bfloat16.pt", "legacy.pt"] {
        assert_eq!(open(name), Ok(expected.clone()), "{name}");
    }
    let first: Vec<f64> = (0..6).map(|i| f64::from(i) / 4.0 - 0.5).collect();
    assert_eq!(open("batch_0.pt"), Ok(first));
    assert!(open("transposed.pt").unwrap_err().contains("save tensor.contiguous()"));
    assert!(open("make.py").unwrap_err().contains("batch_0.pt"));
}

#[test]
fn folders_that_are_no_layers_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let check = |args: &[&str], expected: &str| {
        let mut similarity = command("lsa-worker", folder.path());
        similarity.arg("similarity").arg("--input").arg(folder.path()).args(args);
        similarity.arg("--output").arg(folder.path().join("out"));
        let ended = finish(similarity);
        assert!(ended.code() != Some(0) && ended.stderr.contains(expected), "{}", ended.stderr);
    };
    check(&[], "expected folders layer_0, layer_1");
    fs::create_dir(folder.path().join("layer_0")).expect("the test's folder can be written");
    check(&[], "expected files batch_0.pt");
    check(&["--pooling", "mean"], "has no pooling");
    write_folder(folder.path(), &[4, 4]);
    fs::remove_dir(folder.path().join("layer_0")).expect("an empty folder");
    fs::remove_file(folder.path().join("layer_9/batch_1.pt")).expect("just written");
    check(&[], "layer_9 has 4 rows, the layers before it have 8");
}
