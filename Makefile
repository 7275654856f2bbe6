# Needs make and a Python of 3.10 or later. Everything else is installed into a private virtual environment, at first
# use and again whenever pyproject.toml changes.

PYTHON ?= python3
VENV ?= .venv
# Passed to pytest: make test TESTARGS='-x -k headers'
TESTARGS ?=
# How many tests run at a time; 0 runs them in pytest's own process, as a debugger wants. The tests that start servers
# wait more than they compute. On two processors, a whole run takes 450 s with 5, and 555 s with 4.
TESTJOBS ?= 5
# The dependency group that `make test` installs: CI takes `test-core` for the interpreters besides the default one.
TESTGROUP ?= test
# Where each test leaves what it found of each server, for docs/compatibility.md.
RESULTS ?= .test-results

# A CPython without a GIL. The default is built if it is not there: once, for all checkouts.
FREETHREADED_HOME ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/a2wsgi/python3.13t
FREETHREADED ?= $(FREETHREADED_HOME)/bin/python3.13t
# How often `make test-freethreaded` runs the tests of races.
RACES ?= 6

# Passed to soak/run.py and fuzz/run.py.
SOAKARGS ?=
FUZZARGS ?=

# Passed to benchmarks/run.py: make bench BENCHARGS='--only in_process --runs 3'
BENCHARGS ?=
# The benchmarks have an environment of their own, in which the peers are pinned.
BENCH_VENV ?= .venv-bench

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.NOTPARALLEL: # one pip at a time works in an environment
.PHONY: help demo test test-freethreaded test-pypy check coverage links wheel lint types docs compatibility compatibility-check ecosystem ray eventlet autobahn soak fuzz bench bench-quick bench-freethreaded wrk format clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST))

# On Ctrl-C the shell waits for the demo to end, and make hears of no failure: 130 is how an interrupted program exits.
demo: $(VENV)/.installed-demo $(VENV)/a2wsgi-1.10.10 ## Run examples/demo.py
	@trap : INT; $(PY) examples/demo.py || [ $$? -eq 130 ]

test: $(VENV)/.installed-$(TESTGROUP) ## Run the tests (TESTARGS='...' goes to pytest)
	@rm -rf $(RESULTS)
	PYTHONDONTWRITEBYTECODE= A2WSGI_TEST_RESULTS=$(CURDIR)/$(RESULTS) $(PY) -m pytest -n $(TESTJOBS) --dist worksteal $(TESTARGS)

# PYTHON_GIL=0 keeps the GIL off whatever extension module is imported. Hypothesis has no source that builds here. This
# Python is slower, since it is built without PGO: on a busy machine 60 s are too short for some tests.
test-freethreaded: | $(filter $(FREETHREADED_HOME)/%,$(FREETHREADED)) ## Run the tests without real servers on a Python without a GIL, the race tests six times
	@PIP_ONLY_BINARY=hypothesis $(MAKE) --no-print-directory PYTHON=$(FREETHREADED) VENV=$(VENV)-freethreaded \
		$(VENV)-freethreaded/.installed-freethreaded
	@set -e; export PYTHON_GIL=0 PYTHONDONTWRITEBYTECODE=; \
	python=$(VENV)-freethreaded/bin/python; \
	$$python -c 'import sys; assert not sys._is_gil_enabled(), "$(FREETHREADED) has a GIL"'; \
	$$python -m pytest -n $(TESTJOBS) --dist worksteal -m 'not interop' --timeout=300 $(TESTARGS); \
	for run in $$(seq $(RACES)); do \
		echo "Races, run $$run of $(RACES)"; \
		$$python -m pytest -n $(TESTJOBS) --dist worksteal -m 'not interop' --timeout=300 $(TESTARGS) tests/races; \
	done

$(FREETHREADED_HOME)/bin/python3.13t:
	.ci/python-freethreaded $(FREETHREADED_HOME)

test-pypy: ## Run the tests without real servers on PyPy, from Debian
	@.ci/pythons-from-debian .ci-pythons pypy3
	@PIP_ONLY_BINARY=hypothesis $(MAKE) --no-print-directory PYTHON=.ci-pythons/usr/bin/pypy3 VENV=$(VENV)-pypy \
		$(VENV)-pypy/.installed-test-core
	$(VENV)-pypy/bin/python -m pytest -n $(TESTJOBS) --dist worksteal -m 'not interop' $(TESTARGS)

check: lint types docs test compatibility-check ## Run all that CI runs on one interpreter: lint, types, docs, tests, and the page of what works where

compatibility-check:
	$(PY) tests/interop/compatibility.py $(RESULTS) --check

coverage: $(VENV)/.installed-coverage ## Measure which branches the tests reach; where threads meet, fewer than 95 % fail
	$(PY) -m pytest -n $(TESTJOBS) --dist worksteal -m "not interop" --timeout=300 --cov --cov-report=json:.coverage.json $(TESTARGS) \
		--deselect tests/test_call_counts.py
	@$(PY) .ci/coverage-report .coverage.json >.coverage-report.md; low=$$?; cat .coverage-report.md; exit $$low

links: $(VENV)/.created ## Check every link of the README and the documentation, also those that lead outside
	$(PY) .ci/check-links

wheel: $(VENV)/.created ## Build what is released, and check it in an environment of its own
	.ci/check-wheel $(PYTHON)

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

eventlet: ## Run the tests on eventlet's server, in an environment of its own
	@$(MAKE) --no-print-directory VENV=$(VENV)-eventlet $(VENV)-eventlet/.installed-eventlet
	$(VENV)-eventlet/bin/python -m pytest $(TESTARGS) -k eventlet tests/interop/test_websockets_asgi_on_wsgi.py

autobahn: $(VENV)/.installed-test ## Run Autobahn's cases for WebSockets, also those about compression, which take half an hour
	A2WSGI_TEST_AUTOBAHN_ALL=1 $(PY) -m pytest -n $(TESTJOBS) $(TESTARGS) -k autobahn tests/interop

soak: $(VENV)/.installed-test ## Soak both bridges on real servers (SOAK_SECONDS=300; SOAKARGS='waitress --seed 7')
	$(PY) soak/run.py $(SOAKARGS)

fuzz: $(VENV)/.installed-test ## Fuzz translators, heads and whole requests (FUZZ_SECONDS=120; FUZZARGS='-k translators')
	$(PY) fuzz/run.py $(FUZZARGS)

bench: $(BENCH_VENV)/.installed-bench wrk ## Run the benchmarks; best on a machine that does nothing else (BENCHARGS='--runs 3')
	$(BENCH_VENV)/bin/python benchmarks/run.py $(BENCHARGS)

bench-quick: $(BENCH_VENV)/.installed-bench wrk ## Run a part of the benchmarks, in less than two minutes
	$(BENCH_VENV)/bin/python benchmarks/run.py --quick $(BENCHARGS)

bench-freethreaded: $(BENCH_VENV)-freethreaded/.installed $(BENCH_VENV)/.installed-bench wrk ## Run the benchmarks of a Python without a GIL
	$(BENCH_VENV)/bin/python benchmarks/run.py --only free_threads $(BENCHARGS)

format: $(VENV)/.installed-lint ## Format the code, and mend what ruff can mend
	$(PY) -m ruff check --fix-only
	$(PY) -m ruff format

clean: ## Remove the environments, caches and builds
	rm -rf .venv .venv-* .ci-pythons .ecosystem .soak $(RESULTS) build dist docs/_build .hypothesis .mypy_cache .pytest_cache .ruff_cache
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
	@# Most of it is never imported. What is, Python compiles by itself.
	@$(PIP) install --no-compile --editable . --group $*
	@touch $@

# What the demo and the benchmarks compare with. It has our name, so it is in a directory of its own. Without it the demo
# shows less, and says so.
$(VENV)/a2wsgi-1.10.10: | $(VENV)/.created
	@$(PIP) install --no-deps --target $@ a2wsgi==1.10.10 || echo "a2wsgi 1.10.10 is not installed, so the demo compares with nothing." >&2

$(BENCH_VENV)/.installed-bench: pyproject.toml benchmarks/requirements.txt
	@$(MAKE) --no-print-directory VENV=$(BENCH_VENV) $(BENCH_VENV)/.created
	@echo "Installing a2wsgi and what it is compared with into $(BENCH_VENV)"
	@$(BENCH_VENV)/bin/python -m pip --quiet --disable-pip-version-check install --editable . -r benchmarks/requirements.txt
	@touch $@

$(BENCH_VENV)-freethreaded/.installed: pyproject.toml benchmarks/requirements-freethreaded.txt | $(filter $(FREETHREADED_HOME)/%,$(FREETHREADED))
	@$(MAKE) --no-print-directory PYTHON=$(FREETHREADED) VENV=$(BENCH_VENV)-freethreaded $(BENCH_VENV)-freethreaded/.created
	@$(BENCH_VENV)-freethreaded/bin/python -m pip --quiet --disable-pip-version-check install --editable . \
		-r benchmarks/requirements-freethreaded.txt
	@touch $@

# The load generator of the servers' section, which pip does not have.
wrk:
	@command -v wrk >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
		apt-get -qq install --yes wrk >/dev/null; } || { \
		echo "The benchmarks need wrk, a load generator. Install it: apt-get install wrk" >&2; \
		exit 1; }
