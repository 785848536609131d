# `make run` encodes the bundled photograph, `make test` runs all tests, `make check` formats, lints and types,
# `make bench` measures what docs/results reports. Each installs what it needs into .venv first, once.

PYTHON ?= python3
BIN := .venv/bin
PHOTO := examples/seeding_by_Clements_Engelhardt.jpg

.PHONY: run test check bench clean

run: .venv/installed
	$(BIN)/vil encode $(PHOTO) --output features --model vision_longformer_tiny

test: .venv/installed-dev
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

check: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/installed-benchmark
	$(BIN)/python benchmarks/performance.py
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/memory.py

# constraints.txt is the tested set of versions; pyproject.toml has the ranges.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

.venv/installed-benchmark: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[benchmark]"
	touch $@

clean:
	rm -rf .venv features
