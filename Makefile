# What is run here and in CI. `make help` lists it.

# Mesa's layer that reorders devices stays out: wgrad has an order of its own.
export NODEVICE_SELECT = 1

CARGO ?= cargo
N ?= 2000
SEED ?= 1

.PHONY: help test lint test-poison fuzz-graphs accept-spine accept-speed peers bench-peers

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

test: ## find a Vulkan driver (or install Mesa's), then run every test, doc test and example
	@scripts/test.sh

lint: ## formatting, clippy with warnings denied, and the builds without the default features
	$(CARGO) fmt --check
	$(CARGO) clippy --release --all-targets -- -D warnings
	$(CARGO) clippy --release --lib --no-default-features -- -D warnings
	$(CARGO) clippy --release --lib --no-default-features --features gpu -- -D warnings

test-poison: ## every test with NaN in all memory that holds no value
	@scripts/adapter.sh
	WGRAD_POISON=1 $(CARGO) test --release

fuzz-graphs: ## random graphs: fused, unfused and definition agree (N=2000 SEED=1)
	@scripts/adapter.sh
	WGRAD_FUZZ_N=$(N) WGRAD_FUZZ_SEED=$(SEED) $(CARGO) test --release --test it fuzz:: -- --nocapture

accept-spine: ## measure what the spine promises: a line of PASS or FAIL for each (QUICK=1 for the half that CI runs)
	@scripts/adapter.sh
	$(CARGO) test --release --test accept -- $(if $(QUICK),--quick)

accept-speed: ## measure speed beside the peers and judge it: a line of PASS or FAIL for each (PEERS=folder of their programs, PYTHON=python with torch)
	@scripts/adapter.sh
	$(CARGO) test --release --test accept -- --speed

peers: ## build the peers' programs in benches/peers (burn takes a quarter of an hour and more)
	for p in study meganeura burn; do $(CARGO) build --release --manifest-path benches/peers/$$p/Cargo.toml --target-dir benches/peers/target || exit 1; done

bench-peers: ## run wgrad and its peers in turn on the same workloads, and print the ratios (W="mlp_train lenet_train")
	@scripts/adapter.sh
	$(CARGO) test --release --test accept -- --peers $(W)
