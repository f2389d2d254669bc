//! One suite for every store: what the system relies upon, and what it refuses.
//!
//! Memory, a directory, `s3s-fs` with a lock and `moto_server` are always tried. Others are named by their addresses,
//! separated by spaces; credentials are in the environment:
//! ```text
//! LSA_TEST_STORES='s3://bucket/prefix?endpoint=https://s3.lab.example gs://bucket/prefix' \
//!     cargo test --release -p lsa-tests --test stores
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use lsa_common::id::Digest;
use lsa_common::record::StoredObject;
use lsa_common::store::{Created, Settled, Store, StoreError, probe_key};
use lsa_coordinator::maintain::doctor::{Verdict, diagnose};
use lsa_tests::moto::Moto;
use lsa_tests::process::{Running, command, finish};
use lsa_tests::python::skipped;
use lsa_tests::s3_server::{CREDENTIALS, Fault, Promise, S3Server};
use tokio::runtime::Runtime;

const VARIABLE: &str = "LSA_TEST_STORES";
const LIMIT: Duration = Duration::from_secs(120);
const FAILED: i32 = 1;
const USAGE: i32 = 2;

/// A client in this process takes its keys from the environment, which is set once before any thread reads it.
fn open(url: &str) -> Store {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        for (name, value) in CREDENTIALS {
            if std::env::var_os(name).is_none() {
                // SAFETY: every test of this file comes through here before it starts a thread that reads it.
                unsafe { std::env::set_var(name, value) };
            }
        }
    });
    Store::open(url).expect("an address")
}

fn block<T>(future: impl Future<Output = T>) -> T {
    Runtime::new().expect("a runtime").block_on(future)
}

/// What every store must do.
async fn conforms(store: &Store) {
    assert!(!store.is_prepared().await.expect("an answer"), "{}: an empty place is expected", store.url());
    store.prepare().await.expect("a safe store");
    store.prepare().await.expect("a store that is known already");
    assert_eq!(store.is_prepared().await.ok(), Some(true));

    assert_eq!(store.create("a/b", "1".into()).await.expect("created"), Created::Here);
    assert_eq!(store.create("a/b", "2".into()).await.expect("answered"), Created::Already);
    let one = Bytes::from_static(b"1");
    let settled = |is_mine| Settled { value: one.clone(), is_mine };
    assert_eq!(store.settle("a/b", "2".into()).await.expect("settled"), settled(false));
    assert_eq!(store.settle("a/b", "1".into()).await.expect("settled"), settled(true));
    assert_eq!(store.settle("a/c", "1".into()).await.expect("settled"), settled(true));
    assert_eq!(store.try_get("a/none").await.expect("answered"), None);
    assert_eq!(store.size("a/none").await.expect("answered"), None);

    let object = store.put("a/d/e", "rows".into()).await.expect("put");
    assert_eq!(store.get_verified(&object).await.expect("as put"), "rows");
    assert_eq!(store.size("a/d/e").await.expect("answered"), Some(4));
    let lying = StoredObject { sha256: Digest::of(b"other"), ..object.clone() };
    assert!(matches!(store.get_verified(&lying).await, Err(StoreError::Damaged { .. })));
    assert_eq!(store.get_range("a/d/e", 1, 2).await.expect("a range"), "ow");
    assert_eq!(store.get_range("a/d/e", 4, 0).await.expect("an empty range"), "");
    assert!(store.get_range("a/d/e", 2, 3).await.is_err());

    // More than one page of a listing, in order, and nothing of a neighbour whose name begins alike.
    let keys: Vec<String> = (0..1100).map(|number| format!("pages/{number:04}")).collect();
    for some in keys.chunks(100) {
        let puts = some.iter().map(|key| store.put(key, "x".into()));
        futures::future::try_join_all(puts).await.expect("put");
    }
    store.put("pages2/x", "x".into()).await.expect("put");
    let listed: Vec<String> =
        store.list("pages").await.expect("a list").into_iter().map(|object| object.key).collect();
    assert_eq!(listed, keys);
    assert_eq!(store.folders("a").await.expect("a list"), ["d"]);

    store.delete("a/d/e").await.expect("removed");
    store.delete("a/d/e").await.expect("gone is fine");
    assert!(matches!(store.get_verified(&object).await, Err(StoreError::Damaged { .. })));

    // Larger than what one request carries.
    let large = Bytes::from(
        (0..40u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>(),
    );
    let object = store.put("large", large.clone()).await.expect("put in parts");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copy = folder.path().join("copy");
    store.download(&object, &copy).await.expect("its digest is right");
    assert!(std::fs::read(&copy).expect("a file") == large);
    let lying = StoredObject { sha256: Digest::of(b"other"), ..object };
    assert!(matches!(store.download(&lying, &copy).await, Err(StoreError::Damaged { .. })));

    let diagnosis = diagnose(store).await;
    let failed: Vec<_> = diagnosis.checks.iter().filter(|check| check.verdict == Verdict::Failed).collect();
    assert!(diagnosis.safe && failed.is_empty(), "{}", diagnosis.to_text());
    assert_eq!(store.list("probe").await.expect("a list"), [], "the doctor leaves nothing");
}

#[test]
fn memory_conforms() {
    block(conforms(&Store::memory()));
}

#[test]
fn a_directory_conforms() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    block(conforms(&open(&folder.path().join("bucket").display().to_string())));
}

#[test]
fn s3s_fs_with_a_lock_conforms() {
    let server = S3Server::start(Promise::Kept);
    block(conforms(&open(&server.url("some/prefix"))));
    assert!(server.folder().join("some/prefix/format.json").is_file());
}

#[test]
fn moto_conforms() {
    match Moto::start() {
        Ok(moto) => block(conforms(&open(&moto.url("")))),
        Err(why) => skipped("moto_conforms", &why),
    }
}

#[test]
fn stores_that_are_named_conform() {
    let Ok(named) = std::env::var(VARIABLE) else {
        return skipped("stores_that_are_named_conform", &format!("{VARIABLE} is not set"));
    };
    for url in named.split_whitespace() {
        let (place, query) = url.split_once('?').map_or((url, None), |(place, query)| (place, Some(query)));
        let query = query.map_or(String::new(), |query| format!("?{query}"));
        let prefix = probe_key("lsa-test").replace("probe/", "");
        let store = open(&format!("{}/{prefix}{query}", place.trim_end_matches('/')));
        block(async {
            conforms(&store).await;
            for object in store.list("").await.expect("a list") {
                store.delete(&object.key).await.expect("removed");
            }
        });
    }
}

/// What `doctor` and `serve` say of a server.
fn asked(server: &S3Server, program: &[&str]) -> lsa_tests::process::Ended {
    let home = tempfile::tempdir().expect("a temporary folder");
    let mut asked = command("lsa-coordinator", home.path());
    asked.args(program).args(["--store", &server.url("p")]).envs(CREDENTIALS);
    finish(asked)
}

#[test]
fn a_store_that_ignores_the_precondition_is_refused() {
    let server = S3Server::start(Promise::Ignored);
    let error = block(open(&server.url("p")).prepare()).expect_err("two writers win");
    assert!(matches!(error, StoreError::Unsafe { .. }), "{error}");
    let ended = asked(&server, &["doctor"]);
    assert_eq!(ended.status.code(), Some(FAILED), "{}", ended.stdout);
    assert!(ended.stdout.contains("FAILED   create-only"), "{}", ended.stdout);
    assert!(ended.stdout.contains("it ignores `If-None-Match`"), "{}", ended.stdout);
    assert!(ended.stdout.contains("NOT SAFE"), "{}", ended.stdout);
    let ended = asked(&server, &["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(ended.status.code(), Some(FAILED));
    assert!(ended.stderr.contains("is not safe: a second create of one key succeeded"), "{}", ended.stderr);
    assert!(ended.stderr.contains("docs/stores.md"), "{}", ended.stderr);
}

#[test]
fn a_store_in_which_several_racers_win_is_refused() {
    let server = S3Server::start(Promise::Raced);
    let ended = asked(&server, &["doctor", "--json"]);
    assert_eq!(ended.status.code(), Some(FAILED), "{}", ended.stdout);
    let json = ended.json();
    assert_eq!(json["safe"], false);
    let check =
        json["checks"].as_array().expect("checks").iter().find(|check| check["name"] == "create-only");
    let check = check.expect("it was made");
    assert_eq!(check["verdict"], "failed");
    let detail = check["detail"].as_str().expect("a text");
    assert!(
        detail.contains("of 16 creates of one key succeeded") || detail.contains("overwritten"),
        "{detail}"
    );
}

#[test]
fn doctor_meets_a_peer() {
    let server = S3Server::start(Promise::Kept);
    let homes = [0, 1].map(|_| tempfile::tempdir().expect("a temporary folder"));
    let started = homes.each_ref().map(|home| {
        let mut doctor = command("lsa-coordinator", home.path());
        doctor.args(["doctor", "--peer", "--store", &server.url("p")]).envs(CREDENTIALS);
        Running::start(doctor)
    });
    for running in started {
        let ended = running.wait(LIMIT);
        assert_eq!(ended.status.code(), Some(0), "{}{}", ended.stdout, ended.stderr);
        assert!(ended.stdout.contains("one winner each, and both agree"), "{}", ended.stdout);
    }
}

#[test]
fn what_cannot_be_a_store_is_a_fault_of_usage() {
    for (place, expected) in [
        ("s3://", "the bucket's name"),
        ("s3://b?endpoint=minio", "neither https:// nor http://"),
        ("ftp://b", "\"ftp\" is no kind of store"),
    ] {
        let home = tempfile::tempdir().expect("a temporary folder");
        let mut doctor = command("lsa-coordinator", home.path());
        doctor.args(["doctor", "--store", place]);
        let ended = finish(doctor);
        assert_eq!(ended.status.code(), Some(USAGE), "{place}");
        assert!(ended.stderr.contains(expected), "{place}: {}", ended.stderr);
    }
}

/// The first `n` requests of a method meet a fault.
fn at_first(n: u64, method: Method, fault: Fault) -> impl FnMut(&Method, &str) -> Fault + Send {
    let count = AtomicU64::new(0);
    move |asked, _| {
        let meets = *asked == method && count.fetch_add(1, Ordering::Relaxed) < n;
        if meets { fault } else { Fault::None }
    }
}

#[test]
fn a_create_is_settled_whatever_the_store_answers() {
    let server = S3Server::start(Promise::Kept);
    let store = open(&server.url("p"));
    let check = |what: &str, fault: Fault, n: u64, is_mine: bool| {
        let key = format!("settled/{what}");
        let bytes = Bytes::from(what.to_owned());
        if !is_mine {
            block(store.put(&key, "another's".into())).expect("put");
        }
        server.rule(at_first(n, Method::PUT, fault));
        let settled = block(store.settle(&key, bytes.clone())).expect(what);
        server.rule(|_, _| Fault::None);
        let stands = if is_mine { bytes } else { Bytes::from_static(b"another's") };
        assert_eq!(settled, Settled { value: stands.clone(), is_mine }, "{what}");
        assert_eq!(block(store.get(&key)).expect("it stands"), stands, "{what}");
    };
    for is_mine in [true, false] {
        let name = |what: &str| format!("{what}-{is_mine}");
        // Nothing stands although the store speaks of a conflict: another one's request, which then failed.
        check(&name("conflict"), Fault::Refused(409, "ConditionalRequestConflict"), 2, is_mine);
        // Carried out, and then denied: the second try meets the first.
        check(&name("applied-500"), Fault::Denied(500, "InternalError"), 1, is_mine);
        check(&name("slow-down"), Fault::Refused(503, "SlowDown"), 3, is_mine);
        check(&name("reset"), Fault::Reset, 2, is_mine);
        check(&name("lost"), Fault::Lost, 1, is_mine);
        check(&name("late"), Fault::Late(Duration::from_millis(50)), 1, is_mine);
    }
}

#[test]
fn reads_are_whole_or_fail() {
    let server = S3Server::start(Promise::Kept);
    let store = open(&server.url("p"));
    let content = Bytes::from(vec![7; 3 << 20]);
    let object = block(store.put("rows", content.clone())).expect("put");
    for (what, fault) in [
        ("cut", Fault::Cut),
        ("slow-down", Fault::Refused(503, "SlowDown")),
        ("reset", Fault::Reset),
        ("lost", Fault::Lost),
    ] {
        server.rule(at_first(2, Method::GET, fault));
        let read = block(store.get_verified(&object)).expect(what);
        assert!(read == content, "{what}");
        server.rule(|_, _| Fault::None);
    }
    // Shorter than its record says, under the same name.
    let path = server.folder().join("p/rows");
    std::fs::write(&path, &content[..100]).expect("a file");
    assert!(matches!(block(store.get_verified(&object)), Err(StoreError::Damaged { .. })));
    std::fs::remove_file(&path).expect("a file");
    assert!(matches!(block(store.get_verified(&object)), Err(StoreError::Damaged { .. })));
}
