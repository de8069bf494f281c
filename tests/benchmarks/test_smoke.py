"""Each script in benchmarks/ runs to its end on something tiny: an interface that moves does not break it unseen."""

import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

import dryrun
import escapes
import exact
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
    coder = ["encode, given intervals", "decode, given frequencies"]
    assert [row[0] for row in rows[4:]] == ["fp32", "bf16"] * 2 + coder


def test_exact(monkeypatch, capsys):
    tiny = (exact.LLAMA | {"tie_word_embeddings": True}, 32, 1, 2, 1, 64, 64, 32)
    monkeypatch.setitem(exact.SHAPES, "tiny-llama", tiny)
    monkeypatch.setitem(exact.SHAPES, "tiny-neox", (exact.NEOX, 32, 1, 2, 2, 128, 64, 32))
    sizes = ["--length", "16", "--texts", "2", "--steps", "4", "--batches", "1", "2", "--pairs", "1", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["exact.py", "--models", "tiny-neox", "tiny-llama", *sizes])
    exact.main()
    rows = tables(capsys.readouterr().out)
    assert [row[:2] for row in rows] == [
        [name, what] for name in ("tiny-neox", "tiny-llama") for what in ("one-shot", "steps, 1 rows", "steps, 2 rows")
    ]


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


@pytest.mark.slow
def test_cells_of_the_gpu_report_on_a_processor(monkeypatch):
    """A tiny shape, in each precision that a processor has: the cells that `make test-gpu` runs on a card."""
    monkeypatch.setitem(gpu.SHAPES, "tiny", (64, 128, 2, 2))
    monkeypatch.setattr(gpu, "PRECISIONS", ("exact", "fp32"))
    report = gpu_report(monkeypatch)
    lines = list(report.cells("cpu", ["tiny"], 2, 64))
    assert lines[0].startswith("Measured peaks: fp16 ")
    assert [row[:2] + row[-1:] for row in tables("\n".join(lines))] == [["tiny", p, "1"] for p in ("exact", "fp32")]


def gpu_report(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    specification = importlib.util.spec_from_file_location("gpu_report", ROOT / "tests/gpu/report.py")
    report = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(report)
    return report


def test_the_gpu_report_says_that_there_is_no_card(monkeypatch, tmp_path):
    report = gpu_report(monkeypatch)
    monkeypatch.setattr(report, "REPORT", tmp_path / "report.md")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="^make test-gpu: torch .* can use no NVIDIA card here; nothing was run"):
        report.main()
    assert not (tmp_path / "report.md").exists()


def test_a_part_of_the_gpu_report_that_fails_fails_it_and_leaves_the_others(monkeypatch, tmp_path):
    report = gpu_report(monkeypatch)

    def broken():
        yield "half"
        raise ValueError("no such\nthing")

    failed = report.write(tmp_path / "results/report.md", {"First": broken, "Second": lambda: ["all well"]})
    assert failed == ["First (no such)"]
    text = (tmp_path / "results/report.md").read_text()
    assert "half" in text and "FAILED: First (no such)" in text and text.index("## Second") < text.index("all well")
