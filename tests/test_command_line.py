"""compress and decompress as programs, each in a process of its own."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from bitlaw import codec

WORKFLOW = Path(__file__).parents[1] / "workflow"


def bitlaw(*arguments):
    environment = os.environ | {"PYTHONPATH": str(WORKFLOW), "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-m", "bitlaw", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def all_of(calls):
    """Run several at once: most of each is the start of Python and torch."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda call: bitlaw(*call), calls))


@pytest.fixture(scope="module")
def files(tmp_path_factory, passage):
    """Files of several kinds, each with its stream beside it; (folder, name -> content)."""
    folder = tmp_path_factory.mktemp("files")
    contents = {
        "empty": b"",
        "one.byte": b"\x80",
        "random.bin": np.random.default_rng(1).bytes(5000),
        "text.txt": passage.encode()[:300],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder, contents


@pytest.fixture(scope="module")
def compressed(files, neox_folder, gpt2_folder):
    folder, contents = files
    calls = [("compress", folder / name, "--model", neox_folder, "--threads", 1) for name in contents]
    calls += [("compress", folder / "text.txt", "--model", gpt2_folder, "--output", folder / "foreign.blaw")]
    for ran in all_of(calls):
        assert ran.returncode == 0, ran.stderr
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    return folder


def test_files_come_back(compressed, files, neox_folder, gpt2_folder):
    folder, contents = files
    sizes = {name: (folder / f"{name}.blaw").stat().st_size for name in contents}
    assert sizes["empty"] < 200 and sizes["random.bin"] > 5000
    assert codec.unpack((folder / "text.txt.blaw").read_bytes())[0].precision == "fp32"
    moved = folder / "elsewhere"
    moved.mkdir()
    for name in contents:
        shutil.copy(folder / f"{name}.blaw", moved)
    calls = [("decompress", moved / f"{name}.blaw", "--model", neox_folder, "--threads", 2) for name in contents]
    calls += [("decompress", folder / "foreign.blaw", "--model", gpt2_folder, "--output", moved / "foreign")]
    for ran in all_of(calls):
        assert ran.returncode == 0, ran.stderr
        assert "bytes restored" in ran.stdout
    for name, content in [*contents.items(), ("foreign", contents["text.txt"])]:
        assert (moved / name).read_bytes() == content


def test_what_cannot_be_done_ends_in_one_line_and_no_file(
    compressed, tmp_path, neox_folder, other_neox_folder, gpt2_folder, tokenizer
):
    stream = (compressed / "text.txt.blaw").read_bytes()

    def damaged(name, content):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    broken = shutil.copytree(neox_folder, tmp_path / "broken")
    os.truncate(broken / "model.safetensors", 1000)
    tokenizer.add_tokens(["Alice was", "White Rabbit", "of having", "daisy-chain", "it had", "by her", "and of"])
    larger = tmp_path / "tokenizer.json"
    tokenizer.save(str(larger))
    out, text, whole = tmp_path / "out", compressed / "text.txt", damaged("whole.blaw", stream)
    cases = [
        (("compress", tmp_path / "nowhere"), neox_folder, "nowhere: cannot be read"),
        (("compress", text), tmp_path / "no_model", "no_model"),
        (("compress", text), broken, "not a safetensors file"),
        (("compress", text, "--precision", "int3"), neox_folder, "int3"),
        (("compress", text, "--tokenizer", larger), neox_folder, "the tokenizer more"),
        (("decompress", tmp_path / "nowhere.blaw"), neox_folder, "nowhere.blaw: cannot be read"),
        (("decompress", text), neox_folder, "not a bitlaw stream"),
        (("decompress", damaged("cut.blaw", stream[:-3])), neox_folder, "in the middle"),
        (("decompress", damaged("flip.blaw", stream[:-9] + b"\x55" + stream[-8:])), neox_folder, "damaged"),
        (("decompress", whole), other_neox_folder, "another model"),
        (("decompress", whole), gpt2_folder, "another model"),
        (("decompress", whole, "--tokenizer", larger), neox_folder, "another tokenizer"),
    ]
    calls = [(*call, "--model", model, "--output", out, "--threads", 1) for call, model, _ in cases]
    nameless = damaged("stream.mp4", stream)
    cases.append((("decompress", nameless), neox_folder, "say where to write with --output"))
    calls.append(("decompress", nameless, "--model", neox_folder))
    before = sorted(tmp_path.iterdir())
    for ran, (call, _, message) in zip(all_of(calls), cases, strict=True):
        assert ran.returncode == 1, (call, ran.stderr)
        assert message in ran.stderr and ran.stderr.startswith("bitlaw: "), ran.stderr
        assert ran.stderr.count("\n") == 1, ran.stderr
    assert sorted(tmp_path.iterdir()) == before
