//! What is deployed with: the Helm chart is rendered and judged, the Slurm scripts run on a Slurm of one node.

use std::process::Command;
use std::time::Duration;

use lsa_tests::inputs::checkout;
use lsa_tests::process::{Running, program};
use lsa_tests::python::{skipped, venv_python};

const LIMIT: Duration = Duration::from_secs(300);

/// What the chart's test needs, as its own head says.
const HELM: &str = "helm-python-sdk==0.2.2 kubernetes-validate==1.37.0 pyyaml==6.0.4";

#[test]
fn the_chart_is_what_kubernetes_takes() {
    let python = match venv_python("helm", HELM) {
        Ok(python) => python,
        Err(reason) => return skipped("the_chart_is_what_kubernetes_takes", &reason),
    };
    let mut judged = Command::new(python);
    judged.arg(checkout().join("deploy/helm/test_chart.py"));
    judged.arg("--bin").arg(program("lsa-coordinator").parent().expect("in a folder"));
    let ended = Running::start(judged).wait(LIMIT);
    assert_eq!(ended.code(), Some(0), "{}\n{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains(" 0 failed"), "{}", ended.stdout);
}

/// The script says SKIPPED and why where there is no Slurm.
#[test]
fn slurm_runs_the_scripts() {
    let mut check = Command::new(checkout().join("deploy/slurm/check.sh"));
    check.env("LSA_BIN", program("lsa-coordinator").parent().expect("in a folder"));
    let ended = Running::start(check).wait(LIMIT);
    assert_eq!(ended.code(), Some(0), "{}\n{}", ended.stdout, ended.stderr);
    if let Some((_, why)) = ended.stderr.split_once("SKIPPED: ") {
        skipped("slurm_runs_the_scripts", why.trim_end_matches([' ', '*', '\n']));
    }
}
