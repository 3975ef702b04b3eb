# `make run` and `make test` are all a fresh machine with Python 3.11 or newer needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATED := tests/runtime/test_clock.py tests/test_previous_period.py tests/components/shared/test_periods.py tests/langfuse/test_against_sandbox.py
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-header --no-emit-index-url

.PHONY: run test test-dates check lock bench clean

run: $(VENV)/.run
	$(BIN)/streamlit run app.py $(ARGS)

test: $(VENV)/.test
	@sh tests/ensure_chromium.sh
	$(MAKE) --no-print-directory check
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term $(PYTEST)

# What knows dates, with the clock at moments at which programs about dates go wrong.
test-dates: $(VENV)/.test
	set -e; for moment in $$($(BIN)/python -m tests.fixed_clock); do \
	  echo "The clock says $$moment"; \
	  TESTS_NOW=$$moment $(BIN)/python -m pytest -q -n 2 --dist loadfile $(DATED) $(PYTEST); \
	done

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	PYTHONPATH=. $(BIN)/lint-imports

bench: $(VENV)/.test
	$(BIN)/python -m billing_core bench

lock: $(VENV)/.test
	$(LOCK) requirements.in -o requirements.txt
	$(LOCK) requirements-dev.in -o requirements-dev.txt

clean:
	rm -rf $(VENV) .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis

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
