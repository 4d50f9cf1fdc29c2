# Every target makes its own environment in .venv first; a second run starts at once.
# Needs Python 3.11 or newer with pip, git and make. Another Python: make test PYTHON=/path/to/python

PYTHON ?= python3.11
SIZE ?= quick
OUT ?= report
export PYTHON

# Threads of JAX and of BLAS fight when several test processes share few cores.
WORKERS ?= 2
RUN = .venv/bin/python
.DEFAULT_GOAL := help
.PHONY: help environment report test lint types test-only test-slow test-newest test-torch wheel-test docs gpu-smoke bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

environment:
	@.ci/environment

report: environment ## run all studies (quick size, minutes) and write report/index.html
	@$(RUN) -m thalweg report --size "$(SIZE)" --out "$(OUT)"

test: environment lint types test-only ## lint, format, types, tests, docstring and README examples

lint: environment
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .

types: environment
	@$(RUN) -m mypy

test-only: environment
	@$(RUN) -m pytest -q -n $(WORKERS) --dist loadfile

test-slow: environment ## the long statistical suites
	@$(RUN) -m pytest -q -n $(WORKERS) --dist loadfile -m slow

test-torch: environment ## the door for PyTorch; installs torch into .venv
	@.ci/torch
	@$(RUN) -m pytest -q -n $(WORKERS) tests/knowledge/test_torch.py tests/knowledge/test_torch_loops.py \
		tests/knowledge/test_transformers.py src/thalweg/knowledge/torch

test-newest: ## the tests on the newest Python at hand (3.13 or later)
	@.ci/test-newest

wheel-test: environment ## build the wheel, try it in an empty environment outside the repository
	@.ci/wheel-test

docs: environment ## the site, into build/docs; with what a report measured, if `make report` has written one
	@.ci/docs "$(OUT)"

gpu-smoke: environment ## the core and the door for PyTorch on an accelerator, where there is one
	@$(RUN) .ci/gpu_smoke.py
	@$(RUN) .ci/torch_smoke.py

bench: environment ## benchmarks, side by side with peers; BENCH=ensemble runs one
	@$(RUN) benchmarks/_record.py $(if $(BENCH),benchmarks/$(BENCH).py,$(wildcard benchmarks/[!_]*.py))

clean: ## remove the environment and everything built
	@rm -rf .venv .cache build docs/studies docs/_figures docs/_gallery dist report results .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
