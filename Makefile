# Needs make and Python 3.11 or newer, nothing else. `make` alone shows what there is.
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install
LANES := 2
IN_LANES = $(if $(filter-out 0 1,$(LANES)),-n $(LANES) --dist loadgroup)
LOCK := uv pip compile --python-version 3.11 --universal --generate-hashes \
	--no-header --no-annotate --quiet $(LOCK_ARGS)
.DEFAULT_GOAL := help
.PHONY: help setup setup-dev setup-sdk setup-bench up test mutants check spec fmt reference bench bench-failovers chaos soak soak-commands soak-jobs soak-failovers secrets compose-test clean lock

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.runtime ## Install what running needs into .venv
setup-dev: $(VENV)/.dev ## Install what testing and checking need
setup-sdk: $(VENV)/.dev ## Install oVirt's own SDK, for tests/sdk (needs a C compiler)
	@scripts/setup-sdk $(VENV)
setup-bench: $(VENV)/.bench ## Install the clients of Redis and etcd, which benchmarks compare with

up: $(VENV)/.runtime ## Start PostgreSQL, nodes, simulated hosts and VMs; ARGS="--nodes 5"
	@$(BIN)/engine-pg up $(ARGS)

test: $(VENV)/.dev ## Run all tests in two lanes; PYTEST_ARGS="-k locks", LANES=1
	@scripts/setup-sdk $(VENV) || [ -z "$$ENGINE_CI" ]
	@$(BIN)/python -m pytest $(IN_LANES) $(PYTEST_ARGS)

mutants: $(VENV)/.dev ## Break the rules one by one, and see that the tests notice; ARGS="no-gate"
	@$(BIN)/python scripts/mutants.py $(ARGS)

check: $(VENV)/.dev ## Lint, format, types, layers, tidiness
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python scripts/lint_migrations.py
	@$(BIN)/basedpyright
	@PATH="$(BIN):$$PATH" lint-imports
	@$(BIN)/python -m pytest -q tests/test_tidy.py

spec: ## Check the formal model of the coordination (needs spin and gcc); ARGS="locks"
	@scripts/spec $(ARGS)

fmt: $(VENV)/.dev ## Format, and mend what can be mended by machine
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

reference: $(VENV)/.dev ## Write what follows from the code into docs/reference
	@$(BIN)/python scripts/reference.py

bench: $(VENV)/.bench ## Run the benchmarks; ARGS picks some
	@$(BIN)/python -m benchmarks $(ARGS)

bench-failovers: $(VENV)/.dev ## Measure failovers, and draw docs/benchmarks/failover.*; root, some fifteen minutes; ARGS="--repeat 2"
	@$(BIN)/python -m benchmarks.failover --json docs/benchmarks/failover.json \
		--page docs/benchmarks/failover.md $(ARGS)
	@$(BIN)/python -m benchmarks.plot docs/benchmarks/failover.json

chaos: $(VENV)/.dev ## Hurt everything for a while, and judge what happened; SECONDS=60 SEED=1 ARGS=...
	@PYTHONPATH=tests $(BIN)/python -m chaos --seconds $(or $(SECONDS),60) --seed $(or $(SEED),1) $(ARGS)

soak: $(VENV)/.dev ## Chaos, seed after seed; MINUTES=60 PIECE=1 (a piece goes on in one report)
	@PYTHONPATH=tests $(BIN)/python -m chaos --minutes $(or $(MINUTES),60) --piece $(or $(PIECE),1) \
		--seconds $(or $(SECONDS),180) --results .state/soak.jsonl --report .state/soak.md $(ARGS)

soak-commands: $(VENV)/.dev ## Kill, freeze and cut off a node at every boundary of every command
	@ENGINE_BOUNDARIES=all $(BIN)/python -m pytest -q tests/integration/test_command_boundaries.py $(PYTEST_ARGS)

soak-jobs: $(VENV)/.dev ## 10,000 commands while PostgreSQL restarts and nodes die; SEED=1 ARGS=...
	@PYTHONPATH=tests $(BIN)/python -m jobstorm --seed $(or $(SEED),1) $(ARGS)

soak-failovers: $(VENV)/.dev ## Failovers in a row on machines of their own, killed, frozen, cut off; N=50 SEED=1 ARGS=...
	@$(BIN)/python -m lab --count $(or $(N),50) --seed $(or $(SEED),1) \
		--results .state/failovers.jsonl --report .state/failovers.md $(ARGS)

secrets: ## Make passwords and certificates for docker-compose.yml, once (needs openssl)
	@deploy/secrets

compose-test: ## Build, start, break and judge docker-compose.yml, a quarter of an hour; ARGS="kill-engine"
	@deploy/demos/run.py --fresh $(ARGS)

clean: ## Remove .venv and caches (the state of `make up` stays, see .state)
	rm -rf $(VENV) .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist build
	find . -name __pycache__ -prune -exec rm -rf {} +

lock: ## Pin dependencies by hash (needs uv; LOCK_ARGS=--upgrade for the newest)
	$(LOCK) pyproject.toml --extra embedded --group build -o requirements/runtime.txt
	$(LOCK) pyproject.toml requirements/dev.in --extra embedded --group dev -o requirements/dev.txt
	$(LOCK) requirements/sdk.in -o requirements/sdk.txt
	$(LOCK) requirements/bench.in --constraint requirements/dev.txt -o requirements/bench.txt
	@! grep -nE '://|^[-/]| @ ' requirements/*.txt  # no addresses, options or paths of this machine

$(BIN)/python:
	@scripts/make-venv $(VENV)

$(VENV)/.runtime: $(BIN)/python requirements/runtime.txt pyproject.toml
	@echo "Installing what engine_pg needs into $(VENV)"
	@$(PIP) --require-hashes -r requirements/runtime.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements/dev.txt
	@echo "Installing what its tests and checks need into $(VENV)"
	@$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.bench: $(VENV)/.dev requirements/bench.txt
	@echo "Installing what its benchmarks compare with into $(VENV)"
	@$(PIP) --require-hashes -r requirements/bench.txt
	@touch $@
