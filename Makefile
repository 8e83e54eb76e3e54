# The two commands: `make demo` and `make test`. Both create the environment in .venv when it is missing.
#
#   make demo       compress the sample photographs, verify, report, decode one picture back
#   make test       the test suite
#   make lint       ruff;  make typecheck: mypy;  make check: test + lint + typecheck
#   make golden     an archive of this version under tests/data/archives, for every later one to decode
#   make nightly    what takes longer: cluster failures, fuzzing, speed
#   make results    docs/results.md again, from docs/results/*.json
#   make env        only the environment, what running needs;  make dev: the tools of development too
#   make clean      remove everything that was made

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV ?= .venv
CODEC ?= s2c-conv
# The first of these that runs and is a version that pyproject.toml allows.
PYTHON ?= $(shell for python in python3.11 python3.12 python3; do \
	"$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null \
	&& echo "$$python" && break; done)

BIN := $(VENV)/bin
# Twice quiet: errors only.
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
EDITABLE := --config-settings editable_mode=strict --editable
# uv installs several times faster, but does not read pip's settings: where it cannot install, pip does.
UV := UV_HTTP_TIMEOUT=300 $(BIN)/uv -q pip install --python $(BIN)/python

.PHONY: help env dev demo test lint typecheck check golden nightly results clean FORCE

help:
	@sed -n '/^[^#]/q; /^$$/q; s/^# \{0,1\}//p' Makefile

env: $(VENV)/.linked

dev: $(VENV)/.dev env

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "lichen needs Python 3.11 or 3.12 on the PATH" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Dependencies: again whenever the declaration changes. compileall takes all cores, without what lichen never imports.
# It exits with 1 for templates that are no valid Python.
UNUSED := /(tests|testing|rllib|tune|serve|llm|_inductor|onnx)/
$(VENV)/.installed: pyproject.toml setup.py | $(BIN)/python
	@echo "Installing lichen and its dependencies into $(VENV) (some minutes the first time)"
	$(PIP) install "setuptools>=77" wheel uv
	$(UV) $(EDITABLE) . || $(PIP) install --no-compile $(EDITABLE) .
	@$(BIN)/python -m compileall -qq -j 0 -x '$(UNUSED)' $(VENV)/lib || true
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	@echo "Installing the tools of development"
	$(UV) $(EDITABLE) ".[dev]" || $(PIP) install $(EDITABLE) ".[dev]"
	@touch $@

# A strict editable install is a tree of links, one for each file, so it must be made again (2 s) when a file
# comes or goes. The list of files is written anew on every call but touched only when it differs.
$(VENV)/.files: FORCE | $(BIN)/python
	@find lichen models pipeline jobs -type f ! -name '*.pyc' | LC_ALL=C sort > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

$(VENV)/.linked: $(VENV)/.installed $(VENV)/.files
	@$(PIP) install --no-deps --no-build-isolation $(EDITABLE) .
	@touch $@

demo: env
	@rm -rf demo-archive demo-out
	$(BIN)/lichen compress tests/data/samples demo-archive --codec $(CODEC)
	$(BIN)/lichen verify demo-archive
	$(BIN)/lichen report demo-archive
	$(BIN)/lichen decode demo-archive budgie_a6d68c32b3a3.jpg --to demo-out

test: dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Not from here, where mypy would take the folder lichen/ for the whole package; the laboratory comes along by a link.
typecheck: dev
	@ln -sfn ../lab build/lab
	cd build && $(abspath $(BIN))/mypy --config-file ../pyproject.toml --cache-dir ../.mypy_cache

# The archive of this version, for every later one to decode: once a release.
golden: dev
	$(BIN)/python tests/golden.py

check: test lint typecheck

nightly: dev
	$(BIN)/python -m pytest -m "cluster or fuzz or bench or slow or long" --timeout 3600 $(PYTEST_ARGS)

results: env
	$(BIN)/python -m lab results

clean:
	rm -rf $(VENV) build dist *.egg-info demo-archive demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis

FORCE:
