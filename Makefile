# Each target works alone on a machine that has Python 3.11+ and make: the first one that is asked
# for creates .venv and installs the package with the versions of constraints.txt.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

# Images of containers often set it, and then every process of a test compiles the package anew.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test test-processes test-docs test-slow test-triton bench torture lint clean

help:
	@echo "make demo       make clips, train, evaluate and predict; results in demo/"
	@echo "make test       the default tests (CPU, a few minutes)"
	@echo "make test-processes  the tests that start the command, torchrun or a wheel in processes, or kill them"
	@echo "make test-docs  the snippets of the README and docs/, run from top to bottom"
	@echo "make test-slow  the tests left out of all three"
	@echo "make test-triton  the kernels for CUDA, in Triton's interpreter (installs Triton, 1 GB)"
	@echo "make bench      speed and memory beside SpikingJelly (installs it); results in bench/"
	@echo "make torture    damaged files, kills, NaN, hostile names: with a seed of its own, half an hour"
	@echo "make lint       ruff, mypy, import-linter"
	@echo "make clean      remove the environment, the caches, demo/ and bench/"

demo: $(INSTALLED)
	$(BIN)/svf demo --out demo

# Two processes with one torch thread each (tests/conftest.py); a file's tests share a process.
test: $(INSTALLED)
	$(BIN)/pytest -n 2 --dist loadfile

test-processes: $(INSTALLED)
	$(BIN)/pytest -n 2 --dist loadfile -m "processes and not slow"

test-docs: $(INSTALLED)
	$(BIN)/pytest -n 2 --dist loadgroup -m "docs and not slow" tests/test_docs.py

test-slow: $(INSTALLED)
	$(BIN)/pytest -m slow --timeout 3600

test-triton: $(INSTALLED)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -c constraints.txt triton
	$(BIN)/pytest tests/ops/test_triton.py

# Without its dependencies: its neurons need none of them.
bench: $(INSTALLED)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -c constraints.txt spikingjelly
	$(BIN)/svf bench --quick --out bench

# Another seed each time: make torture SEED=7 SCALE=0.1 PARTS="configs models".
SEED ?= $(shell date +%s)
SCALE ?= 1
torture: $(INSTALLED)
	$(BIN)/python benchmarks/torture --seed $(SEED) --scale $(SCALE) $(PARTS)

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# The stamp is removed first and made last, so an interrupted installation starts afresh.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, $(PYTHON) is not; try: make PYTHON=python3.12 ..." >&2; exit 2; }
	@echo "Installing into .venv (once, a few minutes) ..."
	@if test -e $@; then rm $@; else $(PYTHON) -m venv --clear .venv || { \
	  echo "$(PYTHON) cannot create .venv; on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }; fi
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv demo bench build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
