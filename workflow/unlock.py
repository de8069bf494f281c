"""Clear the lock that a killed Snakemake left in this folder, but only when no run is alive here."""

import os
import subprocess
import sys
from pathlib import Path

import psutil


def alive(folder):
    """Pids of Snakemake's main processes that work in `folder`."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()[:3]
            main = any(Path(word).name == "snakemake" for word in words) and "--unlock" not in process.cmdline()
            if main and Path(process.cwd()) == folder and process.pid != os.getpid():
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # gone meanwhile, or another user's
    return found


if __name__ == "__main__":
    here = Path.cwd().resolve()
    if any((here / ".snakemake" / "locks").glob("*.lock")):
        if pids := alive(here):
            sys.exit(f"a run is alive in {here} (process {pids[0]}): wait for it, or stop it with kill -INT {pids[0]}")
        subprocess.run(
            [Path(sys.executable).with_name("snakemake"), "--unlock", "--cores", "1"], check=True, capture_output=True
        )
        print("cleared the lock of a run that was killed")
