# Two commands are enough on a fresh machine: `make demo` shows what it does, `make test` checks that it works.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints/ci.txt
PIP_INSTALL = $(BIN)/python -m pip install -q $(PIP_FLAGS) -c $(CONSTRAINTS)
PIP_FLAGS ?=

# Every test by default. A quick turn: make test PYTEST_ARGS="-n 2 -m 'not slow'"
PYTEST_ARGS ?= -n 2
DEMO_SCENARIO ?= PLE/Paper8-v1
DEMO_FLAGS ?= --policies xen-4.5 xen-4.8 paper kvm spin-age-self oracle --seeds 0:400 --timeline demo-timeline.png
TRAIN_LEARNER ?= set-ppo
TRAIN_FLAGS ?=
BENCH_FLAGS ?=
# Drawn once a call; in what make hands down, too.
EXPLORE_SEED := $(or $(EXPLORE_SEED),$(shell od -An -N4 -tu4 /dev/urandom | tr -d " "))

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Images of Python often forbid bytecode. Then each of a thousand processes of the tests compiles the package anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo train test test-floor test-rllib test-clients test-cluster explore reproduce reproduce-quick format lint type site docs docs-serve bench boundscheck nojit wheel jobs links clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-22s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(VENV)/.docs-stamp ## Install everything for development into .venv

demo: $(VENV)/.core-stamp ## Compare the schedulers on one scenario (small install, no torch)
	$(BIN)/ple-gym compare $(DEMO_SCENARIO) $(DEMO_FLAGS)

train: $(VENV)/.dev-stamp ## Train a scheduler on Storm and compare it with the rules
	$(BIN)/python -m agents train $(TRAIN_LEARNER) --scenario PLE/Storm-v1 --folder runs/quick-start $(TRAIN_FLAGS)
	$(BIN)/python -m agents evaluate PLE/Storm-v1 runs/quick-start

test: $(VENV)/.dev-stamp ## Run all tests
	@# Compile once first, or both workers would compile the same code at the same time.
	$(BIN)/ple-gym warmup
	$(BIN)/python -m pytest --all-here $(PYTEST_ARGS)
	$(BIN)/python -m experiments replay

reproduce: $(VENV)/.dev-stamp ## Rerun the paper's experiments and write their results (about half an hour)
	$(BIN)/python -m experiments fit
	$(BIN)/python -m experiments all

reproduce-quick: $(VENV)/.dev-stamp ## The same with few seeds, in a minute or two; keeps the results as they are
	$(BIN)/python -m experiments fit --quick
	$(BIN)/python -m experiments all --quick

explore: $(VENV)/.dev-stamp ## Look for differences in 10,000 random worlds that no test has met, and count what they have
	$(BIN)/ple-gym warmup
	@# A failure is shown with the seed, which draws the same worlds again: make explore EXPLORE_SEED=...
	@echo "EXPLORE_SEED=$(EXPLORE_SEED)"
	HYPOTHESIS_PROFILE=explore $(BIN)/python -m pytest -n 2 --hypothesis-seed=$(EXPLORE_SEED) \
		tests/test_random_worlds.py tests/test_differential.py tests/test_invariants.py tests/test_traces.py tests/test_states.py

test-cluster: $(VENV)/.dev-stamp ## Install Ray and run the tests that need it
	$(PIP_INSTALL) -e '.[cluster]'
	$(BIN)/python -m pytest tests/test_experiments.py tests/test_tuning.py -k ray

test-floor: .venv-floor/.stamp ## Run all tests on the oldest supported Gymnasium and numba (own environment)
	.venv-floor/bin/ple-gym warmup
	.venv-floor/bin/python -m pytest $(PYTEST_ARGS)

test-rllib: .venv-rllib/.stamp ## Run the RLlib tests (own environment: Ray pins Gymnasium)
	.venv-rllib/bin/ple-gym warmup
	.venv-rllib/bin/python -m pytest tests/bridges/test_rllib.py tests/bridges/test_masks.py

test-clients: .venv-clients/.stamp ## Run the tests of RL Zoo, Tianshou and Minari's collector (own environment)
	.venv-clients/bin/ple-gym warmup
	.venv-clients/bin/python -m pytest tests/bridges/test_rl_zoo3.py tests/bridges/test_tianshou.py tests/bridges/test_minari.py

format: $(VENV)/.dev-stamp ## Format the code and apply safe lint fixes
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

lint: $(VENV)/.dev-stamp ## Check style, formatting and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell *.md *.toml Makefile docs ple_gym agents experiments tests website

type: $(VENV)/.dev-stamp ## Check types
	$(BIN)/mypy

site: $(VENV)/.docs-stamp ## Build the site into build/site; a warning or a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo "build/site/index.html"

docs: site ## Build the site, check links in the documents and run their examples
	$(BIN)/python -m pytest tests/test_docs.py tests/test_site.py

docs-serve: $(VENV)/.docs-stamp ## Show the site at http://127.0.0.1:8000, anew after each change
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve

bench: $(VENV)/.bench-stamp ## Measure speed, beside others (about four minutes)
	$(BIN)/ple-gym bench $(BENCH_FLAGS)

boundscheck: $(VENV)/.dev-stamp ## Run the kernel tests with array bounds checked
	NUMBA_BOUNDSCHECK=1 NUMBA_OPT=0 $(BIN)/python -m pytest -n 2 -m kernel

nojit: $(VENV)/.dev-stamp ## Run the kernel tests as plain Python
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest -n 2 -m kernel

wheel: ## Build and check what is published, install it into an environment of its own, and use it there
	rm -rf dist .venv-wheel
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install -q -c $(CONSTRAINTS) build twine pytest hypothesis
	.venv-wheel/bin/python -m build -o dist .
	.venv-wheel/bin/python -m twine check --strict dist/*
	.venv-wheel/bin/python -m pip install -q -c $(CONSTRAINTS) "$$(echo dist/*.whl)[viz,agents,experiments]"
	PLE_WHEEL_PYTHON=$(CURDIR)/.venv-wheel/bin/python .venv-wheel/bin/python -m pytest tests/test_wheel.py

jobs: $(VENV)/.dev-stamp ## Do the jobs of new users with the pages and a wheel alone (three minutes)
	PLE_JOBS=1 $(BIN)/python -m pytest tests/test_jobs.py

links: $(VENV)/.dev-stamp ## Ask whether the addresses of other hosts in the documents answer
	PLE_LINKS=1 $(BIN)/python -m pytest tests/test_docs.py -k address_answers

clean: ## Remove .venv, caches and build products
	rm -rf $(VENV) .venv-floor .venv-rllib .venv-clients .venv-wheel build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache demo-timeline.png
	find . -path ./.git -prune -o -type d -name __pycache__ -exec rm -rf {} +

$(BIN)/python .venv-floor/bin/python .venv-rllib/bin/python .venv-clients/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed. Name one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(patsubst %/bin/python,%,$@)

# Stamps, so that a second call installs nothing. The environment itself is order-only: its date means nothing.
$(VENV)/.core-stamp: pyproject.toml $(CONSTRAINTS) constraints/pins.txt | $(BIN)/python
	@echo "Installing ple-gym into $(VENV) (once, under a minute)"
	$(PIP_INSTALL) -e '.[viz]'
	@touch $@

$(VENV)/.bench-stamp: pyproject.toml $(CONSTRAINTS) constraints/pins.txt | $(BIN)/python
	@echo "Installing ple-gym with agents and what speed is compared with into $(VENV) (once, about two minutes)"
	$(PIP_INSTALL) -e '.[viz,agents,peers]'
	@touch $(VENV)/.core-stamp $@

$(VENV)/.dev-stamp: pyproject.toml $(CONSTRAINTS) constraints/pins.txt | $(BIN)/python
	@echo "Installing ple-gym with agents and developer tools into $(VENV) (once, about two minutes)"
	$(PIP_INSTALL) -e '.[viz,agents,experiments,dev]'
	@# This set contains the core.
	@touch $(VENV)/.core-stamp $@

$(VENV)/.docs-stamp: $(VENV)/.dev-stamp
	@echo "Installing what the site is built with into $(VENV) (once, seconds)"
	$(PIP_INSTALL) -e '.[docs]'
	@touch $@

.venv-floor/.stamp: pyproject.toml constraints/floor.txt constraints/pins.txt | .venv-floor/bin/python
	@echo "Installing ple-gym with the oldest supported Gymnasium and numba into .venv-floor (once, about two minutes)"
	.venv-floor/bin/python -m pip install -q -c constraints/floor.txt -e '.[viz,agents,experiments,video,dev]'
	@touch $@

.venv-rllib/.stamp: pyproject.toml constraints/rllib.txt constraints/pins.txt | .venv-rllib/bin/python
	@echo "Installing ple-gym with RLlib into .venv-rllib (once, about two minutes, 2 GB)"
	.venv-rllib/bin/python -m pip install -q -c constraints/rllib.txt -e '.[rllib]' pytest hypothesis
	@touch $@

.venv-clients/.stamp: pyproject.toml $(CONSTRAINTS) constraints/pins.txt | .venv-clients/bin/python
	@echo "Installing ple-gym with RL Zoo, Tianshou and Minari into .venv-clients (once, about two minutes, 2.3 GB)"
	.venv-clients/bin/python -m pip install -q -c $(CONSTRAINTS) -e '.[clients]' pytest hypothesis
	@touch $@
