# Every command sets up what it needs. PYTHON selects the interpreter (3.11 to 3.14): make test PYTHON=python3.13
PYTHON ?= python3
PYTHON_VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
export SAM_CLI_TELEMETRY = 0
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup local stop demo test test-in-cloud test-apart build-firmware test-firmware fuzz prove bench sbom lint lock clean check-python packages

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- the system's packages ------------------------------------------------------------------------------------
# By the groups of tools/install_packages.sh. Of all goals at once, so that a password is asked for once.
TEST_PACKAGES := firmware firmware-test fuzz test
packages_demo := demo $(if $(filter 0,$(DEVICES)),,firmware)
packages_test := $(TEST_PACKAGES)
packages_test-in-cloud := $(TEST_PACKAGES)
packages_test-apart := $(TEST_PACKAGES)
packages_prove := $(TEST_PACKAGES)
packages_build-firmware := firmware
packages_test-firmware := firmware firmware-test
packages_fuzz := fuzz
packages_bench := $(if $(filter device,$(or $(ONLY),device)),firmware)
PACKAGES := $(sort $(if $(wildcard .venv/bin/python$(PYTHON_VERSION)),,python) $(foreach goal,$(MAKECMDGOALS),$(packages_$(goal))))

packages: check-python
	@PYTHON=$(PYTHON) tools/install_packages.sh $(PACKAGES) $(if $(and $(filter demo,$(MAKECMDGOALS)),$(filter firmware,$(PACKAGES))), \
		|| { echo "Without the devices fewer are needed: make demo DEVICES=0" >&2; exit 1; })

# --- environments ---------------------------------------------------------------------------------------------
# The stamp carries the interpreter's version, so that another PYTHON makes the environment anew.
INSTALLED := .installed-$(PYTHON_VERSION)

setup: .venv/$(INSTALLED) .venv-emulator/$(INSTALLED) .venv-checkov/$(INSTALLED) ## make the environments that the other commands use

.venv/$(INSTALLED): requirements/dev.txt requirements/uv.txt pyproject.toml | packages
	@echo "setup: .venv (Python $(PYTHON_VERSION))"
	@test -x .venv/bin/python$(PYTHON_VERSION) || $(PYTHON) -m venv --clear .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@.venv/bin/uv pip sync --quiet --python .venv/bin/python --require-hashes requirements/dev.txt
	@.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

.venv-%/$(INSTALLED): requirements/%.txt .venv/$(INSTALLED)
	@echo "setup: .venv-$* (Python $(PYTHON_VERSION))"
	@test -x .venv-$*/bin/python$(PYTHON_VERSION) || $(PYTHON) -m venv --clear --without-pip .venv-$*
	@.venv/bin/uv pip sync --quiet --python .venv-$*/bin/python --require-hashes requirements/$*.txt
	@touch $@

# The compiler that checks the console's JavaScript. Node.js, which it needs, comes from PyPI.
TYPESCRIPT := .venv-typescript/node_modules/typescript/bin/tsc
$(TYPESCRIPT): requirements/typescript/package-lock.json .venv-typescript/$(INSTALLED)
	@echo "setup: TypeScript"
	@cp requirements/typescript/package.json requirements/typescript/package-lock.json requirements/typescript/.npmrc .venv-typescript
	@cd .venv-typescript && bin/npm ci --loglevel=error >/dev/null
	@touch $@

check-python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null || { echo "make: Python 3.11 to 3.14 is needed, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1); name another with PYTHON=python3.x" >&2; exit 1; }

LOCK := .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
lock: .venv/$(INSTALLED) .venv-typescript/$(INSTALLED) ## resolve the lock files anew (add UPGRADE=--upgrade for the newest versions)
	$(LOCK) $(UPGRADE) requirements/dev.in -o requirements/dev.txt
	$(LOCK) $(UPGRADE) requirements/uv.in -c requirements/dev.txt -o requirements/uv.txt
	$(LOCK) $(UPGRADE) requirements/emulator.in -o requirements/emulator.txt
	$(LOCK) $(UPGRADE) requirements/checkov.in -o requirements/checkov.txt
	$(LOCK) $(UPGRADE) requirements/bench.in -c requirements/dev.txt -o requirements/bench.txt
	$(LOCK) $(UPGRADE) requirements/goosebit.in -o requirements/goosebit.txt
	$(LOCK) $(UPGRADE) requirements/sbom.in -o requirements/sbom.txt
	$(LOCK) $(UPGRADE) requirements/typescript.in -o requirements/typescript.txt
	cd requirements/typescript && ../../.venv-typescript/bin/npm $(if $(UPGRADE),update,install) --package-lock-only --loglevel=error
	$(LOCK) $(UPGRADE) requirements/ota-sign.in -c requirements/dev.txt -o requirements/ota-sign.txt
	$(LOCK) $(UPGRADE) requirements/shipped.in -c requirements/dev.txt -o requirements/shipped.txt
	$(LOCK) $(UPGRADE) layers/ota_core/requirements.in -c requirements/dev.txt -o layers/ota_core/requirements.txt

# --- the local cloud ------------------------------------------------------------------------------------------
local: setup ## start the local cloud, deploy the stack, write .local/env
	@python -m local_cloud up

stop: ## stop the local cloud
	@if [ -x .venv/bin/python ]; then .venv/bin/python -m local_cloud down; else echo "nothing was ever started here"; fi

demo: setup ## show the way of a release, from ota-sign to devices that update (DEVICES=0 for a demo without them)
	@python tools/demo.py $(if $(filter 0,$(DEVICES)),--without-devices)

# --- checks ---------------------------------------------------------------------------------------------------
lint: setup $(TYPESCRIPT) ## check style, types and templates
	ruff check .
	ruff format --check .
	bandit --quiet --configfile pyproject.toml --recursive functions layers tools 2>/dev/null # its warnings are of its own exceptions
	mypy
	@mkdir -p build; lint-imports --no-logo --no-cache >build/imports.log || { cat build/imports.log; exit 1; }
	python tools/api_types.py api/operator.yaml >build/operator_api.d.ts
	.venv-typescript/bin/node $(TYPESCRIPT) --project jsconfig.json
	sam validate --lint
	cfn-lint database.yaml
	.venv-checkov/bin/checkov --file template.yaml database.yaml --skip-download --compact --quiet

# Two at a time, with a local cloud each, because tests mostly wait. Both use the firmware, which is built before.
test: build-firmware ## run every test
	@$(MAKE) --no-print-directory --jobs=2 test-in-cloud test-apart

APART := tests/e2e/test_attacks.py tests/e2e/test_console.py
test-in-cloud: setup
	pytest tests/e2e $(addprefix --ignore=,$(APART))

APART_LOG := build/tests-apart.log
test-apart: lint test-firmware
	@python fuzz/run.py 1
	@pytest --cloud .local-test-apart $(APART) tests/unit tests/infrastructure tests/integration >$(APART_LOG) 2>&1 \
		|| { cat $(APART_LOG); exit 1; }; tail -n 1 $(APART_LOG)

# The firmware's components on this machine.
build-firmware: packages
	@echo "firmware: building its host tests"; mkdir -p build
	@cmake -S firmware/host -B build/host -G Ninja >build/firmware.log 2>&1 || { cat build/firmware.log >&2; exit 1; }
	@ninja -C build/host --quiet

test-firmware: build-firmware ## run the firmware's host tests
	@ctest --test-dir build/host --output-on-failure --progress

SECONDS ?= 60
JOBS ?= $(shell nproc)
fuzz: setup ## fuzz every parser for SECONDS, or Python's for INPUTS, JOBS at a time
	@python fuzz/run.py $(SECONDS) $(if $(INPUTS),--inputs $(INPUTS)) --jobs $(JOBS)

prove: setup ## run every suite in its long form, print what was withstood (hours)
	@python tools/prove.py

bench: setup .venv-bench/$(INSTALLED) .venv-goosebit/$(INSTALLED) ## measure it against floors and peers (ONLY=publish for one row)
	@python bench/run.py $(ONLY)
	@test -n "$(ONLY)" || python bench/scale.py

sbom: .venv-sbom/$(INSTALLED) .venv-shipped/$(INSTALLED) ## write build/sbom.cdx.json, the bill of materials of what is shipped
	@mkdir -p build
	@.venv-sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON \
		--output-file build/sbom.cdx.json .venv-shipped/bin/python

clean: ## stop every cloud, remove everything that these commands made
	@for state in .local .local-*; do if [ -d $$state/run ]; then .venv/bin/python -m local_cloud down --state $$state; fi; done
	rm -rf .venv .venv-* .local .local-* .aws-sam build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
