# `make run` and `make test` are all that a newcomer needs; the rest is for developers.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help run test check contract plans bench faults lock sbom clean

help: ## Say what can be made
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

run: $(VENV)/.installed ## Start everything: PostgreSQL and Redis if none are configured, web, worker, scheduler
	@$(BIN)/python -m config.up

test: $(VENV)/.installed-dev ## Check and test everything on servers of its own
	@$(BIN)/python -m tests.run

check: $(VENV)/.installed-dev ## The fast checks alone: formatting, lint, security, types, architecture
	@$(BIN)/python -m tests.run --checks-only

contract: $(VENV)/.installed-dev ## Call every operation of the API with 500 random calls each, made from /openapi.json
	@CONTRACT_EXAMPLES=500 $(BIN)/python -m pytest --timeout 0 tests/contract

plans: $(VENV)/.installed-dev ## Look how each list is read where there are 1,000,000 rows
	@LIST_ROWS=1000000 $(BIN)/python -m pytest --timeout 0 tests/deliveries/test_list_plans.py \
		tests/deliveries/test_plans.py tests/deliveries/test_event_plans.py

bench: $(VENV)/.installed-dev ## Print what this machine does, in figures
	@$(BIN)/python -m tests.benchmarks

faults: $(VENV)/.installed-dev ## Kill, freeze and cut off everything for half an hour, and write docs/reliability.md
	@$(BIN)/python -m tests.faults

lock: $(VENV)/.installed-dev ## Bring requirements*.txt up to date with requirements*.in
	$(BIN)/pip-compile -q -U --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links -o requirements.txt requirements.in
	$(BIN)/pip-compile -q -U --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links -o requirements-dev.txt requirements-dev.in

SBOM ?= sbom.json
sbom: $(VENV)/.installed-dev ## Write what is in it, with versions and hashes, to sbom.json (CycloneDX)
	@$(BIN)/python -W ignore -m cyclonedx_py requirements --pyproject pyproject.toml --output-reproducible --of JSON -o $(SBOM) requirements.txt

clean: ## Remove the environment and the embedded servers' data
	@# For root the cluster may lie elsewhere, where the user that PostgreSQL runs as can enter.
	@if [ -L .data/postgresql ]; then rm -rf "$$(readlink -f .data/postgresql)"; fi
	rm -rf $(VENV) .data staticfiles tests/receiving/node_modules

# An environment of another Python than the one asked for is made anew.
ifeq ($(origin PYTHON),command line)
ifneq ($(shell $(BIN)/python -V 2>/dev/null),$(shell $(PYTHON) -V 2>/dev/null))
.PHONY: $(BIN)/activate
endif
endif

# What is written last: one that was interrupted before is made anew.
$(BIN)/activate:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; this is %s. Set PYTHON to one: make run PYTHON=python3.12" % sys.version.split()[0])'
	@echo "Making the environment $(VENV) with $$($(PYTHON) -V) ..."
	@$(PYTHON) -m config.alone sh -c 'rm -rf $(VENV); $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }'

INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes

$(VENV)/.installed: requirements.txt $(BIN)/activate
	@echo "Installing what is needed into $(VENV) (once, about a minute) ..."
	@$(BIN)/python -m config.alone sh -c '$(INSTALL) -r requirements.txt && touch $@'

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	@echo "Installing what the tests need into $(VENV) (once) ..."
	@$(BIN)/python -m config.alone sh -c '$(INSTALL) -r requirements-dev.txt && touch $@'
