"""A real SLURM cluster on one machine: controller, four nodes with fake GPUs, munge; as root, without systemd.

    python tests/slurm/cluster.py start FOLDER     # prints what to export to use it
    python tests/slurm/cluster.py stop FOLDER      # ends exactly the processes that belong to FOLDER

FOLDER keeps configuration, state, logs and a pid file for each daemon. Needs Debian's slurmctld, slurmd, slurm-client
and munge (`make test-slurm` installs them).
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

HERE = Path(__file__).parent
NODES = ("n1", "n2", "n3", "n4")
MARK = "BITLAW_DRILL"  # in the environment of every process of a cluster and its jobs: its folder


def start(folder):
    """Write the configuration to `folder` and start all daemons; RuntimeError unless every node is idle in 30 s."""
    folder = Path(folder).absolute()
    for name in ("etc", "state", "bin"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    ports = _free_ports(1 + len(NODES))
    values = {
        "@FOLDER@": str(folder),
        "@HOST@": socket.gethostname(),
        "@CONTROLLER_PORT@": str(ports[0]),
        "@NODE_PORTS@": ",".join(map(str, ports[1:])),
    }
    for name in ("slurm.conf", "gres.conf"):
        text = (HERE / f"{name}.template").read_text()
        for key, value in values.items():
            text = text.replace(key, value)
        (folder / "etc" / name).write_text(text)
    _shim_srun(folder)
    _hide_sacct(folder)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    paths = {name: folder / f"munge.{name}" for name in ("socket", "seed", "log")}
    _daemon(
        folder,
        "munged",
        "--foreground",
        "--force",
        f"--key-file={key}",
        f"--socket={paths['socket']}",
        f"--seed-file={paths['seed']}",
        f"--log-file={paths['log']}",
        f"--pid-file={folder / 'munged-own.pid'}",
    )
    until(paths["socket"].exists, 10, "munged opens its socket")
    start_controller(folder)
    for node in NODES:
        start_node(folder, node)
    until(lambda: states(folder) == dict.fromkeys(NODES, "idle"), 30, "every node is idle")
    return environment(folder)


def start_controller(folder):
    _daemon(folder, "slurmctld", "-D", "-f", Path(folder) / "etc" / "slurm.conf")


def start_node(folder, node):
    _daemon(folder, "slurmd", "-D", "-N", node, "-f", Path(folder) / "etc" / "slurm.conf", name=f"slurmd-{node}")


def kill(folder, name, how=signal.SIGKILL):
    """Send a signal to the daemon `name` (slurmctld, slurmd-n1, ...) and wait until it is gone."""
    process = psutil.Process(int((Path(folder) / f"{name}.started").read_text()))
    process.send_signal(how)
    process.wait(20)


def environment(folder):
    """Variables with which SLURM's commands, and jobs, find this cluster."""
    folder = Path(folder).absolute()
    return os.environ | {
        "SLURM_CONF": str(folder / "etc" / "slurm.conf"),
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        MARK: str(folder),
    }


def ask(folder, *command):
    """What a SLURM command prints."""
    ran = subprocess.run(command, env=environment(folder), capture_output=True, text=True, timeout=30)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {ran.stderr.strip()}")
    return ran.stdout


def states(folder):
    """Node to its state, in the words of sinfo; empty while the controller does not answer."""
    try:
        lines = ask(folder, "sinfo", "--noheader", "--Node", "--format=%N %t").splitlines()
    except RuntimeError:
        return {}
    return dict(line.split() for line in lines)


def stop(folder):
    """End the daemons by their recorded pids, then whatever process carries this cluster's mark; remove nothing."""
    folder = Path(folder).absolute()
    for record in folder.glob("*.started"):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # gone, or its number is another user's now
            process = psutil.Process(int(record.read_text()))
            if process.environ().get(MARK) == str(folder):
                process.kill()
    for process in marked(folder):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(marked(folder), timeout=10)
    return marked(folder)


def marked(folder):
    """Processes, other than this one and its ancestors, that carry the mark of the cluster in `folder`."""
    folder, found = str(Path(folder).absolute()), []
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        try:
            if process.pid not in own and process.environ().get(MARK) == folder:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def _daemon(folder, program, *arguments, name=None):
    name = name or program
    path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if path is None:
        raise RuntimeError(f"{program} is not installed; `make test-slurm` installs it (Debian, as root)")
    with open(Path(folder) / f"{name}.out", "ab") as out:
        process = subprocess.Popen(
            [path, *map(str, arguments)],
            env=environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            cwd=folder,
        )
    (Path(folder) / f"{name}.started").write_text(str(process.pid))
    return process


def _shim_srun(folder):
    """An srun that finds this cluster, for Snakemake's job step drops SLURM_CONF, and whose jobs have no network.

    On a real cluster srun finds its configuration by itself.
    """
    shim = folder / "bin" / "srun"
    shim.write_text(
        f"""#!/bin/bash
i=1
while [[ ${{!i}} == -* ]]; do ((i++)); done  # options, then the command
SLURM_CONF={folder}/etc/slurm.conf exec {shutil.which("srun")} "${{@:1:i-1}}" unshare --net "${{@:i}}"
"""
    )
    shim.chmod(0o755)


def _hide_sacct(folder):
    """A `which` that does not find sacct: this cluster keeps no accounts, so that sacct always fails.

    Snakemake's executor turns to it, where `which` finds it, as soon as the controller does not answer.
    """
    shim = folder / "bin" / "which"
    shim.write_text(f'#!/bin/sh\n[ "$1" != sacct ] && exec {shutil.which("which")} "$@"\n')
    shim.chmod(0o755)


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return sorted(ports)


def until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {seconds} s in vain until {what}")
        time.sleep(0.1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["start"] and len(sys.argv) == 3:
        began = time.monotonic()
        ready = start(sys.argv[2])
        print(f"# up in {time.monotonic() - began:.1f} s")
        for variable in ("SLURM_CONF", "PATH", MARK):
            print(f"export {variable}={ready[variable]}")
    elif sys.argv[1:2] == ["stop"] and len(sys.argv) == 3:
        sys.exit(f"still alive: {left}" if (left := stop(sys.argv[2])) else 0)
    else:
        sys.exit(__doc__)
