# Two commands do everything on a fresh machine: `make run` and `make test`.

PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: run test test-slow test-portable known-answers test-slurm test-browser figures lint clean

run: .venv/ready
	@$(BIN)/python workflow/unlock.py
	$(BIN)/snakemake --cores 8 --rerun-incomplete

test: .venv/ready-to-test
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: .venv/ready-to-test
	$(BIN)/python -m pytest -m slow

# On Debian, as root: installs SLURM's daemons, runs a cluster of four nodes on this machine, and ends it.
test-slurm: .venv/ready-to-test
	dpkg --status slurmctld slurmd slurm-client munge > /dev/null 2>&1 || \
	{ apt-get update --quiet=2 && apt-get install --yes --quiet=2 --no-install-recommends slurmctld slurmd slurm-client munge; }
	$(BIN)/python -m pytest -m slurm -v -s tests/slurm

# Other kernels, other compiled code, an emulated 64-bit Arm processor; downloads the latter's packages into .portable.
# The last line fails, with the reason, where there is none: its tests were skipped then.
test-portable: .venv/ready-to-test
	$(BIN)/python -m pytest -m portable -v tests/portable
	$(BIN)/python tests/portable/arm.py

# After a change of docs/arithmetic.md, docs/format.md or the ladder: the committed hashes and streams anew.
known-answers: .venv/ready
	$(BIN)/python -m bitlaw.compression.known_answers
	$(BIN)/python tests/portable/worker.py streams

test-browser: .venv/ready-to-test
	@test -x /usr/bin/chromium || (apt-get update && apt-get install --yes --no-install-recommends chromium)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-browser.txt
	$(BIN)/python -m pytest -m browser

# The pictures of README.md. CELLS=FILE takes the published cells from a file that is here already, same sha256.
CELLS_SHA256 := d8b8a3a2fae71dd766f11144947302c3d881e1a47cba0dbd697b0d9dc750c78e
CELLS_HERE = --config 'sources={"published-cells": {"places": [{"url": "file://$(abspath $(CELLS))", "sha256": "$(CELLS_SHA256)"}]}}'

figures: run
	$(BIN)/snakemake --cores 8 --configfile workflow/studies/published.yaml $(if $(CELLS),$(CELLS_HERE))
	mkdir -p docs/figures
	cp results/embedded/figures/scaling.png docs/figures/embedded.png
	cp results/published/figures/curves_published.png docs/figures/published.png

lint: .venv/ready-to-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("bitlaw needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

.venv/ready-to-test: .venv/ready requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

clean:
	rm -rf .venv .snakemake results data/raw data/shards data/tokens data/models data/tokenizers
