//! Gives the binary and the tests of this package the run path of libtorch, and its version.

use std::path::Path;

fn main() {
    // torch-sys is a direct dependency so that cargo passes on where it found libtorch.
    let lib = std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys must be a direct dependency");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    println!("cargo:rustc-env=LSA_LIBTORCH_VERSION={}", libtorch_version(Path::new(&lib)));
}

/// As its headers say; libtorch has no function that tells.
fn libtorch_version(lib: &Path) -> String {
    let header = lib.join("../include/torch/headeronly/version.h");
    println!("cargo:rerun-if-changed={}", header.display());
    let header = std::fs::read_to_string(header).unwrap_or_default();
    let number = |name: &str| {
        let value = header.lines().find_map(|line| line.strip_prefix(&format!("#define {name} ")));
        value.map(|value| value.trim().to_owned())
    };
    let parts = ["TORCH_VERSION_MAJOR", "TORCH_VERSION_MINOR", "TORCH_VERSION_PATCH"];
    let parts: Option<Vec<String>> = parts.into_iter().map(number).collect();
    // tch is built for one release of libtorch; a layout without this header is still of that one.
    parts.map_or_else(|| "2.11".to_owned(), |parts| parts.join("."))
}
