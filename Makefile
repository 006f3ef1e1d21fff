# Two commands do everything: `make demo` and `make test`. Both set the machine up first, both may be run again.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
# The fast tests wait for processes as much as they compute: half as many workers again as there are cores.
WORKERS := $(shell echo $$(($$(nproc) * 3 / 2)))

# Where no byte code may be kept, every worker and every process that a test starts compiles all of it anew.
unexport PYTHONDONTWRITEBYTECODE

help: ## show the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: ## install what is missing: Debian packages, then a virtual environment in .venv
	@bash own.sh bash setup.sh

setup-tests:
	@bash own.sh bash setup.sh tests

lint: ## ruff, import-linter; nodes' programs run with Python 3.7
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/vermin --quiet --no-tips --violations --target=3.7- piimage/guest piimage/boot/inside*.py

type: ## mypy: --strict on the package, without a call for annotations on the tests
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini tests/*.py tests/fixtures tests/cases
	$(BIN)/mypy --config-file tests/mypy.ini tests/unit
	$(BIN)/mypy --config-file tests/mypy.ini tests/integration
	$(BIN)/mypy --config-file tests/mypy.ini tests/e2e

unit: ## the fast tests: no root, no network, no appliance
	$(BIN)/pytest -q -n $(WORKERS) --dist worksteal -m "not processes" tests/unit tests/cases

processes: ## unit tests that play whole programs: commands, clusters, machines
	$(BIN)/pytest -q -n $(WORKERS) --dist worksteal -m processes tests/unit

integration: ## tests with the libguestfs appliance
	$(BIN)/pytest -q tests/integration

e2e: ## tests that build the default base, build images and start them in QEMU
	$(BIN)/pytest -q -m "not matrix" tests/e2e

test-matrix: setup-tests ## boot an image like each vendor's in QEMU, and clusters over three of them
	@bash own.sh $(BIN)/pytest -q --durations=0 tests/e2e/test_vendor_boots.py tests/e2e/test_cluster_mixed.py \
		tests/e2e/test_cluster_32_bit.py

checks: lint type unit processes integration e2e

test: setup-tests ## everything: lint, types and all tests
	@bash own.sh $(MAKE) --no-print-directory checks

demo: setup ## make the default base and build node 3 of the sample cluster
	@bash own.sh bash demo.sh

.PHONY: help setup setup-tests lint type unit processes integration e2e checks test test-matrix demo
