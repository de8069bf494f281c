# Two commands do everything on a fresh machine: `make run` and `make test`.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
SNAKEMAKE := $(BIN)/snakemake
STUDIES := $(wildcard workflow/studies/*.yaml)
APT := apt-get install --yes --quiet=2 --no-install-recommends
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: run test test-slow test-slurm test-slurm-smoke test-browser lint dry-run figures slurm clean

run: .venv/ready
	@$(BIN)/python workflow/unlock.py
	$(SNAKEMAKE) --cores 8 --rerun-incomplete

test: .venv/ready-to-test
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: .venv/ready-to-test
	$(BIN)/python -m pytest -m slow

# On Debian, as root: installs SLURM's daemons, runs a cluster of four nodes on this machine, and ends it.
test-slurm: .venv/ready-to-test slurm
	$(BIN)/python -m pytest -m slurm -v -s tests/slurm

test-slurm-smoke: .venv/ready-to-test slurm
	$(BIN)/python -m pytest -m slurm -v -s tests/slurm -k smoke

slurm:
	@dpkg --status slurmctld slurmd slurm-client munge > /dev/null 2>&1 || \
	{ apt-get update --quiet=2 && $(APT) slurmctld slurmd slurm-client munge; }

test-browser: .venv/ready-to-test
	@test -x /usr/bin/chromium || { apt-get update --quiet=2 && $(APT) chromium; }
	$(PIP) -r requirements-browser.txt
	$(BIN)/python -m pytest -m browser

lint: .venv/ready-to-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(SNAKEMAKE) --lint

# Every study is planned, the embedded one and the others, and so is the ladder; nothing runs.
dry-run: .venv/ready
	$(SNAKEMAKE) -n --quiet
	$(SNAKEMAKE) ladder -n --quiet
	for study in $(STUDIES); do $(SNAKEMAKE) -n --quiet --configfile $$study || exit; done
	$(SNAKEMAKE) -n --quiet --profile workflow/profiles/slurm --configfile workflow/studies/pythia.yaml

# The pictures of README.md.
figures: run
	$(SNAKEMAKE) --cores 8 --configfile workflow/studies/published.yaml
	mkdir -p docs/figures
	cp results/embedded/figures/scaling.png docs/figures/embedded.png
	cp results/published/figures/curves_published.png docs/figures/published.png

.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("bitlaw needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(PIP) -r requirements.txt
	$(PIP) --no-deps --editable .
	@touch $@

.venv/ready-to-test: .venv/ready requirements-dev.txt
	$(PIP) -r requirements-dev.txt
	@touch $@

clean:
	rm -rf .venv .snakemake build data/raw data/shards data/tokens data/models data/tokenizers
	rm -rf $(filter-out results/README.md,$(wildcard results/*))
