# Every command sets up what it needs: on a fresh clone `make demo` is enough. Needs make and Python 3.11 or newer.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
# On a terminal pip shows what it fetches: a first installation takes minutes. Elsewhere that would fill the log.
QUIET := $(shell test -t 2 || echo --quiet)
INSTALL := $(PIP) install $(QUIET) --require-hashes --requirement
EDITABLE := $(PIP) install --quiet --no-deps --no-build-isolation --editable .
LOCK := $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links

# The first of these that is recent enough makes .venv; `make demo PYTHON=/path/to/python3.12` takes another one.
NAMES := python3.14 python3.13 python3.12 python3.11
PYTHONS := $(or $(PYTHON),python3 $(NAMES))
FITS := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))

say = echo "Installing $$(grep -c '^[a-z].*==' $(1)) packages of $(1) into $(VENV): once, for one to three minutes"

# Broken inputs of each kind, and the seed from which they are made.
FUZZ := 10000
FUZZ_SEED := $(shell date +%s)

# Stamps: what is newer than its stamp is set up again, the rest costs nothing.
RUN := $(VENV)/.run
DEV := $(VENV)/.dev

.DEFAULT_GOAL := help
.PHONY: help demo up unit types check test matrix chaos format bench lock docs clean
.DELETE_ON_ERROR:

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(RUN) ## run jobs through everything on this machine, with no account at any provider
	$(BIN)/outwait demo

up: $(RUN) ## run Redis, a worker and Flower on this machine until Ctrl-C
	$(BIN)/outwait up

unit: $(DEV) ## the tests that need no process, in seconds
	$(BIN)/pytest tests/unit --quiet --numprocesses auto

types: $(DEV) ## types alone
	$(BIN)/mypy

check: $(DEV) ## lint, format, types and import rules; draws which room imports which
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/rooms.py

test: $(DEV) ## all tests, and how much of the code they run
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses 6 --dist loadfile --no-loadscope-reorder
	$(BIN)/coverage combine --quiet
	@rm -f .coverage.* # left by workers that tests killed while they wrote
	$(BIN)/coverage report

matrix: ## the unit tests on each Python found here; `make matrix NAMES="/path/to/python3.14 …"`
	@for python in $(NAMES); do \
		version=$$("$$python" -c '$(FITS)' 2>/dev/null && "$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') \
			|| { echo "$$python: not here"; continue; }; \
		echo "$$python"; $(MAKE) --no-print-directory unit VENV=.venv-$$version PYTHON="$$python" || exit 1; \
	done

chaos: $(DEV) ## ten minutes of load, kills and outages, then the books, and broken inputs; `make chaos CHAOS="--seed 7 --minutes 2" FUZZ=2000`
	$(BIN)/python -m tests.faults.chaos $(CHAOS)
	OUTWAIT_FUZZ_COUNT=$(FUZZ) OUTWAIT_FUZZ_SEED=$(FUZZ_SEED) $(BIN)/pytest -n 0 --capture no tests/attacks/test_fuzz.py

format: $(DEV) ## mend what can be mended by itself
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(DEV) ## what a poll costs, beside the usual ways to do it; the intake; what grows with waiting jobs; overload (11 minutes)
	$(BIN)/python benchmarks/poll_cost.py --rounds 2
	$(BIN)/python benchmarks/intake.py --rounds 1
	$(BIN)/python benchmarks/scale.py --rounds 1 --waiting 1000 100000
	$(BIN)/python benchmarks/overload.py --seconds 60 --calm 20

lock: $(DEV) ## write the locked versions again; `make lock UPGRADE=--upgrade` takes newer ones
	$(LOCK) $(UPGRADE) --group build --output-file requirements.lock
	$(LOCK) $(UPGRADE) --group dev --constraint requirements.lock --output-file requirements-dev.lock

docs: $(DEV) ## write again what pages and files show of the code: settings, schema, HTTP API, rooms
	$(BIN)/python docs/settings_table.py
	$(BIN)/python docs/submit_schema.py
	$(BIN)/python docs/openapi.py
	$(BIN)/python docs/rooms.py --write

clean: ## remove .venv and what tools leave behind; jobs in outwait-data stay
	rm -rf $(VENV) .venv-* .coverage .coverage.* htmlcov dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUN): requirements.lock pyproject.toml | $(VENV)/pyvenv.cfg
	@$(call say,requirements.lock)
	@$(INSTALL) requirements.lock
	@echo "Installing Outwait itself"
	@$(EDITABLE)
	@touch $@

$(DEV): requirements-dev.lock pyproject.toml | $(VENV)/pyvenv.cfg
	@$(call say,requirements-dev.lock)
	@$(INSTALL) requirements-dev.lock
	@echo "Installing Outwait itself"
	@$(EDITABLE)
	@touch $(RUN) $@

$(VENV)/pyvenv.cfg:
	@echo "Making $(VENV)"
	@for python in $(PYTHONS); do \
		if "$$python" -c '$(FITS)' >/dev/null 2>&1; then exec "$$python" -m venv $(VENV); fi; \
	done; \
	echo "Outwait needs Python 3.11 or newer, with its venv module; looked at: $(PYTHONS)." >&2; \
	echo "Install one (Debian and Ubuntu: apt install python3 python3-venv), or name one: make PYTHON=/path/to/python3.12" >&2; \
	exit 1
