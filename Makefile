# Every verb does its own set-up: a fresh clone needs nothing but python3 (3.12 or newer) and make.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

# Where it is set, each of the hundreds of processes that tests start would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run install lock test huge unit integration check lint types floors fmt bench profile soak seed-store bench-store accounting demo dashboards-check docs wheel clean

help: ## Show the verbs.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(VENV)/.run: requirements/run.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))' || { echo "aiproxyd needs Python 3.12 or newer; set PYTHON=…" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

run: $(VENV)/.run ## Install what is needed and start the daemon (ARGS="--config FILE" to pass options).
	@exec $(BIN)/aiproxyd run $(ARGS)

install: $(VENV)/.dev ## Install the development environment.

lock: ## Resolve the dependencies again into requirements/*.txt.
	$(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --quiet --python-version 3.13 --custom-compile-command "make lock" pyproject.toml --group build -o requirements/run.txt
	$(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --quiet --python-version 3.13 --custom-compile-command "make lock" pyproject.toml --all-extras --group build --group dev -c requirements/run.txt -o requirements/dev.txt

$(VENV)/.system: tests/install_system.sh | $(VENV)/.dev
	@tests/install_system.sh
	@touch $@

# One more than the two cores it is made for: stories wait for clocks and processes a third of their time.
test: $(VENV)/.dev $(VENV)/.system ## Install what is needed and run every test.
	$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

huge: $(VENV)/.dev ## Measure a worker's memory under gigabytes, on both engines.
	$(BIN)/python -m pytest -q -s -m "huge or not huge" tests/integration/test_huge_streams.py $(ARGS)

lint: $(VENV)/.dev ## Look for mistakes and untidiness.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell --ignore-words-list te --skip "tests/transcripts" README.md CHANGELOG.md docs aiproxyd addons examples

types: $(VENV)/.dev ## Check the types.
	$(BIN)/mypy

floors: $(VENV)/.dev ## Check who imports whom.
	$(BIN)/lint-imports --no-cache

fmt: $(VENV)/.dev ## Format the code.
	$(BIN)/ruff check --fix --quiet || true
	$(BIN)/ruff format

check: lint types floors test wheel ## All that CI asks for.

wheel: $(VENV)/.dev ## Build the wheel and look into it.
	rm -rf dist
	$(BIN)/python -m hatchling build -t wheel -t sdist
	$(BIN)/check-wheel-contents dist/*.whl

demo: $(VENV)/.dev ## See the whole thing work without an API key.
	$(BIN)/python -m examples.demo $(ARGS)

bench: $(VENV)/.dev ## Measure against the peers that are installed, in one run.
	$(BIN)/python -m tests.bench $(ARGS)

profile: $(VENV)/.dev ## Show where a worker's time goes, with flame graphs in bench-results/.
	$(BIN)/python -m tests.bench.profile $(ARGS)

soak: $(VENV)/.dev ## Load the daemon for half an hour and see that nothing grows (ARGS="--minutes N").
	$(BIN)/python -m tests.bench.soak $(ARGS)

seed-store: $(VENV)/.dev ## Fill a store with made-up interceptions (ARGS="--url URL --count 1000000 --days 60").
	$(BIN)/python -m tests.bench.seed_store $(ARGS)

bench-store: $(VENV)/.dev ## Measure a filled store, or a SQLite and a PostgreSQL one of its own (ARGS="--url URL").
	$(BIN)/python -m tests.bench.store $(ARGS)

accounting: $(VENV)/.dev ## Count requests and tokens of every transcript and every client (ARGS="--mixed 1000").
	$(BIN)/python -m tests.accounting $(ARGS)

fuzz: $(VENV)/.dev ## Fuzz every parser (SECONDS=60 each).
	$(BIN)/python -m tests.fuzz $(ARGS)

dashboards-check: $(VENV)/.dev $(VENV)/.system ## Run every query of the dashboards against a real Prometheus and show what comes back.
	$(BIN)/python -m pytest -q -s tests/integration/test_monitoring.py -k dashboard $(ARGS)

docs: $(VENV)/.run ## Write the generated pages of docs/, examples/config.yaml and the dashboards again.
	$(BIN)/python -m aiproxyd.config.docs
	$(BIN)/python -m aiproxyd.telemetry.metrics_page > docs/metrics.md
	$(BIN)/python -m examples.grafana.generate
	$(BIN)/python docs/reference_pages.py

clean: ## Remove what can be made again.
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis htmlcov bench-results
