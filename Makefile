# Every command of the house. `make` alone lists them. A second call of any of them sets nothing up again.
# PYTHON=python3.12 chooses the interpreter that .venv is made with; otherwise the first that serves is taken.

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --quiet --disable-pip-version-check
RUN_STAMP := $(VENV)/.stamp-run
DEV_STAMP := $(VENV)/.stamp-dev
UV := uv==0.13.8
COMPILE := pip compile pyproject.toml --quiet --universal --no-header --python-version 3.11

.DEFAULT_GOAL := help
.PHONY: help run setup dev test check format docs reference prices chaos bench peers lock clean

help:  ## list the commands
	@awk -F ':.*## *' '/^[a-z]+:.*##/ { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(RUN_STAMP)  ## set up and serve the airline example (simulated provider unless a model key is set)
	@$(BIN)/stanchion serve examples/airline/agent.py \
		--simulated-if-no-key --sim-script examples/airline/script.json \
		--try "I am nora_winter_2041. Yes, please cancel my reservation NWBUS7." \
		--try "Are there flights from DEN to SEA on 2024-05-22?"

setup: $(RUN_STAMP)  ## make .venv with what the product needs

dev: $(DEV_STAMP)  ## .. and with what its development needs

test: $(DEV_STAMP)  ## run the tests
	@$(PY) -m pytest -n 2 $(ARGS)

check: $(DEV_STAMP)  ## style, types, import rules, docs and the code in them
	@failed=0; \
	step() { echo "-- $$1"; shift; "$$@" || failed=$$((failed + 1)); }; \
	step "ruff check" $(BIN)/ruff check --quiet; \
	step "ruff format" $(BIN)/ruff format --check --quiet; \
	step "pyright" $(BIN)/pyright --pythonpath $(PY); \
	step "import rules" $(BIN)/lint-imports --no-logo; \
	step "reference" $(PY) scripts/make_reference.py --check; \
	step "docs build" $(BIN)/mkdocs build --strict --quiet; \
	step "code in the docs" $(PY) scripts/check_docs.py; \
	if [ $$failed -gt 0 ]; then echo "-- $$failed of 7 checks failed" >&2; exit 1; fi; echo "-- all checks passed"

format: $(DEV_STAMP)  ## format the code and mend what ruff can mend
	@$(BIN)/ruff check --fix --quiet || true
	@$(BIN)/ruff format --quiet

docs: $(DEV_STAMP)  ## build the documentation into site/
	@$(BIN)/mkdocs build --strict

reference: $(DEV_STAMP)  ## write docs/reference from the code
	@$(PY) scripts/make_reference.py

prices: $(DEV_STAMP)  ## write the price table from the genai-prices data of the dev environment
	@$(PY) scripts/make_prices.py

chaos: $(DEV_STAMP)  ## the kill sweep (ARGS=--short for a quick one)
	@$(PY) -m tests.chaos $(ARGS)

bench: $(DEV_STAMP)  ## the benchmarks (ARGS=--short for quick ones)
	@$(PY) -m bench $(ARGS)

peers: $(DEV_STAMP)  ## the same agent in other frameworks, side by side (ARGS=--short for a quick look)
	@$(PY) -m bench.peers $(ARGS)

lock: $(PY)  ## pin the dependencies again (ARGS=--upgrade: to their latest)
	@$(PIP) install "$(UV)"
	@$(BIN)/uv $(COMPILE) -o requirements/run.txt $(ARGS) >/dev/null
	@$(BIN)/uv $(COMPILE) --group dev -c requirements/run.txt -o requirements/dev.txt $(ARGS) >/dev/null
	@! grep -nE '://|--(index|extra|find|trusted)' requirements/run.txt requirements/dev.txt

clean:  ## remove .venv and everything that was built
	@rm -rf $(VENV) build dist site .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The first Python that starts, is 3.11 or later and can make an environment. A name on the PATH may be a shim of nothing.
$(PY):
	@for p in $(PYTHON) python3.13 python3.12 python3.11 python3.14 python3 python; do \
		if $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found=$$p; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "Stanchion needs Python 3.11 or later with venv and ensurepip, and found none on the PATH." >&2; \
		echo "Install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python) and call make again." >&2; \
		exit 1; \
	fi; \
	echo "making $(VENV) with $$found ($$($$found -c 'import platform; print(platform.python_version())'))"; \
	$$found -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(RUN_STAMP): requirements/run.txt pyproject.toml | $(PY)
	@echo "installing what Stanchion needs (once; a minute or less)"
	@$(PIP) install -r requirements/run.txt
	@$(PIP) install --no-deps --editable .
	@touch $@

$(DEV_STAMP): requirements/dev.txt $(RUN_STAMP)
	@echo "installing what its development needs (once; a minute or two)"
	@$(PIP) install -r requirements/dev.txt
	@touch $@
