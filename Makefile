# Everything runs in a virtual environment of its own; no target needs one made by hand.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
OUT    ?= quickstart

export RAY_USAGE_STATS_ENABLED = 0

.PHONY: quickstart test check lint types contracts docs outputs notebooks gpu clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## */  make \1\t/' | expand -t 20

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[sweeps,parquet,gguf,serve,notebooks,docs,dev]'
	touch $@

quickstart: $(STAMP)  ## real text -> trained models -> fitted law -> plan -> plots, in $(OUT)/
	$(BIN)/distlaw quickstart --out $(OUT)

test: check $(STAMP)  ## lint, types and all tests; what CI runs
	$(BIN)/python -m pytest -m "not slow and not alone" --numprocesses 3 --dist worksteal --durations 20
	$(BIN)/python -m pytest -m "not slow and alone" --durations 20

check: lint types contracts  ## lint, types, and which part may import which

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	MYPY_NUM_WORKERS=2 $(BIN)/mypy

contracts: $(STAMP)
	$(BIN)/lint-imports --no-cache

docs: $(STAMP)  ## the documentation as a site in build/site; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

outputs: $(STAMP)  ## print anew what README and docs show of commands (MEASURED=1: the slow ones too); shows the diff
	$(BIN)/python docs/hooks/outputs.py $(if $(MEASURED),--measured)

notebooks: $(STAMP)  ## execute the notebooks in place (minutes)
	$(BIN)/jupyter execute --inplace notebooks/*.ipynb
	$(BIN)/python docs/hooks/notebooks.py notebooks/*.ipynb

gpu:  ## on a CUDA GPU, 8 minutes: tests, speed, memory, a small ladder, in build/gpu/; installs nothing, PYTHON runs it
	PYTHONPATH=. $(PYTHON) benchmarks/gpu/main.py $(if $(REHEARSE),--rehearse)

clean:  ## remove the environment, caches and the quickstart's results
	rm -rf $(VENV) $(OUT) build *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
