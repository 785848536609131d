# `make run` encodes the bundled photograph. `make test` runs all tests; `make test-fast` those that take seconds together
# with no process of their own, `make test-long` all of them and what needs hours: kills by the score, spoilt files by
# the thousand. `make check` looks at format, style, types and the order of rooms; `make docs`
# builds the documentation site into docs/_build, `make bench` measures what docs/results/performance.md reports. Each installs what it needs into .venv first, once.

PYTHON ?= python3
BIN := .venv/bin
PHOTO := examples/seeding_by_Clements_Engelhardt.jpg

.PHONY: run test test-fast test-long sanitize check docs bench clean

run: .venv/installed
	$(BIN)/vil encode $(PHOTO) --output features

test: .venv/installed-dev
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m "not long"

test-fast: .venv/installed-dev
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m "not slow and not process and not export and not long"

test-long: test
	$(BIN)/python -m pytest --numprocesses 2 -m long
	cd tests && ../$(BIN)/python -m training.kill --kills 20
	cd tests && ../$(BIN)/python -m datasets.mutations 2000 1

# The kernel for CPUs and what refuses its arguments, under AddressSanitizer and UBSan; compiling takes minutes.
sanitize: .venv/installed-dev
	LD_PRELOAD="$$(c++ -print-file-name=libasan.so) $$(c++ -print-file-name=libubsan.so) $$(c++ -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 TORCH_EXTENSIONS_DIR=.venv/sanitized \
	CXX="c++ -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer" \
	$(BIN)/python -m pytest tests/attention/test_windows.py tests/attention/test_fused.py

check: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy benchmarks
	$(BIN)/lint-imports

docs: .venv/installed-docs
	$(BIN)/python -m sphinx -b html -W --keep-going -q docs docs/_build
	@echo "Open docs/_build/index.html"

bench: .venv/installed-benchmark
	$(BIN)/python benchmarks/speed.py --sizes 448 896 --repeats 9
	$(BIN)/python benchmarks/speed.py --sizes 1792 --repeats 5
	$(BIN)/python benchmarks/performance.py --parts exported --repeats 5
	$(BIN)/python benchmarks/windowed_attention.py
	$(BIN)/python benchmarks/training_step.py --repeats 7
	$(BIN)/python benchmarks/growth.py --sizes 448 3584 --repeats 7
	$(BIN)/python benchmarks/bands.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/memory.py --training --size 448 --batch 2
	$(BIN)/python benchmarks/compiled.py --model vision_longformer_tiny --size 224
	$(BIN)/python benchmarks/blocks.py gelu
	$(BIN)/python benchmarks/blocks.py chunks
	$(BIN)/python benchmarks/prepacked.py --repeats 41

# constraints.txt is the tested set of versions; pyproject.toml has the ranges.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

.venv/installed-docs: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[docs]"
	touch $@

.venv/installed-benchmark: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[benchmark]"
	touch $@

clean:
	rm -rf .venv features
