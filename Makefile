# make demo: set up and convert the demo data on the embedded body.   make test: run the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: setup demo test lint bench bench-pipeline bench-loader train-demo clean

setup: $(VENV)/.installed

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[test]'
	touch $@

demo: setup
	$(BIN)/beam run pipelines/build_hmr_skel.py --runner=DirectRunner
	$(BIN)/hmr-skel inspect demo/hmr_skel --verify --contact-sheet demo/contact_sheet.png

# One thread per test process: two processes with two threads each fight over two cores.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --durations=10

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: setup
	$(BIN)/python -m tests.benchmarks.fit

# After make demo: does the trainer learn 64 of its people by heart? About a quarter of an hour.
train-demo: setup
	OMP_NUM_THREADS=1 $(BIN)/hmr-skel train --preset overfit --shards demo/hmr_skel --output demo/training
	$(BIN)/hmr-skel evaluate mean --shards demo/hmr_skel --limit 64
	$(BIN)/hmr-skel evaluate demo/training --shards demo/hmr_skel --limit 64

bench-pipeline: setup
	$(BIN)/python -m tests.benchmarks.pipeline

bench-loader: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.loader

clean:
	rm -rf $(VENV) demo build *.egg-info
