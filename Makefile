# `make demo` and `make test` set themselves up: all they need is Python 3.11 or newer, with pip.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# An environment that is broken, or that was moved here from elsewhere, is made anew.
ifeq ($(shell $(BIN)/python -c 'import pip' 2>/dev/null && grep -sF '$(CURDIR)/$(VENV)' $(VENV)/pyvenv.cfg),)
$(shell rm -rf $(VENV))
endif

.DEFAULT_GOAL := help
.PHONY: help demo test lint types bench notebooks clean

help:  ## Show this list.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: $(VENV)/demo  ## Rank 2,500 passages of this repository, offline.
	$(BIN)/onnx-rerank rank --model embedded --top-n 5 "Where is the highest waterfall in the world?" \
		notebooks/data/factbook/corpus.jsonl.gz

test: $(VENV)/test  ## Run the tests.
	$(BIN)/python -m pytest

lint: $(VENV)/test  ## Check style and format.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/test  ## Check types.
	$(BIN)/mypy

bench: $(VENV)/bench  ## Measure against the peers (takes long; see benchmarks/README.md).
	$(BIN)/python -m benchmarks

notebooks: $(VENV)/test  ## Check that the notebooks run.
	$(BIN)/python -m pytest tests/test_notebooks.py

clean:  ## Remove what the other targets made.
	rm -rf $(VENV) dist build

# Each stamp is made when its install went through, and again whenever pyproject.toml changes.
$(VENV)/python: pyproject.toml
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed; name it: make PYTHON=python3.11 test"'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(CURDIR)/$(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/demo: $(VENV)/python
	$(BIN)/python -m pip install --quiet -e '.[cli]'
	@touch $@

$(VENV)/test: $(VENV)/python
	$(BIN)/python -m pip install --quiet -e '.[all]' --group dev
	@touch $@ $(VENV)/demo

$(VENV)/bench: $(VENV)/python
	$(BIN)/python -m pip install --quiet -e '.[cli,optimize,openvino]' --group benchmarks
	@touch $@
