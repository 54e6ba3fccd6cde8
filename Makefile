# `make demo` and `make test` need Python 3.11 or newer and make; they set up the rest in .venv.

PYTHON ?= python3
# The CPU build of this torch is what CI tests; the extra `export` takes any from 2.9 on.
TORCH ?= torch==2.13.0
BIN := .venv/bin
EXAMPLE := examples/en-de

.PHONY: demo test test-all lint types unit clean

demo: .venv/ready
	$(BIN)/seq2edge export $(EXAMPLE) out/en-de-fp32 --force
	$(BIN)/seq2edge export $(EXAMPLE) out/en-de-int8 --precision int8 --force
	$(BIN)/seq2edge inspect out/en-de-int8
	$(BIN)/seq2edge verify out/en-de-int8
	$(BIN)/seq2edge translate out/en-de-int8 < $(EXAMPLE)/demo.txt
	$(BIN)/seq2edge profile out/en-de-int8 --compare out/en-de-fp32 --json out/profile.json

test: lint types unit

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/mypy

unit: .venv/ready
	# A worker on each core, and no threads within, which would only wait for each other.
	# A file stays on one worker, which exports its bundles once.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile

test-all: lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile -m 'slow or not slow'

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "seq2edge needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	$(BIN)/python -m pip install --quiet --editable '.[export]' --group dev
	touch $@

clean:
	rm -rf .venv out build dist *.egg-info
