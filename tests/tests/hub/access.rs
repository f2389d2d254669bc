//! Who may read, and who gets to see the token.

use std::path::Path;

use lsa_common::failure::{FailureClass, chain};
use lsa_common::hub::{HfHub, Hub, HubError, Token};
use lsa_tests::test_hub::{TestHub, TestRepo};

use super::{client, listing, model, settings};

const TOKEN: &str = "hf_abcdef";

fn client_with(hub: &TestHub, cache: &Path, token: &str) -> HfHub {
    let mut settings = settings(hub, cache);
    settings.token = Token::new(token, "HF_TOKEN").expect("a token");
    assert!(!format!("{settings:?}").contains("hf_"));
    HfHub::new(settings).expect("a client")
}

#[test]
fn the_token_goes_to_the_hub_and_to_nobody_else() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let repo = TestRepo::model("a/b").renamed_from("a/old").large_file("a.bin", "large").file("b", "small");
    let hub = TestHub::start([repo]);
    let client = client_with(&hub, folder.path(), TOKEN);
    let listing = listing(&client, "a/old");
    for file in &listing.files {
        client.fetch(&listing, file).expect("fetched");
    }
    let requests = hub.requests();
    assert!(requests.iter().any(|request| request.is_cdn));
    for request in requests {
        assert_eq!(request.has_token, !request.is_cdn, "{request:?}");
    }
}

#[test]
fn gated_files_want_a_token_whose_owner_has_accepted_the_terms() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = TestHub::start([TestRepo::model("a/b").gated(TOKEN).file("a.txt", "text")]);
    for (token, hint) in [("", "then set HF_TOKEN"), ("hf_other", "the present token may not read it")] {
        let client = client_with(&hub, folder.path(), token);
        let listing = listing(&client, "a/b");
        let error = client.fetch(&listing, &listing.files[0]).expect_err("gated");
        assert!(matches!(error, HubError::Gated { .. }), "{error}");
        assert!(error.is_refused());
        assert_eq!(error.failure_class(), FailureClass::Reject);
        let text = chain(&error);
        assert!(text.contains(&format!("{}/a/b", hub.url())) && text.contains(hint), "{text}");
        assert!(token.is_empty() || !text.contains(token), "{text}");
    }
    assert_eq!(hub.requests_for("/resolve/").len(), 2, "asked once each");
    let client = client_with(&hub, folder.path(), TOKEN);
    let listing = listing(&client, "a/b");
    client.fetch(&listing, &listing.files[0]).expect("fetched");
}

#[test]
fn private_repositories_seem_not_to_be_there() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = TestHub::start([TestRepo::model("a/b").private(TOKEN).file("a.txt", "text")]);
    for client in [client(&hub, folder.path()), client_with(&hub, folder.path(), "hf_other")] {
        let error = client.list(&model("a/b"), "main").expect_err("private");
        assert!(matches!(error, HubError::NoRepo { .. }), "{error}");
        assert!(error.to_string().contains("set HF_TOKEN"), "{error}");
    }
    listing(&client_with(&hub, folder.path(), TOKEN), "a/b");
}

#[test]
fn a_token_that_is_no_longer_valid_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = TestHub::start([TestRepo::model("a/b").file("a.txt", "text")]);
    hub.fail_next("/revision/", 401, 1, None);
    let error = client_with(&hub, folder.path(), TOKEN).list(&model("a/b"), "main").expect_err("refused");
    assert!(error.is_refused(), "{error}");
    assert!(error.to_string().contains("no longer valid") && !error.to_string().contains(TOKEN), "{error}");
}
