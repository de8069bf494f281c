"""Classical compressors: sizes of the command-line tools, outputs that come back, what belongs to which modality."""

import shutil
import subprocess

import numpy as np
import pytest

from bitlaw.analysis import classical

TEXT, IMAGE, SPEECH = {"cut": "bytes"}, {"cut": "image"}, {"cut": "speech", "rate": 16000}
# bytes that gzip 1.12, bzip2 1.0.8, xz 5.4.1, zstd 1.5.4, brotli 1.0.9 and flac 1.4.2 write for `tone()`
RECORDED = {"gzip": 1917, "bzip2": 2027, "xz": 1892, "zstd": 1902, "brotli": 1612, "flac": 1198}


@pytest.fixture(scope="module")
def prose(passage):
    return (passage * 3).encode()[:2048]


def tone():
    """1,024 little-endian samples of two tones, whole numbers from exact arithmetic: the same on every machine."""
    n = np.arange(1024)
    samples = 3000 * (np.abs(n % 64 - 32) - 16) // 16 + 700 * (np.abs(n % 22 - 11) - 5) // 5 + n * n * 7919 % 61
    return samples.astype("<i2").tobytes()


def by_name(rows):
    return {(row["compressor"], row["scope"]): row for row in rows}


@pytest.mark.parametrize("tool", ["gzip", "bzip2", "xz", "zstd", "brotli", "flac"])
@pytest.mark.parametrize("which", ["prose", "tone", "noise"])
def test_a_chunk_takes_as_many_bytes_as_the_tool_writes(tool, which, prose):
    if shutil.which(tool) is None and tool not in ("gzip", "bzip2", "xz"):  # those three are everywhere
        pytest.skip(f"no {tool} on this machine; its size is recorded below")
    data = {"prose": prose, "tone": tone(), "noise": np.random.default_rng(5).bytes(2048)}[which]
    row = by_name(classical.measure("x", [data], SPEECH))[tool, "chunk"]
    command = [*row["flags"].split(), *(["-c", "-"] if tool == "flac" else ["-c"])]
    ran = subprocess.run(command, input=data, capture_output=True, check=True)
    assert row["bytes_out"] == len(ran.stdout)


def test_a_fixed_chunk_takes_the_recorded_bytes():
    rows = by_name(classical.measure("x", [tone()], SPEECH))
    assert {name: rows[name, "chunk"]["bytes_out"] for name in RECORDED} == RECORDED


def test_each_scope_counts_every_byte(prose):
    chunks = [prose, prose[::-1], bytes(2048)]
    rows = classical.measure("text", chunks, TEXT)
    assert [row["compressor"] for row in rows[::2]] == ["gzip", "bzip2", "xz", "zstd", "brotli", "ppmd"]
    named = by_name(rows)
    for name, tool in classical.compressors(TEXT).items():
        each, whole = named[name, "chunk"], named[name, "whole"]
        assert each["bytes_out"] == sum(len(tool.compress(chunk)) for chunk in chunks)
        assert whole["bytes_out"] == len(tool.compress(b"".join(chunks))) < each["bytes_out"]
        assert each["bytes_in"] == whole["bytes_in"] == 3 * 2048 and each["chunks"] == whole["chunks"] == 3
        assert each["ratio"] == each["bytes_out"] / 6144 and each["modality"] == "text" and each["flags"]


def test_png_is_for_images_and_flac_for_speech(prose):
    for sampling, extra in ((TEXT, None), (IMAGE, "png"), (SPEECH, "flac")):
        assert set(classical.compressors(sampling)) - set(classical.GENERAL) == ({extra} if extra else set())
    rows = np.linspace(0, 200, 32).astype(np.uint8)
    slope = np.repeat(rows, 64).tobytes()
    png = by_name(classical.measure("image", [slope, slope[::-1]], IMAGE))
    assert png["png", "chunk"]["bytes_out"] < 2 * 400  # it knows that a row is 64 pixels wide
    assert png["png", "whole"]["bytes_out"] < png["png", "chunk"]["bytes_out"]
    ramp = np.arange(1024, dtype="<i2").tobytes()
    assert by_name(classical.measure("speech", [ramp], SPEECH))["flac", "chunk"]["ratio"] < 0.15


def test_an_output_that_does_not_come_back_is_no_size(monkeypatch, prose):
    broken = classical.Compressor("half", lambda data: data[:1000], bytes)
    monkeypatch.setitem(classical.GENERAL, "gzip", broken)
    with pytest.raises(RuntimeError, match=r"gzip \(chunk 1 of text\): decompresses to other bytes"):
        classical.measure("text", [prose[:1000], prose], TEXT)
