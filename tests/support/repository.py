"""The repository as a person gets it, for tests that run it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
SNAKEMAKE = Path(sys.executable).with_name("snakemake")
EXAMPLE = re.search(r"<!-- example: a test runs this -->\n```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]


def clone_to(folder):
    """Copy the files that git knows to `folder`, as a fresh clone has them, and add a text, notes/a.txt; the folder."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("It was the best of times, it was the worst of times. " * 200)
    return folder


def run(folder, *arguments, timeout=600, **options):
    command = [SNAKEMAKE, "--cores", "8", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout, **options)


def rules(*configfiles, folder=ROOT):
    """Rule to what Snakemake makes of it, a dict whose keys are those in rules_of_study.py."""
    command = [sys.executable, Path(__file__).with_name("rules_of_study.py"), *configfiles]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


def jobs(output):
    """Rule to number of jobs, from the table that Snakemake prints."""
    table = re.search(r"^job +count\n[- ]+\n(.*?)^total", output, re.S | re.M)
    return {name: int(count) for name, count in (line.split() for line in table[1].splitlines())} if table else {}


def pins(name):
    """Distribution to version, of the lines of a requirements file that pin one."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return {canonicalize_name(n): v for n, _, v in (line.partition("==") for line in lines if "==" in line)}
