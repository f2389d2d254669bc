//! A hub on this machine that speaks as the real one does, with faults on demand and a record of what it was asked.
//!
//! It has two addresses: that of the hub, and that of a CDN to which it redirects for large files. A fault or a question
//! about the record names a part of an address: it is about all requests whose path contains it.

mod answer;
mod repo;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use repo::Shelf;
pub use repo::TestRepo;

/// Entries on a page of a listing: few, so that small repositories have several pages.
pub const PAGE_ENTRIES: usize = 3;

/// A hub that ends when this is dropped.
pub struct TestHub {
    runtime: Option<Runtime>,
    server: Arc<Server>,
}

/// What a request was, and what came of it.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `HEAD` or `POST`.
    pub method: String,
    /// The path of the address, as it was sent.
    pub path: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// The status of the answer; 0 where there was none.
    pub status: u16,
    /// Bytes of the body that were handed to the network.
    pub sent: u64,
    /// Whether its body is under way: neither sent whole nor given up.
    pub is_running: bool,
    /// Whether there was an `Authorization` header.
    pub has_token: bool,
    /// Whether it was sent to the CDN instead of the hub.
    pub is_cdn: bool,
}

struct Server {
    shelf: Shelf,
    hub_url: String,
    cdn_url: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    faults: Vec<Fault>,
    requests: Vec<Request>,
}

#[derive(Clone, Debug)]
struct Fault {
    part: String,
    kind: FaultKind,
    times: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum FaultKind {
    /// This status instead of an answer.
    Status { status: u16, retry_after: Option<String> },
    /// No answer at all.
    Silence,
    /// The body ends, or pauses for ever, after that many bytes.
    Cut { bytes: u64, is_silent: bool },
    /// Other bytes, as many.
    Corrupt,
    /// All bytes whatever the range.
    NoRanges,
    /// The CDN refuses, as object stores do.
    Refusal,
}

impl TestHub {
    /// A hub with these repositories.
    ///
    /// # Panics
    /// Where no port can be had.
    pub fn start(repos: impl IntoIterator<Item = TestRepo>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listen = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            listener.set_nonblocking(true).expect("a socket");
            let url = format!("http://{}", listener.local_addr().expect("a bound socket"));
            (listener, url)
        };
        let ((hub, hub_url), (cdn, cdn_url)) = (listen(), listen());
        let shelf = repos.into_iter().collect();
        let server = Arc::new(Server { shelf, hub_url, cdn_url, state: Mutex::default() });
        for (listener, is_cdn) in [(hub, false), (cdn, true)] {
            let server = Arc::clone(&server);
            let app =
                Router::new().fallback(move |request| answer::answer(Arc::clone(&server), is_cdn, request));
            runtime.spawn(async move {
                let listener = TcpListener::from_std(listener).expect("a listener");
                axum::serve(listener, app).await.expect("serving ends with the runtime");
            });
        }
        Self { runtime: Some(runtime), server }
    }

    /// Where it is: the value of `HF_ENDPOINT`.
    pub fn url(&self) -> &str {
        &self.server.hub_url
    }

    /// The commit of a branch or tag of a repository; `id` as in [`TestRepo`].
    ///
    /// # Panics
    /// Where there is none.
    pub fn commit(&self, id: &str, revision: &str) -> String {
        self.server.shelf.commit(id, revision).unwrap_or_else(|| panic!("{id} has no {revision}"))
    }

    /// Answers the next `times` requests for `part`, other than `HEAD`, with a status and perhaps a `Retry-After`.
    pub fn fail_next(&self, part: &str, status: u16, times: usize, retry_after: Option<&str>) {
        self.fault(part, FaultKind::Status { status, retry_after: retry_after.map(str::to_owned) }, times);
    }

    /// Breaks the next `times` connections that send content of `part`, after that many bytes.
    pub fn cut_after(&self, part: &str, bytes: u64, times: usize) {
        self.fault(part, FaultKind::Cut { bytes, is_silent: false }, times);
    }

    /// Sends that many bytes of content of `part` and then nothing more, `times` times.
    pub fn pause_after(&self, part: &str, bytes: u64, times: usize) {
        self.fault(part, FaultKind::Cut { bytes, is_silent: true }, times);
    }

    /// Does not answer the next `times` requests for `part`.
    pub fn silence(&self, part: &str, times: usize) {
        self.fault(part, FaultKind::Silence, times);
    }

    /// Sends other bytes of content of `part`, as many, `times` times.
    pub fn corrupt(&self, part: &str, times: usize) {
        self.fault(part, FaultKind::Corrupt, times);
    }

    /// Sends whole files for `part`, whatever range is asked for, `times` times.
    pub fn ignore_ranges(&self, part: &str, times: usize) {
        self.fault(part, FaultKind::NoRanges, times);
    }

    /// Lets the CDN refuse what the hub has redirected to it, `times` times: status 403 and a body of XML.
    pub fn refuse_at_cdn(&self, part: &str, times: usize) {
        self.fault(part, FaultKind::Refusal, times);
    }

    /// Everything that was asked, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.server.state().requests.clone()
    }

    /// What was asked for `part`, in order.
    pub fn requests_for(&self, part: &str) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.path.contains(part)).collect()
    }

    /// Bytes of bodies that were sent for `part`.
    pub fn bytes_sent(&self, part: &str) -> u64 {
        self.requests_for(part).iter().map(|request| request.sent).sum()
    }

    fn fault(&self, part: &str, kind: FaultKind, times: usize) {
        self.server.state().faults.push(Fault { part: part.to_owned(), kind, times });
    }
}

impl Drop for TestHub {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first fault for `path` of those that are wanted, which is thereby used once.
    fn take_fault(&self, path: &str, wanted: impl Fn(&FaultKind) -> bool) -> Option<FaultKind> {
        let mut state = self.state();
        let fault = state
            .faults
            .iter_mut()
            .find(|fault| fault.times > 0 && path.contains(&fault.part) && wanted(&fault.kind))?;
        fault.times -= 1;
        Some(fault.kind.clone())
    }
}
