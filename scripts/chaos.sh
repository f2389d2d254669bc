#!/usr/bin/env bash
# The heavy form of tests/tests/chaos.rs: many minutes of harm against a Ceph object gateway on this machine.
#   LSA_CHAOS_SECONDS (600), LSA_CHAOS_SEED (1), LSA_CHAOS_STORE (another S3 server's address; keys test/test)
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

scripts/setup.sh
export_libtorch
cargo build --release --workspace --locked
if [ -z "${LSA_CHAOS_STORE:-}" ]; then
    ceph=$(mktemp -d)
    trap 'scripts/ceph-rgw.sh stop "$ceph"; rm -rf "$ceph"' EXIT
    endpoint=$(scripts/ceph-rgw.sh start "$ceph" "${LSA_CEPH_PORT:-7480}")
    say "Ceph object gateway at $endpoint"
    # Ceph wants the digest of the body, here of none, among what is signed.
    curl -sSf --aws-sigv4 aws:amz:us-east-1:s3 --user test:test -X PUT "$endpoint/lsa-chaos" \
        -H "x-amz-content-sha256: $(sha256sum </dev/null | cut -d' ' -f1)"
    export LSA_CHAOS_STORE="s3://lsa-chaos/$(date +%s)?endpoint=$endpoint&region=us-east-1"
fi
export LSA_CHAOS_SECONDS=${LSA_CHAOS_SECONDS:-600}
cargo test --release --locked -p lsa-tests --test chaos -- --nocapture
