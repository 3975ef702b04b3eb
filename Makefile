# `make run` and `make test` are all a fresh machine with Python 3.11 or newer needs. `make help` names the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATED := tests/runtime/test_clock.py tests/test_previous_period.py tests/components/shared/test_periods.py tests/langfuse/test_against_sandbox.py tests/ledger/test_closes.py
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-header --no-emit-index-url

# Three processes on two cores: browsers and commands of their own keep a test waiting.
PYTEST_RUN := $(BIN)/python -m pytest -n 3 --dist worksteal
# Rules as pure functions, the ledger, components, sign-in, and one way each through a push, a page and the command line.
FAST := tests/test_settings.py tests/values tests/rating tests/ledger tests/components tests/auth tests/stripe/test_intents.py \
  tests/stripe_sync/test_confirmation.py tests/stripe_sync/test_push_account.py tests/reconcile/test_compare.py \
  tests/month_close/test_rules.py tests/cli/test_stripe.py tests/pages/test_audit_log.py
COVERED_PERCENT := 94

# Each process that a test starts would compile the whole program for itself.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run help test test-browsers test-fast focus-validator test-dates coverage check lock bench pictures clean

run: $(VENV)/.run ## the dashboard; ARGS="--server.port 8080" goes to Streamlit
	$(BIN)/streamlit run app.py $(ARGS)

test: $(VENV)/.test focus-validator ## checks, then every test but the wider matrix of browsers; PYTEST="-k months" goes to pytest
	@sh tests/ensure_chromium.sh
	$(MAKE) --no-print-directory check
	$(PYTEST_RUN) -m "not matrix" $(PYTEST)

test-browsers: $(VENV)/.test ## in the browser, what `make test` leaves out: sizes, themes, axe, ways beside the main journeys
	@sh tests/ensure_chromium.sh
	$(PYTEST_RUN) -m matrix tests/browser $(PYTEST)

test-fast: $(VENV)/.test ## after each edit: rules, components, one way through the product; no browser, no process
	$(PYTEST_RUN) -q -m "not slow" $(FAST) $(PYTEST)

# What knows dates, with the clock at moments at which programs about dates go wrong.
test-dates: $(VENV)/.test ## what knows dates, at month ends, on a leap day, at changes of daylight saving time
	set -e; for moment in $$($(BIN)/python -m tests.fixed_clock); do \
	  echo "The clock says $$moment"; \
	  TESTS_NOW=$$moment $(PYTEST_RUN) -q $(DATED) $(PYTEST); \
	done

# Where there is no Python 3.12 the one test that needs it is skipped and says so.
focus-validator: ## the public FOCUS validator in .venv-focus, which one test runs
	@[ $(VENV)-focus/.made -nt requirements-focus.txt ] || for python in python3.12 "$$HOME"/.pyenv/versions/3.12.*/bin/python; do \
	  if "$$python" -c '' 2>/dev/null; then \
	    "$$python" -m venv $(VENV)-focus && \
	    $(VENV)-focus/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-focus.txt && \
	    touch $(VENV)-focus/.made || exit 1; break; \
	  fi; \
	done

coverage: $(VENV)/.test ## every test under the branch tracer (slow); fails below COVERED_PERCENT
	@sh tests/ensure_chromium.sh
	$(PYTEST_RUN) --cov --cov-report=term --cov-fail-under=$(COVERED_PERCENT) $(PYTEST)

check: $(VENV)/.test ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict --num-workers 2
	PYTHONPATH=. $(BIN)/lint-imports

bench: $(VENV)/.test ## the figures of docs/benchmarks.md
	$(BIN)/python -m billing_core bench

pictures: $(VENV)/.test ## the pictures of README and docs, from demo data
	@sh tests/ensure_chromium.sh
	$(BIN)/python -m docs.pictures

lock: $(VENV)/.test ## both lock files from requirements*.in
	$(LOCK) requirements.in -o requirements.txt
	$(LOCK) requirements-dev.in -o requirements-dev.txt
	$(subst 3.11,3.12,$(LOCK)) requirements-focus.in -o requirements-focus.txt

help: ## these lines
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

clean: ## what the other targets left
	rm -rf $(VENV) $(VENV)-focus .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: requirements.txt | $(VENV)/.made
	$(INSTALL) requirements.txt
	@touch $@

$(VENV)/.test: requirements-dev.txt requirements.txt | $(VENV)/.made
	$(INSTALL) requirements-dev.txt
	@touch $@ $(VENV)/.run
