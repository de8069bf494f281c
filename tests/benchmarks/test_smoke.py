"""Each script in benchmarks/ runs to its end on something tiny: an interface that moves does not break it unseen."""

import json
import re
import shutil
import sys
from pathlib import Path

import dryrun
import escapes
import gpu
import pytest
import scoring
import torch
from transformers import GPTNeoXForCausalLM

from repository import ROOT


@pytest.fixture
def text(passage, tmp_path):
    path = tmp_path / "text"
    path.write_text(passage * 20)
    return path


def tables(said):
    """The rows of the markdown tables that a script printed, as lists of fields, without headings."""
    rows = [line.strip("|").split("|") for line in said.splitlines() if line.startswith("|")]
    rules = {i for i, row in enumerate(rows) if set("".join(row)) <= set("-:")}
    return [[field.strip() for field in row] for i, row in enumerate(rows) if not {i, i + 1} & rules]


def test_every_benchmark_has_a_test_here():
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    for path in (ROOT / "benchmarks").glob("*.py"):
        assert re.search(rf"^(?:import|from) {path.stem}\b", tests, re.M), path


def test_scoring(neox_folder, text, monkeypatch, capsys):
    def tiny(dtype):
        torch.manual_seed(0)
        config = GPTNeoXForCausalLM.from_pretrained(neox_folder).config
        return GPTNeoXForCausalLM(config).to(dtype).eval()

    monkeypatch.setattr(scoring, "pythia_70m", tiny)
    monkeypatch.setattr(scoring, "CHUNK", 64)
    monkeypatch.setattr(scoring.peak, "__defaults__", (32,))
    monkeypatch.setattr(scoring.coder_table, "__defaults__", (500,))
    options = ["--model", neox_folder, "--tokenizer", neox_folder / "tokenizer.json", "--text", text]
    monkeypatch.setattr(sys, "argv", ["scoring.py", *map(str, options), "--chunks", "2", "--pairs", "1"])
    scoring.main()
    rows = tables(capsys.readouterr().out)
    assert [row[1] for row in rows[:4]] == ["fp32", "bf16"] * 2
    for row in rows[:4]:  # both sides count the same bits; the study's probabilities are rounded in bf16
        assert float(row[-1]) == pytest.approx(float(row[-2]), rel=1e-3 if row[1] == "fp32" else 0.05)
    coder = ["encode, given intervals", "decode, given cumulative counts"]
    assert [row[0] for row in rows[4:]] == ["fp32", "bf16"] * 2 + coder


def test_dryrun(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dryrun.py", "--steps", "1"])
    dryrun.main()
    rows = tables(capsys.readouterr().out)
    assert rows[0][0] == "start of one job" and len(rows) == 2
    assert "32" in rows[1][0]


def test_escapes(neox_folder, tmp_path, capsys, passage):
    folder = shutil.copytree(neox_folder, tmp_path / "lacking")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    kept = [token for token in tokenizer["model"]["vocab"] if chr(256 + 0x13) not in token]
    tokenizer["model"]["vocab"] = {token: number for number, token in enumerate(kept)}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (tmp_path / "text").write_text(("a\x13b\x01c" + passage)[:600] * 8)
    escapes.main(folder, tmp_path / "text", "0", "1")
    said = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"2 chunks, \d+\.\d{3} bits a byte \(.*\)", said[0])
    assert re.match(r"7 escaped symbols: \d+\.\d bits each", said[1])
    assert re.match(r"7 control symbols of the vocabulary: \d+\.\d bits each", said[2])


def test_escapes_says_when_there_are_none(neox_folder, text):
    with pytest.raises(SystemExit, match="its tokenizer lacks no symbol"):
        escapes.main(neox_folder, text, "0")


def test_gpu_says_that_there_is_none(monkeypatch):
    monkeypatch.setattr(gpu.gpu, "gpus", list)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit, match="nvidia-smi shows no GPU here; run it on a machine with one"):
        gpu.main()
