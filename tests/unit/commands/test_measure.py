"""`bitlaw measure`: the numbers of a cell, of files, folders, pipes, pictures and sounds; and what goes wrong."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
from PIL import Image

from bitlaw import __main__ as command_line
from bitlaw.commands import measure
from bitlaw.data.chunking import KINDS_OF_CUT
from cell_process import SIZE, WORKFLOW, compress

SEVERAL = """
import contextlib, io, json, sys
from bitlaw import __main__ as command_line
for arguments in json.loads(sys.argv[1]):
    sys.argv, said = ["bitlaw", *arguments], io.StringIO()
    with contextlib.redirect_stdout(said):
        command_line.main()
    print(json.dumps(said.getvalue()))
"""
ENVIRONMENT = os.environ | {"PYTHONPATH": str(WORKFLOW)}


def measured(*commands, given=b""):
    """What each of several `bitlaw measure ARGUMENTS` prints; in one new process, which spares starts of Python."""
    commands = [["measure", *map(str, arguments), "--threads", "1"] for arguments in commands]
    command = [sys.executable, "-c", SEVERAL, json.dumps(commands)]
    ran = subprocess.run(command, env=ENVIRONMENT, input=given, capture_output=True)
    assert ran.returncode == 0, ran.stderr.decode()
    assert ran.stderr == b""  # it is no terminal: no bars
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_the_numbers_are_those_of_a_cell(data, tmp_path, neox_folder):
    """Of a study's cell on the same chunks, to the last bit; and the table says the same as the JSON."""
    ran, cell = compress(data, neox_folder, tmp_path, precision="exact")
    assert ran.returncode == 0, ran.stderr
    arguments = (data / "a", "--model", neox_folder, "--chunk-bytes", SIZE)
    found, table = measured((*arguments, "--json"), arguments)
    found = json.loads(found)
    for protocol in ("lossless", "published"):
        ratio, bits = found[protocol]["ratio"], found[protocol]["bits_per_byte"]
        assert ratio["value"] == cell[f"cr_{protocol}"]
        assert ratio["low"] < ratio["value"] < ratio["high"] and ratio["standard_error"] > 0
        assert bits == {name: 8 * value for name, value in ratio.items()}
        assert f"{ratio['value']:.4f}" in table and f"{bits['low']:.4f} to {bits['high']:.4f}" in table
    assert {f"audit_{name}": value for name, value in found["audit"].items()} == {
        name: value for name, value in cell.items() if name.startswith("audit_")
    }
    steps = found["published"]["ratio"]["value"] + sum(found["audit"].values())
    assert steps == pytest.approx(found["lossless"]["ratio"]["value"], abs=1e-12)
    for name in ("stream_bits", "tokens", "weights_sha256", "params_total", "chunks", "dropped", "precision"):
        assert found[name] == cell[name], name
    assert found["window"] == {"tokens": 320, "advance": 160} and "windows of 320 tokens that advance by 160" in table
    assert found["decode_check"]["passed"] and found["speed"]["tokens_per_second"] > 0
    for row in found["prior_and_context"]:
        parts = [row[name] for name in ("top_bits", "tokeniser", "first_token", "prior", "context")]
        assert sum(parts) == pytest.approx(8 - row["total"], abs=1e-9)
    tools = {(row["compressor"], row["scope"]): row for row in found["classical"]}
    assert {"gzip", "xz", "zstd"} <= {name for name, _ in tools} and tools["gzip", "chunk"]["bytes_in"] == 3 * SIZE
    assert f"{tools['gzip', 'whole']['ratio']:.4f}" in table


@pytest.fixture
def media(tmp_path, passage):
    """A folder of texts, two pictures and a sound."""
    random = np.random.default_rng(3)
    (tmp_path / "texts" / "deep").mkdir(parents=True)
    (tmp_path / "texts" / "a").write_text(passage[:300])
    (tmp_path / "texts" / "deep" / "b").write_text(passage[300:])
    Image.fromarray(random.integers(0, 9, (70, 130), dtype=np.uint8)).save(tmp_path / "one.png")
    soundfile.write(tmp_path / "tone.wav", (3000 * np.sin(np.arange(1500) / 9)).astype(np.int16), 8000)
    soundfile.write(tmp_path / "stereo.wav", random.normal(0, 0.1, (1500, 2)), 8000)
    return tmp_path


def test_files_folders_pipes_pictures_and_sounds(media, neox_folder, passage):
    model = ("--model", neox_folder, "--json")
    small = ("--chunk-bytes", 128)
    commands = [
        (media / "texts", *model, *small),
        (media / "texts" / "deep" / "b", media / "texts" / "a", *model, *small),
        ("-", *model, *small),
        (media / "texts", *model, *small, "--chunks", 2),
        (media / "texts", *model, "--chunk-bytes", 600),
        (media / "one.png", *model, "--cut", "image"),
        (media / "tone.wav", *model, *small, "--cut", "speech"),
        (media / "stereo.wav", *model, *small, "--cut", "speech", "--convert"),
    ]
    folder, files, pipe, two, one, image, speech, converted = map(
        json.loads, measured(*commands, given=passage.encode())
    )
    assert folder["chunks"] == len(passage) // 128 and folder["counts"]["bytes_left_out_at_end"] == len(passage) % 128
    same = ("lossless", "published", "audit", "stream_bits", "tokens", "classical")
    assert [files[name] for name in same] == [pipe[name] for name in same] == [folder[name] for name in same]
    assert [path.rpartition("/")[2] for path in folder["files"]] == ["a", "b"]
    assert two["chunks"] == 2 and two["cut"]["seed"] == 0 and two["counts"]["available"] == folder["chunks"]
    # of one chunk there is a number and no interval
    assert one["chunks"] == 1 and one["lossless"]["ratio"]["value"] > 0
    for name in ("low", "high", "standard_error"):
        assert one["lossless"]["ratio"][name] is None and one["published"]["bits_per_byte"][name] is None
    assert all(row["prior_low"] is None for row in one["prior_and_context"])
    assert image["chunks"] == 4 and "png" in {row["compressor"] for row in image["classical"]}
    assert speech["cut"]["rate"] == 8000 and "flac" in {row["compressor"] for row in speech["classical"]}
    assert converted["counts"]["files_converted"] == [str(media / "stereo.wav")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "nowhere: cannot be read"),
        (("empty",), "empty: holds no bytes"),
        (("nothing",), "nothing: holds no bytes"),
        (("texts", "texts/a"), "texts/a: is named twice"),
        (("texts/a", "texts/../texts/a"), "is named twice"),
        (("texts/a",), "texts/a: gives no whole chunk: no chunk of 2048 bytes; a smaller --chunk-bytes may help"),
        (("texts", "--chunk-bytes", 0), "--chunk-bytes 0: give a number from 1 to 1048576"),
        (("texts", "--chunk-bytes", 100, "--chunks", 0), "chunks is 0"),
        (("texts", "--chunk-bytes", 100, "--chunks", 9), "7 chunks but 9 are asked for"),
        (("texts/a", "--cut", "image"), "texts/a cannot be read as an image"),
        (("one.png", "--cut", "image", "--chunk-bytes", 100), "an image patch has 2048 bytes"),
        (("texts/a", "--cut", "speech"), "texts/a: cannot be read as sound"),
        (("stereo.wav", "--cut", "speech"), "channels 2, not 1; set `convert: true`"),
        (("one.png", "--precision", "int3"), "int3"),
        (("texts", "--chunk-bytes", 100, "--threads", 0), "--threads 0: give a number"),
    ],
)
def test_what_cannot_be_measured_is_one_line(media, neox_folder, monkeypatch, tmp_path_factory, arguments, message):
    monkeypatch.chdir(media)
    (media / "empty").write_bytes(b"")
    (media / "nothing").mkdir()
    if "int3" in arguments:
        (media / "one.png").write_bytes(bytes(5000))
    waiting = tmp_path_factory.mktemp("waiting")
    monkeypatch.setattr("tempfile.tempdir", str(waiting))
    monkeypatch.setattr(sys, "argv", ["bitlaw", "measure", "--model", str(neox_folder), *map(str, arguments)])
    if "int3" in arguments:
        monkeypatch.setattr("bitlaw.compression.cell.ProcessPoolExecutor", NoProcess)
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    line = ended.value.code
    assert isinstance(line, str) and line.startswith("bitlaw: ") and "\n" not in line and message in line
    assert list(waiting.iterdir()) == []


class NoProcess:
    """In place of the decoder's process: forking this one, which has computed, is not safe."""

    def __init__(self, *given):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def submit(self, function):
        return self

    def result(self):
        pass


def test_ctrl_c_leaves_one_line_and_nothing_else(tmp_path, neox_folder):
    """While the cell is at work, to all processes at once, as a terminal sends it."""
    (tmp_path / "waiting").mkdir()
    (tmp_path / "file").write_bytes(np.random.default_rng(0).bytes(3_000_000))
    command = [sys.executable, "-m", "bitlaw", "measure", tmp_path / "file", "--model", neox_folder]
    heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    process = subprocess.Popen(
        [*map(str, command), "--threads", "1"], env=ENVIRONMENT | {"TMPDIR": str(tmp_path / "waiting")},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=heard,
    )  # fmt: skip
    while not list((tmp_path / "waiting").glob("bitlaw-measure-*/tokens.npz")) and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    said, complained = process.communicate(timeout=120)
    assert (process.returncode, said, complained) == (130, b"", b"bitlaw: interrupted\n")
    assert list((tmp_path / "waiting").glob("bitlaw-measure-*")) == []


def test_every_way_to_cut_chunks_can_be_asked_for():
    parser = argparse.ArgumentParser()
    measure.add(parser.add_subparsers())
    for cut in KINDS_OF_CUT:
        assert parser.parse_args(["measure", "x", "--model", "y", "--cut", cut]).cut == cut
