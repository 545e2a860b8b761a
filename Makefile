# make run, make test: the two commands of the README. Everything is installed into .venv by the first that needs it.
.DEFAULT_GOAL := help
.PHONY: help run test lint types format docs bench build clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := core $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml))
EDITABLE := $(foreach package,$(PACKAGES),-e $(package))
PROJECTS := pyproject.toml constraints.txt $(foreach package,$(PACKAGES),$(package)/pyproject.toml)
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

help: ## say what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 12

run: $(VENV)/installed ## install core and the default voice, start the server (YAPIT_HOST, YAPIT_PORT)
	$(BIN)/yapit serve

test: $(VENV)/installed-dev ## install what the tests need and run all of them
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/installed-dev types ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: $(VENV)/installed-dev ## mypy --strict over everything
	$(BIN)/mypy core/src plugins/*/src tests benchmarks docs

format: $(VENV)/installed-dev ## rewrite the code in the house's form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/installed-dev ## build the documentation into docs/_build; a warning is an error
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

bench: $(VENV)/installed-dev ## compare yapit with the offline limit; prints ratios
	@for script in $(filter-out benchmarks/bench_%.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

build: $(VENV)/installed-dev ## build every package into dist/
	@for package in $(PACKAGES); do $(BIN)/python -m build --quiet --outdir dist $$package || exit 1; done

clean: ## remove what was made
	rm -rf $(VENV) dist docs/_build tests/clients/node/node_modules

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade 'pip>=25.1'

$(VENV)/installed: $(VENV)/bin/python $(PROJECTS)
	$(PIP) install --constraint constraints.txt -e core -e plugins/espeak
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed tests/clients/node/package.json
	$(PIP) install --constraint constraints.txt $(EDITABLE) --group dev
	$(BIN)/npm --prefix tests/clients/node install --silent --no-audit --no-fund --no-package-lock
	@touch $@
