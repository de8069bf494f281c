"""Failure drills on a real SLURM cluster: whatever dies, all cells come out, and equal those of a local run.

A drill holds the process of a cell (SIGSTOP) as soon as it has claimed its outputs, lets something go wrong, and waits
until Snakemake has finished. The profile is the one that is shipped; only its waits are made shorter.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import cluster as drill
import psutil
import pytest
from small_study import SNAKEMAKE, TARGETS

from outcome import cells

pytestmark = pytest.mark.slurm
LIMIT = 900  # seconds that a run of Snakemake may take, all attempts together
QUICK = (
    *("--slurm-init-seconds-before-status-checks", "5"),
    *("--max-status-checks-per-second", "1"),
    *("--latency-wait", "10"),
)


class Run:
    """Snakemake at work on the cluster, in `clone`."""

    def __init__(self, cluster, clone, *arguments, profile="profiles/slurm"):
        self.output = clone / "snakemake.out"
        command = [SNAKEMAKE, "--profile", profile, *QUICK, *TARGETS, *arguments]
        with open(self.output, "w") as out:
            self.process = subprocess.Popen(
                ["timeout", "-k", "10", str(LIMIT), *command],
                cwd=clone,
                env=drill.environment(cluster),
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def snakemake(self):
        return psutil.Process(self.process.pid).children()[0]

    def end(self):
        """Wait for the end; returns (exit status, all it said)."""
        status = self.process.wait(LIMIT + 20)
        return status, self.output.read_text()


@pytest.fixture
def study(cluster, clone, local):
    """The clone without results; `local` has left its data there. At the end all nodes are well and no job is left."""
    shutil.rmtree(clone / "results" / "drill", ignore_errors=True)
    yield clone
    for process in drill.marked(cluster):
        if "compress.py" in " ".join(_of(process, "cmdline") or ()):
            process.kill()
    drill.ask(cluster, "scancel", "--user=root")
    for node in drill.NODES:
        if not any(node in (_of(p, "cmdline") or ()) for p in drill.marked(cluster)):
            drill.start_node(cluster, node)
    drill.until(lambda: all(s in ("idle", "down") for s in drill.states(cluster).values()), 60, "no job is left")
    for node, state in drill.states(cluster).items():
        if state == "down":
            drill.ask(cluster, "scontrol", "update", f"nodename={node}", "state=resume")
    drill.until(lambda: set(drill.states(cluster).values()) == {"idle"}, 60, "all nodes are idle")


def _of(process, what):
    try:
        return getattr(process, what)()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


class Cell:
    """The process that computes one cell on the cluster."""

    def __init__(self, claim):
        self.process = psutil.Process(int(claim.name.split(".")[-2]))
        about = self.process.environ()
        self.job, self.node = about["SLURM_JOB_ID"], about["SLURMD_NODENAME"]
        self.path = claim.with_name(claim.name.split(".")[1] + ".json")


def held(run, clone):
    """The first cell that has claimed its outputs, stopped before it can write them."""
    while run.process.poll() is None:
        for claim in clone.glob("results/drill/cells/*/*/.*.json.*.claim"):
            try:
                cell = Cell(claim)
                cell.process.suspend()
            except (psutil.NoSuchProcess, KeyError):
                continue
            if claim.exists():
                return cell
            cell.process.resume()
        time.sleep(0.02)
    raise AssertionError("no cell came to work\n" + run.output.read_text())


def finished(run, study, local, cluster, event, cell=None, since=None):
    """Check the end of a run against the local one and note what the table of docs/cluster.md says."""
    status, said = run.end()
    assert status == 0, said
    found = cells(study / "results/drill")
    assert list(found) == list(local)
    for name, (about, table) in local.items():
        assert found[name][0] == about, name
        assert found[name][1] == table, name
    if cell is None:
        return said
    states = dict(line.split("|")[:2] for line in history(cluster))
    line = f"{event}: job {states[cell.job]}, cell again after {cell.path.stat().st_mtime - since:.0f} s"
    with open(cluster / "drills.txt", "a") as notes:
        print(line, file=notes)
    print(line)
    return said


def history(cluster):
    """Lines of id|state|time limit|partition for all jobs that the controller remembers."""
    return drill.ask(cluster, "squeue", "--states=all", "--noheader", "--format=%i|%T|%l|%P").splitlines()


def test_smoke_all_cells_on_the_cluster_with_a_gpu_each_and_no_network(cluster, study, local):
    """The GPUs are fake, and so is their use; that jobs have no network is `cluster`'s doing."""
    run = Run(cluster, study, "--set-resources", "compress:gpu=1")
    cell = held(run, study)
    assert cell.process.environ()["CUDA_VISIBLE_DEVICES"] in ("0", "1")
    cell.process.resume()
    said = finished(run, study, local, cluster, "smoke")
    assert len(re.findall(r"has been submitted with SLURM jobid", said)) == 5  # four cells and the table
    assert "Trying to restart" not in said
    assert not list(study.glob("results/drill/**/.*"))
    latest = sorted(history(cluster), key=lambda line: int(line.split("|")[0]))[-5:]
    assert sorted(line.split("|")[-1] for line in latest) == ["gpu"] * 4 + ["short"]


def test_a_cancelled_job(cluster, study, local):
    run = Run(cluster, study)
    cell, since = held(run, study), time.time()
    drill.ask(cluster, "scancel", cell.job)
    said = finished(run, study, local, cluster, "cancelled", cell, since)
    assert "SLURM status is: 'CANCELLED'" in said and "Trying to restart" in said


def test_a_job_over_its_time_gets_twice_as_much(cluster, study, local):
    run = Run(cluster, study, "--set-resources", "compress:runtime=attempt")
    cell, since = held(run, study), time.time()
    said = finished(run, study, local, cluster, "over its time", cell, since)
    assert "SLURM status is: 'TIMEOUT'" in said
    limits = [line.split("|")[2] for line in history(cluster) if int(line.split("|")[0]) >= int(cell.job)]
    assert "1:00" in limits and "2:00" in limits


def test_a_killed_batch_script(cluster, study, local):
    run = Run(cluster, study)
    cell, since = held(run, study), time.time()
    scripts = [
        process
        for process in drill.marked(cluster)
        if any("slurm_script" in word for word in _of(process, "cmdline") or ())
        and (_of(process, "environ") or {}).get("SLURM_JOB_ID") == cell.job
    ]
    assert scripts
    for process in scripts:
        process.kill()
    said = finished(run, study, local, cluster, "batch script killed", cell, since)
    assert "SLURM status is: 'FAILED'" in said


def test_a_killed_node_daemon_whose_orphan_finishes_late(cluster, study, local):
    run = Run(cluster, study)
    cell, since = held(run, study), time.time()
    drill.kill(cluster, f"slurmd-{cell.node}")
    said = finished(run, study, local, cluster, "node daemon killed", cell, since)
    assert "SLURM status is: 'NODE_FAIL'" in said or "due to a node failure" in said
    assert cell.process.is_running(), "the orphan was to survive its node's daemon"
    files = [cell.path, cell.path.with_suffix(".parquet")]
    before = [(f.stat().st_ino, f.stat().st_mtime_ns) for f in files]
    with open(its_log(cell)) as log:
        cell.process.resume()
        psutil.wait_procs([cell.process], timeout=300)
        assert "a later job has taken it over" in log.read()
    drill.until(lambda: not orphans(cluster, cell.job), 60, "all of the orphan's processes are gone")
    assert [(f.stat().st_ino, f.stat().st_mtime_ns) for f in files] == before


def its_log(cell):
    """The log that a process writes, by its open file: Snakemake has made a new one of the same name for the retry."""
    (log,) = [f for f in Path(f"/proc/{cell.process.pid}/fd").iterdir() if f"{cell.path.stem}.log" in os.readlink(f)]
    return log


def orphans(cluster, job):
    return [p for p in drill.marked(cluster) if (_of(p, "environ") or {}).get("SLURM_JOB_ID") == job]


def test_a_node_set_down(cluster, study, local):
    run = Run(cluster, study)
    cell, since = held(run, study), time.time()
    drill.ask(cluster, "scontrol", "update", f"nodename={cell.node}", "state=down", "reason=drill")
    said = finished(run, study, local, cluster, "node set down", cell, since)
    assert "SLURM status is: 'NODE_FAIL'" in said or "due to a node failure" in said


def test_a_restarted_controller(cluster, study, local):
    run = Run(cluster, study)
    cell, since = held(run, study), time.time()
    drill.kill(cluster, "slurmctld")
    time.sleep(20)  # several looks at the jobs fail meanwhile
    drill.start_controller(cluster)
    cell.process.resume()
    said = finished(run, study, local, cluster, "controller restarted", cell, since)
    assert "Trying to restart" not in said


def test_an_interrupted_snakemake_that_is_started_again(cluster, study, local):
    run = Run(cluster, study)
    cell, since = held(run, study), time.time()
    run.snakemake().send_signal(signal.SIGINT)
    status, _ = run.end()
    assert status != 0
    drill.until(lambda: not drill.ask(cluster, "squeue", "--noheader"), 60, "its jobs are cancelled")
    finished(Run(cluster, study), study, local, cluster, "Snakemake interrupted", cell, since)


@pytest.fixture
def preemptible(study):
    """The shipped profile with the line replaced that it says to replace where jobs are preempted."""
    text = (study / "profiles/slurm/profile.v9+.yaml").read_text()
    changed = text.replace("\nslurm-no-requeue: true\n", "\nslurm-requeue: true\n")
    assert changed != text
    folder = study / "profiles/preemptible"
    folder.mkdir(exist_ok=True)
    (folder / "profile.v9+.yaml").write_text(changed)
    return "profiles/preemptible"


def test_a_requeued_job(cluster, study, local, preemptible):
    run = Run(cluster, study, profile=preemptible)
    cell, since = held(run, study), time.time()
    drill.ask(cluster, "scontrol", "requeue", cell.job)
    said = finished(run, study, local, cluster, "requeued", cell, since)
    assert "Trying to restart" not in said


def test_a_preempted_job(cluster, study, local, preemptible):
    run = Run(cluster, study, profile=preemptible)
    cell, since = held(run, study), time.time()
    whole_node = ("--partition=urgent", "--exclusive", f"--nodelist={cell.node}", "--wrap=sleep 5")
    drill.ask(cluster, "sbatch", f"--output={cluster}/urgent.out", *whole_node)
    drill.until(lambda: not cell.process.is_running(), 60, "the urgent job has taken the node")
    said = finished(run, study, local, cluster, "preempted", cell, since)
    assert "Trying to restart" not in said


def test_a_node_whose_disk_is_full(cluster, study, local):
    """Its daemon cannot even keep a job's script: SLURM drains the node, and others take its jobs."""
    node = drill.NODES[0]
    drill.kill(cluster, f"slurmd-{node}")
    with small_disk(cluster / f"spool-{node}", 1 << 20) as spool:
        drill.start_node(cluster, node)
        drill.until(lambda: drill.states(cluster).get(node) == "idle", 60, "the node is back")
        with suppress(OSError), open(spool / "full", "wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        run = Run(cluster, study)
        said = finished(run, study, local, cluster, "full disk of a node")
        print("full disk of a node:", drill.states(cluster)[node], *history(cluster)[-5:], said.count("restart"))
        drill.kill(cluster, f"slurmd-{node}")
    drill.start_node(cluster, node)


@contextmanager
def small_disk(folder, size):
    """A file system of `size` bytes in place of what is in `folder`."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
