"""The house: formatting, lint, and nothing in it that belongs elsewhere."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from repository import ROOT, rules

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


@pytest.fixture(scope="module")
def declared():
    """Rule to what Snakemake makes of it, of a study that has all of them."""
    return rules("workflow/studies/pythia.yaml")


def test_every_rule_says_what_it_does_and_notes_what_it_took(declared):
    for name, rule in declared.items():
        if rule["script"]:
            assert rule["message"] and rule["message"][0].isupper(), name
            assert re.fullmatch(r"results/(pythia|ladder)/benchmarks/\S+\.tsv", rule["benchmark"]), name
            wildcards = set(re.findall(r"{(\w+)", " ".join(rule["output"])))
            assert set(re.findall(r"{(\w+)", rule["benchmark"])) == wildcards, name
            assert len(rule["log"]) == 1, name


def test_every_script_is_that_of_a_rule(declared):
    published = rules("workflow/studies/published.yaml")
    used = {rule["script"] for rule in [*declared.values(), *published.values()]} - {None}
    assert used == {path.stem for path in (ROOT / "scripts").glob("*.py")}


IMPORT_EACH = """
import ast, json, os, sys
import matplotlib, numba, pandas, scipy, snakemake, torch, transformers  # once for all
for path in sys.argv[1:]:
    if not os.fork():
        tree = ast.parse(open(path).read())
        tree.body = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        exec(compile(tree, path, "exec"), {})
        files = [m.__file__ for name, m in sys.modules.items() if name.partition(".")[0] == "bitlaw" and m.__file__]
        print(json.dumps([path, files]), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0, path
"""


def test_the_inputs_of_a_rule_hold_every_module_that_its_script_loads(declared):
    """What Python really imports, asked in processes of their own, against what is read out of the text."""
    declared = declared | {"published_table": rules("workflow/studies/published.yaml")["table"]}
    scripts = {rule["script"]: rule for name, rule in declared.items() if rule["script"]}
    command = [sys.executable, "-c", IMPORT_EACH, *(f"scripts/{name}.py" for name in scripts)]
    environment = os.environ | {"PYTHONPATH": "workflow"}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    loaded = {Path(path).stem: files for path, files in map(json.loads, ran.stdout.splitlines())}
    assert set(loaded) == set(scripts)
    for name, files in loaded.items():
        used = {os.path.relpath(path, ROOT) for path in files}
        assert len(used) > 1, name
        if name.startswith("fetch"):  # what was fetched is checked by its hash: no edit of ours makes it another
            assert scripts[name]["modules"] == [], name
        else:
            assert used <= set(scripts[name]["modules"]), name
