"""A cell outside Snakemake, in a process of its own, on three small chunks."""

import json
import os
import subprocess
import sys

from repository import ROOT

WORKFLOW = ROOT / "workflow"


CHUNKS, SIZE = 3, 512


SCRIPT = """
import json, sys
from bitlaw.compression import cell, codec
{before}
given = json.loads(sys.argv[1])
labels, out = given.pop("labels"), given.pop("out")
cell.compress(cell.Inputs(**given), labels, out)
"""


def compress(data, model, out, before="", **changes):
    """Run a cell; returns (process, its json or None)."""
    given = {
        "folder": model,
        "tokenizer": model / "tokenizer.json",
        "shard_folder": data / "shards",
        "token_file": data / "tokens.npz",
        "out": out / "step1",
        "labels": {"modality": "text", "model": "m", "step": 1},
        "precision": "fp32",
        "device": "cpu",
        "verify": 2,
        "tokens_at_a_time": 512,
    }
    given |= changes
    given.setdefault("published", given["precision"])
    command = [sys.executable, "-c", SCRIPT.format(before=before), json.dumps(given, default=str)]
    environment = os.environ | {"PYTHONPATH": str(WORKFLOW)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    about = out / "step1.json"
    return ran, json.loads(about.read_text()) if about.exists() else None
