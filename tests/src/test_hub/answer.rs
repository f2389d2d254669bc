//! What the test's hub answers to each request.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request as HttpRequest, StatusCode, Uri, header};
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, stream};
use lsa_common::hub::RepoKind;
use serde_json::{Value, json};

use super::repo::{Access, FileKind, Files, TestFile, TestRepo};
use super::{FaultKind, PAGE_ENTRIES, Request, Server};

/// What goes to the network at once: little, so that what was sent is known closely.
const PART_BYTES: usize = 16 << 10;
/// What is read of a request.
const QUESTION_BYTES_MAX: usize = 1 << 20;

/// What a request is, and its place in the record.
struct Asked {
    server: Arc<Server>,
    place: usize,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

/// Answers, and records what was asked and sent.
pub(super) async fn answer(server: Arc<Server>, is_cdn: bool, request: HttpRequest<Body>) -> Response {
    let (head, body) = request.into_parts();
    let text = |name| head.headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    let recorded = Request {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        range: text(header::RANGE).map(str::to_owned),
        status: 0,
        sent: 0,
        is_running: false,
        has_token: head.headers.contains_key(header::AUTHORIZATION),
        is_cdn,
    };
    let place = {
        let mut state = server.state();
        state.requests.push(recorded);
        state.requests.len() - 1
    };
    let body = axum::body::to_bytes(body, QUESTION_BYTES_MAX).await.unwrap_or_default();
    let asked = Asked { server, place, method: head.method, uri: head.uri, headers: head.headers, body };
    let early = |kind: &FaultKind| match kind {
        FaultKind::Status { .. } | FaultKind::Silence => true,
        FaultKind::Refusal => is_cdn,
        FaultKind::Cut { .. } | FaultKind::Corrupt | FaultKind::NoRanges => false,
    };
    let fault = if asked.method == Method::HEAD { None } else { asked.fault(early) };
    let response = match fault {
        Some(FaultKind::Silence) => std::future::pending().await,
        Some(FaultKind::Status { status, retry_after }) => {
            let response = Response::builder().status(status);
            let response = match retry_after {
                Some(value) => response.header(header::RETRY_AFTER, value),
                None => response,
            };
            response.body(Body::from("a fault")).expect("a valid answer")
        }
        Some(_) => {
            let xml = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>";
            Response::builder().status(StatusCode::FORBIDDEN).body(Body::from(xml)).expect("a valid answer")
        }
        None if is_cdn => asked.answer_as_cdn(),
        None => asked.answer_as_hub(),
    };
    asked.server.state().requests[place].status = response.status().as_u16();
    response
}

impl Asked {
    fn fault(&self, wanted: impl Fn(&FaultKind) -> bool) -> Option<FaultKind> {
        self.server.take_fault(self.uri.path(), wanted)
    }

    fn answer_as_cdn(&self) -> Response {
        let etag = self.uri.path().split('/').nth(2).unwrap_or_default();
        match self.server.shelf.large_file(etag) {
            Some(file) => self.content(file, Response::builder().header(header::ETAG, "\"of the CDN\"")),
            None => refusal(StatusCode::NOT_FOUND, "", None),
        }
    }

    fn answer_as_hub(&self) -> Response {
        let parts: Vec<String> = self.uri.path().trim_start_matches('/').split('/').map(decode).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (is_api, kind, rest) = match parts.as_slice() {
            ["api", "models", rest @ ..] => (true, RepoKind::Model, rest),
            ["api", "datasets", rest @ ..] => (true, RepoKind::Dataset, rest),
            ["datasets", rest @ ..] => (false, RepoKind::Dataset, rest),
            rest => (false, RepoKind::Model, rest),
        };
        // The id has one part or two.
        let is_verb = |part: &&str| matches!(*part, "revision" | "tree" | "paths-info" | "resolve");
        let n_id = rest.iter().skip(1).take(2).position(is_verb).map_or(rest.len().min(2), |place| place + 1);
        let (id, rest) = rest.split_at(n_id);
        let id = id.join("/");
        let shelf = &self.server.shelf;
        if let Some(repo) = shelf.renamed(kind, &id) {
            let path = self.uri.path().replacen(&id, &repo.id, 1);
            let location = match self.uri.query() {
                Some(query) => format!("{path}?{query}"),
                None => path,
            };
            let response = Response::builder().status(StatusCode::TEMPORARY_REDIRECT);
            return response.header(header::LOCATION, location).body(Body::empty()).expect("a valid answer");
        }
        let is_visible = |repo: &&TestRepo| match &repo.access {
            Access::Private(token) => self.has_token(token),
            Access::All | Access::Gated(_) => true,
        };
        let Some(repo) = shelf.repo(kind, &id).filter(is_visible) else {
            let has_any = self.headers.contains_key(header::AUTHORIZATION);
            let status = if has_any { StatusCode::NOT_FOUND } else { StatusCode::UNAUTHORIZED };
            return refusal(status, "RepoNotFound", None);
        };
        let revision = rest.get(1).copied().unwrap_or("main");
        let Some((commit, files)) = repo.at(revision) else {
            return refusal(StatusCode::NOT_FOUND, "RevisionNotFound", None);
        };
        match (is_api, rest) {
            (true, [] | ["revision", _]) => json_answer(&info(repo, &commit, files), None),
            (true, ["tree", _]) => self.tree(files),
            (true, ["paths-info", _]) => self.paths_info(files),
            (false, ["resolve", _, path @ ..]) => self.resolve(repo, &commit, files, &path.join("/")),
            _ => refusal(StatusCode::NOT_FOUND, "", None),
        }
    }

    fn has_token(&self, token: &str) -> bool {
        let sent = self.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        sent == Some(&format!("Bearer {token}"))
    }

    fn tree(&self, files: &Files) -> Response {
        let query = self.uri.query().unwrap_or_default();
        let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let mut entries = entries(files);
        if value("recursive") != Some("true") {
            entries.retain(|entry| entry["path"].as_str().is_some_and(|path| !path.contains('/')));
        }
        let begin: usize = value("cursor").and_then(|cursor| cursor.parse().ok()).unwrap_or_default();
        let end = (begin + PAGE_ENTRIES).min(entries.len());
        let next = (end < entries.len()).then(|| {
            let (hub, path) = (&self.server.hub_url, self.uri.path());
            format!("<{hub}{path}?recursive=true&cursor={end}>; rel=\"next\"")
        });
        json_answer(&Value::from(entries.get(begin..end).unwrap_or_default()), next)
    }

    /// The paths come as JSON, `{"paths": […]}`, or as a form, `paths=…&paths=…`.
    fn paths_info(&self, files: &Files) -> Response {
        let text = String::from_utf8_lossy(&self.body);
        let paths: BTreeSet<String> = match serde_json::from_str::<Value>(&text) {
            Ok(json) => {
                let paths = json["paths"].as_array().into_iter().flatten();
                paths.filter_map(|path| path.as_str().map(str::to_owned)).collect()
            }
            Err(_) => {
                let pairs = text.split('&').filter_map(|pair| pair.strip_prefix("paths="));
                pairs.map(|path| decode(&path.replace('+', " "))).collect()
            }
        };
        let mut entries = entries(files);
        entries.retain(|entry| entry["path"].as_str().is_some_and(|path| paths.contains(path)));
        json_answer(&Value::from(entries), None)
    }

    fn resolve(&self, repo: &TestRepo, commit: &str, files: &Files, path: &str) -> Response {
        if let Access::Gated(token) = &repo.access
            && !self.has_token(token)
        {
            let has_any = self.headers.contains_key(header::AUTHORIZATION);
            let status = if has_any { StatusCode::FORBIDDEN } else { StatusCode::UNAUTHORIZED };
            return refusal(status, "GatedRepo", Some(commit));
        }
        let Some(file) = files.get(path) else {
            return refusal(StatusCode::NOT_FOUND, "EntryNotFound", Some(commit));
        };
        let etag = format!("\"{}\"", file.etag);
        let known = self.headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
        let response = Response::builder().header("X-Repo-Commit", commit);
        if known == Some(&etag) {
            let response = response.status(StatusCode::NOT_MODIFIED).header(header::ETAG, etag);
            return response.body(Body::empty()).expect("a valid answer");
        }
        if file.kind == FileKind::Plain {
            return self.content(file, response.header(header::ETAG, etag));
        }
        let path = self.uri.path().rsplit_once("/resolve/").map_or("", |(_, place)| place);
        let path = path.split_once('/').map_or("", |(_, path)| path);
        let location = format!("{}/cdn/{}/{path}?Signature=secret", self.server.cdn_url, file.etag);
        let response = response
            .status(StatusCode::FOUND)
            .header(header::LOCATION, location)
            .header(header::ETAG, format!("\"{}\"", file.git_oid()))
            .header("X-Linked-Etag", etag)
            .header("X-Linked-Size", file.bytes.len());
        let response = match file.kind {
            FileKind::Xet => response.header("X-Xet-Hash", &file.etag),
            FileKind::Plain | FileKind::Large => response,
        };
        response.body(Body::empty()).expect("a valid answer")
    }

    /// The bytes of a file, or the range that was asked for, with the faults that are due.
    fn content(&self, file: &TestFile, response: axum::http::response::Builder) -> Response {
        let size = file.bytes.len();
        let response = response.header(header::ACCEPT_RANGES, "bytes");
        if self.method == Method::HEAD {
            let response = response.header(header::CONTENT_LENGTH, size);
            return response.body(Body::empty()).expect("a valid answer");
        }
        let ignores = self.fault(|kind| *kind == FaultKind::NoRanges).is_some();
        let asked = self.headers.get(header::RANGE).and_then(|value| value.to_str().ok());
        let (response, range) = match asked.filter(|_| !ignores).map(|range| parse_range(range, size)) {
            None => (response, 0..size),
            Some(Some(range)) => {
                let value = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                let response = response.status(StatusCode::PARTIAL_CONTENT);
                (response.header(header::CONTENT_RANGE, value), range)
            }
            Some(None) => return refusal(StatusCode::RANGE_NOT_SATISFIABLE, "", None),
        };
        let mut bytes = file.bytes.slice(range);
        if self.fault(|kind| *kind == FaultKind::Corrupt).is_some() {
            bytes = bytes.iter().map(|byte| !byte).collect();
        }
        let cut = self.fault(|kind| matches!(kind, FaultKind::Cut { .. }));
        let response = response.header(header::CONTENT_LENGTH, bytes.len());
        let body = Body::from_stream(self.sending(bytes, cut));
        response.body(body).expect("a valid answer")
    }

    fn sending(&self, bytes: Bytes, cut: Option<FaultKind>) -> impl Stream<Item = io::Result<Bytes>> + use<> {
        let running = Running::begin(&self.server, self.place);
        let limit = match cut {
            Some(FaultKind::Cut { bytes, is_silent }) => Some((bytes, is_silent)),
            _ => None,
        };
        stream::unfold((bytes, 0, running), move |(mut rest, sent, running)| {
            async move {
                let room = limit.map_or(u64::MAX, |(bytes, _)| bytes - sent);
                if rest.is_empty() {
                    return None;
                }
                if room == 0 {
                    if limit.is_some_and(|(_, is_silent)| is_silent) {
                        std::future::pending::<()>().await;
                    }
                    // What was sent before leaves this process first.
                    tokio::task::yield_now().await;
                    return Some((Err(io::Error::other("a fault")), (Bytes::new(), sent, running)));
                }
                let n = rest.len().min(PART_BYTES).min(usize::try_from(room).unwrap_or(usize::MAX));
                let part = rest.split_to(n);
                running.server.state().requests[running.place].sent += n as u64;
                Some((Ok(part), (rest, sent + n as u64, running)))
            }
        })
    }
}

/// Dropped when a body is sent, or when nobody wants the rest.
struct Running {
    server: Arc<Server>,
    place: usize,
}

impl Running {
    fn begin(server: &Arc<Server>, place: usize) -> Self {
        server.state().requests[place].is_running = true;
        Self { server: Arc::clone(server), place }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.state().requests[self.place].is_running = false;
    }
}

fn info(repo: &TestRepo, commit: &str, files: &Files) -> Value {
    let siblings: Vec<Value> = files.keys().map(|path| json!({ "rfilename": path })).collect();
    let gated = if matches!(repo.access, Access::Gated(_)) { json!("auto") } else { json!(false) };
    json!({ "_id": "0", "id": repo.id, "sha": commit, "gated": gated, "siblings": siblings })
}

/// Folders and files, sorted by path.
fn entries(files: &Files) -> Vec<Value> {
    let mut entries = Vec::new();
    let mut folders = BTreeSet::new();
    for (path, file) in files {
        for (end, _) in path.match_indices('/') {
            if folders.insert(&path[..end]) {
                entries.push(
                    json!({ "type": "directory", "oid": "0".repeat(40), "size": 0, "path": path[..end] }),
                );
            }
        }
        let size = file.bytes.len();
        let mut entry = json!({ "type": "file", "oid": file.git_oid(), "size": size, "path": path });
        if file.kind != FileKind::Plain {
            let pointer = file.pointer().len();
            entry["lfs"] = json!({ "oid": file.etag, "size": size, "pointerSize": pointer });
        }
        entries.push(entry);
    }
    entries
}

fn json_answer(value: &Value, next: Option<String>) -> Response {
    let response = Response::builder().header(header::CONTENT_TYPE, "application/json");
    let response = match next {
        Some(link) => response.header(header::LINK, link),
        None => response,
    };
    response.body(Body::from(value.to_string())).expect("a valid answer")
}

fn refusal(status: StatusCode, code: &str, commit: Option<&str>) -> Response {
    let mut response = Response::builder().status(status);
    if !code.is_empty() {
        response = response.header("X-Error-Code", code);
    }
    if let Some(commit) = commit {
        response = response.header("X-Repo-Commit", commit);
    }
    response.body(Body::from("no")).expect("a valid answer")
}

/// `bytes=a-b` or `bytes=a-` inside a file; no other form is asked for.
fn parse_range(text: &str, size: usize) -> Option<std::ops::Range<usize>> {
    let (begin, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let begin: usize = begin.parse().ok()?;
    let end = if last.is_empty() { size } else { last.parse::<usize>().ok()?.checked_add(1)?.min(size) };
    (begin < end).then_some(begin..end)
}

/// `%2F` and its like.
fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, more)) = rest.split_first() {
        let digits = more.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.filter(|_| first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &more[2..];
            }
            None => {
                bytes.push(first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
