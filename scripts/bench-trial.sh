#!/usr/bin/env bash
# One Monte Carlo trial by the four default metrics on synthetic layers of 3000 rows of width 768: wall and CPU time,
# peak memory, the share of each step, and the ratio to the matrix products alone, measured in the same run.
#
#   LAYERS    how many layers, one run for each number (default: 13 25)
#   THREADS   threads of a trial (default: 2)
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

scripts/setup.sh
export_libtorch
cargo build --release --locked -p lsa-worker --example trial_bench
for layers in ${LAYERS:-13 25}; do
    "${CARGO_TARGET_DIR:-target}/release/examples/trial_bench" "$layers" 3000 768 "${THREADS:-2}"
done
