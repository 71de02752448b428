# Everything runs in .venv, which `make install` builds from requirements.lock.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-browser precision slurm parity certify bench bench-data crashtest figures lint format lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/installed ## build .venv with convjax and its pinned dependencies

.venv/installed: requirements.lock pyproject.toml setup.py $(wildcard convjax/ops/cpu/*.cc convjax/ops/cpu/*.h)
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"convjax needs Python 3.11 or newer, this is {sys.version}"'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: install ## train a small residual network on the digits data
	$(BIN)/convjax train experiments/digits.py --workdir runs/digits

test: install ## run the test suite
	$(BIN)/pytest -n auto

test-slow: install ## run the tests that take minutes
	$(BIN)/pytest -n auto -m slow

test-browser: install ## run the tests that drive a browser (Debian: apt-get install chromium)
	$(BIN)/pytest -m browser tests/browser

precision: install ## train every model in each precision; write the table into docs/parallel.md
	$(BIN)/python tests/models/precision.py --write docs/parallel.md

slurm: install ## run a sweep on a SLURM cluster that is started here (needs Debian's slurm-wlm, root)
	$(BIN)/pytest -n 0 -m slow tests/sweep/test_slurm.py

parity: .venv/parity ## run the tests that compare with PyTorch
	$(BIN)/pytest -m parity

.venv/parity: .venv/installed
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[parity]'
	@touch $@

certify: .venv-certify/installed ## compare all networks with live libraries; OPTIONS=--record, NAMES="resnet18 ..."
	JAX_PLATFORMS=cpu PYTHONPATH=tests .venv-certify/bin/python tests/parity/certify.py $(NAMES) $(OPTIONS) --write docs/models.md
	JAX_PLATFORMS=cpu PYTHONPATH=tests .venv-certify/bin/python tests/parity/certify_names.py
	.venv-certify/bin/python -m pytest -m certify tests/parity

.venv-certify/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv-certify
	.venv-certify/bin/python -m pip install --quiet --require-hashes -r requirements.lock
	.venv-certify/bin/python -m pip install --quiet --no-build-isolation --editable '.[certify]'
	@touch $@

bench: .venv/installed .venv-certify/installed ## time convjax, stock Linen and PyTorch in turn; NETWORKS="resnet20 ...", OPTIONS=...
	$(BIN)/python benchmarks/bench.py $(NETWORKS) $(OPTIONS) --torch .venv-certify/bin/python

crashtest: install ## kill runs at random moments; write the table into docs/reliability.md
	$(BIN)/python tests/crashtest.py --write docs/reliability.md

bench-data: install .venv-certify/installed .venv-bench-data/installed ## time the input pipeline beside PyTorch's and TensorFlow's; OPTIONS="--memory 40"
	$(BIN)/python benchmarks/data.py $(OPTIONS)

.venv-bench-data/installed: pyproject.toml
	$(PYTHON) -m venv .venv-bench-data
	.venv-bench-data/bin/python -m pip install --quiet 'tensorflow-cpu==2.21.0'
	@touch $@

figures: install ## draw the figures of docs/course
	$(BIN)/python docs/figures.py

lint: install ## ruff (lint and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## compute requirements.lock anew (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --extra dev pyproject.toml -o requirements.lock

clean: ## remove .venv and caches
	rm -rf .venv .venv-certify .venv-bench-data build *.egg-info .mypy_cache .pytest_cache .ruff_cache
