//! Whole files in the cache: verified, taken up where they broke off, downloaded once.

use std::fs;
use std::sync::{Arc, Mutex};

use lsa_common::failure::FailureClass;
use lsa_common::hub::{HfHub, Hub, HubError};
use lsa_common::id::Digest;
use lsa_tests::test_hub::{TestHub, TestRepo};

use super::{bytes, client, files_below, listing, settings};

const SIZE: usize = 2 << 20;

/// Where the test's large file lies, and where its beginning.
fn blob(cache: &std::path::Path, suffix: &str) -> std::path::PathBuf {
    let name = format!("{}{suffix}", Digest::of(&bytes(SIZE)));
    cache.join("models--a--b/blobs").join(name)
}

fn hub_with_weights() -> TestHub {
    TestHub::start([TestRepo::model("a/b").large_file("sub/weights.bin", bytes(SIZE))])
}

fn content_ranges(hub: &TestHub) -> Vec<Option<String>> {
    hub.requests_for("/cdn/").into_iter().map(|request| request.range).collect()
}

#[test]
fn files_lie_where_the_python_libraries_look_and_are_fetched_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let contents = [
        ("config.json", b"{}".to_vec()),
        ("empty.txt", Vec::new()),
        ("sub/folder/a b#%?é.txt", b"text".to_vec()),
        ("sub/weights.bin", bytes(SIZE)),
    ];
    let repo = TestRepo::model("a/b").large_file(contents[3].0, contents[3].1.clone());
    let repo = contents[..3].iter().fold(repo, |repo, (path, content)| repo.file(path, content.clone()));
    let hub = TestHub::start([repo]);
    let first = client(&hub, folder.path());
    let listing = listing(&first, "a/b");
    for (path, content) in &contents {
        let file = listing.file(path).expect("listed");
        let fetched = first.fetch(&listing, file).expect("fetched");
        let snapshot = folder.path().join("models--a--b/snapshots").join(&listing.commit);
        assert_eq!(fetched, snapshot.join(path));
        assert_eq!(&fs::read(&fetched).expect("readable"), content);
        let target = fs::read_link(&fetched).expect("a link");
        assert!(target.is_relative());
        let blob = folder.path().join("models--a--b/blobs").join(file.content.to_string());
        assert_eq!(fetched.canonicalize().expect("a file"), blob.canonicalize().expect("a file"));
    }
    let n_requests = hub.requests().len();
    for client in [first, client(&hub, folder.path())] {
        for file in &listing.files {
            client.fetch(&listing, file).expect("cached");
        }
    }
    assert_eq!(hub.requests().len(), n_requests);
    let left: Vec<String> = files_below(&folder.path().join("models--a--b/blobs"));
    assert!(left.len() == 4 && left.iter().all(|name| matches!(name.len(), 40 | 64)), "{left:?}");
}

#[test]
fn a_blob_of_another_commit_is_not_fetched_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let repo = TestRepo::model("a/b").file("a.txt", "same").tag("v1").file("b.txt", "new");
    let hub = TestHub::start([repo]);
    let client = client(&hub, folder.path());
    for revision in ["v1", "main"] {
        let listing = client.list(&super::model("a/b"), revision).expect(revision);
        let fetched = client.fetch(&listing, listing.file("a.txt").expect("listed")).expect("fetched");
        assert!(fetched.to_string_lossy().contains(&listing.commit));
        assert_eq!(fs::read_to_string(fetched).expect("readable"), "same");
    }
    assert_eq!(hub.requests_for("/a.txt").len(), 1);
}

#[test]
fn a_broken_connection_is_taken_up_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = hub_with_weights();
    hub.cut_after("weights", 600_000, 2);
    let client = client(&hub, folder.path());
    let listing = listing(&client, "a/b");
    let fetched = client.fetch(&listing, &listing.files[0]).expect("fetched");
    assert_eq!(fs::read(fetched).expect("readable"), bytes(SIZE));
    let ranges = content_ranges(&hub);
    assert_eq!((ranges.len(), ranges[0].as_deref()), (3, None));
    // What was in the air when the connection broke may be sent twice, not more.
    assert!(hub.bytes_sent("/cdn/") <= SIZE as u64 + 2 * 600_000 / 2, "{ranges:?}");
    assert!(ranges[1..].iter().all(|range| range.as_deref() != Some("bytes=0-")), "{ranges:?}");
}

#[test]
fn a_killed_download_is_taken_up_again_and_verified_as_a_whole() {
    let half = SIZE / 2;
    let whole = bytes(SIZE);
    let resumed = format!("bytes={half}-");
    let damaged = || whole.iter().map(|byte| byte ^ 1).collect::<Vec<u8>>();
    let too_long = [&whole[..], b"more"].concat();
    for (what, left, ranges) in [
        ("its first half", whole[..half].to_vec(), vec![Some(resumed.clone())]),
        ("another half", damaged()[..half].to_vec(), vec![Some(resumed.clone()), None]),
        ("all of it", whole.clone(), vec![]),
        ("all of another file", damaged(), vec![None]),
        ("too much", too_long, vec![None]),
        ("nothing", Vec::new(), vec![None]),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let hub = hub_with_weights();
        let partial = blob(folder.path(), ".incomplete");
        fs::create_dir_all(partial.parent().expect("a folder")).expect("created");
        fs::write(&partial, left).expect("written");
        let client = client(&hub, folder.path());
        let listing = listing(&client, "a/b");
        let fetched = client.fetch(&listing, &listing.files[0]).expect("fetched");
        assert_eq!(fs::read(fetched).expect("readable"), whole, "{what}");
        assert_eq!(content_ranges(&hub), ranges, "{what}");
        assert!(!partial.exists(), "{what}");
    }
}

#[test]
fn wrong_bytes_are_fetched_again_once_and_never_kept() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = hub_with_weights();
    let client = client(&hub, folder.path());
    let listing = listing(&client, "a/b");
    let file = &listing.files[0];
    hub.corrupt("weights", 2);
    let error = client.fetch(&listing, file).expect_err("wrong twice");
    let HubError::OtherContent { expected, found, .. } = &error else { panic!("{error}") };
    assert_eq!(expected, &file.content.to_string());
    assert!(error.to_string().contains(expected) && error.to_string().contains(found), "{error}");
    assert_eq!(error.failure_class(), FailureClass::Reject);
    let kept = [format!(".lsa/{}.json", listing.commit), "refs/main".to_owned()];
    assert_eq!(files_below(&folder.path().join("models--a--b")), kept);
    hub.corrupt("weights", 1);
    let fetched = client.fetch(&listing, file).expect("right the second time");
    assert_eq!(fs::read(fetched).expect("readable"), bytes(SIZE));
    assert_eq!(content_ranges(&hub), [None, None, None, None]);
}

#[test]
fn a_refusal_of_the_cdn_is_not_taken_for_the_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = hub_with_weights();
    let client = client(&hub, folder.path());
    let listing = listing(&client, "a/b");
    hub.refuse_at_cdn("weights", 1);
    let error = client.fetch(&listing, &listing.files[0]).expect_err("refused");
    assert!(matches!(error, HubError::Status { status: 403, .. }), "{error}");
    assert!(!error.is_refused() && !error.to_string().contains("Signature"), "{error}");
    assert!(!blob(folder.path(), "").exists());
    client.fetch(&listing, &listing.files[0]).expect("fetched");
}

#[test]
fn clients_that_share_a_cache_download_a_file_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = hub_with_weights();
    let clients: Vec<HfHub> = (0..4).map(|_| client(&hub, folder.path())).collect();
    let listing = listing(&clients[0], "a/b");
    std::thread::scope(|scope| {
        for client in &clients {
            scope.spawn(|| {
                let fetched = client.fetch(&listing, &listing.files[0]).expect("fetched");
                assert_eq!(fs::read(fetched).expect("readable"), bytes(SIZE));
            });
        }
    });
    assert_eq!(hub.bytes_sent("/cdn/"), SIZE as u64);
}

#[test]
fn a_file_comes_by_http_where_xet_fails() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = TestHub::start([TestRepo::model("a/b").xet_file("sub/weights.bin", bytes(SIZE))]);
    let client = client(&hub, folder.path());
    let listing = listing(&client, "a/b");
    let fetched = client.fetch(&listing, &listing.files[0]).expect("fetched");
    assert_eq!(fs::read(fetched).expect("readable"), bytes(SIZE));
    assert!(!hub.requests_for("xet-read-token").is_empty(), "it was tried");
    let left = files_below(&folder.path().join("models--a--b/blobs"));
    assert_eq!(left, [listing.files[0].content.to_string()]);
}

#[test]
fn progress_is_told_up_to_the_end() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = hub_with_weights();
    let told = Arc::new(Mutex::new(Vec::new()));
    let teller = Arc::clone(&told);
    let client = client(&hub, folder.path())
        .with_progress(Arc::new(move |progress| teller.lock().expect("a list").push(progress)));
    let listing = listing(&client, "a/b");
    client.fetch(&listing, &listing.files[0]).expect("fetched");
    let told = told.lock().expect("a list");
    assert!(told.iter().all(|told| told.file == "sub/weights.bin" && told.total == SIZE as u64));
    assert!(told.is_sorted_by_key(|told| told.done));
    let (first, last) = (told.first().expect("told"), told.last().expect("told"));
    assert_eq!((first.done, last.done), (0, SIZE as u64));
    assert!(told.len() <= 4, "not for every part: {}", told.len());
}

#[test]
fn offline_only_the_cache_is_asked() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let repo = TestRepo::model("a/b").file("a.txt", "small").file("b.txt", "never fetched");
    let hub = TestHub::start([repo.large_file("sub/weights.bin", bytes(SIZE))]);
    let online = client(&hub, folder.path());
    let all = listing(&online, "a/b");
    for path in ["a.txt", "sub/weights.bin"] {
        online.fetch(&all, all.file(path).expect("listed")).expect("fetched");
    }
    let n_requests = hub.requests().len();

    let mut settings = settings(&hub, folder.path());
    settings.offline = true;
    let offline = HfHub::new(settings).expect("a client");
    let here = listing(&offline, "a/b");
    assert_eq!(here.commit, all.commit);
    assert_eq!(here, all, "what was listed once is known");
    for file in here.files.iter().filter(|file| file.path != "b.txt") {
        let path = offline.fetch(&here, file).expect("cached");
        let read = offline.read_range(&here, file, 1, 3).expect("cached");
        assert_eq!(read, fs::read(path).expect("readable")[1..4]);
    }
    let error = offline.fetch(&all, all.file("b.txt").expect("listed")).expect_err("not here");
    assert!(matches!(&error, HubError::FileNotCached { path, .. } if path == "b.txt"), "{error}");
    assert!(error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
    let error = offline.list(&super::model("a/b"), "v1").expect_err("not here");
    assert!(matches!(error, HubError::NotCached { .. }), "{error}");
    assert_eq!(hub.requests().len(), n_requests);
}
