# Needs make and a Python of 3.10 or later. Everything else is installed into a private virtual environment, at first
# use and again whenever pyproject.toml changes.

PYTHON ?= python3
VENV ?= .venv
# Passed to pytest: make test TESTARGS='-x -k headers'
TESTARGS ?=
# How many tests run at a time; 0 runs them in pytest's own process, as a debugger wants. Arbitrary: the tests that start
# servers wait more than they compute.
TESTJOBS ?= 3
# The dependency group that `make test` installs: CI takes `test-core` for the interpreters besides the default one.
TESTGROUP ?= test
# Where each test leaves what it found of each server, for docs/compatibility.md.
RESULTS ?= .test-results

# Passed to benchmarks/run.py: make bench BENCHARGS='--only in_process --runs 3'
BENCHARGS ?=
# The benchmarks have an environment of their own, in which the peers are pinned.
BENCH_VENV ?= .venv-bench

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.NOTPARALLEL: # one pip at a time works in an environment
.PHONY: help demo test check lint types docs compatibility ecosystem ray bench bench-quick wrk format clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST))

# On Ctrl-C the shell waits for the demo to end, and make hears of no failure: 130 is how an interrupted program exits.
demo: $(VENV)/.installed-demo ## Run examples/demo.py
	@trap : INT; $(PY) examples/demo.py || [ $$? -eq 130 ]

test: $(VENV)/.installed-$(TESTGROUP) ## Run the tests (TESTARGS='...' goes to pytest)
	@rm -rf $(RESULTS)
	A2WSGI_TEST_RESULTS=$(CURDIR)/$(RESULTS) $(PY) -m pytest -n $(TESTJOBS) --dist worksteal $(TESTARGS)

check: lint types docs test ## Run all that CI runs on one interpreter: lint, types, docs, tests, and the page of what works where
	$(PY) tests/interop/compatibility.py $(RESULTS) --check

lint: $(VENV)/.installed-lint ## Check style and format
	$(PY) -m ruff check
	$(PY) -m ruff format --check

types: $(VENV)/.installed-lint $(VENV)/.installed-test ## Check the types
	$(PY) -m mypy
	MYPYPATH=benchmarks $(PY) -m mypy --config-file= --ignore-missing-imports --check-untyped-defs benchmarks
	$(PY) -m pyright --pythonpath $(PY)

docs: $(VENV)/.installed-docs ## Build the documentation into docs/_build/html; a warning is an error
	$(PY) -m sphinx -q -nW --keep-going -b html docs docs/_build/html

compatibility: $(VENV)/.installed-test ## Write docs/compatibility.md from the last `make test`
	$(PY) tests/interop/compatibility.py $(RESULTS)

ecosystem: $(VENV)/.created ## Run the frameworks' own tests behind a double bridge (SUITES='flask starlette')
	$(PY) ecosystem/run.py $(SUITES)

ray: ## Run the tests of Ray Serve, which is large, in an environment of its own
	@$(MAKE) --no-print-directory VENV=$(VENV)-ray $(VENV)-ray/.installed-ray
	$(VENV)-ray/bin/python -m pytest $(TESTARGS) tests/interop/test_ray_serve.py

bench: $(BENCH_VENV)/.installed-bench wrk ## Run the benchmarks; best on a machine that does nothing else (BENCHARGS='--runs 3')
	$(BENCH_VENV)/bin/python benchmarks/run.py $(BENCHARGS)

bench-quick: $(BENCH_VENV)/.installed-bench wrk ## Run a part of the benchmarks, in less than two minutes
	$(BENCH_VENV)/bin/python benchmarks/run.py --quick $(BENCHARGS)

format: $(VENV)/.installed-lint ## Format the code, and mend what ruff can mend
	$(PY) -m ruff check --fix-only
	$(PY) -m ruff format

clean: ## Remove the environments, caches and builds
	rm -rf .venv .venv-* .ecosystem $(RESULTS) build dist docs/_build .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests examples benchmarks docs -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# An environment that is there and works is adopted; one that is broken, or was left half made, is made anew.
$(VENV)/.created:
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
		echo "a2wsgi needs Python 3.10 or later, and '$(PYTHON)' is not there. Name one: make PYTHON=/path/to/python" >&2; \
		exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "a2wsgi needs Python 3.10 or later, and '$(PYTHON)' is `$(PYTHON) --version 2>&1`." \
			"Name a newer one: make PYTHON=/path/to/python" >&2; \
		exit 1; }
	@$(PY) -m pip --version >/dev/null 2>&1 || { \
		echo "Making $(VENV)"; \
		$(PYTHON) -m venv --clear $(VENV); }
	@# 25.1 is the first pip that knows dependency groups (PEP 735).
	@$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.installed-%: pyproject.toml | $(VENV)/.created
	@echo "Installing a2wsgi and what '$*' needs into $(VENV)"
	@$(PIP) install --editable . --group $*
	@touch $@

$(BENCH_VENV)/.installed-bench: pyproject.toml benchmarks/requirements.txt
	@$(MAKE) --no-print-directory VENV=$(BENCH_VENV) $(BENCH_VENV)/.created
	@echo "Installing a2wsgi and what it is compared with into $(BENCH_VENV)"
	@$(BENCH_VENV)/bin/python -m pip --quiet --disable-pip-version-check install --editable . -r benchmarks/requirements.txt
	@touch $@

# The load generator of the servers' section, which pip does not have.
wrk:
	@command -v wrk >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
		apt-get -qq install --yes wrk >/dev/null; } || { \
		echo "The benchmarks need wrk, a load generator. Install it: apt-get install wrk" >&2; \
		exit 1; }
