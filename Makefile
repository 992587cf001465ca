# Needs python3 (3.11 or newer), pip and make; uses uv when it is there. `make` prints the targets.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CODE := engine loadtest tests

# Tests wait for servers more than they compute: three processes share them, and two cores are enough for
# that. Whoever has none left takes half of another's. Not in pyproject.toml: a single test would start two processes first, and neither
# a debugger nor `-s` reaches into them.
SIDE_BY_SIDE := --numprocesses=3 --dist=worksteal

# `make install PYTHON=/path/to/python3.12` chooses the interpreter.
PYTHON ?=

.DEFAULT_GOAL := help
.PHONY: help install demo cluster-demo test services bench bench-http bench-cluster vulnerabilities lock clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' Makefile

install: $(STAMP) ## Create .venv with the locked dependencies and this project, editable

demo: $(STAMP) ## Sell 500 units to 10,000 buyers on a real SQLite file and audit the result
	$(BIN)/seckill simulate --config configs/embedded.toml --buyers 10000 --orders-per-buyer 3 \
		--arrival ramp --seconds 5 --stock 500 --limit-per-buyer 1 --duplicates 0.05 --seed 7 \
		--out "runs/demo-$$(date +%Y%m%d-%H%M%S)"

cluster-demo: $(STAMP) services ## Sell over three brokers, two engines and two gateways, kill an engine, and audit
	$(BIN)/python -m loadtest.cluster.demo --out "runs/cluster-demo-$$(date +%Y%m%d-%H%M%S)"

test: $(STAMP) services ## Check style, types and import layers, then run every test
	@echo "==> ruff check" && $(BIN)/ruff check .
	@echo "==> ruff format --check" && $(BIN)/ruff format --check .
	@echo "==> mypy --strict" && $(BIN)/mypy --strict $(CODE)
	@echo "==> lint-imports" && $(BIN)/lint-imports
	@echo "==> pytest" && $(BIN)/pytest $(SIDE_BY_SIDE)

services: ## Install MariaDB, Redis and Chromium for the tests where apt can, or say what is missing
	@sh .ci/services

bench: $(STAMP) ## Measure the stages and the whole engine; writes a folder in results/
	$(BIN)/pytest tests/benchmarks --benchmark-enable --benchmark-only
	$(BIN)/python -m loadtest.bench

bench-http: $(STAMP) ## Measure orders over HTTP and an overload in ten minutes; writes a folder too
	$(BIN)/python -m loadtest.bench_http

bench-cluster: $(STAMP) services ## Measure what the way over the brokers costs, in ten minutes; writes a folder too
	$(BIN)/python -m loadtest.bench_cluster

vulnerabilities: $(STAMP) ## Look up known holes in what requirements.lock pins (asks PyPI)
	$(BIN)/pip-audit --requirement requirements.lock --disable-pip --strict

lock: ## Pin the newest allowed dependencies, with hashes, in requirements.lock
	@sh .ci/lock

clean: ## Remove .venv, caches and the output of demos
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks \
		.import_linter_cache dist build
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): requirements.lock pyproject.toml
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh .ci/install
	@touch $@
