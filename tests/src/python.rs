//! Python for tests that hold files and numbers against what numpy makes of them.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The Python of a virtual environment that has `requirement`, packages separated by spaces; makes it where it does not exist yet, below the
/// build directory; later runs need no network.
pub fn venv_python(name: &str, requirement: &str) -> Result<PathBuf, String> {
    // A test runs as target/<profile>/deps/<test>.
    let test = std::env::current_exe().map_err(|error| error.to_string())?;
    let build = test.ancestors().nth(3).ok_or("the test runs outside a build directory")?;
    let venv = build.join("test-venvs").join(name);
    fs::create_dir_all(&venv).map_err(|error| error.to_string())?;
    // Held while installing, so that two test runs do not install into each other's folder.
    let lock =
        fs::File::create(build.join(format!("test-venvs/{name}.lock"))).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    let (python, ready) = (venv.join("bin/python"), venv.join("installed"));
    let installed = fs::read_to_string(&ready).is_ok_and(|what| what == requirement);
    if !installed {
        say(&format!("installing {requirement} into {}", venv.display()));
        let venv_text = venv.to_str().ok_or("the build directory's path is not UTF-8")?;
        command(Path::new("python3"), &["-m", "venv", "--clear", venv_text])?;
        let mut install = vec!["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        install.extend(requirement.split(' '));
        command(&python, &install)?;
        fs::write(&ready, requirement).map_err(|error| error.to_string())?;
    }
    Ok(python)
}

/// Runs a program to its end; its complaint where it fails.
fn command(program: &Path, arguments: &[&str]) -> Result<(), String> {
    let shown = format!("{} {}", program.display(), arguments.join(" "));
    let output =
        Command::new(program).args(arguments).output().map_err(|error| format!("{shown}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(format!("{shown}: {}", complaint.lines().last().unwrap_or("failed without a word")))
}

/// What a Python script prints; panics with its complaint where it fails.
///
/// # Panics
/// Where it cannot be started, or fails.
pub fn run(python: &Path, script: &str, arguments: &[&Path]) -> String {
    let output = Command::new(python).arg("-c").arg(script).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Says loudly that a part of a test did not run.
pub fn skipped(what: &str, why: &str) {
    say(&format!("SKIPPED: {what}: {why}"));
}

/// Writes past the test harness, which would hide the output of a test that passes.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
