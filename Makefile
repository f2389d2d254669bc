# Each target is a script or a cargo command that can be run by hand as well.
.DEFAULT_GOAL := help
.PHONY: help setup demo test chaos build lint doc bench bench-trial clean-demo

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing: libtorch and the demo's model, into .venv
	@scripts/setup.sh

demo: ## run the main job on real input; results in demo-results/
	@scripts/demo.sh

test: ## all checks and tests
	@scripts/test.sh

chaos: ## ten minutes of killing, stopping and cutting against a real S3 server (Ceph; see scripts/ceph-rgw.sh)
	@scripts/chaos.sh

build: setup ## the binaries target/release/lsa-coordinator and target/release/lsa-worker
	cargo build --release --locked -p lsa-coordinator -p lsa-worker

lint: setup ## format and clippy, without warnings
	cargo fmt --check
	cargo clippy --release --workspace --all-targets --locked -- -D warnings

doc: setup ## the API documentation, in target/doc
	cargo doc --release --workspace --no-deps --locked

bench: ## lsa-worker embed beside the usual Python loop, and one trial of 13 and of 25 layers, on this machine
	@scripts/bench.sh
	@$(MAKE) --no-print-directory bench-trial

bench-trial: ## one trial of 13 and of 25 layers, step by step, on this machine
	@scripts/bench-trial.sh

clean-demo: ## remove the demo's input and results (the work kept in the store stays)
	rm -rf demo-results .demo-input
