//! A hub that is busy, broken or silent: what passes is waited for, and not for ever.

use std::time::{Duration, Instant};

use lsa_common::failure::{FailureClass, chain};
use lsa_common::hub::{HfHub, Hub, HubCache, HubError, HubSettings};
use lsa_tests::test_hub::{TestHub, TestRepo};

use super::{RETRY_AFTER_MAX, bytes, client, listing, model, settings};

#[test]
fn a_busy_hub_says_when_to_come_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = TestHub::start([TestRepo::model("a/b").file("a.txt", "text")]);
    hub.fail_next("/revision/", 429, 2, Some("7"));
    let begun = Instant::now();
    listing(&client(&hub, folder.path()), "a/b");
    assert!(begun.elapsed() >= 2 * RETRY_AFTER_MAX, "{:?}", begun.elapsed());
    let statuses: Vec<u16> = hub.requests_for("/revision/").iter().map(|request| request.status).collect();
    assert_eq!(statuses, [429, 429, 200]);
}

#[test]
fn a_broken_hub_is_asked_again_up_to_a_limit() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = TestHub::start([TestRepo::model("a/b").large_file("a.bin", bytes(1000))]);
    let client = client(&hub, folder.path());
    hub.fail_next("/tree/", 503, 3, None);
    let listing = listing(&client, "a/b");
    hub.fail_next("/resolve/", 500, 1, None);
    hub.fail_next("/cdn/", 502, 1, None);
    client.fetch(&listing, &listing.files[0]).expect("the third time");

    hub.fail_next("/revision/", 500, usize::MAX, None);
    let cached = client.list(&model("a/b"), "main").expect("what is in the cache will do");
    assert_eq!(cached, listing);
    let n_requests = hub.requests().len();
    let error = client.list(&model("a/b"), "other").expect_err("always broken");
    assert!(matches!(error, HubError::GaveUp { attempts: 4, .. }), "{error}");
    assert!(chain(&error).contains("/revision/other answered with status 500"), "{}", chain(&error));
    assert_eq!(error.failure_class(), FailureClass::Retry);
    assert_eq!(hub.requests().len(), n_requests + 4);
}

#[test]
fn a_silent_hub_is_not_waited_for() {
    let limit = Duration::from_millis(150);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = TestHub::start([TestRepo::model("a/b").large_file("a.bin", bytes(1 << 20))]);
    let mut settings = settings(&hub, folder.path());
    (settings.connect_timeout, settings.read_timeout) = (limit, limit);
    let client = HfHub::new(settings).expect("a client");
    hub.silence("/tree/", 1);
    let listing = listing(&client, "a/b");
    hub.pause_after("a.bin", 300_000, 1);
    client.fetch(&listing, &listing.files[0]).expect("the second time");
    let requests = hub.requests_for("/cdn/");
    assert_eq!((requests.len(), requests[1].range.as_deref()), (2, Some("bytes=300000-")));

    hub.silence("/revision/", usize::MAX);
    let error = client.list(&model("a/b"), "other").expect_err("always silent");
    assert!(matches!(error, HubError::GaveUp { .. }), "{error}");
    assert!(chain(&error).contains("sent nothing for 0.3 s"), "{}", chain(&error));
}

#[test]
fn a_hub_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = TestHub::start([]);
    let mut settings = settings(&hub, folder.path());
    let retry = settings.retry.clone();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    settings = HubSettings::new(&format!("http://{gone}"), HubCache::at(folder.path())).expect("an address");
    settings.retry = retry;
    let client = HfHub::new(settings).expect("a client");
    let error = client.list(&model("a/b"), "main").expect_err("nobody there");
    assert!(chain(&error).contains(&format!("no connection with http://{gone}")), "{}", chain(&error));
    assert_eq!(error.failure_class(), FailureClass::Retry);
}

#[test]
fn an_answer_that_is_none_is_not_believed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = TestHub::start([TestRepo::model("a/b").file("a.txt", "text")]);
    // As a page of a network that wants a login.
    hub.fail_next("/revision/", 200, 1, None);
    let error = client(&hub, folder.path()).list(&model("a/b"), "main").expect_err("no JSON");
    assert!(matches!(error, HubError::Answer { .. }), "{error}");
    assert!(error.to_string().contains("is HF_ENDPOINT a hub?"), "{error}");
}
