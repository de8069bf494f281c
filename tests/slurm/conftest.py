"""A cluster for the whole session, a clone with a small study, and the same study computed without a cluster."""

import shutil
import subprocess

import cluster as drill
import pytest
from small_study import ROOT, SNAKEMAKE, STUDY, TARGETS, cells


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
