//! Real weights of another family, on request; see `fixtures/mpnet/README.md`.

use std::io::Write;
use std::path::Path;
use std::process::Command;

/// The folder of all-mpnet-base-v2.
const VARIABLE: &str = "LSA_TEST_MPNET";

#[test]
fn real_mpnet_agrees_in_every_layer_and_pooling() {
    let Some(model) = std::env::var_os(VARIABLE) else {
        // Straight to the terminal: what a test prints is shown only when it fails.
        let line =
            format!("golden_mpnet: SKIPPED, {VARIABLE} is not set; scripts/fetch-mpnet.sh gets the model\n");
        std::io::stderr().write_all(line.as_bytes()).expect("standard error");
        return;
    };
    let test = std::env::current_exe().expect("a path");
    let folder = test.parent().and_then(Path::parent).expect("target/<profile>/deps/<test>");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/mpnet/golden.safetensors");
    let mut worker = Command::new(folder.join("lsa-worker"));
    let run = worker.args(["verify-model", "--device", "cpu", "--golden"]).arg(golden).arg(model).output();
    let run = run.expect("started");
    let report = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{report}{}", String::from_utf8_lossy(&run.stderr));
    assert_eq!(report.lines().filter(|line| line.starts_with("pooler")).count(), 13);
}
