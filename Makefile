# `make demo` and `make test` set themselves up: all they need is Python 3.11 or newer, with pip.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# An environment that is broken, or that was moved here from elsewhere, is made anew.
ifeq ($(shell $(BIN)/python -c 'import pip' 2>/dev/null && grep -sF '$(CURDIR)/$(VENV)' $(VENV)/pyvenv.cfg),)
$(shell rm -rf $(VENV))
endif

.DEFAULT_GOAL := help
.PHONY: mutation help demo test test-quick lint types docs soak bench notebooks clean

help:  ## Show this list.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: $(VENV)/demo  ## Ask 2,587 passages one question: ranked by meaning, and by words alone.
	$(BIN)/python demo.py

# A process of tests per core, four at most.
PYTEST := $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal

test: $(VENV)/test  ## Run the tests: some two minutes on two cores.
	@echo "Running the tests: some two minutes on two cores (4 at most are used)."
	$(PYTEST)

test-quick: $(VENV)/test  ## Run the tests of the core and the doors: half a minute on two cores, once set up.
	@echo "Running the tests of the core and the doors: half a minute on two cores."
	$(PYTEST) -q tests/test_options.py tests/test_cross_encoder.py tests/test_tokenization.py \
		tests/test_scoring.py tests/test_batching.py tests/test_parity.py tests/test_door.py tests/test_cli_documents.py

lint: $(VENV)/dev  ## Check style and format.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev  ## Check types.
	$(BIN)/mypy

docs: $(VENV)/docs  ## Build the documentation site into build/site, strictly.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir build/site

soak: $(VENV)/test  ## Run the long forms of the fault, file and text tests: 30 minutes at most.
	$(BIN)/python -m tests.soak --seconds 60 --json docs/reliability.json
	$(BIN)/python -m tests.generate_docs

mutation: $(VENV)/test  ## Break the core one change at a time, to see a test go red (takes long).
	$(BIN)/python -m tests.mutation

bench: $(VENV)/bench  ## Measure against the peers (takes long; see benchmarks/README.md).
	$(BIN)/python -m benchmarks

notebooks: $(VENV)/notebooks  ## Check that the notebooks run.
	$(BIN)/python -m pytest -m showcase tests/test_notebooks.py

clean:  ## Remove what the other targets made.
	rm -rf $(VENV) dist build

# Each stamp is made when its install went through, and again whenever pyproject.toml changes.
$(VENV)/python: pyproject.toml
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed; name it: make PYTHON=python3.11 test"'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(CURDIR)/$(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/demo: $(VENV)/python
	@echo "Installing what the demo needs into $(VENV): about 250 MB, half a minute, once."
	$(BIN)/python -m pip install --quiet -e '.[cli]'
	@touch $@

$(VENV)/test: $(VENV)/python
	@echo "Installing what the tests need into $(VENV): about 760 MB, a minute or two, once."
	$(BIN)/python -m pip install --quiet -e '.[chat-template,cli,evaluate,langchain,llama-index,optimize,plot,server]' --group test
	@touch $@ $(VENV)/demo

$(VENV)/dev: $(VENV)/test
	$(BIN)/python -m pip install --quiet --group dev
	@touch $@

$(VENV)/docs: $(VENV)/test
	$(BIN)/python -m pip install --quiet --group docs
	@touch $@

$(VENV)/notebooks: $(VENV)/test
	$(BIN)/python -m pip install --quiet -e '.[batch,files,haystack,notebooks,openvino]'
	@touch $@

$(VENV)/bench: $(VENV)/python
	$(BIN)/python -m pip install --quiet -e '.[cli,optimize,openvino]' --group benchmarks
	@touch $@
