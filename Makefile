# The commands of this project; each sets up what it needs by itself.
.PHONY: help run demo test check fix bench soak fuzz docs lock clean

PYTHON ?=
PART ?= relay
KILLS ?= 200
MESSAGES ?= 20000
ROUNDS ?= 20
TARGET ?= all
RUNS ?= 100000
SEED ?= 1
export PYTHON
# What is compiled is kept: hundreds of processes would compile all of it again.
unexport PYTHONDONTWRITEBYTECODE
BIN = .venv/bin

help:
	@echo "make run     start the gateway on ./data and say how to send a first message"
	@echo "make demo    send real messages through a gateway and a local relay, and show what arrived"
	@echo "make test    the tests            make check   style, types, layers, docs in step"
	@echo "make bench   beside Postfix       make soak    the crash tests, many times over"
	@echo "make fuzz    every fuzz target, RUNS inputs each"
	@echo "make docs    write the generated pages again"
	@echo "make lock    take the newest dependencies      make clean   forget .venv and caches (not ./data)"

run:
	@scripts/preflight
	@scripts/setup run
	@exec $(BIN)/postroom serve --hints

demo:
	@scripts/setup dev
	@exec $(BIN)/python -m demo

test:
	@scripts/setup dev
	@$(BIN)/python -m pytest -n 3 $(ARGS)

check:
	@scripts/setup dev
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m scripts.docs --check

fix:
	@scripts/setup dev
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench:
	@scripts/setup dev
	@exec $(BIN)/python -m bench $(PART) $(ARGS)

soak:
	@scripts/setup dev
	@mkdir -p bench/scratch
	@POSTROOM_TEST_FRESH=1 CRASH_ROUNDS=$(ROUNDS) $(BIN)/python -m pytest -n 2 tests/e2e/test_crash_points*.py $(ARGS)
	@POSTROOM_TEST_FRESH=1 STOPPED_SECONDS=60 $(BIN)/python -m pytest -n 2 tests/e2e/test_faults_of_the_process.py -k stopped $(ARGS)
	@POSTROOM_TEST_FRESH=1 CRASH_KILLS=$(KILLS) CRASH_MESSAGES=$(MESSAGES) CRASH_REPORT=bench/scratch/soak.json \
	    $(BIN)/python -m pytest -s tests/e2e/test_crash.py $(ARGS)
	@$(BIN)/python -m scripts.soak bench/scratch/soak.json

fuzz:
	@scripts/setup dev
	@$(BIN)/python -m tests.fuzz $(TARGET) --runs $(RUNS) --seed $(SEED) $(ARGS)

docs:
	@scripts/setup dev
	@$(BIN)/python -m scripts.docs

lock:
	@scripts/lock

clean:
	rm -rf .venv dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
