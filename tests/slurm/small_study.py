"""The study of the drills: four cells of seconds each."""

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
