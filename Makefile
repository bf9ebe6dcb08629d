# The two commands: `make demo` and `make test`. Both make .venv themselves.
# `make test TESTS="tests/core -k allocation"` runs some of the tests.
PYTHON ?= python3
WORKERS ?= auto
BIN := .venv/bin

# Python compiles modules when they are first imported: compiling all of them in pip takes longer. The cache is kept even if
# the environment turns it off, as each test process would compile again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint format clean

demo: .venv/installed
	$(BIN)/pbgan demo --out demo-out --overwrite

test: .venv/installed
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(TESTS)

lint: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv demo-out

# Made anew when what is to be installed changes; the file is the proof that all of it succeeded.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
