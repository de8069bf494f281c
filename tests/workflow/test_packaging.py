"""What the project says of itself in several places is the same: dependencies, versions, where results go."""

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bitlaw.runtime import imports
from repository import ROOT, pins, rules

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMPORTED_AS = {"PIL": "pillow", "yaml": "pyyaml", "vl_convert": "vl-convert-python"}
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())


@pytest.mark.parametrize(
    ("declared", "lock"),
    [
        (PROJECT["dependencies"], "requirements.txt"),
        (PROJECT["optional-dependencies"]["dev"], "requirements-dev.txt"),
        (PROJECT["optional-dependencies"]["browser"], "requirements-browser.txt"),
    ],
    ids=["project", "dev", "browser"],
)
def test_the_lock_pins_every_dependency_and_within_its_range(declared, lock):
    ranges = {canonicalize_name(r.name): r.specifier for r in map(Requirement, declared)}
    pinned = pins(lock)
    assert set(ranges) == set(pinned)
    assert [name for name, version in pinned.items() if version not in ranges[name]] == []
    assert [name for name, specifier in ranges.items() if len(specifier) < 2] == [], "a range has two ends"


def test_the_environments_repeat_the_pins_of_the_lock():
    lock, repeated = pins("requirements.txt"), set()
    for path in (ROOT / "envs").glob("*.yaml"):
        for pin in yaml.safe_load(path.read_text())["dependencies"][-1]["pip"]:
            name, _, version = pin.partition("==")
            assert lock.get(canonicalize_name(name)) == version, (path, pin)
            repeated.add(canonicalize_name(name))
    of_the_run_itself = {name for name in lock if name.startswith("snakemake") or name == "psutil"}
    assert set(lock) - repeated == of_the_run_itself


def imported(path, everywhere=True):
    """Distributions that a file imports; `everywhere`: within functions, too. Of the Snakefile its lines are read."""
    text = path.read_text()
    if path.name == "Snakefile":
        text = "\n".join(re.findall(r"^(?:import|from) .*$", text, re.M))
    tree, found = ast.parse(text), set()
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.partition(".")[0])
    # pip is in every environment; Triton comes with torch's builds for CUDA, and `runtime.fused` says where it lacks
    found -= set(sys.stdlib_module_names) | {"bitlaw", "pip", "triton"}
    return {canonicalize_name(IMPORTED_AS.get(name, name)) for name in found}


def test_every_import_of_the_library_is_a_declared_dependency():
    declared = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    files = [*(ROOT / "workflow").rglob("*.py"), *(ROOT / "scripts").glob("*.py"), ROOT / "Snakefile"]
    used = set().union(*map(imported, files))
    assert len(used) > 15 and used <= declared, used - declared


def test_the_environment_of_a_rule_holds_what_its_script_imports():
    """What modules import within functions is left out: a cell reads chunks, but does not cut pictures."""
    for name, rule in rules("workflow/studies/pythia.yaml").items():
        if rule["script"]:
            script = ROOT / "scripts" / f"{rule['script']}.py"
            environment = yaml.safe_load((ROOT / "envs" / Path(rule["environment"]).name).read_text())
            there = {canonicalize_name(pin.partition("==")[0]) for pin in environment["dependencies"][-1]["pip"]}
            for path in (script, *imports.modules(script)):
                assert imported(path, everywhere=False) <= there, (name, path)


def test_the_command_is_there_and_helps_without_any_other_package():
    module, _, function = PROJECT["scripts"]["bitlaw"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow")}
    command = [sys.executable, "-S", "-m", "bitlaw", "--help"]  # -S: not even installed packages can be found
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("usage: bitlaw") and "decompress" in ran.stdout


def test_the_version_is_one():
    assert CITATION["version"] == PROJECT["version"]
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)[1]
    assert first == PROJECT["version"]
    assert f"version = {PROJECT['version']!r}".replace("'", '"') in (ROOT / "pyproject.toml").read_text()
    for path in (ROOT / "workflow").rglob("*.py"):
        assert f'"{PROJECT["version"]}"' not in path.read_text(), path


def test_the_citation_names_the_study_that_is_reproduced():
    (reference,) = CITATION["references"]
    assert {"type", "title", "authors"} <= set(reference)  # which the format demands
    assert reference["repository-code"].endswith("rokosbasilisk/scaling-laws-for-compression")
    assert reference["repository-code"].partition("github.com/")[2] in (ROOT / "data/published/README.md").read_text()


def test_the_readme_of_results_names_every_rule_that_leaves_something_there():
    text = (ROOT / "results/README.md").read_text()
    for name, rule in rules("workflow/studies/pythia.yaml").items():
        for path in (path for path in rule["output"] if path.startswith("results/pythia/")):
            assert f"`{name}`" in text, (name, path)
            assert path.removeprefix("results/pythia/").partition("/")[0].partition(".")[0] in text, path


def test_ci_runs_targets_of_the_makefile():
    steps = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["checks"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert commands and all(command.split()[0] == "make" for command in commands)
    assert {command.split()[1] for command in commands} <= targets
    (parts,) = re.findall(r"^for part in (.*); do$", (ROOT / ".ci/run").read_text(), re.M)
    assert parts.split()[0] == "test" and set(parts.split()) <= targets
