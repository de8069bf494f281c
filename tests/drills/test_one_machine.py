"""What happens to a run when things break: each drill ends in the same results as an undisturbed run, byte by byte.

As root on Linux: some drills mount small file systems, each in a folder of the test's own.
"""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pyarrow.parquet as pq
import pytest

from outcome import cells, laws_and_tables
from repository import ROOT, SNAKEMAKE, clone_to

pytestmark = [
    pytest.mark.drill,
    pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root"),
]
KILLS = 50
PLACES = 10
COMMAND = [SNAKEMAKE, "--cores", "8", "--configfile", "mine.yaml", "--rerun-incomplete"]
RESULTS = "results/mine"


@pytest.fixture(scope="module")
def undisturbed(clone):
    """(cells, laws and tables) of a run that nothing happens to."""
    status, said = run(clone)
    assert status == 0, said
    found = outcome(clone)
    assert len(found[0]) == 9 and {"prose.json", "cells.csv", "context.csv"} <= set(found[1])
    return found


@pytest.fixture
def fresh(clone, undisturbed):
    """The clone without results."""
    shutil.rmtree(clone / RESULTS)
    yield clone
    assert not os.path.ismount(clone / RESULTS)


def run(clone, **options):
    """(exit status, all that it said) of a run."""
    ran = subprocess.run(COMMAND, cwd=clone, capture_output=True, text=True, timeout=1800, **options)
    return ran.returncode, ran.stdout + ran.stderr


def start(clone, command=COMMAND):
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=clone, start_new_session=True, **quiet)


def outcome(clone):
    return cells(clone / RESULTS), laws_and_tables(clone / RESULTS)


def unlock(clone):
    ran = subprocess.run([sys.executable, "workflow/unlock.py"], cwd=clone, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def check_whole(clone, results=RESULTS):
    """Whatever has its name is whole."""
    for path in (clone / results).glob("cells/*/*/*.json"):
        json.loads(path.read_text())
    for path in (clone / results).glob("cells/*/*/*.parquet"):
        pq.read_table(path)


@contextmanager
def small_disk(folder, size):
    """A file system of `size` bytes at `folder`, which is empty."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def remount(folder, option):
    subprocess.run(["mount", "-o", f"remount,{option}", folder], check=True)


def bytes_used(folder):
    """Of a small disk, in whole pages."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


def test_killed_at_fifty_moments(fresh, undisturbed):
    draw, done = random.Random(1), False
    for kill in range(KILLS):
        process = start(fresh)
        try:
            process.wait(draw.uniform(1, 9))
            done = True
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            unlock(fresh)
        check_whole(fresh)
        if done:  # sooner than all kills were: from the start again
            assert process.returncode == 0 and outcome(fresh) == undisturbed, f"after {kill} kills"
            shutil.rmtree(fresh / RESULTS)
            done = False
    status, said = run(fresh)
    assert status == 0, said
    assert outcome(fresh) == undisturbed


def test_the_embedded_study_killed_at_fifty_moments(tmp_path):
    """Its tables come out as docs/tables has them."""
    clone, draw, kills = clone_to(tmp_path), random.Random(2), 0
    embedded = [SNAKEMAKE, "--cores", "8", "--rerun-incomplete"]
    while True:
        process = start(clone, embedded)
        try:
            process.wait(draw.uniform(2, 20) if kills < KILLS else 3600)
            break
        except subprocess.TimeoutExpired:
            assert kills < KILLS, "the run does not end"
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            unlock(clone)
            check_whole(clone, "results/embedded")
            kills += 1
    assert process.returncode == 0 and kills == KILLS
    subprocess.run([sys.executable, "docs/write_tables.py", "take"], cwd=clone, check=True)
    for path in (clone / "docs/tables").glob("embedded_*.csv"):
        assert path.read_bytes() == (ROOT / "docs/tables" / path.name).read_bytes(), path.name


def test_the_disk_is_full_at_ten_places(fresh, undisturbed):
    folder = fresh / RESULTS
    status, said = run(fresh)
    assert status == 0, said
    whole = bytes_used(folder)
    shutil.rmtree(folder)
    with small_disk(folder, whole // (PLACES + 1)):
        for place in range(1, PLACES + 1):
            remount(folder, f"size={whole * place // (PLACES + 1)}")
            status, said = run(fresh)
            assert status != 0 and "No space left on device" in said, said
            assert "Traceback" not in said
            check_whole(fresh)
        remount(folder, f"size={2 * whole}")
        status, said = run(fresh)
        assert status == 0, said
        assert outcome(fresh) == undisturbed


def test_results_that_cannot_be_written(fresh, undisturbed):
    folder = fresh / RESULTS
    with small_disk(folder, 1 << 28):
        remount(folder, "ro")
        status, said = run(fresh)
        assert status != 0 and "Read-only file system" in said and "Traceback" not in said, said
        remount(folder, "rw")
        status, said = run(fresh)
        assert status == 0, said
        assert outcome(fresh) == undisturbed


def test_too_little_memory(fresh, undisturbed):
    """Of what a cell asks for, half: enough, or a line that says so; never another number."""

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (half, half))

    half = 768 << 20
    status, said = run(fresh, preexec_fn=limit)
    assert "Traceback" not in said
    if status != 0:
        assert "memory" in said.lower(), said
    check_whole(fresh)
    unlock(fresh)
    status, said = run(fresh)
    assert status == 0, said
    assert outcome(fresh) == undisturbed


@pytest.mark.parametrize("days", [1, -1])
def test_a_clock_that_jumps(fresh, undisturbed, days):
    """What was made before the jump is a day older or younger than what is made after it."""
    process = start(fresh)
    while not list((fresh / RESULTS).glob("cells/*/*/*.json")):
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    unlock(fresh)
    made = [*(fresh / RESULTS).rglob("*"), *(fresh / "data/tokens").rglob("*")]
    for path in made:
        moved = path.stat().st_mtime + 86400 * days
        os.utime(path, (moved, moved))
    if days > 0:  # inputs from tomorrow are refused; docs/troubleshooting.md has the remedy
        status, said = run(fresh)
        assert status != 0 and "This could indicate a clock skew problem" in said, said
        check_whole(fresh)
        later = ["find", "data", "results", "-newermt", "now", "-exec", "touch", "{}", "+"]
        subprocess.run(later, cwd=fresh, check=True)
    status, said = run(fresh)
    assert status == 0, said
    assert outcome(fresh) == undisturbed


def test_two_runs_at_once(fresh, undisturbed):
    first = start(fresh)
    while not any((fresh / ".snakemake/locks").glob("*.lock")):
        assert first.poll() is None
        time.sleep(0.05)
    status, said = run(fresh)
    assert status != 0 and "Directory cannot be locked" in said, said
    refused = subprocess.run([sys.executable, "workflow/unlock.py"], cwd=fresh, capture_output=True, text=True)
    assert refused.returncode != 0 and "a run is alive" in refused.stderr
    assert first.wait(1800) == 0
    assert outcome(fresh) == undisturbed
