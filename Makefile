# make quickstart   the main job on the embedded data and this machine, from profiling to the report
# make test         lint, types and tests
# make bench        the benchmarks (minutes)
# make docs         the documentation site, in site/
# make clean        remove what the two above made

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
OUT ?= quickstart
# The share of random networks that keep to the quickstart's budget: absolute milliseconds would suit one machine only.
SHARE ?= 0.5

.PHONY: quickstart test lint types bench docs clean

quickstart: $(VENV)/installed
	@PATH="$(CURDIR)/$(BIN):$$PATH" tools/quickstart "$(OUT)" "$(SHARE)"

test: $(VENV)/developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist worksteal

lint: $(VENV)/developing
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/developing
	$(BIN)/mypy

bench: $(VENV)/developing
	$(BIN)/python benchmarks/speed.py

docs: $(VENV)/developing
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "Error: $(PYTHON) not found; say which one to use: make PYTHON=python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/developing: $(VENV)/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) $(OUT) .mypy_cache .ruff_cache .hypothesis
