# One word per chore. Works with GNU make 3.81, the one macOS ships.

PYTHON ?=
EXTRAS ?= dev mlx-cpu
TESTS ?=
WORKERS ?= auto
CLIENTS ?=
export PYTHON
# Every command and worker that tests start would compile the whole program again.
unexport PYTHONDONTWRITEBYTECODE

python := .venv/bin/python
starter := smollm2-135m
test_home := .cache/pensieve

.DEFAULT_GOAL := help
.PHONY: help setup run test stress bench check format lock clean

help:
	@echo "make run     set up if needed, fetch the starter model if it is missing, open the chat"
	@echo "make test    run the test suite (TESTS=tests/wire for a part of it, WORKERS=1 for one file after another)"
	@echo "make check   formatting, lint, types, layers, budgets, cleanliness of the tree"
	@echo "make setup   install everything into .venv (EXTRAS=\"dev mlx-cuda\" to choose the parts)"
	@echo "make bench   run the benchmarks"
	@echo "make stress  run the slow tests"
	@echo "make clients fetch the coding agents that tests run (CLIENTS=claude-code for one; about 0.5 GB in all)"
	@echo "make test-clients  run them against the server: Claude Code, Codex, opencode, qwen-code"
	@echo "make format  rewrite the code in the house format"
	@echo "make lock    choose package versions anew and write constraints.txt"
	@echo "make clean   remove .venv, caches and build results (not your models)"

setup:
	@sh scripts/setup $(EXTRAS)

run:
	@sh scripts/setup
	@echo "==> The starter model (98 MB, once; under a minute on a usual connection)"
	@$(python) -m pensieve pull $(starter)
	@echo "==> Opening the chat; Ctrl-D leaves it"
	@$(python) -m pensieve chat --model $(starter)

test: starter-for-tests
	@echo "==> Running the tests (a few minutes on two cores)"
	@$(python) -m pytest -n $(WORKERS) --maxprocesses 8 --dist loadfile $(TESTS)

stress: starter-for-tests
	@echo "==> Running the slow tests (many minutes)"
	@$(python) -m pytest -m stress $(TESTS) || { \
		status=$$?; test $$status -eq 5 || exit $$status; echo "==> There are no slow tests yet"; }

.PHONY: starter-for-tests
starter-for-tests:
	@sh scripts/setup dev mlx-cpu
	@echo "==> The starter model for the tests, kept in .cache (98 MB, once)"
	@PENSIEVE_HOME=$(test_home) $(python) -m pensieve pull $(starter)

.PHONY: clients test-clients
clients:
	@sh scripts/setup dev mlx-cpu
	@$(python) scripts/clients.py $(CLIENTS)

test-clients: starter-for-tests clients
	@echo "==> Running coding agents against the server (some minutes)"
	@$(python) -m pytest -s -m "clients or agent" tests/clients $(TESTS)

bench: starter-for-tests
	@sh scripts/setup dev mlx-cpu bench
	@set -e; for benchmark in $(wildcard benchmarks/*_benchmark.py); do \
		echo "==> $$benchmark"; $(python) "$$benchmark"; \
	done

check:
	@sh scripts/setup dev mlx-cpu
	@echo "==> format"; $(python) -m ruff format --check --quiet .
	@echo "==> lint"; $(python) -m ruff check --quiet .
	@echo "==> types"; $(python) -m mypy
	@echo "==> layers"; $(python) -c "from importlinter.cli import lint_imports_command as run; run()" --no-logo
	@echo "==> budgets"; $(python) scripts/budgets.py
	@echo "==> cleanliness"; $(python) scripts/cleanliness.py

format:
	@sh scripts/setup dev mlx-cpu
	@$(python) -m ruff format .
	@$(python) -m ruff check --fix .

lock:
	@sh scripts/lock

clean:
	rm -rf .venv .cache dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
