# One list of commands. Nothing is written outside this folder; `make clean` leaves what git knows.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
RUN := $(VENV)/.run-$(firstword $(shell cat requirements.txt pyproject.toml | cksum))
DEV := $(VENV)/.dev-$(firstword $(shell cat requirements.txt requirements-dev.txt pyproject.toml | cksum))

MODELS := $(VENV)-models/.models-$(firstword $(shell cat requirements-dev.txt requirements-models.txt | cksum))

TFLITE := $(VENV)-tflite/.tflite-$(firstword $(shell cksum requirements-tflite.txt))

export PIP_NO_CACHE_DIR := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help run up down test test-models tflite fix check fuzz compare-published load bench bench-engines bench-peers bench-train clean

help: ## lists these commands
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "make %-17s %s\n", $$1, $$2 }'

run: $(RUN) ## sends the photos of samples/ through a stack on this machine
	@$(VENV)/bin/maskdrop run

up: $(RUN) ## starts the stack and stays: watches drop/, prints the addresses
	@$(VENV)/bin/maskdrop up

down: $(RUN) ## stops what `make up` or `make run` started
	@$(VENV)/bin/maskdrop down

test: $(DEV) ## runs every test: unit, contract, infra, end to end, then those of the networks
	@MODEL_WEIGHTS_DIR=.local/weights $(VENV)/bin/python -m sagemaker_model fetch-weights
	@$(VENV)/bin/python -m pytest tests/unit tests/contract tests/infra tests/e2e
	@$(MAKE) --no-print-directory test-models

test-models: $(MODELS) ## runs the tests of the networks, with torch in an environment of its own
	@MODEL_WEIGHTS_DIR=.local/weights $(VENV)-models/bin/python -m sagemaker_model fetch-weights
	@$(VENV)-models/bin/python -m pytest tests/unit/sagemaker_model tests/unit/bench tests/contract

tflite: $(TFLITE) ## installs the converter to TensorFlow Lite, in an environment of its own (2.1 GB)

fix: $(DEV) ## fixes lint findings and formats the code
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

check: $(DEV) ## lint, format, types, import contracts
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

fuzz: $(DEV) ## asks the API of the stack that is up, or one of its own, all that its description allows and forbids
	@$(VENV)/bin/python -m tests.fuzz

compare-published: $(MODELS) ## holds our SAM against the classes that its authors published, with random weights
	@$(VENV)-models/bin/python -m tests.published

load: $(DEV) ## a minute of Locust against the stack that is up, or one of its own
	@$(VENV)/bin/python -m tests.load

bench: $(DEV) ## measures the whole path beside the bare model server, and that beside rembg's server
	@$(VENV)/bin/python -m tests.bench

bench-engines: $(MODELS) ## measures every engine, with torch, and writes docs/performance.md
	@MODEL_WEIGHTS_DIR=.local/weights $(VENV)-models/bin/python -m sagemaker_model fetch-weights
	@$(VENV)-models/bin/python -m tests.bench.engines

bench-peers: $(DEV) ## measures a 12 MP cut-out beside rembg, which it installs below .local/
	@$(VENV)/bin/python -m tests.bench.peers

bench-train: $(MODELS) ## measures the training loop beside its loader and its network
	@$(VENV)-models/bin/python -m tests.bench.training

clean: ## removes everything that was made
	@if [ -x $(VENV)/bin/python ]; then $(VENV)/bin/maskdrop down || true; fi
	@rm -rf $(VENV) $(VENV)-models $(VENV)-tflite .local cdk.out reports *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@echo "Making $(VENV) with $(PYTHON)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Maskdrop needs Python 3.11 or newer.")'
	@$(PYTHON) -m venv $(VENV)

$(RUN): $(VENV)/bin/python
	@echo "Installing requirements.txt (about a minute)"
	@TMPDIR=$(VENV) $(VENV)/bin/python -m pip install --quiet --requirement requirements.txt
	@TMPDIR=$(VENV) $(VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.run-* && touch $@

$(DEV): $(RUN)
	@echo "Installing requirements-dev.txt"
	@TMPDIR=$(VENV) $(VENV)/bin/python -m pip install --quiet --requirement requirements-dev.txt
	@rm -f $(VENV)/.dev-* && touch $@

$(MODELS): requirements-dev.txt requirements-models.txt
	@echo "Making $(VENV)-models with torch (a few minutes)"
	@$(PYTHON) -m venv $(VENV)-models
	@TMPDIR=$(VENV)-models $(VENV)-models/bin/python -m pip install --quiet -r requirements-dev.txt -r requirements-models.txt
	@rm -f $(VENV)-models/.models-* && touch $@

$(TFLITE): requirements-tflite.txt
	@echo "Making $(VENV)-tflite with torch and LiteRT (a few minutes)"
	@$(PYTHON) -m venv $(VENV)-tflite
	@TMPDIR=$(VENV)-tflite $(VENV)-tflite/bin/python -m pip install --quiet --requirement requirements-tflite.txt
	@rm -f $(VENV)-tflite/.tflite-* && touch $@
