"""`bitlaw compress` and `decompress` as people know them from other compressors: --force, --test, sizes, memory."""

import io
import os
import pty
import subprocess
import sys
import tempfile
import termios

import numpy as np
import pytest

from bitlaw import __main__ as command_line
from bitlaw.commands import compress as compress_command
from bitlaw.compression import codec, files, stream_format
from cell_process import WORKFLOW


@pytest.fixture
def call(monkeypatch, threads):
    """`bitlaw ARGUMENTS` in this process; returns the line that it ends with, None when all went well."""

    def main(*arguments):
        monkeypatch.setattr(sys, "argv", ["bitlaw", *map(str, arguments), "--threads", "1"])
        try:
            command_line.main()
        except SystemExit as ended:
            return ended.code
        return None

    return main


@pytest.fixture
def small_groups(monkeypatch):
    """So that a small file takes several groups."""
    monkeypatch.setattr(files, "GROUP_BYTES", 400)


def listing(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_nothing_that_is_there_is_replaced_without_force(call, tmp_path, neox_folder, passage):
    text, stream = tmp_path / "text", tmp_path / "text.blaw"
    text.write_text(passage[:300])
    stream.write_text("mine")
    (tmp_path / "link").symlink_to("text.blaw")
    before = listing(tmp_path)
    for more in ((), ("--output", tmp_path / "link"), ("-o", stream)):
        assert "already exists; not overwritten" in call("compress", text, "--model", neox_folder, *more)
        assert listing(tmp_path) == before
    assert call("compress", text, "--model", neox_folder, "-f") is None
    assert stream.read_bytes().startswith(b"blaw")
    before = listing(tmp_path)
    assert "text already exists; not overwritten" in call("decompress", stream, "--model", neox_folder)
    # the input itself not even then, by whatever name
    for name in (text, tmp_path / "." / "text", tmp_path / "other"):
        (tmp_path / "other").unlink(missing_ok=True)
        (tmp_path / "other").symlink_to("text")
        assert "is the file that is read" in call("compress", text, "--model", neox_folder, "-f", "-o", name)
    (tmp_path / "other").unlink()
    assert listing(tmp_path) == before
    assert call("decompress", stream, "--model", neox_folder, "--force") is None
    assert text.read_text() == passage[:300]


def test_a_file_that_came_meanwhile_is_kept(call, tmp_path, neox_folder, passage, monkeypatch):
    text, stream = tmp_path / "text", tmp_path / "text.blaw"
    text.write_text(passage[:300])
    right = files.compress

    def slow(*given):
        coded = right(*given)
        stream.write_text("somebody's")
        return coded

    monkeypatch.setattr(files, "compress", slow)
    assert "already exists; not overwritten" in call("compress", text, "--model", neox_folder)
    assert listing(tmp_path) == {text: passage[:300].encode(), stream: b"somebody's"}


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_help_says_what_is_done_to_files(capsys, call, command):
    assert call(command, "--help") == 0
    assert "--force" in (said := capsys.readouterr().out) and "--test" in said


def test_testing_decodes_before_the_stream_is_written(call, tmp_path, neox_folder, passage, monkeypatch, capsys):
    text, stream = tmp_path / "text", tmp_path / "text.blaw"
    text.write_text(passage[:700])
    assert call("compress", text, "--model", neox_folder, "--test", "--chunk-bytes", 400) is None
    assert "text.blaw, tested)" in capsys.readouterr().err
    # and of a stream that is there
    assert call("decompress", stream, "--model", neox_folder, "--test") is None
    assert capsys.readouterr().err == f"{stream} : 700 bytes (tested)\n"
    whole = stream.read_bytes()
    stream.write_bytes(whole[:-5] + bytes([whole[-5] ^ 16]) + whole[-4:])
    assert "does not pass its check" in call("decompress", stream, "-t", "--model", neox_folder)
    stream.unlink()
    # a coder that goes wrong is found out: the check of a chunk is of other bytes, or all chunks are others'
    right = codec.record
    monkeypatch.setattr(codec, "record", lambda data, own: right(data, own)._replace(check=1))
    assert "does not pass its check" in call("compress", text, "--model", neox_folder, "-t")
    monkeypatch.setattr(codec, "record", right)
    decode = codec.decode
    monkeypatch.setattr(codec, "decode", lambda *given: [(b"x", again) for _, again in decode(*given)])
    assert "does not decode to the bytes it was made from" in call("compress", text, "--model", neox_folder, "-t")
    assert listing(tmp_path) == {text: passage[:700].encode()}


@pytest.mark.parametrize("precision", ["exact", "fp32"])
@pytest.mark.parametrize("chunk_bytes", [1, 37, 100, 1 << 20])
def test_any_chunk_size_comes_back_and_groups_leave_no_trace(
    call, tmp_path, neox_folder, passage, monkeypatch, chunk_bytes, precision
):
    """The stream is the same whether its chunks are coded together or a few at a time."""
    text, whole, parts, back = (tmp_path / name for name in ("text", "whole", "parts", "back"))
    text.write_bytes((passage.encode() + np.random.default_rng(1).bytes(90))[-450 if chunk_bytes > 1 else -20 :])
    arguments = ("--model", neox_folder, "--chunk-bytes", chunk_bytes, "--precision", precision)
    assert call("compress", text, "-o", whole, *arguments) is None
    monkeypatch.setattr(files, "GROUP_BYTES", 150)
    monkeypatch.setattr(files, "MOST_RECORDS", 5)
    assert call("compress", text, "-o", parts, *arguments) is None
    assert parts.read_bytes() == whole.read_bytes()
    assert call("decompress", parts, "--model", neox_folder, "-o", back) is None
    assert back.read_bytes() == text.read_bytes()


def test_longer_chunks_make_the_stream_smaller(call, tmp_path, neox_folder, passage):
    """Fewer bytes without others before them, fewer records."""
    text = tmp_path / "text"
    text.write_text(2 * passage)
    sizes = []
    for chunk_bytes in (200, 800, compress_command.CHUNK_BYTES):
        stream = tmp_path / f"{chunk_bytes}.blaw"
        assert call("compress", text, "-o", stream, "--model", neox_folder, "--chunk-bytes", chunk_bytes) is None
        sizes.append(stream.stat().st_size)
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3


@pytest.mark.parametrize("value", [0, -1, 1048577])
def test_a_chunk_size_that_cannot_be_is_one_line(call, tmp_path, neox_folder, value):
    (tmp_path / "text").write_text("x")
    said = call("compress", tmp_path / "text", "--model", neox_folder, "--chunk-bytes", value)
    assert said.endswith(f"--chunk-bytes {value}: give a number from 1 to 1048576")


def test_the_input_is_never_in_memory_as_a_whole(exact, neox_folder, small_groups, monkeypatch):
    """What is asked of the input at a time, and how many chunks are decoded together."""

    class Counted(io.BytesIO):
        asked = 0

        def read(self, count=-1):
            self.asked = max(self.asked, count if count >= 0 else 1 << 60)
            return super().read(count)

    data = bytes(range(97, 107)) * 500
    source, sink = Counted(data), io.BytesIO()
    coder = files.open_coder(neox_folder, neox_folder / "tokenizer.json", "exact")
    told = []
    coded = files.compress(source, sink, None, coder, 50, report=told.append)
    assert source.asked == 400 and told[:2] == [400, 800] and told[-1] == coded.size == len(data)
    assert coded.stream == len(sink.getvalue())
    together = []
    right = codec.decode
    monkeypatch.setattr(codec, "decode", lambda *given: together.append(len(given[3])) or right(*given))
    given = Counted(sink.getvalue())
    parts = list(files.decompress(given, neox_folder, neox_folder / "tokenizer.json"))
    assert b"".join(parts) == data and max(together) == 8 and sum(together) == 100
    assert given.asked <= stream_format.PIECE


def test_a_stream_broken_in_its_last_group_leaves_nothing(call, tmp_path, neox_folder, passage, small_groups):
    text, stream = tmp_path / "text", tmp_path / "text.blaw"
    text.write_text(passage)
    call("compress", text, "--model", neox_folder, "--chunk-bytes", 100)
    text.unlink()
    whole = stream.read_bytes()
    for broken, message in (
        (whole[:-1], "the stream ends after"),
        (whole + b"x", "more bytes follow the end of the stream"),
        (whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:], "does not pass its check"),
    ):
        stream.write_bytes(broken)
        line = call("decompress", stream, "--model", neox_folder)
        assert message in line and "\n" not in line and line.startswith(f"bitlaw: {stream}: ")
        if "chunk" in line:
            assert f"chunk {-(-len(passage) // 100) - 1}:" in line
        assert listing(tmp_path) == {stream: broken}


def test_a_damaged_length_takes_no_memory(exact, tmp_path):
    """Whatever a length in the stream says, no more is asked for than a chunk can have."""
    header = stream_format.Header("0" * 64, "1" * 64, "exact", 1, None)
    packed = stream_format.pack_header(header, 1)
    for record in (b"\x05\x05" + b"\xff" * 8 + b"\x7f", b"\x05\x05\x51"):  # 2^63 - 1 bytes; 81 for 5
        _, _, records = stream_format.read(io.BytesIO(packed + record + bytes(100)))
        with pytest.raises(stream_format.CorruptStream, match="bytes for 5 before they were coded"):
            next(records)
    text = packed.replace(b"\x05exact", b"\xff" * 8 + b"\x7f" + b"exact")
    with pytest.raises(stream_format.CorruptStream, match="a text of"):
        stream_format.read(io.BytesIO(text))


def test_a_full_disk_is_one_line(call, tmp_path, neox_folder, passage, monkeypatch):
    text = tmp_path / "text"
    text.write_text(passage)

    def full(**options):
        raise OSError(28, "No space left on device", str(options["dir"]))

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    assert "No space left on device" in call("compress", text, "--model", neox_folder)
    assert listing(tmp_path) == {text: passage.encode()}


def test_too_little_memory_is_one_line(call, tmp_path, neox_folder, monkeypatch):
    (tmp_path / "text").write_text("x")

    def short(*given):
        raise MemoryError

    monkeypatch.setattr(files, "compress", short)
    assert "more memory was needed than there is" in call("compress", tmp_path / "text", "--model", neox_folder)
    assert list(tmp_path.iterdir()) == [tmp_path / "text"]


def test_a_device_that_is_not_there_is_one_line(call, tmp_path, neox_folder, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "text").write_text("x")
    for command in ("compress", "decompress"):
        said = call(command, tmp_path / "text", "--model", neox_folder, "--device", "cuda", "-o", tmp_path / "out")
        assert "'cuda' given, but nvidia-smi shows no GPU here; choose cpu" in said and "config" not in said
    assert list(tmp_path.iterdir()) == [tmp_path / "text"]


def at_a_terminal(*arguments, cwd):
    """(exit status, what `bitlaw ARGUMENTS` writes to a terminal that is its standard error and output)."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (24, 100))
    environment = os.environ | {"PYTHONPATH": str(WORKFLOW)}
    command = [sys.executable, "-c", BARS_AT_ONCE, *map(str, arguments)]
    process = subprocess.Popen(command, env=environment, cwd=cwd, stdin=its, stdout=its, stderr=its)
    os.close(its)
    said = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # so a terminal ends whose last process has gone
            part = b""
        if not part:
            break
        said += part
    os.close(ours)
    return process.wait(), said.decode()


BARS_AT_ONCE = """
import tqdm
right = tqdm.tqdm.__init__
def at_once(self, *given, **named):
    right(self, *given, **(named | {"delay": 0, "mininterval": 0}))
tqdm.tqdm.__init__ = at_once
from bitlaw import __main__
__main__.main()
"""


def test_bars_on_a_terminal_only(tmp_path, neox_folder, passage):
    """And no stream ends up on a screen."""
    (tmp_path / "text").write_text(passage)
    options = ("--model", neox_folder, "--threads", "1")
    status, said = at_a_terminal("compress", "text", *options, "--test", cwd=tmp_path)
    assert status == 0, said
    for bar in ("text:", "score:", "decode:"):
        assert bar in said
    assert said.splitlines()[-1].endswith("text.blaw, tested)")
    status, said = at_a_terminal("compress", "text", *options, "-o", "-", cwd=tmp_path)
    assert status == 1 and "standard output is a terminal" in said and "blaw\x02" not in said
    environment = os.environ | {"PYTHONPATH": str(WORKFLOW)}
    command = [sys.executable, "-m", "bitlaw", "decompress", "text.blaw", "-o", "back", *options]
    ran = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("", f"text.blaw : {len(passage)} bytes (back)\n")


@pytest.mark.slow
def test_lock_step_has_its_bars_and_a_library_has_no_last_word(tmp_path, gpt2_folder, passage):
    (tmp_path / "text").write_text(passage[:300])
    options = ("--model", gpt2_folder, "--threads", "1", "--precision", "fp32")
    status, said = at_a_terminal("compress", "text", *options, cwd=tmp_path)
    assert status == 0, said
    assert "code:" in said and "arning" not in said
    last = said.splitlines()[-1].strip()
    assert last.startswith("text : ") and last.endswith(" bytes, text.blaw)")
    environment = os.environ | {"PYTHONPATH": str(WORKFLOW)}
    command = [sys.executable, "-m", "bitlaw", "decompress", "text.blaw", "-o", "back", *map(str, options[:4])]
    ran = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("", "text.blaw : 300 bytes (back)\n")
