# Two commands do everything on a fresh machine: `make run` and `make test`.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
# Every file that arrives must have a sha256 of the lock.
PIP_LOCKED := $(PIP) --no-deps --require-hashes
SNAKEMAKE := $(BIN)/snakemake
STUDIES := $(wildcard workflow/studies/*.yaml)
TORCH := torch triton cuda-bindings cuda-pathfinder cuda-toolkit $(addprefix nvidia-,cublas cuda-cupti cuda-nvrtc \
  cuda-runtime cudnn-cu13 cufft cufile curand cusolver cusparse cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx)
APT := apt-get install --yes --quiet=2 --no-install-recommends
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: run test test-slow test-portable known-answers test-drills test-slurm test-slurm-smoke test-browser test-kernels test-gpu lint dry-run figures slurm lock clean

run: .venv/ready
	@$(BIN)/python workflow/unlock.py
	@$(BIN)/python workflow/run.py --cores 8 --rerun-incomplete

test: .venv/ready-to-test
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: .venv/ready-to-test
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile

# On Debian, as root: installs SLURM's daemons, runs a cluster of four nodes on this machine, and ends it.
test-slurm: .venv/ready-to-test slurm
	$(BIN)/python -m pytest -m slurm -v -s tests/slurm

test-slurm-smoke: .venv/ready-to-test slurm
	$(BIN)/python -m pytest -m slurm -v -s tests/slurm -k smoke

slurm:
	@dpkg --status slurmctld slurmd slurm-client munge > /dev/null 2>&1 || \
	{ apt-get update --quiet=2 && $(APT) slurmctld slurmd slurm-client munge; }

# On Linux, as root: full and read-only disks, kills, and other things that break.
test-drills: .venv/ready-to-test
	$(BIN)/python -m pytest -m drill -v tests/drills

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
	@test -x /usr/bin/chromium || { apt-get update --quiet=2 && $(APT) chromium; }
	$(PIP_LOCKED) -r requirements-browser.lock
	$(BIN)/python -m pytest -m browser

# Fused kernels in Triton's interpreter on the processor, and compiled for cards; installs Triton (0.7 GB) into .venv.
test-kernels: .venv/ready-to-test
	$(PIP_LOCKED) -r requirements-kernels.lock
	TRITON_INTERPRET=1 $(BIN)/python -m pytest -m kernel -v tests/kernels

# On a machine with an NVIDIA card, ten minutes: all that needs one, into results/gpu-report.md.
test-gpu: .venv/ready-to-test
	@$(BIN)/python tests/gpu/report.py

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
	$(SNAKEMAKE) -n --quiet --profile profiles/slurm --configfile workflow/studies/pythia.yaml

# The numbers and pictures of README.md and docs/ anew, from fresh runs: about an hour and a half.
figures: run
	$(SNAKEMAKE) --cores 8 --configfile workflow/studies/published.yaml
	$(SNAKEMAKE) --cores 8 --configfile workflow/studies/smollm2.yaml
	mkdir -p docs/figures
	cp results/embedded/figures/scaling.png docs/figures/embedded.png
	cp results/published/figures/curves_published.png docs/figures/published.png
	cp results/smollm2/figures/overview.png docs/figures/smollm2.png
	$(BIN)/python docs/write_tables.py take

# torch is not in the lock: which build of it fits (for a processor, for a CUDA version) is yours to choose, and another
# index may have it. The line after the lock's brings the pinned version and what its build needs.
.venv/ready: requirements.lock requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("bitlaw needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	@echo "installing Python packages into .venv: about two minutes"
	@$(PYTHON) -m venv .venv
	@$(PIP_LOCKED) -r requirements.lock
	@echo "installing PyTorch"
	@$(PIP) -r requirements.txt
	@$(PIP) --no-deps --editable .
	@touch $@

.venv/ready-to-test: .venv/ready requirements-dev.lock
	$(PIP_LOCKED) -r requirements-dev.lock
	@touch $@

# After a change of requirements*.txt: the locks anew, with all packages that theirs need, for every platform.
lock:
	$(PYTHON) -m venv .venv
	$(PIP) uv==0.13.9
	for name in requirements requirements-dev requirements-browser; do \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  $(foreach package,$(TORCH),--no-emit-package $(package)) $$name.txt --output-file $$name.lock || exit; done
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  --no-deps requirements-kernels.txt --output-file requirements-kernels.lock

clean:
	rm -rf .venv .portable .snakemake build data/raw data/shards data/tokens data/models data/tokenizers
	rm -rf $(filter-out results/README.md,$(wildcard results/*))
