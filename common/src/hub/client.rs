//! One request to a hub: its address, its redirects, and what its answer means.
//!
//! Redirects are followed here and not by the HTTP library: the token goes to the endpoint and to nobody else, and
//! a secure address leads to no insecure one. HTTP/1.1 only: a reader that is dropped closes its connection, and what
//! is under way by then is what the kernel has buffered, where HTTP/2 would allow megabytes more.

use std::future::Future;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, LOCATION, RANGE, RETRY_AFTER};
use reqwest::{Method, Response, Url};
use tokio::runtime::Runtime;

use super::error::is_passing;
use super::retry::{Failed, parse_retry_after};
use super::{HubError, HubFile, HubSettings, Listing, Repo, RepoKind};

const REDIRECTS_MAX: usize = 10;
const ERROR_CODE: &str = "x-error-code";
const XET_HASH: &str = "x-xet-hash";

/// What is asked for, which makes a "no" understandable.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) url: Url,
    pub(super) repo: Repo,
    pub(super) part: Part,
}

/// What of the repository.
#[derive(Clone, Debug)]
pub(super) enum Part {
    /// All of it, at a revision.
    Revision(String),
    /// One file.
    File { commit: String, path: String },
}

/// Makes requests on a thread of its own, so that callers may wait wherever they are.
pub(super) struct Client {
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

struct Shared {
    http: reqwest::Client,
    settings: HubSettings,
}

impl Client {
    pub(super) fn new(settings: &HubSettings) -> Result<Self, HubError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("hub")
            .enable_all()
            .build()
            .map_err(|error| HubError::Start(error.into()))?;
        let http = reqwest::Client::builder()
            .user_agent(concat!("lsa/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(settings.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .http1_only()
            .build()
            .map_err(|error| HubError::Start(error.into()))?;
        let shared = Shared { http, settings: settings.clone() };
        Ok(Self { shared: Arc::new(shared), runtime: Some(runtime) })
    }

    pub(super) fn settings(&self) -> &HubSettings {
        &self.shared.settings
    }

    /// Waits for a future that runs on the client's thread. Works on every thread, in a runtime or not.
    pub(super) fn run<F>(&self, future: F) -> Result<F::Output, HubError>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (sender, receiver) = mpsc::sync_channel(1);
        let runtime = self.runtime.as_ref().ok_or(HubError::Stopped)?;
        runtime.spawn(async move {
            // Nobody listens any more where the caller's thread has ended.
            let _ = sender.send(future.await);
        });
        receiver.recv().map_err(|_| HubError::Stopped)
    }

    /// The beginning of a good answer; `range` is the value of a `Range` header.
    pub(super) fn get(&self, target: &Target, range: Option<String>) -> Result<Response, Failed> {
        let (shared, target) = (Arc::clone(&self.shared), target.clone());
        self.run(async move {
            let response = shared.follow(&target.url, range).await?;
            if response.status().is_success() {
                Ok(response)
            } else {
                Err(shared.refusal(&target, &response))
            }
        })?
    }

    /// The next part of an answer's body; none at its end.
    pub(super) fn chunk(&self, mut response: Response) -> Result<Option<(Response, Bytes)>, Failed> {
        let limit = self.settings().read_timeout;
        self.run(async move {
            let url = shown(response.url());
            let chunk = in_time(limit, &url, response.chunk()).await?;
            Ok(chunk.map(|chunk| (response, chunk)))
        })?
    }

    /// Whether the hub would rather give the file by the Xet protocol. Says no where it cannot tell.
    pub(super) fn is_xet(&self, target: &Target) -> bool {
        let (shared, url) = (Arc::clone(&self.shared), target.url.clone());
        let answer = self.run(async move { shared.send(Method::HEAD, &url, None).await });
        answer.is_ok_and(|answer| answer.is_ok_and(|response| response.headers().contains_key(XET_HASH)))
    }

    /// An address of the hub's API about a repository; each of `rest` is one part of the path.
    pub(super) fn api_url(&self, repo: &Repo, rest: &[&str]) -> Result<Url, HubError> {
        let kind = match repo.kind {
            RepoKind::Model => "models",
            RepoKind::Dataset => "datasets",
        };
        self.url(["api", kind].into_iter().chain(repo.id.split('/')).chain(rest.iter().copied()))
    }

    /// Where the bytes of a file are.
    pub(super) fn file_target(&self, listing: &Listing, file: &HubFile) -> Result<Target, HubError> {
        let Listing { repo, commit, .. } = listing;
        let prefix: &[&str] = match repo.kind {
            RepoKind::Model => &[],
            RepoKind::Dataset => &["datasets"],
        };
        let place = ["resolve", commit].into_iter().chain(file.path.split('/'));
        let url = self.url(prefix.iter().copied().chain(repo.id.split('/')).chain(place))?;
        let part = Part::File { commit: commit.clone(), path: file.path.clone() };
        Ok(Target { url, repo: repo.clone(), part })
    }

    fn url<'a>(&self, parts: impl Iterator<Item = &'a str>) -> Result<Url, HubError> {
        let mut url = self.settings().endpoint_url().clone();
        match url.path_segments_mut() {
            Ok(mut path) => path.pop_if_empty().extend(parts),
            Err(()) => return Err(HubError::Stopped),
        };
        Ok(url)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // A runtime that waits for its threads must not be dropped by an asynchronous caller.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    /// Goes where redirects lead.
    async fn follow(&self, url: &Url, range: Option<String>) -> Result<Response, Failed> {
        let mut url = url.clone();
        for _ in 0..REDIRECTS_MAX {
            let response = self.send(Method::GET, &url, range.as_deref()).await?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok());
            let next = next.filter(|next| next.scheme() == "https" || next.scheme() == url.scheme());
            let fault = || malformed(&url, "it redirects to no address that can be followed");
            url = next.ok_or_else(fault)?;
        }
        Err(malformed(&url, "it redirects without end").into())
    }

    async fn send(&self, method: Method, url: &Url, range: Option<&str>) -> Result<Response, Failed> {
        // Compressed bodies would have other offsets.
        let mut request = self.http.request(method, url.clone()).header(ACCEPT_ENCODING, "identity");
        if let Some(range) = range {
            request = request.header(RANGE, range);
        }
        let is_hub = url.origin() == self.settings.endpoint_url().origin();
        if let Some(token) = self.settings.token.as_ref().filter(|_| is_hub) {
            request = request.header(AUTHORIZATION, token.header());
        }
        let limit = self.settings.connect_timeout + self.settings.read_timeout;
        in_time(limit, &shown(url), request.send()).await
    }

    /// What an answer that is not a success means.
    fn refusal(&self, target: &Target, response: &Response) -> Failed {
        let status = response.status().as_u16();
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        if is_passing(status) {
            let error = HubError::Status { url: shown(response.url()), status };
            let asked = header(RETRY_AFTER.as_str());
            let retry_after = asked.and_then(|value| parse_retry_after(value, SystemTime::now()));
            return Failed { retry_after, ..Failed::passing(error) };
        }
        let endpoint = || self.settings.endpoint().to_owned();
        let has_token = self.settings.token.is_some();
        let repo = target.repo.clone();
        let is_hub = response.url().origin() == self.settings.endpoint_url().origin();
        let error = match (header(ERROR_CODE), status, &target.part) {
            // Those that store files know nothing of repositories and rights.
            _ if !is_hub => HubError::Status { url: shown(response.url()), status },
            (Some("GatedRepo"), ..) => {
                let page = match repo.kind {
                    RepoKind::Model => format!("{}/{}", endpoint(), repo.id),
                    RepoKind::Dataset => format!("{}/datasets/{}", endpoint(), repo.id),
                };
                HubError::Gated { repo, page, has_token }
            }
            (Some("RepoNotFound"), ..) => HubError::NoRepo { repo, endpoint: endpoint() },
            (Some("RevisionNotFound"), _, Part::Revision(revision)) => {
                HubError::NoRevision { repo, revision: revision.clone(), endpoint: endpoint() }
            }
            (_, 401 | 403, _) => HubError::Denied { repo, endpoint: endpoint(), status, has_token },
            (_, 404 | 410, Part::File { commit, path }) => {
                let (commit, path) = (commit.clone(), path.clone());
                HubError::NoFile { repo, commit, path, endpoint: endpoint() }
            }
            (_, 404 | 410, Part::Revision(_)) => HubError::NoRepo { repo, endpoint: endpoint() },
            _ => HubError::Status { url: shown(response.url()), status },
        };
        error.into()
    }
}

async fn in_time<T>(
    limit: Duration,
    url: &str,
    work: impl Future<Output = Result<T, reqwest::Error>>,
) -> Result<T, Failed> {
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(source)) => {
            let error = HubError::Network { url: url.to_owned(), source: source.without_url() };
            Err(Failed::passing(error))
        }
        Err(_) => Err(Failed::passing(HubError::Silent { url: url.to_owned(), after: limit })),
    }
}

/// An answer that cannot be used.
pub(super) fn malformed(url: &Url, reason: &str) -> HubError {
    HubError::Answer { url: shown(url), reason: reason.to_owned() }
}

/// An address as it may be shown: what follows its path can be a signature.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // An address that cannot hold a user has none.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}
