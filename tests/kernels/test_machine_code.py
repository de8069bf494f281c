"""Kernels compile for cards that are not here, and their code has only operations that round once, to nearest."""

import json
import os
import re
import subprocess
import sys

import pytest

from repository import ROOT

pytestmark = pytest.mark.kernel
# a float's operation names its rounding; conversions from and to integers do, too
ROUNDED = re.compile(r"(add|sub|mul|div)\.rn\.f(32|64)|cvt\.(rn\.f32\.(s32|s64|f64)|rn\.f64\.s64|rzi\.s32\.f32)")
EXACT = re.compile(r"(setp|set|selp|max|min|neg|abs|mov|ld|st)\..*|.*mma.*\.s32\.s8\.s8.*")


def instructions_of(folder, *arguments):
    """Title of each kernel to its instructions."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    paths = [str(ROOT / "workflow"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment |= {"PYTHONPATH": os.pathsep.join(paths), "TRITON_CACHE_DIR": str(folder)}
    command = [sys.executable, ROOT / "tests/kernels/compile_for_cards.py", *arguments]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def others(instructions):
    """Those that may round in another way than docs/arithmetic.md, or more than once."""
    return [i for i in instructions if not ROUNDED.fullmatch(i) and not EXACT.fullmatch(i)]


@pytest.mark.parametrize("capability", ["80", "90"])
def test_machine_code_rounds_as_documented(tmp_path, capability):
    found = instructions_of(tmp_path, capability)
    assert len(found) == 10
    for title, instructions in found.items():
        assert "add.rn.f32" in instructions and others(instructions) == [], title
    assert any("mma" in i for i in found["linear, 4096 rows"]) and "div.rn.f64" in found["attention, 1000 tokens, 80"]


def test_the_search_finds_fused_multiply_adds(tmp_path):
    found = instructions_of(tmp_path, "90", "contracted")
    for title in ("linear, 4096 rows", "attention, 1000 tokens, 80", "intervals"):
        assert "fma.rn.f32" in others(found[title]), title
