#!/usr/bin/env bash
# Every check and every test, in the release profile throughout, so that libtorch's C++ glue compiles once.
# The tests come last: their summary is what the run ends with.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

scripts/setup.sh
export_libtorch
"$venv/bin/python" scripts/demo-input.py

say "scripts"
for script in scripts/*.sh .ci/run; do bash -n "$script"; done
find scripts tests -name '*.py' -exec "$venv/bin/python" -c '
import ast, sys
for path in sys.argv[1:]:
    ast.parse(open(path, encoding="utf-8").read(), path)
' {} +

say "format"
cargo fmt --check
say "lints"
cargo clippy --release --workspace --all-targets --locked -- -D warnings
say "documentation"
RUSTDOCFLAGS="${RUSTDOCFLAGS:-} -D warnings" cargo doc --release --workspace --no-deps --locked
# The integration tests start the real binaries, which cargo does not build for the tests of another package.
say "binaries"
cargo build --release --workspace --locked
say "tests"
cargo test --release --workspace --locked
