"""The command line: there and back in processes of their own, laws of any table, and what goes wrong."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from tokenizers import Tokenizer

from bitlaw import __main__ as command_line
from bitlaw.compression import codec
from cell_process import WORKFLOW


def run(*arguments):
    """`python -m bitlaw` in a new process."""
    environment = os.environ | {"PYTHONPATH": str(WORKFLOW)}
    command = [sys.executable, "-m", "bitlaw", *map(str, arguments), "--threads", "1"]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture
def call(monkeypatch, threads):
    """The same in this process, which spares the start of Python and torch."""

    def main(*arguments):
        monkeypatch.setattr(sys, "argv", ["bitlaw", *map(str, arguments), "--threads", "1"])
        command_line.main()

    return main


def test_a_file_goes_through_two_processes_and_comes_back(tmp_path, neox_folder, passage):
    file, stream = tmp_path / "mixed.bin", tmp_path / "mixed.bin.blaw"
    content = passage.encode()[:700] + np.random.default_rng(2).bytes(100) + b"\x80" + passage.encode()[:1500]
    file.write_bytes(content)
    ran = run("compress", file, "--model", neox_folder)
    assert ran.returncode == 0, ran.stderr
    assert f"{len(content)} bytes to {stream.stat().st_size}" in ran.stdout
    file.unlink()
    ran = run("decompress", stream, "--model", neox_folder)
    assert ran.returncode == 0, ran.stderr
    assert file.read_bytes() == content and sorted(tmp_path.iterdir()) == [file, stream]
    # and a process that fails says so by one line and its exit status
    stream.write_bytes(stream.read_bytes()[:-1])
    ran = run("decompress", stream, "--model", neox_folder, "--output", tmp_path / "out")
    assert ran.returncode == 1 and ran.stdout == ""
    assert ran.stderr.startswith(f"bitlaw: {stream}: the stream ends") and ran.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == [file, stream]


@pytest.mark.parametrize("size", [0, 1, 5000])
def test_bytes_of_every_kind_come_back(call, tmp_path, neox_folder, size):
    file, back = tmp_path / "file.tar.gz", tmp_path / "back"
    file.write_bytes(np.random.default_rng(size).bytes(size))
    call("compress", file, "--model", neox_folder)
    stream = tmp_path / "file.tar.gz.blaw"
    assert size < stream.stat().st_size < 2 * size + 200
    call("decompress", stream, "--model", neox_folder, "--output", back)
    assert back.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_model_of_another_architecture_goes_there_and_back(call, tmp_path, gpt2_folder, passage, precision):
    file, stream, back = (tmp_path / name for name in ("text", "stream", "back"))
    file.write_text(passage[:200])
    call("compress", file, "--model", gpt2_folder, "--output", stream, "--precision", precision)
    assert codec.unpack(stream.read_bytes())[0].precision == precision
    call("decompress", stream, "--model", gpt2_folder, "--output", back)
    assert back.read_text() == passage[:200]


def test_what_cannot_be_done_ends_in_one_line_and_no_file(
    call, tmp_path, neox_folder, other_neox_folder, gpt2_folder, tokenizer, passage
):
    def made(name, content):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    text, whole, out = made("text", passage[:300].encode()), tmp_path / "whole.blaw", tmp_path / "out"
    call("compress", text, "--model", neox_folder, "--output", whole)
    stream = whole.read_bytes()
    flipped = stream[:-9] + bytes([stream[-9] ^ 4]) + stream[-8:]
    broken = shutil.copytree(neox_folder, tmp_path / "broken")
    os.truncate(broken / "model.safetensors", 1000)
    larger = Tokenizer.from_str(tokenizer.to_str())
    larger.add_tokens(["Alice was", "White Rabbit", "of having", "daisy-chain", "beginning to get", "by her sister"])
    larger.save(str(tmp_path / "larger.json"))
    nameless = made("stream.mp4", stream)
    cases = [
        (("compress", tmp_path / "nowhere"), neox_folder, "nowhere: cannot be read"),
        (("compress", tmp_path), neox_folder, "cannot be read"),
        (("compress", text), tmp_path / "no_model", "no_model"),
        (("compress", text), broken, "not a safetensors file"),
        (("compress", text, "--precision", "int3"), neox_folder, "int3"),
        (("compress", text, "--tokenizer", tmp_path / "larger.json"), neox_folder, "give the tokenizer that belongs to it"),
        (("decompress", tmp_path / "nowhere.blaw"), neox_folder, "nowhere.blaw: cannot be read"),
        (("decompress", text), neox_folder, "not a bitlaw stream"),
        (("decompress", made("cut.blaw", stream[:-3])), neox_folder, "in the middle"),
        (("decompress", made("flip.blaw", flipped)), neox_folder, "does not pass its check"),
        (("decompress", whole), other_neox_folder, "another model"),
        (("decompress", whole), gpt2_folder, "another model"),
        (("decompress", whole, "--tokenizer", tmp_path / "larger.json"), neox_folder, "another tokenizer"),
    ]
    before = sorted(tmp_path.iterdir())
    for arguments, model, message in cases:
        with pytest.raises(SystemExit) as ended:
            call(*arguments, "--model", model, "--output", out)
        # Python prints a text given to sys.exit to standard error and exits with 1
        line = ended.value.code
        assert isinstance(line, str) and line.startswith("bitlaw: ") and "\n" not in line and message in line, line
        assert str(arguments[1]) in line
        assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(SystemExit, match="say where to write with --output"):
        call("decompress", nameless, "--model", neox_folder)
    assert sorted(tmp_path.iterdir()) == before


# --- laws ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    """A table with other names than ours, two kinds of rows, and a planted law in one of them."""
    n, d = (grid.ravel() for grid in np.meshgrid([1e6, 1e7, 1e8, 1e9, 1e10], [1e3, 1e4, 1e5, 1e6]))
    loss = 1.7 + 40 * n**-0.3 + 9 * d**-0.25
    rows = [f"{a},{b},{c},good" for a, b, c in zip(n, d, loss, strict=True)] + ["1,1,1,bad"]
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(["N,D,loss,kind", *rows]) + "\n")
    return path


COLUMNS = ("--size", "N", "--steps", "D", "--response", "loss", "--where", "kind=good")


@pytest.mark.parametrize("options", [(), ("--loss", "huber", "--log"), ("--loss", "l1"), ("--form", "coupled")])
def test_fit_finds_what_was_planted_in_any_table(table, call_without_threads, capsys, options):
    call_without_threads("fit", table, *COLUMNS, *options)
    law = json.loads(table.with_suffix(".law.json").read_text())
    said = capsys.readouterr().out
    for name, value in {"a": 1.7, "b": 40, "alpha": 0.3, "c": 9, "beta": 0.25}.items():
        assert law["coefficients"][name]["value"] == pytest.approx(value, rel=0.02), name
        assert f"  {name} " in said
    assert "of the starts end at this objective" in said and law["n"] == 20


def test_predict_reads_what_fit_wrote_and_says_when_it_extrapolates(table, call_without_threads, capsys):
    call_without_threads("fit", table, *COLUMNS, "--output", table.parent / "law.json")
    capsys.readouterr()
    call_without_threads("predict", "--law", table.parent / "law.json", "--params", 1e8, "--steps", 1e5)
    inside = capsys.readouterr().out
    assert inside.startswith(f"CR {1.7 + 40 * 1e8**-0.3 + 9 * 1e5**-0.25:.4f} (95 % ") and "extrapolation" not in inside
    call_without_threads("predict", "--law", table.parent / "law.json", "--params", 1e12, "--steps", 1e5)
    assert "extrapolation: params 1e+12 is 100 times above the data, which end at 1e+10" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit", "none.csv"), "none.csv: cannot be read as CSV"),
        (("fit", "runs.csv", "--size", "M"), "no column 'M'; it has N, D, loss, kind"),
        (("fit", "runs.csv", *COLUMNS[:4], "--response", "kind"), "column 'kind' holds 'good'; numbers are needed"),
        (("fit", "runs.csv", *COLUMNS, "--form", "cubic"), "form 'cubic': choose one of"),
        (("predict", "--law", "runs.csv", "--params", 1, "--steps", 1), "holds no law of protocol 'lossless'"),
    ],
)
def test_bad_tables_and_laws_are_one_line(table, call_without_threads, monkeypatch, arguments, message):
    monkeypatch.chdir(table.parent)
    with pytest.raises(SystemExit) as stop:
        call_without_threads(*arguments)
    assert message in str(stop.value) and "\n" not in str(stop.value)
    assert sorted(path.name for path in table.parent.iterdir()) == ["runs.csv"]


@pytest.fixture
def call_without_threads(monkeypatch):
    def main(*arguments):
        monkeypatch.setattr(sys, "argv", ["bitlaw", *map(str, arguments)])
        command_line.main()

    return main
