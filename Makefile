# The commands of the project. They write below this folder only; `make clean` deletes everything they created.
PYTHON ?= $(shell command -v python3.11 || command -v python3)

# One virtual environment per purpose. A stamp file in each has the checksum of its requirements files in its name:
# when they change, the stamp is missing and make installs again.
VENV := .venv
RUN := $(VENV)/.run-$(firstword $(shell cat requirements.txt pyproject.toml | cksum))
DEV := $(VENV)/.dev-$(firstword $(shell cat requirements.txt requirements-dev.txt pyproject.toml | cksum))
MODELS := $(VENV)-models/.models-$(firstword $(shell cat requirements-dev.txt requirements-models.txt requirements-torchvision.txt | cksum))
TFLITE := $(VENV)-tflite/.tflite-$(firstword $(shell cksum requirements-tflite.txt))
SAGEMAKER := $(VENV)-sagemaker/.sagemaker-$(firstword $(shell cksum requirements-sagemaker.txt))
AUDIT := $(VENV)-audit/.audit-$(firstword $(shell cksum requirements-audit.txt))
DOCS := $(VENV)-docs/.docs-$(firstword $(shell cksum requirements-docs.txt))

WEB := tests/web/node_modules/.web-$(firstword $(shell cksum tests/web/package-lock.json))
NODE := $(VENV)/bin/node

export PIP_NO_CACHE_DIR := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Runs a command and prints the elapsed time every 10 s, since pip prints nothing for minutes. The clock ends with the shell.
with_time = (seconds=0; while sleep 10 >/dev/null 2>&1; do kill -0 $$$$ || exit 0; seconds=$$((seconds + 10)); \
	echo "  $$seconds s"; done) 2>/dev/null & clock=$$!; $(1); status=$$?; kill $$clock; exit $$status

.DEFAULT_GOAL := help
.PHONY: run up down reset test test-web test-web-sam screenshots test-units test-fast test-models test-sagemaker coverage fuzz chaos drill fuzz-files awkward compare-published check check-models check-templates lock audit fix load test-load load-overload load-soak bench bench-engines bench-bounds bench-peers bench-folder bench-serve bench-detectors bench-plan bench-birefnet bench-train docs preview tflite sagemaker clean help

##@ Run

run: $(RUN) ## Process the photos of samples/ with the local stack and print the results
	@$(VENV)/bin/maskdrop run

up: $(RUN) ## Start the local stack, watch drop/ and print the URLs; Ctrl-C stops it
	@$(VENV)/bin/maskdrop up

down: $(RUN) ## Stop the local stack that `make up` or `make run` started
	@$(VENV)/bin/maskdrop down

reset: $(RUN) ## Delete the jobs, images, keys and presets of the stopped local stack; drop/ and results/ remain
	@$(VENV)/bin/maskdrop reset

##@ Test

# Two processes, one for each core of a small machine: the tests with torch take as long as the others. The end-to-end tests
# follow alone, since they start servers and wait for them.
test: $(DEV) $(MODELS) ## Run all tests: unit, contract and infra, beside them those that need torch; then end to end
	@MODEL_WEIGHTS_DIR=.local/weights $(VENV)/bin/python -m sagemaker_model fetch-weights
	@echo "Running two test processes; each prints its output when it ends (several minutes)"
	@$(MAKE) --no-print-directory --output-sync=target --jobs 2 test-units test-models
	@$(VENV)/bin/python -m pytest tests/e2e

# The tests of the browser are skipped, with the reason, where CHROMIUM (default: /usr/bin/chromium) does not exist.
test-web: $(RUN) preview ## Check the types of the console, test its modules, and the console in Chromium
	@$(NODE) tests/web/node_modules/.bin/tsc --project web/tsconfig.json
	@$(NODE) --test 'tests/web/unit/*.test.js' 'tests/web/*.test.js'

# After a change of how the console looks: look at reports/web/ first. The tutorial of the training needs the other environment.
screenshots: $(RUN) $(MODELS) preview ## Write the screenshots of the tutorials and the coarse images of the views again
	@SCREENSHOTS=1 $(NODE) --test tests/web/tutorials.test.js tests/web/views.test.js

test-web-sam: $(RUN) $(MODELS) ## Click subjects with SAM in Chromium, and print the time to the mask (random weights, 30 s)
	@$(NODE) --test tests/web/sam.js

test-units: $(DEV) ## Run the unit, contract and infra tests without torch
	@$(VENV)/bin/python -m pytest tests/unit tests/contract tests/infra

# The files that it leaves out take more than half of the CPU time of the unit and contract tests: the conformance tests of
# every engine, the tests that evaluate engines from the command line, and simulations of outages. `make test` runs them.
test-fast: $(DEV) ## Run unit and contract tests without torch and the local stack, in about a minute
	@$(VENV)/bin/python -m pytest tests/unit tests/contract \
		--ignore tests/contract/test_engines.py --ignore tests/unit/cli/test_evaluate.py \
		--ignore tests/unit/lambdas/test_faults.py --ignore-glob 'tests/unit/lambdas/test_outage*.py'

# Without the folders and contract tests in which nothing depends on torch: `make test-units` runs them.
test-models: $(MODELS) ## Run the tests that need torch, in its own environment
	@MODEL_WEIGHTS_DIR=.local/weights $(VENV)-models/bin/python -m sagemaker_model fetch-weights
	@$(VENV)-models/bin/python -m pytest tests/unit/sagemaker_model tests/unit/bench \
		tests/contract/test_engines.py tests/contract/test_notebooks.py tests/contract/test_training.py \
		--ignore tests/unit/sagemaker_model/data --ignore tests/unit/sagemaker_model/imaging

test-sagemaker: $(DEV) $(SAGEMAKER) ## Test jobs submitted through the SageMaker SDK against a stub of the service
	@$(VENV)/bin/python -m pytest tests/unit/cli/test_sagemaker_sdk.py

# Unit and contract tests run with torch, so that the networks count; the infra tests need the installed package. Code
# that only tests/e2e runs does not count, because it runs in other processes. The table has the statements of each
# folder and the share that was executed; the HTML report has lines and branches.
coverage: $(DEV) $(MODELS) ## Measure the coverage of unit, contract and infra tests; HTML in reports/coverage/
	@MODEL_WEIGHTS_DIR=.local/weights $(VENV)-models/bin/python -m sagemaker_model fetch-weights
	@$(VENV)-models/bin/python -m pytest tests/unit tests/contract --cov --cov-report=
	@$(VENV)/bin/python -m pytest tests/infra --cov --cov-append --cov-report=html
	@$(VENV)/bin/coverage report | awk '/\.py / { folder = $$1; sub("/[^/]*$$", "", folder); \
		all[folder] += $$2; missed[folder] += $$3; all["total"] += $$2; missed["total"] += $$3 } \
		END { for (f in all) printf "%-30s %6d statements %6.1f %%\n", f, all[f], 100 * (1 - missed[f] / all[f]) }' | sort

fuzz: $(DEV) ## Test the API against its OpenAPI document with schemathesis, on a local stack
	@$(VENV)/bin/python -m tests.fuzz

fuzz-files: $(DEV) ## Send mutated image files to `maskdrop serve` by every way, and to the drop folder (COUNT, SEED, DROP)
	@$(VENV)/bin/python -m tests.fuzz.files

awkward: $(DEV) ## Send the files of FOLDER by every way, and compare with what its manifest states
	@$(VENV)/bin/python -m tests.fuzz.awkward

compare-published: $(MODELS) ## Compare our SAM with the classes that its authors published, with random weights
	@$(VENV)-models/bin/python -m tests.published

chaos: $(DEV) ## Send N images (500) to a local stack with the faults of SEED (1), and reconcile; docs/chaos.md
	@INTERLEAVINGS=1000 $(VENV)/bin/python -m pytest --quiet tests/unit/lambdas/test_interleavings.py
	@$(VENV)/bin/python -m tests.chaos

drill: $(DEV) ## Roll back to the commit FROM and upgrade while images are processed, and restore the tables, on a local stack
	@$(VENV)/bin/python -m tests.drills

##@ Check

check: $(DEV) ## Check lint, format, types, import contracts and the synthesized templates
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports
	@$(MAKE) --no-print-directory check-templates check-models

check-templates: $(DEV) ## Synthesize the stages of the tests and check their templates with cdk-nag and cfn-lint
	@$(VENV)/bin/python -m tests.infra.account.variants
	@$(VENV)/bin/cfn-lint

check-models: $(MODELS) ## Check the types of sagemaker_model, in the environment with torch
	@$(VENV)-models/bin/mypy --strict --package sagemaker_model

lock: $(DEV) ## Write the locks of what is deployed: every package with its digest
	@$(VENV)/bin/python -m infra.lock

audit: $(AUDIT) ## Look for known vulnerabilities of the deployed packages and of the tests' npm packages
	@curl --silent --fail --output /dev/null --max-time 20 https://api.osv.dev/docs/ || \
		{ echo "api.osv.dev, the database of vulnerabilities, cannot be reached: NOTHING WAS AUDITED."; exit 2; }
	@for lock in lambdas/requirements.lock sagemaker_model/serving/requirements.lock; do \
		$(VENV)-audit/bin/pip-audit --vulnerability-service osv --disable-pip --require-hashes --requirement $$lock || failed=1; \
	done; (cd tests/e2e/node && npm audit) || failed=1; test -z "$$failed"

fix: $(DEV) ## Fix lint findings and format the code
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

##@ Measure

# SHAPE=steady|step|spike|soak MINUTES=… USERS=… MIX=… (docs/load.md): make passes them on as environment variables.
load: $(DEV) ## Run a load test of one minute with Locust against the local stack
	@$(VENV)/bin/python -m tests.load

test-load: $(DEV) ## Test that a spike wakes, scales and stops the simulated instances of a local stack
	@MASKDROP_TEST_LOAD=1 $(VENV)/bin/python -m pytest tests/e2e/test_load.py

load-overload: $(DEV) ## Measure the capacity of the local stack; load it with 80 % for MINUTES (10), then 300 % and 80 %
	@$(VENV)/bin/python -m tests.load.overload

load-soak: $(DEV) ## Load the local stack and `maskdrop serve` for MINUTES (60) and measure what their processes use
	@$(VENV)/bin/python -m tests.load.soak

bench: $(DEV) ## Benchmark the local stack, the model server alone and rembg's server
	@$(VENV)/bin/python -m tests.bench

bench-engines: $(MODELS) ## Benchmark every engine, with torch; writes docs/performance.md
	@MODEL_WEIGHTS_DIR=.local/weights $(VENV)-models/bin/python -m sagemaker_model fetch-weights
	@$(VENV)-models/bin/python -m tests.bench.engines

bench-bounds: $(DEV) ## Measure memory and time by image size and format, and with decoding bombs
	@$(VENV)/bin/python -m tests.bench.bounds

bench-peers: $(DEV) ## Benchmark a 12 MP cut-out against rembg, which it installs below .local/
	@$(VENV)/bin/python -m tests.bench.peers

bench-folder: $(DEV) ## Benchmark `maskdrop cutout FOLDER` against `rembg p` on 200 photos, as whole commands
	@$(VENV)/bin/python -m tests.bench.folder

bench-serve: $(DEV) ## Benchmark `maskdrop serve` against `rembg s`, which it installs below .local/
	@$(VENV)/bin/python -m tests.bench.serve

bench-plan: $(DEV) ## Compare the simulation of `maskdrop plan` with the local stack in three scenarios
	@$(VENV)/bin/python -m tests.bench.plan

bench-detectors: $(DEV) ## Measure the detectors faces and people on the data sets in the folder DATA
	@$(VENV)/bin/python -m tests.bench.detectors $(DATA)

bench-birefnet: $(MODELS) ## Measure BiRefNet in batches and one by one, and export it to ONNX at its published size
	@$(VENV)-models/bin/python -m tests.bench.birefnet

bench-train: $(MODELS) ## Benchmark the training loop, its data loader and its network
	@$(VENV)-models/bin/python -m tests.bench.training

##@ Docs

# docs/pages.py collects the pages and makes the API and CLI references from the code. The last command fails if a page
# loads a script, style, image or font from another host.
docs: $(DEV) $(DOCS) ## Build the documentation site in site/; fails on any warning
	@$(VENV)/bin/python -m docs.pages .local/docs
	@NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --strict --quiet
	@! grep -rnoE --include='*.html' '<(script|link|img|iframe)[^>]* (src|href)="?(https?:)?//[^ >]*' site

##@ Set up

preview: $(WEB) ## Install the preview of the console in web/vendor/ (ONNX Runtime Web, 15 MB)
	@mkdir -p web/vendor/ort
	@cp $(addprefix tests/web/node_modules/onnxruntime-web/dist/,ort.wasm.min.mjs ort-wasm-simd-threaded.mjs \
		ort-wasm-simd-threaded.wasm) web/vendor/ort/
	@cp sagemaker_model/weights/bundled/portrait.onnx web/vendor/

tflite: $(TFLITE) ## Install the converter to TensorFlow Lite in its own environment (2.1 GB)

sagemaker: $(SAGEMAKER) ## Install the SageMaker SDK in its own environment (0.9 GB), for train and tune --on sagemaker

clean: ## Stop the local stack and delete everything that make created, except the photos in drop/ and results/
	@if [ -x $(VENV)/bin/python ]; then $(VENV)/bin/maskdrop down || true; fi
	@rm -rf $(VENV) $(VENV)-models $(VENV)-tflite $(VENV)-sagemaker $(VENV)-docs $(VENV)-audit .local cdk.out reports site *.egg-info
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache tests/web/node_modules web/vendor
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## List these commands
	@awk -F ':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } /^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' \
		$(MAKEFILE_LIST)

$(VENV)/bin/python:
	@echo "Creating $(VENV) with $(PYTHON)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Maskdrop needs Python 3.11 or newer.")'
	@$(PYTHON) -m venv $(VENV)

$(RUN): $(VENV)/bin/python
	@echo "Installing requirements.txt (one to three minutes)"
	@$(call with_time,TMPDIR=$(VENV) $(VENV)/bin/python -m pip install --quiet --requirement requirements.txt)
	@TMPDIR=$(VENV) $(VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.run-* && touch $@

$(WEB): $(RUN) tests/web/package-lock.json
	@echo "Installing the packages of tests/web/package-lock.json from npm (200 MB)"
	@PATH="$(abspath $(VENV)/bin):$$PATH" $(VENV)/bin/npm ci --prefix tests/web --ignore-scripts --no-audit --no-fund --silent
	@touch $@

$(DEV): $(RUN)
	@echo "Installing requirements-dev.txt (one to three minutes)"
	@$(call with_time,TMPDIR=$(VENV) $(VENV)/bin/python -m pip install --quiet --requirement requirements-dev.txt)
	@rm -f $(VENV)/.dev-* && touch $@

$(MODELS): requirements-dev.txt requirements-models.txt requirements-torchvision.txt
	@echo "Creating $(VENV)-models with torch (a few minutes)"
	@$(PYTHON) -m venv $(VENV)-models
	@$(call with_time,TMPDIR=$(VENV)-models $(VENV)-models/bin/python -m pip install --quiet -r requirements-dev.txt -r requirements-models.txt)
	@TMPDIR=$(VENV)-models $(VENV)-models/bin/python -m pip install --quiet --no-deps --upgrade \
		--target $(VENV)-models/torchvision -r requirements-torchvision.txt
	@rm -f $(VENV)-models/.models-* && touch $@

$(TFLITE): requirements-tflite.txt
	@echo "Creating $(VENV)-tflite with torch and LiteRT (a few minutes)"
	@$(PYTHON) -m venv $(VENV)-tflite
	@$(call with_time,TMPDIR=$(VENV)-tflite $(VENV)-tflite/bin/python -m pip install --quiet --requirement requirements-tflite.txt)
	@rm -f $(VENV)-tflite/.tflite-* && touch $@

$(SAGEMAKER): requirements-sagemaker.txt
	@echo "Creating $(VENV)-sagemaker with the SageMaker SDK (a few minutes)"
	@$(PYTHON) -m venv $(VENV)-sagemaker
	@$(call with_time,TMPDIR=$(VENV)-sagemaker $(VENV)-sagemaker/bin/python -m pip install --quiet --requirement requirements-sagemaker.txt)
	@rm -f $(VENV)-sagemaker/.sagemaker-* && touch $@

$(AUDIT): requirements-audit.txt
	@echo "Creating $(VENV)-audit with pip-audit"
	@$(PYTHON) -m venv $(VENV)-audit
	@$(call with_time,TMPDIR=$(VENV)-audit $(VENV)-audit/bin/python -m pip install --quiet --requirement requirements-audit.txt)
	@rm -f $(VENV)-audit/.audit-* && touch $@

$(DOCS): requirements-docs.txt
	@echo "Creating $(VENV)-docs with MkDocs Material"
	@$(PYTHON) -m venv $(VENV)-docs
	@$(call with_time,TMPDIR=$(VENV)-docs $(VENV)-docs/bin/python -m pip install --quiet --requirement requirements-docs.txt)
	@rm -f $(VENV)-docs/.docs-* && touch $@
