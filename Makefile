# Two commands on a fresh machine: `make demo` and `make test`. Both set up .venv first and are quick the second time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow test-ray check format bench readme-figures up browser postgres clean help

help:            ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; this is $$($(PYTHON) --version). Set PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(STAMP)   ## the whole graph on the embedded market: table, report, next command
	$(BIN)/synth-pipeline demo

test: $(STAMP) browser postgres check  ## style, types and every test
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(STAMP)  ## only the tests that take more than ten seconds
	$(BIN)/python -m pytest -m slow

test-ray: $(STAMP)  ## the graph on a Ray cluster of two nodes; installs the extra [ray] first
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,ray]'
	$(BIN)/python -m pytest tests/test_ray.py

check: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/dg check defs

format: $(STAMP)  ## apply ruff's fixes and layout
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# One script a group of claims; what falls short is printed as it is. Never part of the tests. Parts of others and what
# prints tables for documents are left out.
BENCHMARKS := $(filter-out common readme_figures record_% simulator_% fidelity_% orchestration_% embedded_% wire_day generators_paths ablations chunk_flow_ablation,$(basename $(notdir $(wildcard benchmarks/[a-z]*.py))))
bench: $(STAMP)  ## every benchmark, in full, into benchmarks/results/
	@mkdir -p benchmarks/results
	@set -e; for name in $(BENCHMARKS); do echo $$name; $(BIN)/python benchmarks/$$name.py --json > benchmarks/results/$$name.json.new; mv benchmarks/results/$$name.json.new benchmarks/results/$$name.json; done

readme-figures: $(STAMP)  ## the README's table of figures, from benchmarks/results/
	$(BIN)/python benchmarks/readme_figures.py

up: $(STAMP)     ## Dagster UI, its daemon and the MLflow UI; one Ctrl-C stops all
	$(BIN)/synth-pipeline up

# The report is tested in a real browser. A no-op where one is installed; elsewhere the browser tests are skipped by name.
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	  { command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } || \
	  echo "no Chromium found: the browser tests will be skipped"

# The PostgreSQL tests start a server of the distribution's package. A no-op where one is installed, else as above.
postgres:
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || \
	  { command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq postgresql >/dev/null; } || \
	  echo "no PostgreSQL server found: its tests will be skipped"

clean:           ## remove the virtual environment and all data
	rm -rf $(VENV) .synth
