# Everything a person or CI does with a checkout. `make` alone lists the targets.
#
# A machine with Python >= 3.11 and make is enough: each target that needs the environment depends
# on a stamp, which makes .venv once and again only when pyproject.toml or the pins have changed.

PYTHON ?= python3
VENV ?= .venv
# More for pytest: make test PYTEST_ARGS="-k coalescing -x"
PYTEST_ARGS ?=
# Processes that share the tests; each has servers of its own. Three keep two processors busy: a
# test that waits for a process, a server or a time-out leaves its processor to another.
WORKERS ?= 3
# make faults: valkey, redis, redis62 or all.
SERVER ?= valkey
MINUTES ?= 30
# make bench: --quick, --only events,entries, --keep
ARGS ?=
PEERS := .venv-peers
# make test-newest: the environment of the newest Python that this machine has.
NEWEST := .venv-newest
AUDIT := .venv-audit

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SOURCES := schemas streams storage components health producers rebuilder reloaders service operations admin console testing
CODE := $(SOURCES) faults tests scripts deploy $(wildcard examples benchmarks)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort -t : -k 1,1 | \
		awk -F ':.*## ' '{ printf "  make %-14s %s\n", $$1, $$2 }'

.PHONY: demo
demo: $(INSTALLED) ## Run the whole pipeline on this Python's own docstrings; ARGS=--stay to look around
	@$(BIN)/indexrelay demo $(ARGS)

.PHONY: test
test: $(INSTALLED) ## Run the tests
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

.PHONY: test-newest
test-newest: ## Run the tests of what a new Python may break, and the demo, on the newest one here
	@newest=$$(scripts/newest_python.sh) || { \
		echo "skipped: there is no Python >= 3.13 on PATH or in pyenv" >&2; \
		if [ -n "$$CI" ]; then exit 1; fi; exit 0; }; \
	$(MAKE) --no-print-directory VENV=$(NEWEST) PYTHON=$$newest $(NEWEST)/.installed && \
	$(NEWEST)/bin/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS) \
		tests/storage tests/components tests/reloaders tests/service tests/testing && \
	$(NEWEST)/bin/indexrelay demo

.PHONY: faults
faults: $(INSTALLED) ## Break it in every way that we know: SERVER=all FAULT=F1,F13 RUNS=20
	@$(BIN)/python -m faults --server $(SERVER) \
		$(if $(FAULT),--fault $(FAULT)) $(if $(RUNS),--runs $(RUNS))

.PHONY: soak
soak: $(INSTALLED) ## Kill at random for long: MINUTES=30 SERVER=all
	@$(BIN)/python -m faults --fault F2 --minutes $(MINUTES) --server $(SERVER)

.PHONY: soak-live
soak-live: $(INSTALLED) ## Have clients write and search for long, while instances are killed: MINUTES=60
	@PYTHONPATH=benchmarks $(BIN)/python -m faults.soak --minutes $(MINUTES) $(ARGS)

.PHONY: fuzz
fuzz: $(INSTALLED) ## Attack it with messages, files and requests of all kinds, MINUTES=30 each
	@INDEXRELAY_FUZZ_MINUTES=$(MINUTES) $(BIN)/python -m pytest -x --tb=native $(PYTEST_ARGS) \
		tests/security/test_*_fuzzing.py

.PHONY: bench
bench: $(INSTALLED) ## Measure, and write benchmarks/RESULTS.md: ARGS=--quick ARGS="--only events"
	@PYTHONPATH=benchmarks $(BIN)/python -m measuring $(ARGS)

.PHONY: crowd
crowd: $(INSTALLED) ## Have fifty clients write and search through two instances: ARGS=--quick
	@PYTHONPATH=benchmarks $(BIN)/python benchmarks/crowd.py $(ARGS)

.PHONY: bench-peers
bench-peers: $(PEERS)/.installed ## Install what make bench compares with, in .venv-peers

.PHONY: lint
lint: $(INSTALLED) ## Check style and format
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check $(CODE)

.PHONY: format
format: $(INSTALLED) ## Repair what lint can repair
	@$(BIN)/ruff check --fix $(CODE)
	@$(BIN)/ruff format $(CODE)

.PHONY: types
types: $(INSTALLED) ## Check the types, strictly
	@$(BIN)/mypy

.PHONY: imports
imports: $(INSTALLED) ## Check that imports point one way
	@$(BIN)/lint-imports

.PHONY: docs
docs: $(INSTALLED) ## Generate the JSON Schema files, the pages of settings, names, licences, and the alerts
	@$(BIN)/python -m indexrelay.schemas.documents docs
	@$(BIN)/python -m scripts.settings_page docs/settings.md
	@$(BIN)/python -m scripts.api_page docs/api.md
	@$(BIN)/python -m scripts.licences_page docs/licences.md
	@$(BIN)/python -m scripts.prometheus_rules deploy/prometheus/alerts.yml

.PHONY: check-docs
check-docs: $(INSTALLED) ## Check that the generated documents are those of the models
	@$(BIN)/python -m indexrelay.schemas.documents docs --check
	@$(BIN)/python -m scripts.settings_page docs/settings.md --check
	@$(BIN)/python -m scripts.api_page docs/api.md --check
	@$(BIN)/python -m scripts.licences_page docs/licences.md --check
	@$(BIN)/python -m scripts.prometheus_rules deploy/prometheus/alerts.yml --check

.PHONY: snapshots
snapshots: $(INSTALLED) ## Renew what every command's --help and --json look like, where a change is meant
	@RENEW_SNAPSHOTS=1 $(BIN)/python -m pytest -q tests/console/test_snapshots.py

.PHONY: guarantees
guarantees: $(INSTALLED) ## Check that what proves each guarantee exists
	@$(BIN)/python -m scripts.check_guarantees

.PHONY: reports
reports: $(INSTALLED) ## Try every reported input again: ARGS="--only B7"
	@$(BIN)/python -m scripts.try_reports $(ARGS)

.PHONY: examples
examples: $(INSTALLED) ## Run every example against its expected output
	@$(BIN)/python -m scripts.run_examples

.PHONY: screenshots
screenshots: $(INSTALLED) ## Take pictures of the admin page for docs/images (needs Chromium)
	@$(BIN)/python -m tests.browser.screenshots docs/images

.PHONY: readme
readme: $(INSTALLED) ## Run the commands of the README and of docs/kinds.md in copies of the checkout
	@$(BIN)/python -m scripts.readme_commands README.md docs/kinds.md

.PHONY: package
package: $(INSTALLED) ## Build wheel, sdist and bill of materials in dist/, and try the wheel by itself
	@scripts/try_package.sh $(BIN)/python

.PHONY: audit
audit: $(AUDIT)/.installed ## Look for known vulnerabilities of what is pinned (needs a network)
	@$(PYTHON) scripts/locked_requirements.py --extra all --group dev --build > $(AUDIT)/audited.txt
	@$(PYTHON) scripts/audit.py $(AUDIT)/bin/pip-audit $(AUDIT)/audited.txt

.PHONY: ci
ci: ## Do everything that CI does
	@.ci/run

.PHONY: constraints
constraints: ## Pin the newest versions that pyproject.toml allows; ARGS=--keep: only what changed there
	@scripts/renew_constraints.sh $(PYTHON) $(ARGS)

.PHONY: clean
clean: ## Remove the environment and every cache
	@rm -rf $(VENV) $(PEERS) $(NEWEST) $(AUDIT) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

$(PEERS)/.installed: benchmarks/peers.txt | $(INSTALLED)
	@echo "indexrelay: setting up $(PEERS) …" >&2
	@$(BIN)/python -m venv $(PEERS)
	@$(PEERS)/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
		--requirement benchmarks/peers.txt
	@touch $@

$(AUDIT)/.installed: pyproject.toml constraints.txt scripts/locked_requirements.py
	@echo "indexrelay: setting up $(AUDIT) …" >&2
	@$(PYTHON) -m venv $(AUDIT)
	@$(PYTHON) scripts/locked_requirements.py --no-project --group audit > $(AUDIT)/requirements.txt
	@$(AUDIT)/bin/pip install --quiet --disable-pip-version-check --require-hashes \
		--requirement $(AUDIT)/requirements.txt || { \
		echo "pip-audit could not be installed (it needs a network), so nothing was looked up" >&2; \
		exit 2; }
	@touch $@

$(INSTALLED): pyproject.toml constraints.txt scripts/locked_requirements.py
	@command -v $(PYTHON) > /dev/null || { \
		echo "There is no '$(PYTHON)' here; name one: make PYTHON=/path/to/python3.11 …" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, and '$(PYTHON)' is" \
			"$$($(PYTHON) --version); name another: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
		echo "'$(PYTHON)' comes without venv; on Debian or Ubuntu: apt-get install python3-venv" >&2; \
		exit 1; }
	@echo "indexrelay: setting up $(VENV) (once; about a minute) …" >&2
	@$(PYTHON) -m venv $(VENV)
	@$(PYTHON) scripts/locked_requirements.py --extra all --group dev --build > $(VENV)/locked.txt
	@echo "indexrelay: installing …" >&2
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes \
		--requirement $(VENV)/locked.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@
	@echo "indexrelay: ready" >&2
