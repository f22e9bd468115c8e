# Needs make and Python 3.11 or later with venv; everything else goes into $(VENV).
#
#   make demo          solve a puzzle with the embedded model
#   make test          format check, lint, types, all tests that need no torch
#   make test-oracle   the tests against live transformers, the Triton interpreter and Chromium
#   make test-fast     the quick tests only; TESTS=tests/engine chooses among them
#   make mutants       break a line at a time and see that a test fails (up to 40 minutes)
#   make wheel-test    build a wheel and use it outside the checkout
#   make lint, make format, make clean
#
# PYTHON=python3.12 chooses the interpreter, VENV=folder where it is set up.

PYTHON ?= python3
VENV ?= .venv
# A local version: pip refuses rather than take the CUDA build, several GB, from the registry.
TORCH ?= torch==2.13.0+cpu
PYTEST_ARGS ?= --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# The marker alone would have every worker import all other tests as well.
ORACLES = $(shell find tests -name '*_oracle.py')

BIN = $(VENV)/bin
INSTALL = $(BIN)/python -m pip install -qq --constraint constraints.txt
PACKAGE = $(INSTALL) --no-build-isolation --editable

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test test-oracle test-fast mutants wheel-test lint format clean

demo: $(VENV)/.package
	$(BIN)/dendrite solve "4 5 6 10"

test: lint
	$(BIN)/pytest $(PYTEST_ARGS)

test-oracle: $(VENV)/.oracle
	DENDRITE_ORACLE=1 TRITON_INTERPRET=1 $(BIN)/pytest $(PYTEST_ARGS) -m oracle $(ORACLES)

test-fast: $(VENV)/.test
	$(BIN)/pytest $(PYTEST_ARGS) -m "not oracle and not slow" $(TESTS)

# MUTANTS="beam kernels/" takes only those whose names or files have one of the words.
mutants: $(VENV)/.test
	PYTHONPATH=tests $(BIN)/python -m mutants $(MUTANTS)

wheel-test: $(VENV)/.test
	$(BIN)/pytest tests/packaging/test_wheel.py

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@rm -rf build/typing && mkdir -p build/typing/dendrite_jax
	@ln -s $(CURDIR)/dendrite_jax/* $(CURDIR)/kernels $(CURDIR)/benchmarks build/typing/dendrite_jax
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/.created: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'make: Python 3.11 or later is needed; name one with PYTHON=, e.g. make PYTHON=python3.12' >&2; \
	  exit 1; }
	@echo 'creating $(VENV)'
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) pip setuptools
	@touch $@

$(VENV)/.package: $(VENV)/.created pyproject.toml
	@echo 'installing dendrite-jax and its dependencies (about a minute)'
	@$(PACKAGE) .
	@touch $@

$(VENV)/.test: $(VENV)/.package
	@echo 'installing the test tools (about half a minute)'
	@$(PACKAGE) '.[test]'
	@touch $@

$(VENV)/.oracle: $(VENV)/.test
	@echo 'installing CPU torch, transformers, Triton and Playwright (about a minute)'
	@$(INSTALL) '$(TORCH)' || { \
	  echo 'make: no CPU build of torch; name one with TORCH=, e.g. TORCH=torch-2.13.0+cpu.whl' >&2; \
	  exit 1; }
	@$(PACKAGE) '.[oracle]'
	@touch $@
