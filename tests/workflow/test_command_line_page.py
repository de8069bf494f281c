"""docs/command_line.md: every example runs as it stands, and its options are those that there are."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from PIL import Image

from repository import ROOT

PAGE = (ROOT / "docs/command_line.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.S | re.M)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the page says there is, and the command, whose every use has one thread."""
    folder = tmp_path_factory.mktemp("page")
    text = (ROOT / "docs/arithmetic.md").read_text()
    (folder / "notes.txt").write_text(text[:9000])
    Image.fromarray(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)).save(folder / "photo.png")
    soundfile.write(folder / "speech.wav", (900 * np.sin(np.arange(2048) / 9)).astype(np.int16), 16000)
    (folder / "model").symlink_to(ROOT / "data/ladder/ladder-64k/step1200")
    (folder / "bin").mkdir()
    (folder / "bin/bitlaw").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bitlaw "$@" --threads 1\n')
    (folder / "bin/python").symlink_to(sys.executable)
    (folder / "bin/bitlaw").chmod(0o755)
    return folder


@pytest.mark.parametrize("block", BLOCKS, ids=[block.split("  #")[0].splitlines()[0] for block in BLOCKS])
def test_every_example_runs(folder, block):
    environment = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "workflow")}
    ran = subprocess.run(["bash", "-euo", "pipefail", "-c", block], cwd=folder, env=environment, capture_output=True,
                         text=True)  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    if "measure" in block and "--json" not in block:
        assert "lossless" in ran.stdout and "95 % interval" in ran.stdout


def test_there_are_examples_of_every_command_that_reads_files():
    assert len(BLOCKS) >= 5
    for command in ("compress", "decompress", "measure"):
        assert any(f"bitlaw {command}" in block for block in BLOCKS)


def test_every_option_that_the_page_names_is_one():
    helps = ""
    for command in ("compress", "decompress", "measure"):
        ran = subprocess.run([sys.executable, "-m", "bitlaw", command, "--help"], capture_output=True, text=True,
                             env=os.environ | {"PYTHONPATH": str(ROOT / "workflow")}, check=True)  # fmt: skip
        helps += ran.stdout
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", PAGE)) - {"--rm"}
    assert named and named <= set(re.findall(r"--[a-z-]+", helps))
