"""compress and decompress: in processes of their own for the way there and back, and for what goes wrong."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from bitlaw import __main__ as command_line
from bitlaw import codec

WORKFLOW = Path(__file__).parents[1] / "workflow"


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
        (("compress", text, "--tokenizer", tmp_path / "larger.json"), neox_folder, "the tokenizer more"),
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
