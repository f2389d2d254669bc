//! An S3 server in this process, with faults to order: `s3s-fs` over a temporary folder.
//!
//! By itself it lets several creates of one key win, now and then. With a lock around each key it keeps the promise;
//! with the precondition taken out of requests it breaks it every time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, IF_NONE_MATCH};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// The one bucket of every server.
pub const BUCKET: &str = "lsa-test";

/// What becomes of create-only puts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// One wins.
    Kept,
    /// `s3s-fs` as it is: it looks, then writes, and holds nothing meanwhile.
    Raced,
    /// The precondition is not looked at.
    Ignored,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Answered with this status and code, and not carried out.
    Refused(u16, &'static str),
    /// Carried out, and answered as if it had not been.
    Denied(u16, &'static str),
    /// The connection breaks before it is carried out.
    Reset,
    /// Carried out, and the connection breaks before the answer.
    Lost,
    /// The answer ends in the middle.
    Cut,
    /// Carried out after a while.
    Late(Duration),
}

type Rule = Box<dyn FnMut(&Method, &str) -> Fault + Send>;

/// A server; it ends when this is dropped.
pub struct S3Server {
    address: SocketAddr,
    folder: TempDir,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

struct Shared {
    service: S3Service,
    promise: Promise,
    rule: Mutex<Rule>,
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl S3Server {
    /// Starts a server with an empty bucket.
    pub fn start(promise: Promise) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join(BUCKET)).expect("an empty folder");
        let files = s3s_fs::FileSystem::new(folder.path()).expect("a folder");
        let mut service = S3ServiceBuilder::new(files);
        if promise != Promise::Ignored {
            let [(_, access_key), (_, secret_key)] = CREDENTIALS;
            service.set_auth(SimpleAuth::from_single(access_key, secret_key));
        }
        let shared = Arc::new(Shared {
            service: service.build(),
            promise,
            rule: Mutex::new(Box::new(|_, _| Fault::None)),
            locks: Mutex::default(),
        });
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        runtime.spawn(accept(listener, shared.clone()));
        Self { address, folder, shared, runtime: Some(runtime) }
    }

    /// The server's address.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address of a bucket below `prefix`; the environment must hold any keys.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}?endpoint={}&region=us-east-1", self.endpoint())
    }

    /// What happens to every request from now on, told by its method and path.
    pub fn rule(&self, rule: impl FnMut(&Method, &str) -> Fault + Send + 'static) {
        *self.shared.rule.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(rule);
    }

    /// The folder of the bucket's objects.
    pub fn folder(&self) -> std::path::PathBuf {
        self.folder.path().join(BUCKET)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let shared = shared.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| answer(shared.clone(), request));
            // A connection that breaks is the client's to tell.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// Ends the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection breaks")]
struct Broken;

async fn answer(shared: Arc<Shared>, mut request: Request<Incoming>) -> Result<Response<Body>, Broken> {
    let path = request.uri().path().to_owned();
    let fault = {
        let mut rule = shared.rule.lock().unwrap_or_else(PoisonError::into_inner);
        rule(request.method(), &path)
    };
    match fault {
        Fault::Refused(status, code) => return Ok(error(status, code)),
        Fault::Reset => return Err(Broken),
        Fault::Late(wait) => tokio::time::sleep(wait).await,
        Fault::None | Fault::Denied(..) | Fault::Lost | Fault::Cut => {}
    }
    if shared.promise == Promise::Ignored {
        request.headers_mut().remove(IF_NONE_MATCH);
        // The signature covers it.
        request.headers_mut().remove(AUTHORIZATION);
    }
    let lock = {
        let mut locks = shared.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.entry(path).or_default().clone()
    };
    let held = match shared.promise {
        Promise::Kept => Some(lock.lock().await),
        Promise::Raced | Promise::Ignored => None,
    };
    let response = shared.service.call(request.map(Body::from)).await.map_err(|_| Broken)?;
    drop(held);
    match fault {
        Fault::Denied(status, code) => Ok(error(status, code)),
        Fault::Lost => Err(Broken),
        Fault::Cut => cut(response).await,
        Fault::None | Fault::Refused(..) | Fault::Reset | Fault::Late(_) => Ok(response),
    }
}

fn error(status: u16, code: &str) -> Response<Body> {
    let text =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>as ordered</Message></Error>");
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
}

/// The first half of the body, and then the end of the connection.
async fn cut(response: Response<Body>) -> Result<Response<Body>, Broken> {
    let (mut head, body) = response.into_parts();
    let bytes = BodyExt::collect(body).await.map_err(|_| Broken)?.to_bytes();
    head.headers.insert(CONTENT_LENGTH, bytes.len().into());
    let half = Ok(Frame::data(bytes.slice(..bytes.len() / 2)));
    let pieces = stream::iter([half]).chain(stream::once(async { Err(Broken) }));
    Ok(Response::from_parts(head, Body::http_body_unsync(StreamBody::new(pieces))))
}

/// Variables of a client of any of these servers.
pub const CREDENTIALS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")];
