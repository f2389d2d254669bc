//! A coordinator and its workers as processes of their own, on this machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::disk::Disk;
use crate::process::{Ended, Running, command, finish, succeed};
use crate::wait::until;

/// A coordinator starts within this time, and takes over from one that was killed: that takes 10 seconds without a
/// beat.
const START_LIMIT: Duration = Duration::from_secs(40);

/// A coordinator, its workers, and the folder in which all of them live.
pub struct Cluster {
    home: PathBuf,
    store: String,
    url: String,
    lease_ttl_s: u32,
    variables: Vec<(String, String)>,
    coordinator: Option<Running>,
    standbys: Vec<(String, Running)>,
    workers: Vec<(String, Running)>,
}

impl Cluster {
    /// Starts a coordinator with the bucket `home/store`, on a port of the system's choice.
    pub fn start(home: &Path, lease_ttl_s: u32) -> Self {
        Self::start_with(home, lease_ttl_s, None)
    }

    /// As [`Self::start`], of programs that know a hub.
    pub fn start_with(home: &Path, lease_ttl_s: u32, hub: Option<&str>) -> Self {
        let store = home.join("store").display().to_string();
        let variables = hub.map(|hub| ("HF_ENDPOINT", hub));
        Self::start_at(home, lease_ttl_s, &store, variables.as_slice())
    }

    /// As [`Self::start`], with the bucket at `store` and what the environment must hold for it.
    pub fn start_at(home: &Path, lease_ttl_s: u32, store: &str, variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut cluster = Self {
            home: home.to_owned(),
            store: store.to_owned(),
            url: String::new(),
            lease_ttl_s,
            variables: variables.collect(),
            coordinator: None,
            standbys: Vec::new(),
            workers: Vec::new(),
        };
        cluster.start_coordinator("127.0.0.1:0");
        cluster
    }

    fn command(&self, program: &str, home: &Path) -> std::process::Command {
        let mut command = command(program, home);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn serve(&self, listen: &str) -> Running {
        let mut serve = self.command("lsa-coordinator", &self.home);
        serve.args(["serve", "--listen", listen, "--lease-ttl", &self.lease_ttl_s.to_string()]);
        serve.args(["--store", &self.store]);
        Running::start(serve)
    }

    /// Changes what the environment of processes holds that are started from now on.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Starts a coordinator that stands by, and waits until it does; its address.
    pub fn start_standby(&mut self) -> String {
        let mut standby = self.serve("127.0.0.1:0");
        let url = format!("http://{}", listening(&mut standby, "standing by on "));
        self.standbys.push((url.clone(), standby));
        url
    }

    /// Waits until a coordinator that stood by, or was the leader before, leads; it is this cluster's then.
    pub fn until_taken_over(&mut self) {
        let leads = |known: &(String, Running)| known.1.stderr().contains("listening on ");
        let place = until("a coordinator to take over", START_LIMIT, || self.standbys.iter().position(leads));
        let (url, leader) = self.standbys.remove(place);
        let before = std::mem::replace(&mut self.url, url);
        if let Some(deposed) = self.coordinator.replace(leader) {
            self.standbys.push((before, deposed));
        }
    }

    /// The addresses of all coordinators, as programs take them.
    pub fn urls(&self) -> String {
        let standbys = self.standbys.iter().map(|(url, _)| url.as_str());
        std::iter::once(self.url.as_str()).chain(standbys).collect::<Vec<_>>().join(",")
    }

    /// The process that stands by at that place.
    pub fn standby(&self, place: usize) -> &Running {
        &self.standbys[place].1
    }

    fn start_coordinator(&mut self, listen: &str) {
        let mut coordinator = self.serve(listen);
        let address = listening(&mut coordinator, "listening on ");
        self.url = format!("http://{address}");
        self.coordinator = Some(coordinator);
    }

    /// Kills the coordinator with SIGKILL.
    pub fn kill_coordinator(&mut self) {
        self.coordinator.take().expect("a running coordinator").kill();
    }

    /// Sends the coordinator a signal.
    pub fn signal_coordinator(&self, signal: Signal) {
        self.coordinator.as_ref().expect("a running coordinator").signal(signal);
    }

    /// The coordinator's process id.
    pub fn coordinator_pid(&self) -> u32 {
        self.coordinator.as_ref().expect("a coordinator").pid()
    }

    /// Whether the coordinator has ended.
    pub fn coordinator_has_ended(&mut self) -> bool {
        self.coordinator.as_mut().expect("a coordinator").has_ended()
    }

    /// Waits until a coordinator that has to end has done so.
    pub fn end_coordinator(&mut self, limit: Duration) -> Ended {
        self.coordinator.take().expect("a running coordinator").wait(limit)
    }

    /// Starts a coordinator where the killed one was.
    pub fn restart_coordinator(&mut self) {
        let address = self.url.trim_start_matches("http://").to_owned();
        self.start_coordinator(&address);
    }

    /// The coordinator's address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The bucket's folder.
    pub fn store(&self) -> PathBuf {
        self.home.join("store")
    }

    /// Starts a worker of one thread.
    pub fn start_worker(&mut self, id: &str) {
        let url = self.url.clone();
        self.start_worker_with(id, &["--coordinator", &url]);
    }

    /// Starts a worker of one thread that finds the coordinator as `args` say.
    pub fn start_worker_with(&mut self, id: &str, args: &[&str]) {
        let mut serve = self.worker_command(id);
        serve.args(args);
        self.workers.push((id.to_owned(), Running::start(serve)));
    }

    fn worker_command(&self, id: &str) -> std::process::Command {
        // Each has caches of its own, as on a machine of its own.
        let mut serve = self.command("lsa-worker", &self.home.join(id));
        serve.args(["serve", "--device", "cpu", "--threads", "1", "--worker-id", id]);
        serve
    }

    /// Starts a worker of one thread that has a disk of its own.
    pub fn start_worker_on(&mut self, id: &str, disk: &Disk) {
        let mut serve = self.worker_command(id);
        serve.args(["--coordinator", &self.url]);
        self.workers.push((id.to_owned(), Running::start(disk.under(&serve))));
    }

    /// A worker's process.
    pub fn worker(&self, id: &str) -> &Running {
        &self.workers.iter().find(|(known, _)| known == id).expect("a worker of this cluster").1
    }

    /// Kills a worker with SIGKILL.
    pub fn kill_worker(&mut self, id: &str) {
        let place = self.workers.iter().position(|(known, _)| known == id).expect("a worker of this cluster");
        self.workers.remove(place).1.kill();
    }

    /// Waits until a worker that was told to end has done so.
    pub fn end_worker(&mut self, id: &str, limit: Duration) -> Ended {
        let place = self.workers.iter().position(|(known, _)| known == id).expect("a worker of this cluster");
        self.workers.remove(place).1.wait(limit)
    }

    /// Starts `n` workers and waits until the coordinator knows them.
    pub fn start_workers(&mut self, n: usize) {
        (1..=n).for_each(|number| self.start_worker(&format!("w{number}")));
        self.until_connected(n);
    }

    /// Waits until `n` workers are connected.
    pub fn until_connected(&self, n: usize) {
        until("workers to connect", START_LIMIT, || {
            let list = self.ask(&["workers"]);
            let workers = list["workers"].as_array()?;
            (workers.iter().filter(|worker| worker["connected"] == true).count() == n).then_some(())
        });
    }

    fn client(&self, args: &[&str]) -> std::process::Command {
        let mut client = command("lsa-coordinator", &self.home);
        client.args(args);
        if !args.contains(&"--coordinator") {
            client.args(["--coordinator", &self.url]);
        }
        client
    }

    /// Runs a client's command to its end.
    pub fn finish(&self, args: &[&str]) -> Ended {
        finish(self.client(args))
    }

    /// Runs a client's command that must succeed.
    pub fn succeed(&self, args: &[&str]) -> Ended {
        succeed(self.client(args))
    }

    /// Starts a client's command.
    pub fn begin(&self, args: &[&str]) -> Running {
        Running::start(self.client(args))
    }

    /// A client's answer as JSON, whatever its exit code says of the job.
    pub fn ask(&self, args: &[&str]) -> Value {
        self.finish(&[args, &["--json"]].concat()).json()
    }

    /// Submits a grid; the job's id.
    pub fn submit(&self, grid: &[&str]) -> String {
        let reply = self.succeed(&[&["submit"], grid, &["--json"]].concat()).json();
        reply["job"].as_str().expect("the reply names the job").to_owned()
    }

    /// Waits until a job has ended; its last status.
    ///
    /// # Panics
    /// Where that takes longer than `limit`.
    pub fn until_ended(&self, job: &str, limit: Duration) -> Value {
        until("the job to end", limit, || {
            let status = self.ask(&["status", job]);
            (status["state"] != "running").then_some(status)
        })
    }

    /// Waits until a worker is in the middle of a unit whose description begins with `stage`; its lease.
    ///
    /// # Panics
    /// Where the job ends before that.
    pub fn until_midway(&self, job: &str, stage: &str, limit: Duration) -> Value {
        until("a unit to be under way", limit, || {
            let status = self.ask(&["status", job]);
            assert_eq!(status["state"], "running", "the job ended too soon: {status:#}");
            let midway = |lease: &&Value| {
                let what = lease["what"].as_str().expect("a text");
                let (done, total) = (lease["done"].as_u64(), lease["total"].as_u64());
                what.starts_with(stage) && done > Some(0) && done < total
            };
            status["leases"].as_array()?.iter().find(midway).cloned()
        })
    }
}

/// The address that a coordinator tells after `words`.
fn listening(coordinator: &mut Running, words: &str) -> String {
    until("the coordinator to say where it listens", START_LIMIT, || {
        assert!(!coordinator.has_ended(), "the coordinator ended: {}", coordinator.stderr());
        let said = coordinator.stderr();
        let (_, rest) = said.split_once(words)?;
        rest.split_once(' ').map(|(address, _)| address.to_owned())
    })
}
