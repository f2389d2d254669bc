//! Result directories: all their files, compared byte by byte, and what is in them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Read as _};
use std::path::Path;

use serde_json::Value;
use zip::ZipArchive;

/// The files of a folder: path below it → bytes.
pub type Tree = BTreeMap<String, Vec<u8>>;

/// Every file below `folder` but logs, which tell of one run alone.
pub fn read_tree(folder: &Path) -> Tree {
    let mut tree = read_all(folder);
    tree.retain(|path, _| !path.ends_with(".log"));
    tree
}

/// Every file below `folder`.
pub fn read_all(folder: &Path) -> Tree {
    let mut tree = Tree::new();
    collect(folder, "", &mut tree);
    tree
}

fn collect(folder: &Path, prefix: &str, tree: &mut Tree) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let entry = entry.expect("a readable folder");
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{name}/"), tree);
        } else {
            tree.insert(name, fs::read(entry.path()).expect("a readable file"));
        }
    }
}

/// Without what may differ between two computations of the same: how long they took.
pub fn without_timings(mut tree: Tree) -> Tree {
    for (path, bytes) in &mut tree {
        if path.ends_with("metadata.json") {
            let mut metadata: Value = serde_json::from_slice(bytes).expect("metadata.json is JSON");
            metadata.as_object_mut().expect("metadata.json is an object").remove("timings").expect("timings");
            *bytes = serde_json::to_vec(&metadata).expect("plain JSON");
        }
    }
    tree
}

/// That two folders hold the same files with the same bytes.
///
/// # Panics
/// Where they do not, with the names of the files that differ.
pub fn assert_same(found: &Tree, expected: &Tree) {
    let missing: Vec<&String> = expected.keys().filter(|path| !found.contains_key(*path)).collect();
    let extra: Vec<&String> = found.keys().filter(|path| !expected.contains_key(*path)).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing: {missing:?}\nextra: {extra:?}");
    let differ: Vec<&String> = found.keys().filter(|path| found[*path] != expected[*path]).collect();
    assert!(differ.is_empty(), "these differ: {differ:?}");
    assert!(!found.is_empty(), "there is nothing to compare");
}

/// A float64 array of an `.npz` archive: shape and values.
pub fn npz_array(npz: &[u8], name: &str) -> (Vec<u64>, Vec<f64>) {
    let mut archive = ZipArchive::new(Cursor::new(npz)).expect("an .npz archive");
    let mut entry = archive.by_name(&format!("{name}.npy")).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).expect("a readable entry");
    let array = npyz::NpyFile::new(&bytes[..]).expect("an .npy file");
    let shape = array.shape().to_vec();
    (shape, array.into_vec().expect("float64 numbers"))
}

/// The numbers of a `.pt` file that holds one float32 tensor, row-major.
pub fn tensor_values(pt: &[u8]) -> Vec<f32> {
    let mut archive = ZipArchive::new(Cursor::new(pt)).expect("a .pt file is an archive");
    let mut names = archive.file_names().filter_map(Result::ok);
    let name = names.find(|name| name.ends_with("/data/0")).expect("one storage").into_owned();
    drop(names);
    let mut bytes = Vec::new();
    archive.by_name(&name).expect("just listed").read_to_end(&mut bytes).expect("a readable entry");
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}
