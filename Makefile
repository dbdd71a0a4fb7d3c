# Works with nothing but make, git and Python 3.11 or newer. Every target makes .venv when it is not there.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
SOURCES := headrace.py replay_server learners actors distributed

.PHONY: help demo test soak learning curves check format clean

help:
	@echo "make demo     train a recommender on simulated users and compare it with simple rankers"
	@echo "make test     run the tests"
	@echo "make soak     the fault tests with their full counts (an hour and a quarter)"
	@echo "make learning train the shipped configs with five seeds each (an hour and a half)"
	@echo "make curves   draw what make learning measured into docs/algorithms/images"
	@echo "make check    formatting, lint, types, import directions"
	@echo "make format   rewrite the sources in the project's format"
	@echo "make clean    remove .venv, caches and build products (run directories stay)"

demo: $(VENV)/installed-train
	@$(VENV)/bin/headrace train

test: $(VENV)/installed-dev
	@$(RUN) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

soak: $(VENV)/installed-dev
	@HEADRACE_SOAK=benchmarks/results/soak.json $(RUN) -m pytest tests/fault -q

learning: $(VENV)/installed-train
	@$(RUN) benchmarks/learning.py --json benchmarks/results/learning.json
	@$(RUN) benchmarks/offline.py --json benchmarks/results/offline.json

curves: $(VENV)/installed-bench
	@$(RUN) benchmarks/curves.py --json benchmarks/results/learning.json --images docs/algorithms/images
	@$(RUN) benchmarks/curves.py --json benchmarks/results/offline.json --images docs/algorithms/images

check: $(VENV)/installed-dev
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(RUN) -m mypy
	@$(VENV)/bin/lint-imports --no-logo
	@$(VENV)/bin/hadolint Dockerfile

format: $(VENV)/installed-dev
	@$(RUN) -m ruff format .
	@$(RUN) -m ruff check --fix .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find $(SOURCES) tests -name __pycache__ -type d -prune -exec rm -rf {} +

# What is installed changes only with these two files; a stamp newer than both means there is nothing to do.
$(VENV)/installed-train: pyproject.toml constraints.txt | $(RUN)
	@echo "installing headrace[train] into $(VENV) (first time: a few minutes) ..."
	@$(RUN) -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable '.[train]'
	@touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt | $(RUN)
	@echo "installing headrace[train,dev] into $(VENV) (first time: a few minutes) ..."
	@$(RUN) -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable '.[train,dev]'
	@touch $(VENV)/installed-train $@

$(VENV)/installed-bench: $(VENV)/installed-train
	@$(RUN) -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable '.[train,bench]'
	@touch $@

$(RUN):
	@command -v $(PYTHON) >/dev/null || { \
		echo "headrace needs Python 3.11 or newer, and '$(PYTHON)' was not found; name one: make PYTHON=/path/to/python3" >&2; \
		exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "headrace needs Python 3.11 or newer, '$(PYTHON)' is $$($(PYTHON) -V 2>&1); name another: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
