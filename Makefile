# `make help` lists the targets. PYTHON chooses the interpreter: make test PYTHON=python3.13
PYTHON ?= python
.DEFAULT_GOAL := help
.PHONY: help install test lint types check lowest ci bench format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: ## install dynserve from here, with all that development needs
	$(PYTHON) -m pip install -e '.[dev]'

test: ## run the tests (one: python -m pytest tests/test_x.py -k name)
	$(PYTHON) -m pytest

lint: ## rules and formatting, nothing changed
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types: ## mypy, strict, over package, tests, examples and bench
	$(PYTHON) -m mypy

check: lint types test ## what a change must pass

lowest: ## the tests on the lowest versions allowed, in a virtual environment of their own
	.ci/run lowest

ci: ## all that CI does, from nothing: tools, tests, coverage, lint, types, wheel, lowest
	.ci/run

bench: ## measure against other servers, half an hour; BENCH=--quick for minutes, BENCH=--write for the docs
	$(PYTHON) bench/run.py $(BENCH)

format: ## apply the formatter and the safe fixes
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

clean: ## remove what the tools leave behind
	rm -rf build dist htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -not -path './.venv*' -exec rm -rf {} +
