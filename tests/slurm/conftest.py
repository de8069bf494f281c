"""A cluster for the whole session, a clone with a small study, and the same study computed without a cluster."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cluster as drill
import pytest

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
TARGETS = ("results/drill/tables/cells.csv", "--configfile", "drill.yaml")
TIMING = ("seconds", "seconds_by_part", "bytes_per_second", "tokens_per_second", "peak_memory_bytes")


def pytest_addoption(parser):
    parser.addoption("--cluster-folder", help="keep the cluster's logs here", default=None)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory, request):
    """Folder of a running cluster; stopped at the end, with everything that was started on it."""
    folder = Path(request.config.getoption("--cluster-folder") or tmp_path_factory.mktemp("cluster"))
    try:
        drill.start(folder)
        yield folder
    finally:
        left = drill.stop(folder)
    assert left == [], "processes of the cluster survived"


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    """The files that git knows, and the study; its data is fetched, cut and tokenised."""
    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("It was the best of times, it was the worst of times. " * 200)
    (folder / "drill.yaml").write_text(STUDY)
    return folder


@pytest.fixture(scope="session")
def local(clone):
    """Path to content of each cell, computed on this machine without a cluster; the results are removed again."""
    command = ["timeout", "-k", "10", "900", SNAKEMAKE, "--cores", "2", *TARGETS]
    ran = subprocess.run(command, cwd=clone, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = cells(clone)
    assert len(found) == 4
    return found


def cells(clone):
    """Path to content of each cell that is there, without what time and memory it took."""
    folder = clone / "results" / "drill" / "cells"
    found = {}
    for path in sorted(folder.glob("*/*/*.json")):
        about = {key: value for key, value in json.loads(path.read_text()).items() if key not in TIMING}
        found[str(path.relative_to(folder))] = (about, path.with_suffix(".parquet").read_bytes())
    return found
