# make          set up (virtual environment and packages), then say what to do next
# make help     list the targets
#
# Overridable:  PYTHON=python3.12      which Python makes the environment (3.11 or newer)
#               VENV=/path/to/venv     where the environment lives (no spaces)
#               PIP_FLAGS="..."        passed to pip install
#               LAB_FLAGS="..."        passed to jupyter lab, for example "--no-browser --port 8890"
#               PYTEST_FLAGS="..."     passed to every pytest run, for example "-x -k boxes"
#               TEST_PROCESSES=4       processes that share the tests, one thread each; 0: no sharing (for --pdb)

PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=
LAB_FLAGS ?=
PYTEST_FLAGS ?=
TEST_PROCESSES ?= 2
STUDENT_DIR ?= student

PY := $(VENV)/bin/python
INSTALL = $(PY) -m pip install $(PIP_FLAGS) -c constraints.txt
PYTEST = $(PY) -m pytest
# A file of tests, or a notebook, stays in one process; the tests of the browser are a single file and are dealt one by one.
BY_FILE = -n $(TEST_PROCESSES) --dist loadfile $(PYTEST_FLAGS)
ONE_BY_ONE = -n $(TEST_PROCESSES) --dist load --maxschedchunk 1 $(PYTEST_FLAGS)
# JupyterLab refuses to run as root (in a container, say) unless told.
ROOT_FLAG := $(shell [ "$$(id -u)" = 0 ] && echo --allow-root)

.PHONY: setup help lab run notebooks test test-all test-fast test-slow test-stored test-notebooks test-browser proof bench weights student lint stubs format clean
.NOTPARALLEL:
.DEFAULT_GOAL := setup

setup: $(VENV)/.installed-core
	@echo "Ready. Next: 'make lab' opens the first notebook, 'make test' checks everything, 'make help' lists the rest."

help:
	@echo "make             set up: virtual environment in $(VENV) and the packages; a second time it does nothing"
	@echo "make lab         set up, then open JupyterLab on your own copy of the first notebook (workbook/)"
	@echo "make run         execute every notebook from a clean kernel, headless; ends with a table; stores nothing"
	@echo "make test        what to run before a commit: the fast unit tests and a look at the stored notebooks (3 minutes)"
	@echo "make test-all    that, the slow tests, every notebook executed and compared, and a notebook in a real browser"
	@echo "make proof       what is too heavy for every day: whole trainings, many kills, all notebooks in the browser"
	@echo "make notebooks   execute every notebook and store the outputs in it"
	@echo "make bench       measure speed ratios and print them"
	@echo "make weights     train the lab models that yolonas_lab/weights/ holds"
	@echo "make student     write the notebooks with blanks for a class into $(STUDENT_DIR)/"
	@echo "make lint        ruff and pyright"
	@echo "make stubs       an environment (.venv-stubs) with TensorRT's type stubs; 'make test' then checks against them"
	@echo "make format      let ruff sort imports and format the code"
	@echo "make clean       remove caches and build leftovers (the environment stays: delete $(VENV) by hand)"

# --- Environment. A stamp per set of packages: nothing is reinstalled until pyproject.toml or constraints.txt changes. ---

$(PY):
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	  echo "No '$(PYTHON)' found: install Python 3.11 or newer, or name one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, and $(PYTHON) is $$($(PYTHON) -V 2>&1): name another: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments: on Debian and Ubuntu, apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-core: pyproject.toml constraints.txt | $(PY)
	$(INSTALL) -e .
	@touch $@

# An extra brings the core along.
$(VENV)/.installed-%: pyproject.toml constraints.txt | $(PY)
	$(INSTALL) -e '.[$*]'
	@touch $@ $(VENV)/.installed-core

# --- The workbook ---

# Your own copies, with blanks where the exercises are: made once each, never overwritten.
lab: $(VENV)/.installed-core
	$(PY) -m yolonas_lab.teaching.student --own workbook
	$(PY) -m jupyterlab $(ROOT_FLAG) $(LAB_FLAGS) workbook/00_start_here.ipynb

run: $(VENV)/.installed-core
	$(PY) -m yolonas_lab.teaching.notebooks run --no-save

notebooks: $(VENV)/.installed-core
	$(PY) -m yolonas_lab.teaching.notebooks run

student: $(VENV)/.installed-classroom
	$(PY) -m yolonas_lab.teaching.student $(STUDENT_DIR)

# Trains what yolonas_lab/weights/ holds: about three quarters of an hour on two cores.
weights: $(VENV)/.installed-core
	$(PY) data_scripts/make_weights.py

# --- Tests. 'make -k test-all' goes on after a stage that fails. ---

test: test-fast test-stored

test-all: test test-slow test-notebooks test-browser

test-fast: $(VENV)/.installed-test
	@echo "--- unit tests, and the examples in the docstrings ---"
	$(PYTEST) $(BY_FILE) -p no:nbval --doctest-modules -m "not slow and not browser and not bench and not proof" tests yolonas_lab

test-stored: $(VENV)/.installed-test
	@echo "--- stored notebooks: executed in order, outputs up to date, within the limits ---"
	$(PY) -m yolonas_lab.teaching.notebooks check

test-slow: $(VENV)/.installed-test
	@echo "--- tests that need more than a second each ---"
	$(PYTEST) $(BY_FILE) -p no:nbval -m "slow and not browser and not bench and not proof" tests

test-notebooks: $(VENV)/.installed-test
	@echo "--- notebooks executed again, every output compared with the stored one ---"
	YOLONAS_LAB_STATIC=1 $(PYTEST) $(BY_FILE) -p tests.conftest --nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg notebooks

test-browser: $(VENV)/.installed-test
	@echo "--- notebooks in a real JupyterLab (skipped where Chromium is absent) ---"
	$(PYTEST) $(ONE_BY_ONE) -p no:nbval -m "browser and not proof" tests

proof: $(VENV)/.installed-test
	@echo "--- heavy proofs: trainings, kills, every notebook in the browser ---"
	$(PYTEST) $(ONE_BY_ONE) -p no:nbval -m proof tests

bench: $(VENV)/.installed-test
	$(PYTEST) $(PYTEST_FLAGS) -p no:nbval -m bench -s tests

# --- Code ---

lint: $(VENV)/.installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright --pythonpath $(PY)

# The stubs (of TensorRT 10, pinned here as no extra has them) leave an empty 'tensorrt' behind where TensorRT is not
# installed: they get an environment of their own.
stubs: .venv-stubs/.installed

.venv-stubs/.installed: constraints.txt | $(PY)
	$(PY) -m venv .venv-stubs
	.venv-stubs/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt pyright numpy
	.venv-stubs/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt --no-deps tensorrt-stubs==10.13.0.35.1
	@touch $@

format: $(VENV)/.installed-dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find yolonas_lab data_scripts tests notebooks -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
