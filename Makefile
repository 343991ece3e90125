# make quickstart   the main job on the embedded data and this machine, from profiling to the report
# make test         lint, types and tests
# make test-long    the tests with every case: kills, generated inputs, parity of every size (an hour)
# make docs         the documentation as a site, in site/
# make bench        the benchmarks (minutes)
# make release-check  wheel and sdist: built, checked, installed into an empty environment, both examples run there
# make clean        remove what the above made

# The first Python that is new enough; `make PYTHON=...` names another one.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
OUT ?= quickstart
# The share of random networks that keep to the quickstart's budget: absolute milliseconds would suit one machine only.
SHARE ?= 0.8
# Many tests start processes: each would compile the package anew where an environment forbids to keep bytecode.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 2 --dist worksteal

.PHONY: quickstart test test-long lint types docs bench release-check clean

quickstart: $(VENV)/installed
	@PATH="$(CURDIR)/$(BIN):$$PATH" tools/quickstart "$(OUT)" "$(SHARE)"

test: $(VENV)/developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST)

test-long: $(VENV)/developing
	$(PYTEST) --long

lint: $(VENV)/developing
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/developing
	$(BIN)/mypy

docs: $(VENV)/documenting
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/developing
	$(BIN)/python benchmarks/speed.py

release-check: $(VENV)/bin/python
	$(BIN)/python tools/check_release.py

$(VENV)/bin/python:
	@[ -n "$(PYTHON)" ] || { echo "Error: no Python 3.11 or newer found; name one: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	tools/install-torch $(BIN)/python constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all]'
	@touch $@

$(VENV)/developing: $(VENV)/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(VENV)/documenting: $(VENV)/developing
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) $(OUT) site .mypy_cache .ruff_cache .hypothesis
