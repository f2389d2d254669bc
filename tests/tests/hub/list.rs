//! What a repository holds, by every name that it and its revisions have.

use lsa_common::failure::FailureClass;
use lsa_common::hub::{Hub, HubError, Repo, RepoKind};
use lsa_tests::test_hub::{PAGE_ENTRIES, TestHub, TestRepo};

use super::{client, files_below, listing, model};

#[test]
fn all_pages_are_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let names: Vec<String> = (0..10).map(|index| format!("data/part-{index}.txt")).collect();
    let repo = TestRepo::model("a/b").large_file("z.bin", "large").file("Zebra #1?%.txt", "text");
    let repo = names.iter().fold(repo, |repo, name| repo.file(name, name.clone()));
    let hub = TestHub::start([repo]);
    let listing = listing(&client(&hub, folder.path()), "a/b");
    let paths: Vec<&str> = listing.files.iter().map(|file| file.path.as_str()).collect();
    let mut expected = vec!["Zebra #1?%.txt"];
    expected.extend(names.iter().map(String::as_str));
    expected.push("z.bin");
    assert_eq!(paths, expected);
    assert_eq!(listing.commit, hub.commit("a/b", "main"));
    // The files and one folder.
    assert_eq!(hub.requests_for("/tree/").len(), 13usize.div_ceil(PAGE_ENTRIES));
    let large = listing.file("z.bin").expect("listed");
    assert_eq!((large.size, large.content.to_string().len()), (5, 64));
    let plain = listing.file("data/part-3.txt").expect("listed");
    assert_eq!((plain.size, plain.content.to_string().len()), (15, 40));
}

#[test]
fn branches_tags_and_commits_are_found_and_noted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let repo = TestRepo::dataset("old-name")
        .file("train.jsonl", "first")
        .tag("v1")
        .file("train.jsonl", "second")
        .branch("refs/convert/parquet")
        .file("default/train/0000.parquet", "third");
    let hub = TestHub::start([repo]);
    let client = client(&hub, folder.path());
    let dataset = Repo { kind: RepoKind::Dataset, id: "old-name".to_owned() };
    let mut commits = Vec::new();
    for (revision, path, content) in [
        ("main", "train.jsonl", "second"),
        ("v1", "train.jsonl", "first"),
        ("refs/convert/parquet", "default/train/0000.parquet", "third"),
    ] {
        let listing = client.list(&dataset, revision).expect(revision);
        let fetched = client.fetch(&listing, listing.file(path).expect(path)).expect(path);
        assert_eq!(std::fs::read_to_string(fetched).expect("readable"), content);
        let note = folder.path().join("datasets--old-name/refs").join(revision);
        assert_eq!(std::fs::read_to_string(note).expect("a note"), listing.commit);
        let same = client.list(&dataset, &listing.commit).expect("a commit");
        assert_eq!(same, listing);
        commits.push(listing.commit);
    }
    commits.dedup();
    assert_eq!(commits.len(), 3);
    assert_eq!(files_below(&folder.path().join("datasets--old-name/refs")).len(), 3, "commits are not noted");
}

#[test]
fn a_renamed_repository_gives_its_present_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = TestHub::start([TestRepo::model("new/name").renamed_from("old/name").file("a.txt", "text")]);
    let client = client(&hub, folder.path());
    let listing = listing(&client, "old/name");
    assert_eq!(listing.repo, model("new/name"));
    let fetched = client.fetch(&listing, &listing.files[0]).expect("fetched");
    assert!(fetched.starts_with(folder.path().join("models--new--name")));
}

#[test]
fn what_is_not_there_is_said_after_one_request() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = TestHub::start([TestRepo::model("a/b").file("a.txt", "text")]);
    let client = client(&hub, folder.path());
    let error = client.list(&model("a/c"), "main").expect_err("no repository");
    assert!(matches!(&error, HubError::NoRepo { .. }), "{error}");
    assert!(error.to_string().contains("a/c") && error.to_string().contains(hub.url()), "{error}");
    let error = client.list(&model("a/b"), "v9").expect_err("no revision");
    assert!(matches!(&error, HubError::NoRevision { revision, .. } if revision == "v9"), "{error}");
    assert_eq!(error.failure_class(), FailureClass::Reject);
    assert_eq!(hub.requests().len(), 2);
    let listing = listing(&client, "a/b");
    let mut file = listing.files[0].clone();
    file.path = "b.txt".to_owned();
    let error = client.open(&listing, &file, 0).err().expect("no file");
    assert!(matches!(&error, HubError::NoFile { path, .. } if path == "b.txt"), "{error}");
    assert_eq!(hub.requests_for("/b.txt").len(), 1);
}

#[test]
fn names_that_lead_elsewhere_are_refused_before_they_are_used() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cache = folder.path().join("cache");
    let hub = TestHub::start([
        TestRepo::model("a/up").file("good.txt", "text").file("x/../../../../evil.txt", "text"),
        TestRepo::model("a/root").file("/evil.txt", "text"),
        TestRepo::model("a/windows").file("..\\evil.txt", "text"),
        TestRepo::model("a/good").file("good.txt", "text"),
    ]);
    let client = client(&hub, &cache);
    for id in ["a/up", "a/root", "a/windows"] {
        let error = client.list(&model(id), "main").expect_err(id);
        assert!(matches!(&error, HubError::FileName { name, .. } if name.contains("evil")), "{error}");
    }
    let n_requests = hub.requests().len();
    for id in ["..", "a/../b", "a/b/c", ""] {
        let error = client.list(&model(id), "main").expect_err(id);
        assert!(matches!(error, HubError::MalformedId(_)), "{error}");
    }
    for revision in ["../main", "", "/main", "a\\b"] {
        let error = client.list(&model("a/good"), revision).expect_err(revision);
        assert!(matches!(error, HubError::MalformedRevision { .. }), "{error}");
    }
    assert_eq!(hub.requests().len(), n_requests);
    // A listing from elsewhere is no more trusted.
    let good = listing(&client, "a/good");
    let mut file = good.files[0].clone();
    file.path = "../../../evil.txt".to_owned();
    assert!(matches!(client.fetch(&good, &file), Err(HubError::FileName { .. })));
    assert!(matches!(client.open(&good, &file, 0), Err(HubError::FileName { .. })));
    let kept = [
        format!("cache/models--a--good/.lsa/{}.json", good.commit),
        "cache/models--a--good/refs/main".to_owned(),
    ];
    assert_eq!(files_below(folder.path()), kept);
}
