//! Disks of a test's own, small enough to fill and easy to make read-only: a tmpfs in a mount namespace, which needs no
//! privileges where the kernel lets users have name spaces.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::finish;

/// A disk that only one process and its children see.
pub struct Disk<'a> {
    /// Where they see it; made if it is missing.
    pub place: &'a Path,
    /// What fits on it, in bytes.
    pub size: u64,
    /// Whether nothing can be written there.
    pub is_read_only: bool,
}

impl Disk<'_> {
    /// The same command, with the disk.
    pub fn under(&self, command: &Command) -> Command {
        fs::create_dir_all(self.place).expect("the test's folder");
        let mut under = Command::new("unshare");
        let access = if self.is_read_only { "ro" } else { "rw" };
        let mount = format!("mount -t tmpfs -o size={},{access} tmpfs \"$0\" && exec \"$@\"", self.size);
        // Programs that look for what they need in PATH find it.
        under.args(["--user", "--map-root-user", "--mount", "sh", "-c", &mount]).arg(self.place);
        under.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => under.env(name, value),
                None => under.env_remove(name),
            };
        }
        under
    }
}

/// Why processes cannot have disks of their own here, if so.
pub fn why_not() -> Option<String> {
    let mut probe = Command::new("unshare");
    probe.args(["--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]);
    let ended = finish(probe);
    (!ended.status.success()).then(|| format!("no mount namespace: {}", ended.stderr.trim()))
}

/// A path as the process `pid` sees it.
pub fn seen_by(pid: u32, path: &Path) -> PathBuf {
    Path::new("/proc")
        .join(pid.to_string())
        .join("root")
        .join(path.strip_prefix("/").expect("an absolute path"))
}

/// Writes a file until nothing more fits beside it.
///
/// # Panics
/// Where more than 1 GiB fits: that is no small disk.
pub fn fill(file: &Path) {
    let mut filler = File::create(file).expect("a disk that has room");
    for _ in 0..1 << 18 {
        // The last piece may be cut short before it is refused.
        if filler.write_all(&[7; 4096]).is_err() {
            return;
        }
    }
    panic!("{} is not full after 1 GiB", file.display());
}
