"""The study of the drills: four cells of seconds each, and how its results are compared."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SNAKEMAKE = Path(sys.executable).with_name("snakemake")
STUDY = """
study: drill
chunks: 2
modalities:
  - {name: prose, source: my-texts, cut: bytes, sampling: spread, seed: 1}
models:
  - {name: ladder-64k, folder: "data/ladder/{name}/step{step}", tokenizer: ladder}
  - {name: ladder-141k, folder: "data/ladder/{name}/step{step}", tokenizer: ladder}
steps: [75, 1200]
sources:
  my-texts: {folder: notes, pattern: "*.txt", licence: my own}
"""
TARGETS = ("results/drill/tables/cells.csv", "--configfile", "drill.yaml", "--config", "device=cpu")
TIMING = ("seconds", "seconds_by_part", "bytes_per_second", "tokens_per_second", "peak_memory_bytes")


def cells(clone):
    """Path to content of each cell that is there, without what time and memory it took."""
    folder = clone / "results" / "drill" / "cells"
    found = {}
    for path in sorted(folder.glob("*/*/*.json")):
        about = {key: value for key, value in json.loads(path.read_text()).items() if key not in TIMING}
        found[str(path.relative_to(folder))] = (about, path.with_suffix(".parquet").read_bytes())
    return found
