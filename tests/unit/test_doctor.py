"""`bitlaw doctor`: what it prints, and how it says that an answer is wrong."""

import json
import os
import subprocess
import sys

import pytest
import torch

from bitlaw import __main__ as command_line
from bitlaw import doctor
from bitlaw.compression import known_answers
from cell_process import WORKFLOW

TABLE = known_answers.read_table()
ON_TORCH = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]  # devices of the engine of torch operations
NAMES = ["tiny/llama", "ladder-64k/step75"]


@pytest.fixture
def few(monkeypatch):
    """Only a few of the known answers, which spares time."""
    monkeypatch.setattr(known_answers, "all_names", lambda table: NAMES)


def call(monkeypatch):
    """`bitlaw doctor` in this process; its exit status, or the line that it ends with."""
    monkeypatch.setattr(sys, "argv", ["bitlaw", "doctor"])
    try:
        command_line.main()
    except SystemExit as ended:
        return ended.code
    return 0


def table_with(tmp_path, monkeypatch, **changes):
    path = tmp_path / "known_answers.json"
    path.write_text(json.dumps(TABLE | changes))
    monkeypatch.setattr(known_answers, "TABLE", path)
    return path


def test_it_prints_answers_and_the_machine(monkeypatch, capsys, few):
    assert call(monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    words = {line.split()[0]: line.split()[1:] for line in lines if line}
    for name in NAMES:
        assert words[name] == [TABLE["answers"][name][:12]] * (4 + len(ON_TORCH)) + ["agrees"]
    assert lines[-1] == "all 2 agree"
    for title in ("bitlaw", "Python", *doctor.PACKAGES, "processor", "cores", "memory", "GPU"):
        assert any(line.startswith(f"{title} ") for line in lines), title
    assert any(line.startswith("compiled loops") and "GiB" in line for line in lines)


@pytest.mark.parametrize("recorded", ["f" * 64, None])
def test_a_wrong_answer_ends_with_one_line_and_status_1(tmp_path, monkeypatch, capsys, few, recorded):
    answers = TABLE["answers"] | {"tiny/llama": recorded}
    if recorded is None:
        del answers["tiny/llama"]
    table_with(tmp_path, monkeypatch, answers=answers)
    ended = call(monkeypatch)
    # a line as the exit status is printed to stderr, and the status is 1
    assert ended.startswith("bitlaw: this machine does not compute the known answers (tiny/llama by scoring, ")
    assert "\n" not in ended
    wrong, right = (line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(tuple(NAMES)))
    assert wrong[-1] == "DIFFERS" and wrong[-2] == TABLE["answers"]["tiny/llama"][:12] and right[-1] == "agrees"


def test_an_engine_that_differs_or_fails_is_named(monkeypatch, capsys, few):
    def failing(model, ids):
        raise FloatingPointError("an activation is infinite\nand more")

    monkeypatch.setitem(known_answers.ENGINES, "decoding", failing)
    ended = call(monkeypatch)
    assert "(tiny/llama by decoding, ladder-64k/step75 by decoding)" in ended
    out = capsys.readouterr().out
    assert out.count("fails (FloatingPointError: an activation is infinite)  ") == out.count("  DIFFERS\n") == 2
    assert "agree\n" not in out


def test_without_the_table_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(known_answers, "TABLE", tmp_path / "none.json")
    assert call(monkeypatch).startswith(f"bitlaw: {tmp_path / 'none.json'}: no table of known answers")


def test_secrets_stay_where_they_are(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    said = "\n".join(doctor.machine())
    assert "OPENBLAS_CORETYPE=Haswell" in said and "hf_secret" not in said


def test_gpus_are_those_of_the_driver(tmp_path, monkeypatch):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA A100, 81920 MiB, 81000 MiB, 550.54'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert "GPU                     NVIDIA A100, memory 81920 MiB, free 81000 MiB, driver 550.54" in list(
        doctor.machine()
    )
    smi.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert "GPU                     none: nvidia-smi says 'NVIDIA-SMI has failed'" in list(doctor.machine())
    monkeypatch.setenv("PATH", "")
    assert "GPU                     none: no nvidia-smi here" in list(doctor.machine())


@pytest.mark.slow
def test_all_of_it_in_a_process_of_its_own():
    environment = os.environ | {"PYTHONPATH": str(WORKFLOW)}
    command = [sys.executable, "-X", "importtime", "-m", "bitlaw", "doctor"]
    subprocess.run(command, env=environment, capture_output=True)  # compiles
    before = os.times().children_user
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    seconds = os.times().children_user - before  # of a processor, as others use this machine, too
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.endswith(f"all {len(TABLE['answers'])} agree\n")
    imported = {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines() if line.startswith("import time:")}
    assert not {"torch", "transformers", "snakemake"} & imported and "numba" in imported
    assert seconds < 20


def test_a_driver_too_old_for_torch_is_told(tmp_path, monkeypatch):
    smi = tmp_path / "nvidia-smi"
    gpu = "NVIDIA A100, 81920 MiB, 81000 MiB, 535.183.01"
    smi.write_text(f'#!/bin/sh\ncase "$1" in *name*) echo "{gpu}";; *) echo 535.183.01;; esac\n')
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(doctor, "_built_for", lambda: "13.0")
    said = "\n".join(doctor.machine())
    assert "built for CUDA 13.0, which needs driver 580.65.06; here is 535.183.01; install a build of torch for" in said
    monkeypatch.setattr(doctor, "_built_for", lambda: "12.8")
    assert "torch on it             its driver is new enough" in list(doctor.machine())
