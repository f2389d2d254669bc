//! Parts of files: what is read is what is sent, and not much more.

use std::io::Read as _;
use std::time::Duration;

use lsa_common::hub::{Hub, HubError};
use lsa_tests::test_hub::{TestHub, TestRepo};
use lsa_tests::wait::until;

use super::{bytes, client, listing};

#[test]
fn a_reader_that_is_dropped_ends_its_transfer() {
    const SIZE: usize = 96 << 20;
    const READ: usize = 1 << 20;
    /// What the kernel takes for a connection on this machine: up to 6 MB to receive and 4 MB to send.
    const IN_THE_AIR: u64 = 12 << 20;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = TestHub::start([TestRepo::model("a/b").large_file("c4.json.gz", bytes(SIZE))]);
    let client = client(&hub, folder.path());
    let listing = listing(&client, "a/b");
    let mut reader = client.open(&listing, &listing.files[0], 0).expect("open");
    let mut read = vec![0; READ];
    reader.read_exact(&mut read).expect("read");
    assert_eq!(read, bytes(READ));
    drop(reader);
    until("the transfer to end", Duration::from_secs(10), || {
        hub.requests().iter().all(|request| !request.is_running).then_some(())
    });
    let sent = hub.bytes_sent("/cdn/");
    assert!(sent <= READ as u64 + IN_THE_AIR, "{sent} bytes were sent");
}

#[test]
fn reading_goes_on_where_a_connection_broke() {
    let size = 3 << 20;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let repo = TestRepo::model("a/b").large_file("large.bin", bytes(size)).file("small.bin", bytes(size));
    let hub = TestHub::start([repo]);
    hub.cut_after("large.bin", 200_000, 3);
    hub.cut_after("small.bin", 200_000, 3);
    let client = client(&hub, folder.path());
    let listing = listing(&client, "a/b");
    for file in &listing.files {
        for from in [0, 1, 1_000_000, size as u64 - 1, size as u64] {
            let mut reader = client.open(&listing, file, from).expect("open");
            let mut read = Vec::new();
            reader.read_to_end(&mut read).expect("read");
            assert!(read == bytes(size)[from as usize..], "{} from {from}", file.path);
        }
    }
    let n_cut = hub.requests_for("small.bin").iter().filter(|request| request.sent == 200_000).count();
    assert_eq!(n_cut, 3);
}

#[test]
fn ranges_are_exact() {
    let size = 100_000;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let repo = TestRepo::model("a/b").large_file("large.bin", bytes(size)).file("empty.bin", "");
    let hub = TestHub::start([repo]);
    let client = client(&hub, folder.path());
    let listing = listing(&client, "a/b");
    let file = listing.file("large.bin").expect("listed");
    let check = |from: u64, length: u64| {
        let before = hub.bytes_sent("/cdn/");
        let read = client.read_range(&listing, file, from, length).expect("read");
        assert_eq!(read, bytes(size)[from as usize..(from + length) as usize]);
        hub.bytes_sent("/cdn/") - before
    };
    for (from, length) in [(0, 4), (99_990, 10), (5, 0), (40_000, 50_000), (0, 100_000)] {
        assert_eq!(check(from, length), length);
    }
    assert_eq!(hub.requests_for("/cdn/")[0].range.as_deref(), Some("bytes=0-3"));
    // A server that knows no ranges costs more and gives the same.
    hub.ignore_ranges("/cdn/", 2);
    check(99_990, 10);
    check(10, 10);

    let n_requests = hub.requests().len();
    for (from, length) in [(0, 100_001), (100_001, 0), (u64::MAX, 2)] {
        let error = client.read_range(&listing, file, from, length).expect_err("outside");
        assert!(matches!(error, HubError::OutsideFile { .. }), "{error}");
    }
    assert!(client.open(&listing, file, 100_001).is_err());
    let empty = listing.file("empty.bin").expect("listed");
    assert_eq!(client.read_range(&listing, empty, 0, 0).expect("read"), b"");
    assert_eq!(hub.requests().len(), n_requests);

    client.fetch(&listing, file).expect("fetched");
    let n_requests = hub.requests().len();
    check(40_000, 50_000);
    assert_eq!(hub.requests().len(), n_requests, "from the cache");
}

#[test]
fn a_file_of_another_size_is_not_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = TestHub::start([TestRepo::model("a/b").file("a.txt", "twelve bytes")]);
    let client = client(&hub, folder.path());
    let mut listing = listing(&client, "a/b");
    for size in [11, 13] {
        listing.files[0].size = size;
        for from in [0, 5] {
            let error = client.open(&listing, &listing.files[0], from).err().expect("another size");
            assert!(matches!(error, HubError::OtherSize { found: 12, .. }), "{error}");
        }
        let error = client.fetch(&listing, &listing.files[0]).expect_err("another size");
        assert!(error.to_string().contains("12 bytes of \"a.txt\""), "{error}");
    }
}

#[test]
fn calls_are_made_from_anywhere() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = TestHub::start([TestRepo::model("a/b").file("a.txt", "text")]);
    let client = client(&hub, folder.path());
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        // Blocks the runtime, which is why callers use another thread; it must not panic all the same.
        let listing = listing(&client, "a/b");
        let blocking = tokio::task::spawn_blocking(move || {
            client.fetch(&listing, &listing.files[0]).expect("fetched");
            client
        });
        drop(blocking.await.expect("a thread"));
    });
}
