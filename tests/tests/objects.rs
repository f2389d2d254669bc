//! Datasets that are objects in a bucket.
//!
//! One test needs an S3 server and a bucket that exists, for example:
//! ```text
//! moto_server -p 5055 & curl -X PUT http://127.0.0.1:5055/lsa-test
//! LSA_TEST_S3=http://127.0.0.1:5055 AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=x AWS_REGION=us-east-1 \
//!     cargo test --release -p lsa-tests --test objects
//! ```

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lsa_tests::cluster::Cluster;
use lsa_tests::inputs::{sentences, tiny_model};
use lsa_tests::process::{command, finish, succeed};
use lsa_tests::results::{assert_same, read_tree, without_timings};
use object_store::ObjectStoreExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path as Key;
use tokio::runtime::Runtime;

/// The address of an S3 server; the credentials are in the variables `AWS_…`.
const VARIABLE: &str = "LSA_TEST_S3";
/// A bucket of it that exists and may be written to.
const BUCKET_VARIABLE: &str = "LSA_TEST_S3_BUCKET";
const BUCKET_DEFAULT: &str = "lsa-test";
const LIMIT: Duration = Duration::from_secs(120);
/// Exit code of what wants to know who asks.
const REFUSED: i32 = 4;
const USAGE: i32 = 2;

/// `verb` with the tiny model over `dataset`, asking `endpoint`.
fn coordinator(verb: &str, home: &Path, endpoint: &str, dataset: &str) -> Command {
    let mut coordinator = command("lsa-coordinator", home);
    coordinator.arg(verb).arg("--model").arg(tiny_model()).args(["--dataset", dataset]);
    coordinator.env("AWS_ENDPOINT_URL", endpoint);
    coordinator
}

#[test]
fn objects_give_what_the_same_files_give() {
    let Ok(endpoint) = std::env::var(VARIABLE) else {
        // Straight to the terminal: what a test prints is shown only when it fails.
        let line =
            format!("objects: SKIPPED, {VARIABLE} is not set; tests/tests/objects.rs tells how to run it\n");
        std::io::stderr().write_all(line.as_bytes()).expect("standard error");
        return;
    };
    let bucket = std::env::var(BUCKET_VARIABLE).unwrap_or_else(|_| BUCKET_DEFAULT.to_owned());
    let builder = AmazonS3Builder::from_env().with_bucket_name(&bucket).with_endpoint(&endpoint);
    let objects = builder.with_allow_http(true).build().expect("a connection");
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let home = folder.path();
    let unique =
        home.file_name().and_then(|name| name.to_str()).expect("a plain name").trim_start_matches('.');
    let prefix = format!("lsa-test-{unique}");

    // What only a program that encodes names rightly finds, and what is passed over.
    let files = [("a.txt", 1), ("b/c d%#ä+.txt", 2)].map(|(name, seed)| (name, sentences(seed, 300)));
    fs::create_dir_all(home.join("files/b")).expect("a folder");
    for (name, content) in &files {
        fs::write(home.join("files").join(name), content).expect("written");
    }
    let mut keys = vec![format!("{prefix}/data/README.md"), format!("{prefix}/none/README.md")];
    keys.extend(files.iter().map(|(name, _)| format!("{prefix}/data/{name}")));
    let contents = [String::from("no text"), String::from("no text")];
    let contents = contents.into_iter().chain(files.map(|(_, content)| content));
    runtime.block_on(async {
        for (key, content) in keys.iter().zip(contents) {
            objects.put(&Key::parse(key).expect("a key"), content.into()).await.expect("put");
        }
    });

    let name = format!("s3://{bucket}/{prefix}/data");
    let run = |output: &str, dataset: &str| {
        let mut run = coordinator("run", home, &endpoint, dataset);
        run.args(["--device", "cpu", "--trials", "2", "--json", "--output-dir"]).arg(home.join(output));
        succeed(run).json()
    };
    let planned = succeed(coordinator("plan", home, &endpoint, &name));
    assert!(planned.stdout.contains("data"), "{planned:?}");
    let from_objects = run("from_objects", &name);
    let from_files = run("from_files", &format!("file:{}/**/*.txt", home.join("files").display()));
    assert!(from_objects["units_run"].as_u64() > Some(0), "{from_objects:#}");
    assert_eq!(from_files["units_run"], 0, "the content is what counts: {from_files:#}");

    // The coordinator does not know where the objects are: they are sent along.
    let mut cluster = Cluster::start(&home.join("cluster"), 20);
    cluster.start_workers(1);
    cluster.until_connected(1);
    let output = home.join("fetched");
    let mut submit = coordinator("submit", home, &endpoint, &name);
    submit.args(["--trials", "2", "--json", "--coordinator", cluster.url()]);
    let job = succeed(submit).json()["job"].as_str().expect("an id").to_owned();
    cluster.until_ended(&job, LIMIT);
    cluster.succeed(&["fetch", &job, "--output-dir", output.to_str().expect("a plain path")]);
    let npz = |folder: &str| {
        let mut tree = without_timings(read_tree(&home.join(folder)));
        tree.retain(|path, _| path.ends_with(".npz") || path.ends_with(".pkl"));
        tree
    };
    assert!(!npz("from_objects").is_empty());
    assert_same(&npz("fetched"), &npz("from_objects"));

    let refuse = |dataset: &str, code: i32, words: &str| {
        let ended = finish(coordinator("plan", home, &endpoint, dataset));
        assert_eq!(ended.code(), Some(code), "{ended:?}");
        assert!(ended.stderr.contains(words) && ended.stderr.contains(dataset), "{ended:?}");
    };
    refuse(&format!("s3://{bucket}/{prefix}/none"), USAGE, "ends in .txt");
    refuse(&format!("s3://{bucket}/{prefix}/nothing.txt"), USAGE, "ends in .txt");
    refuse("s3://lsa-no-such-bucket/data", USAGE, "does not exist");
    runtime.block_on(async {
        for key in &keys {
            objects.delete(&Key::parse(key).expect("a key")).await.expect("deleted");
        }
    });
}

#[test]
fn who_may_not_read_is_told_which_variables_to_set() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    // As a server answers that was asked with the wrong key: it repeats what was signed.
    std::thread::spawn(move || {
        let body = "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><CanonicalRequest>GET /\n\
                    x-amz-security-token:hunter2</CanonicalRequest></Error>";
        for mut stream in listener.incoming().flatten() {
            // Whether it reads the answer is seen by the test.
            let _ = stream.read(&mut [0; 16 << 10]);
            let _ = write!(
                stream,
                "HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    let plan = |dataset: &str, variables: &[(&str, &str)]| {
        let mut plan = coordinator("plan", folder.path(), &endpoint, dataset);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("AWS_") {
                plan.env_remove(variable);
            }
        }
        plan.env("AWS_ENDPOINT_URL", &endpoint).envs(variables.iter().copied());
        let ended = finish(plan);
        assert!(!ended.stderr.contains("hunter2"), "{ended:?}");
        assert!(
            ended.stderr.contains("AWS_SECRET_ACCESS_KEY") && ended.stderr.contains(dataset),
            "{ended:?}"
        );
        ended
    };
    let key =
        [("AWS_ACCESS_KEY_ID", "me"), ("AWS_SECRET_ACCESS_KEY", "hunter2"), ("AWS_SESSION_TOKEN", "hunter2")];
    for dataset in ["s3://bucket/folder", "s3://bucket/object.txt"] {
        let ended = plan(dataset, &key);
        assert_eq!(ended.code(), Some(REFUSED), "{ended:?}");
        assert!(ended.stderr.contains("is refused (HTTP 403"), "{ended:?}");
    }
    // Nobody serves roles there.
    let ended = plan("s3://bucket/folder", &[("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")]);
    assert_eq!(ended.code(), Some(REFUSED), "{ended:?}");
    assert!(ended.stderr.contains("there are no credentials"), "{ended:?}");
    let password = format!("http://me:hunter2@{}", endpoint.trim_start_matches("http://"));
    let ended = plan("s3://bucket/folder", &[key[0], key[1], ("AWS_ENDPOINT_URL", &password)]);
    assert_eq!(ended.code(), Some(USAGE), "{ended:?}");
}
