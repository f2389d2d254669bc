//! Libraries that are loaded before all others and stand between a program and its system.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::inputs::checkout;
use crate::process::succeed;

/// Compiles `tests/src/preload/NAME.c` into `folder`.
pub fn library(name: &str, folder: &Path) -> PathBuf {
    let source = checkout().join("tests/src/preload").join(format!("{name}.c"));
    let library = folder.join(format!("{name}.so"));
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).arg(source);
    succeed(compile);
    library
}
