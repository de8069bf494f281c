"""The house: formatting, lint, and nothing in it that belongs elsewhere."""

import subprocess
import sys
from pathlib import Path

import pytest

from repository import ROOT

BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["snakefmt", "--check", "Snakefile", "rules"],
        ["snakemake", "--lint"],
    ],
    ids=" ".join,
)
def test_checks_are_clean(command):
    ran = subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_library_imports_nothing_of_snakemake():
    for path in (ROOT / "workflow" / "bitlaw").rglob("*.py"):
        assert "import snakemake" not in path.read_text(), path
        assert "from snakemake" not in path.read_text(), path


def test_the_snakefile_imports_nothing_heavy():
    imports = [line for line in (ROOT / "Snakefile").read_text().splitlines() if line.startswith("from bitlaw")]
    assert imports
    code = "\n".join(["import sys", "sys.path.insert(0, 'workflow')", *imports, "print(*sys.modules)"])
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "pandas", "numba", "scipy"} & set(loaded.stdout.split())
