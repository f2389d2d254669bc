//! Gives the binary and the tests of this package the run path of libtorch.

fn main() {
    // torch-sys is a direct dependency so that cargo passes on where it found libtorch.
    let lib = std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys must be a direct dependency");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
}
