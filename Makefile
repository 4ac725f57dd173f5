# What there is to do with this project; `make` alone lists it.

.PHONY: help run test check deny e2e fuzz-frames clients bench bench-scale image e2e-container watch fmt clean

help: ## List these targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

run: ## Build and serve with the defaults (port 50051)
	cargo run --release -- serve

# Most tests wait for a server most of the time, so more of them than there are cores.
TEST_THREADS ?= 8

test: ## Run all tests
	RUST_TEST_THREADS=$(TEST_THREADS) cargo test
	cargo test --features loom --lib hub::room::model

check: ## Check format, lints, documentation, each feature alone, and the arithmetic of the benchmarks
	cargo fmt --check
	cargo clippy --all-targets -- --deny warnings
	.ci/features
	RUSTDOCFLAGS="--deny warnings" cargo doc --quiet --no-deps
	python3 -B -m unittest discover --quiet --start-directory benches/side_by_side/tests --top-level-directory benches

deny: ## Check licenses, sources and versions of the dependencies (builds cargo-deny once, into ~/.cache)
	.ci/deny bans licenses sources

e2e: ## Check with foreign clients, HAProxy and Prometheus, and attack the limits (installs them below target/)
	bash tests/e2e/run

FUZZ_SECONDS ?= 120

fuzz-frames: ## Throw wrong HTTP/2 frames at a server, beside clients that must notice nothing (FUZZ_SECONDS=120 FUZZ_SEED=…)
	FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_SEED=$(FUZZ_SEED) FUZZ_CONNECTIONS=$(FUZZ_CONNECTIONS) bash tests/fuzz/run

clients: ## Generate clients for Go, Python, Java and TypeScript into target/gen (needs go, python3, npm, mvn)
	proto/generate

bench: ## Measure beside raw sockets, NATS and the usual tonic server (BENCH_ROUNDS=3 BENCH_SECONDS=3 BENCH_ONLY="100-saturated …")
	cd benches && exec python3 -B -m side_by_side bench

bench-scale: ## Measure over more and more connections and rooms (the same variables)
	cd benches && exec python3 -B -m side_by_side scale

# podman and buildah do as well (`make image DOCKER=podman`); BUILDAH_FORMAT makes them keep the health check.
DOCKER ?= docker
IMAGE ?= chatroom
IMAGE_FLAGS ?=

image: ## Build the container image (DOCKER=docker IMAGE=chatroom)
	BUILDAH_FORMAT=docker $(DOCKER) build $(IMAGE_FLAGS) --tag $(IMAGE) \
	  --build-arg VERSION="$$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)" \
	  --build-arg REVISION="$$(git --no-optional-locks describe --always --dirty --abbrev=12 --exclude='*' || echo unknown)" .

watch: ## Bring up the server with Prometheus and Grafana, the board in place (needs docker)
	$(DOCKER) compose -f dashboards/compose.yaml up --build

e2e-container: ## Build the image without a registry, run it, and check what it promises (as root)
	bash tests/container/run

fmt: ## Format the code
	cargo fmt

clean: ## Remove what was built
	cargo clean
