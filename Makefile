# make demo   set up and run a small campaign from frames to report
# make test   set up and run the tests
# make test-faults   run those that kill real processes, and those that start a SLURM
# make bench  time the kernels beside their peers, write benchmarks/RESULTS.md
# make lint   style, imports, docstrings, types
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: all install demo test test-faults bench lint format constraints clean
.DEFAULT_GOAL := install

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "diffdask needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/diffdask run jobs/demo.toml --on deploy/laptop.toml
	@echo
	@echo "catalogue  demo/catalogue.parquet"
	@echo "report     demo/report/report.html"

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not faults and not slurm"

test-faults: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "faults or slurm"

# one thread for every library, so that each number is of one core
bench: $(INSTALLED)
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 ZARR_THREADING__MAX_WORKERS=1 $(BIN)/python -m pytest benchmarks -q \
	  -o python_files='bench_*.py' -o python_functions='bench_*' --import-mode=prepend -W default \
	  --benchmark-disable-gc --benchmark-json=benchmarks/measured.json
	$(BIN)/python benchmarks/write_results.py benchmarks/measured.json benchmarks/RESULTS.md 'make bench'

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

constraints: $(INSTALLED)
	(echo "# Versions that 'make' installs; made with: make constraints"; $(BIN)/python -m pip freeze --exclude-editable) > constraints.txt

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
