//! The programs under test as processes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::wait::until;

/// A command that takes longer hangs.
const COMMAND_LIMIT: Duration = Duration::from_secs(180);

/// A program of this workspace: it lies beside the folder of the test executables.
///
/// # Panics
/// Where it has not been built; cargo builds the binaries of another package for no test.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a running test has an executable");
    let folder = own.parent().and_then(Path::parent).expect("tests lie in <profile>/deps");
    let program = folder.join(name);
    assert!(
        program.is_file(),
        "{} is missing; run `cargo build --release -p lsa-coordinator -p lsa-worker` first",
        program.display()
    );
    program
}

/// Nobody listens there.
const NO_HUB: &str = "http://127.0.0.1:9";

/// A command of this workspace without the settings of whoever runs the tests; its caches go into `home`, and it reaches
/// no hub unless `HF_ENDPOINT` is set to one.
pub fn command(name: &str, home: &Path) -> Command {
    let mut command = Command::new(program(name));
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy();
        if ["LSA_", "HF_", "HUGGINGFACE_", "TRANSFORMERS_"].iter().any(|own| name.starts_with(own)) {
            command.env_remove(&variable);
        }
    }
    command.env("XDG_CACHE_HOME", home.join("cache")).env("NO_COLOR", "1");
    command.env("HF_HOME", home.join("huggingface")).env("HF_ENDPOINT", NO_HUB);
    command
}

/// A process that is killed when this is dropped, with what it has written so far.
pub struct Running {
    child: Child,
    folder: TempDir,
}

/// How a process ended, and what it wrote.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Running {
    /// Starts a command.
    pub fn start(mut command: Command) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let create = |name: &str| File::create(folder.path().join(name)).expect("an empty folder");
        command.stdin(Stdio::null()).stdout(create("stdout")).stderr(create("stderr"));
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, folder }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard error.
    pub fn stderr(&self) -> String {
        self.written("stderr")
    }

    fn written(&self, name: &str) -> String {
        let bytes = fs::read(self.folder.path().join(name)).expect("created at the start");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child of this process").is_some()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// Where it has not ended after `limit`.
    pub fn wait(mut self, limit: Duration) -> Ended {
        let status =
            until("a process to end", limit, || self.child.try_wait().expect("a child of this process"));
        Ended { status, stdout: self.written("stdout"), stderr: self.written("stderr") }
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // An error means that it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let had_ended = matches!(self.child.try_wait(), Ok(Some(_)));
        self.end();
        if std::thread::panicking() {
            let how = if had_ended { "had ended" } else { "was running" };
            eprintln!("--- process {} {how}; its standard error:\n{}", self.pid(), self.stderr());
        }
    }
}

impl Ended {
    /// Its exit code; none where a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Its standard output as JSON.
    ///
    /// # Panics
    /// Where it is not.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in:\n{self:?}"))
    }
}

/// Runs a command to its end.
pub fn finish(command: Command) -> Ended {
    Running::start(command).wait(COMMAND_LIMIT)
}

/// Runs a command that must succeed.
///
/// # Panics
/// Where its exit code is not 0.
pub fn succeed(command: Command) -> Ended {
    let shown = format!("{command:?}");
    let ended = finish(command);
    assert_eq!(ended.code(), Some(0), "{shown}\n{}\n{}", ended.stdout, ended.stderr);
    ended
}

/// Sends a signal to a process.
pub fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).expect("process ids are small");
    kill(Pid::from_raw(pid), signal).expect("a process of this test");
}

/// The children of a process that run `lsa-worker`.
pub fn workers_of(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("a Linux machine").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent) && is_worker(*pid)).collect()
}

/// Whether a process is there, no zombie, and runs `lsa-worker`.
pub fn is_worker(pid: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program("lsa-worker"))
}

fn parent_of(pid: u32) -> Option<u32> {
    status_line(pid, "PPid:")?.parse().ok()
}

/// The most memory that a process has had resident, in bytes.
pub fn peak_memory_bytes(pid: u32) -> u64 {
    let line = status_line(pid, "VmHWM:").expect("the process runs");
    let kib: u64 = line.trim_end_matches("kB").trim().parse().expect("a number of KiB");
    kib * 1024
}

fn status_line(pid: u32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(name)).map(|rest| rest.trim().to_owned())
}
