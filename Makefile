# Everything a person runs. `make demo` and `make test` need Python 3.11 or newer and nothing else.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
export PYTHONPATH := $(CURDIR)/plugins
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Every target starts several Python processes: without bytecode each compiles all of Airflow anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo demo-ui test lint docs lock lock-check settings task-test backfill bench bench-tables \
  gpu-check clean

demo: .venv/installed           ## both DAGs on the demo shop, start to finish
	@$(BIN)/python -m recsys_ops.demo

demo-ui: .venv/installed        ## Airflow's pages on the demo's data, until Ctrl-C
	@$(BIN)/python -m recsys_ops.demo ui

# Tests that share a server or a shop stay in one lane (tests/conftest.py). A third lane gains
# little.
LANES ?= 2
test: .venv/installed           ## the whole suite, in two lanes side by side
	@$(BIN)/pytest --numprocesses $(LANES) --dist loadscope --no-loadscope-reorder $(ARGS)

lint: .venv/installed           ## format, lint, types, layers, lock
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/uv pip check --python $(BIN)/python
	@$(MAKE) --no-print-directory docs

docs: .venv/installed           ## the pages as a site, build/site/index.html; a broken link fails
	@$(BIN)/zensical build --strict --clean

compile = $(BIN)/uv pip compile --quiet --no-header --universal --python-version 3.11
compile-lock = $(compile) requirements.in --output-file requirements.txt
# the training machine's: of what both machines have, the same versions
compile-worker-lock = $(compile) --extra worker --constraint requirements.txt pyproject.toml \
  requirements-worker.in --output-file requirements-worker.txt

lock: .venv/installed           ## compile both requirements files with the newest versions
	@$(compile-lock) --upgrade
	@$(compile-worker-lock) --upgrade

lock-check: .venv/installed     ## both are what they are compiled to
	@$(compile-lock)
	@$(compile-worker-lock)
	@git diff --exit-code requirements.txt requirements-worker.txt && touch .venv/installed

settings: .venv/installed       ## include/recsys.yaml and docs/settings.md, from the code
	@$(BIN)/python -m recsys_ops.settings.pages

need = $(foreach name,$(1),$(if $($(name)),,$(error $(name)=… is missing; example: make $@ $(2))))

task-test: .venv/installed      ## a task of a day: DAG=recsys_ingest TASK=… DATE=2026-01-31
	@$(call need,DAG TASK DATE,DAG=recsys_ingest TASK=fix_types DATE=2026-01-31)$(BIN)/python -m \
	  recsys_ops.operators.task_test $(DAG) $(TASK) $(DATE)

backfill: .venv/installed       ## ingest days again, four at a time: FROM=2026-01-01 TO=2026-01-31
	@$(call need,FROM TO,FROM=2026-01-01 TO=2026-01-31)$(BIN)/airflow backfill create \
	  --dag-id recsys_ingest --max-active-runs 4 --reprocess-behavior completed \
	  --from-date $$(date -u -d "$(FROM) +1 day" +%FT00:00:00+00:00) \
	  --to-date $$(date -u -d "$(TO) +1 day" +%FT23:59:59+00:00)

bench: .venv/installed          ## a benchmark: NAME=als or NAME=data.extract, ARGS=--quick
	@$(call need,NAME,NAME=als)$(BIN)/python -m benchmarks $(NAME) $(ARGS)

bench-tables: .venv/installed   ## the tables of the pages, from benchmarks/results
	@$(BIN)/python -m benchmarks.tables

gpu-check: .venv/installed      ## the GPU solver: its tests and its benchmark; needs a GPU
	@$(BIN)/python -c 'from recsys_ops.als.device import cupy; cupy()'
	@$(BIN)/pytest tests/als
	@$(BIN)/python -m benchmarks als.floor
	@$(BIN)/python -m benchmarks als.solvers --factors 64 128 256 $(ARGS)

clean:                          ## forget the demo and the environment
	@rm -rf .demo .venv

stage = @$(PYTHON) -m recsys_ops.demo.progress

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || \
	  { echo "Python 3.11 … 3.14 is needed: make PYTHON=python3.12 …"; exit 1; }
	$(stage) "Make the environment .venv" $(PYTHON) -m venv .venv || \
	  { echo "This Python has no venv module (Debian, Ubuntu: apt install python3-venv)"; exit 1; }
	$(stage) "Install uv" $(BIN)/pip install --quiet --disable-pip-version-check \
	  "$$(grep '^uv==' requirements.txt)"
	$(stage) "Install $$(grep -c == requirements.txt) packages into .venv" \
	  $(BIN)/uv pip install --quiet --python $(BIN)/python --requirement requirements.txt
	@touch $@
