"""How long Snakemake takes to plan a large study, and each of its jobs to start.

    PYTHONPATH=workflow python benchmarks/dryrun.py

makes a folder with stand-ins for all checkpoints of Pythia (eight sizes, 154 steps, empty files of the right length),
plans all their cells over four modalities, 4,928 of them, as `snakemake -n` under the SLURM profile does, and then
parses as one job of them does. Prints a markdown table: seconds, largest resident memory, load of the machine.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
SNAKEMAKE = Path(sys.executable).with_name("snakemake")
SIZES = {"70m": 70e6, "160m": 160e6, "410m": 410e6, "1b": 1e9, "1.4b": 1.4e9, "2.8b": 2.8e9, "6.9b": 6.9e9, "12b": 12e9}
STEPS = [2**i for i in range(10)] + [1000 * i for i in range(1, 144)] + [143_500]


def make(folder, steps):
    """A working folder with the study `grid` over the first `steps` checkpoints of each size; returns its cells."""
    config = (
        yaml.safe_load((ROOT / "config.yaml").read_text())
        | {
            "study": "grid",
            "precision": "fp16",  # which the profile's GPUs compute
            "models": [
                {"name": f"pythia-{s}", "folder": "models/{name}/step{step}", "tokenizer": "any"} for s in SIZES
            ],
            "steps": STEPS[:steps],
            "tokenizers": {"any": "models/tokenizer.json"},
        }
    )
    for size, parameters in SIZES.items():
        for step in config["steps"]:
            checkpoint = folder / "models" / f"pythia-{size}" / f"step{step}"
            checkpoint.mkdir(parents=True)
            (checkpoint / "config.json").write_text("{}")
            (checkpoint / "model.safetensors").touch()
            os.truncate(checkpoint / "model.safetensors", int(2 * parameters))  # sparse: takes no space
    (folder / "models" / "tokenizer.json").write_text("{}")
    (folder / "grid.json").write_text(json.dumps(config))
    (folder / "data").mkdir()
    for name in ("workflow", "data/published", "profiles"):
        (folder / name).symlink_to(ROOT / name)
    return 4 * len(SIZES) * len(config["steps"])


def measured(folder, *arguments):
    """(what Snakemake printed, a row of numbers): seconds, of them computing, largest resident memory so far in MB."""
    command = [SNAKEMAKE, "--snakefile", ROOT / "Snakefile", "--directory", folder, *arguments]
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if ran.returncode:
        sys.exit(ran.stdout[-2000:] + ran.stderr[-2000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    computing = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return ran.stdout, f"{seconds:.1f} | {computing:.1f} | {after.ru_maxrss / 1024:.0f} |"


def job_arguments(folder, cell):
    """What the SLURM executor adds to the call of a job: only its rule and its file are looked at."""
    modality, model, step = cell
    wildcards = f"modality={modality},model={model},step={step}"
    return [
        *("--target-jobs", f"compress:{wildcards}", "--allowed-rules", "compress", "--cores", "2", "--force", "-n"),
        *("--target-files-omit-workdir-adjustment", "--nolock", "--ignore-incomplete", "--mode", "remote"),
        *("--configfiles", folder / "grid.json"),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=len(STEPS), help="checkpoints of each size")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count = make(folder, given.steps)
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors before\n")
        print("| | seconds | of them computing | resident, MB |\n|---|---:|---:|---:|")
        _, numbers = measured(folder, *job_arguments(folder, ("text", "pythia-12b", 1)))
        print(f"| start of one job | {numbers}")
        profile = ("--profile", "profiles/slurm", "--configfile", "grid.json")
        said, numbers = measured(folder, "-n", "--quiet", "rules", *profile)
        planned = int(re.search(r"^compress +(\d+)$", said, re.M)[1])
        assert planned == count, f"{planned} cells are planned, not {count}"
        print(f"| dry run, {planned:,} cells | {numbers}")


if __name__ == "__main__":
    main()
