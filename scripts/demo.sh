#!/usr/bin/env bash
# The main job on real input, from nothing: sets up what is missing, builds, fetches the input and runs examples/demo.toml.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

scripts/setup.sh
export_libtorch
say "building lsa-coordinator and lsa-worker (the first time takes some minutes)"
cargo build --release --locked -p lsa-coordinator -p lsa-worker
"$venv/bin/python" scripts/demo-input.py

say "running examples/demo.toml"
"${CARGO_TARGET_DIR:-target}/release/lsa-coordinator" run examples/demo.toml --output-dir demo-results

say "the results are in demo-results/, one folder for each experiment:"
for figure in demo-results/*/figures/CKA_heatmap.png; do
    [ -e "$figure" ] || fail "the run left no figures in demo-results/"
    say "  $(dirname "$(dirname "$figure")")/   figures/CKA_heatmap.png, similarities/, metadata.json"
done
say "all of them in one table: demo-results/similarities.parquet, demo-results/grid_search_summary.json"
