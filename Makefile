# What there is to do with this project; `make` alone lists it.

.PHONY: help run test check e2e fmt clean

help: ## List these targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: ## Build and serve with the defaults (port 50051)
	cargo run --release -- serve

test: ## Run all tests
	cargo test
	cargo test --features loom --lib hub::model

check: ## Check format and lints
	cargo fmt --check
	cargo clippy --all-targets -- --deny warnings

e2e: ## Check with foreign clients and a real Prometheus (installs them below target/)
	bash tests/e2e/run

fmt: ## Format the code
	cargo fmt

clean: ## Remove what was built
	cargo clean
