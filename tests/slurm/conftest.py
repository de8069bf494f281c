"""A cluster for the whole session, a clone with a small study, and the same study computed without a cluster."""

import subprocess

import cluster as drill
import pytest
from small_study import SNAKEMAKE, STUDY, TARGETS

from outcome import cells
from repository import clone_to


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """Folder of a running cluster; stopped at the end, with everything that was started on it."""
    folder = tmp_path_factory.mktemp("cluster")
    try:
        drill.start(folder)
        yield folder
    finally:
        left = drill.stop(folder)
    assert left == [], "processes of the cluster survived"


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    """The files that git knows, and the study; its data is fetched, cut and tokenised."""
    folder = clone_to(tmp_path_factory.mktemp("clone"))
    (folder / "drill.yaml").write_text(STUDY)
    return folder


@pytest.fixture(scope="session")
def local(clone):
    """Path to content of each cell, computed on this machine without a cluster; the results are removed again."""
    command = ["timeout", "-k", "10", "900", SNAKEMAKE, "--cores", "2", *TARGETS]
    ran = subprocess.run(command, cwd=clone, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = cells(clone / "results/drill")
    assert len(found) == 4
    return found
