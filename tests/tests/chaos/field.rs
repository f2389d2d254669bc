//! The processes and their networks, and what has been done to them.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lsa_tests::process::{Running, command, finish, send};
use lsa_tests::proxy::{Proxy, Weather};
use lsa_tests::wait::until;
use nix::sys::signal::Signal;
use serde_json::Value;

pub const N_COORDINATORS: usize = 2;
pub const N_WORKERS: usize = 4;
/// Short, so that what is lost is missed soon.
const LEASE_TTL_S: &str = "4";
const CLIENT_LIMIT: Duration = Duration::from_secs(90);

/// A process of the system under test, and the networks that are its own.
pub struct Member {
    is_coordinator: bool,
    name: String,
    home: PathBuf,
    /// Nothing while it is dead.
    process: Option<Running>,
    /// Its way to the store.
    pub to_store: Proxy,
    /// The way of workers and clients to it, of a coordinator.
    pub to_it: Option<Proxy>,
    listen: SocketAddr,
    lives: u32,
}

/// What will be mended, and when.
struct Mending {
    at: Instant,
    what: Mend,
}

/// How something is mended.
pub enum Mend {
    /// Start a process again, unless it runs.
    Start(usize),
    /// SIGCONT to the process with that id.
    Continue(u32),
    /// The network between a member and the store.
    ToStore(usize),
    /// The network between a coordinator and the rest.
    ToIt(usize),
}

/// Everything.
pub struct Field {
    home: PathBuf,
    store: String,
    store_process: Option<u32>,
    variables: Vec<(String, String)>,
    pub members: Vec<Member>,
    mendings: Vec<Mending>,
    /// Nothing is done to anybody any more: who ends is started again at once.
    is_calm: bool,
    n_fetched: u32,
}

/// A port that was free a moment ago.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// The host and port in a store's address.
fn endpoint(store: &str) -> SocketAddr {
    let (_, rest) = store.split_once("endpoint=http://").expect("a store behind plain HTTP");
    rest.split('&').next().and_then(|address| address.parse().ok()).expect("an address by numbers")
}

impl Field {
    /// Starts everything and waits until workers are connected.
    pub fn new(
        home: &Path,
        store: &str,
        store_process: Option<&Running>,
        variables: &[(&str, &str)],
    ) -> Self {
        let target = endpoint(store);
        let member = |number: usize| {
            let is_coordinator = number < N_COORDINATORS;
            let name = match is_coordinator {
                true => format!("c{number}"),
                false => format!("w{}", number - N_COORDINATORS),
            };
            let listen = free_address();
            Member {
                is_coordinator,
                home: home.join(&name),
                name,
                process: None,
                to_store: Proxy::to(target),
                to_it: is_coordinator.then(|| Proxy::to(listen)),
                listen,
                lives: 0,
            }
        };
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut field = Self {
            home: home.to_owned(),
            store: store.to_owned(),
            store_process: store_process.map(Running::pid),
            variables: variables.collect(),
            members: (0..N_COORDINATORS + N_WORKERS).map(member).collect(),
            mendings: Vec::new(),
            is_calm: false,
            n_fetched: 0,
        };
        (0..field.members.len()).for_each(|place| field.start(place));
        until("workers to connect", CLIENT_LIMIT, || {
            let workers = field.ask(&["workers"])?;
            let connected = |worker: &&Value| worker["connected"] == true;
            (workers["workers"].as_array()?.iter().filter(connected).count() == N_WORKERS).then_some(())
        });
        field
    }

    /// Starts a member that is dead.
    pub fn start(&mut self, place: usize) {
        let target = endpoint(&self.store).to_string();
        let member = &mut self.members[place];
        if member.process.as_mut().is_some_and(|process| !process.has_ended()) {
            return;
        }
        let store = self.store.replace(&target, &member.to_store.address().to_string());
        member.lives += 1;
        let mut program = match &member.to_it {
            Some(to_it) => {
                let mut serve = command("lsa-coordinator", &member.home);
                serve.args(["serve", "--insecure", "--lease-ttl", LEASE_TTL_S]);
                serve.args(["--listen", &member.listen.to_string()]);
                serve.arg(format!("--advertise=http://{}", to_it.address()));
                serve
            }
            None => {
                let mut serve = command("lsa-worker", &member.home);
                serve.args(["serve", "--device", "cpu", "--threads", "1", "--grace", "3"]);
                serve.arg(format!("--worker-id={}-{}", member.name, member.lives));
                serve
            }
        };
        program.args(["--store", &store]).envs(self.variables.iter().map(|(name, value)| (name, value)));
        member.process = Some(Running::start(program));
    }

    /// The process id of a member that lives.
    pub fn pid(&mut self, place: usize) -> Option<u32> {
        let process = self.members[place].process.as_mut()?;
        (!process.has_ended()).then(|| process.pid())
    }

    /// The process id of the store, where it is one of this test's.
    pub fn store_pid(&self) -> Option<u32> {
        self.store_process
    }

    /// Kills a member with SIGKILL.
    pub fn kill(&mut self, place: usize) {
        if let Some(process) = self.members[place].process.take() {
            process.kill();
        }
    }

    /// Has something mended after a while.
    pub fn mend_after(&mut self, wait: Duration, what: Mend) {
        self.is_calm = false;
        self.mendings.push(Mending { at: Instant::now() + wait, what });
    }

    fn mend(&mut self, what: &Mend) {
        match what {
            Mend::Start(place) => self.start(*place),
            Mend::Continue(pid) => {
                // It may have been killed meanwhile.
                let alive = Path::new(&format!("/proc/{pid}")).exists();
                if alive {
                    send(*pid, Signal::SIGCONT);
                }
            }
            Mend::ToStore(place) => self.members[*place].to_store.set(Weather::Clear),
            Mend::ToIt(place) => {
                if let Some(to_it) = &self.members[*place].to_it {
                    to_it.set(Weather::Clear);
                }
            }
        }
    }

    /// Lets time pass, and mends what is to be mended meanwhile.
    pub fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        until("time to pass", time + CLIENT_LIMIT, || {
            self.tend();
            (Instant::now() >= end).then_some(())
        });
    }

    /// Mends what it is time for.
    pub fn tend(&mut self) {
        let now = Instant::now();
        let (due, later) =
            std::mem::take(&mut self.mendings).into_iter().partition(|mending| mending.at <= now);
        self.mendings = later;
        let due: Vec<Mending> = due;
        due.iter().for_each(|mending| self.mend(&mending.what));
        if self.is_calm {
            (0..self.members.len()).for_each(|place| self.start(place));
        }
    }

    /// Mends everything, until the next harm.
    pub fn calm(&mut self) {
        self.is_calm = true;
        let all = std::mem::take(&mut self.mendings);
        all.iter().for_each(|mending| self.mend(&mending.what));
    }

    fn urls(&self) -> String {
        let proxies = self.members.iter().filter_map(|member| member.to_it.as_ref());
        proxies.map(|proxy| format!("http://{}", proxy.address())).collect::<Vec<_>>().join(",")
    }

    /// What a client is told, where it is told anything.
    fn ask(&self, args: &[&str]) -> Option<Value> {
        let mut client = command("lsa-coordinator", &self.home);
        client.args(args).args(["--json", "--coordinator", &self.urls()]);
        serde_json::from_str(&finish(client).stdout).ok()
    }

    /// Submits a grid, again and again until somebody takes it; the job's id.
    pub fn submit(&mut self, grid: &[String]) -> String {
        let args: Vec<&str> = std::iter::once("submit").chain(grid.iter().map(String::as_str)).collect();
        until("the job to be taken", CLIENT_LIMIT, || {
            self.tend();
            Some(self.ask(&args)?["job"].as_str()?.to_owned())
        })
    }

    /// How a job stands, if anybody says.
    pub fn status(&self, job: &str) -> Option<Value> {
        self.ask(&["status", job]).filter(|status| status["state"].is_string())
    }

    /// Whether somebody says that a job has ended.
    pub fn has_ended(&self, job: &str) -> bool {
        self.status(job).is_some_and(|status| status["state"] != "running")
    }

    /// Fetches a job's results; the folder.
    pub fn fetch(&mut self, job: &str) -> PathBuf {
        self.n_fetched += 1;
        let folder = self.home.join(format!("fetched-{}", self.n_fetched));
        let output = folder.display().to_string();
        until("the results to be fetched", CLIENT_LIMIT, || {
            self.ask(&["fetch", job, "--output-dir", &output])?["files"].as_u64().filter(|n| *n > 0)
        });
        folder
    }

    /// Whether a member is a coordinator.
    pub fn is_coordinator(&self, place: usize) -> bool {
        self.members[place].is_coordinator
    }
}
