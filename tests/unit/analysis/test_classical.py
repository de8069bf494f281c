"""Classical compressors: sizes of the command-line tools, outputs that come back, what belongs to which modality."""

import shutil
import subprocess

import numpy as np
import pytest
import scipy.signal
import yaml

from bitlaw.analysis import classical
from repository import ROOT

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


REAL_SIZE = 2048 * 2048  # bytes: a modality of a study of real models


def words(rng):
    """Text-like: words of a made-up vocabulary by Zipf's law, with spaces and full stops."""
    letters = np.frombuffer(b"etaoinshrdlucmfwypvbgkjqxz", dtype=np.uint8)
    rank = np.minimum(rng.zipf(1.3, 1 << 20), 50_000)
    lengths = 2 + np.arange(50_001) % 9
    vocabulary = [letters[np.minimum(rng.geometric(0.12, n) - 1, 25)].tobytes() for n in lengths]
    return b"".join(vocabulary[r] + (b". " if r % 17 == 0 else b" ") for r in rank)[:REAL_SIZE]


def voice(rng):
    """Speech-like: 16-bit samples of noise through a resonance that swells and fades, with pauses."""
    count = REAL_SIZE // 2
    samples = scipy.signal.lfilter([1.0], [1.0, -1.7, 0.9], rng.normal(size=count))
    loudness = 300 * np.maximum(0, np.sin(np.arange(count) / 5000)) ** 2
    return np.clip(samples * loudness, -32768, 32767).astype("<i2").tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda rng: rng.bytes(REAL_SIZE), words, voice], ids=["random", "text", "speech"])
def test_every_compressor_gives_data_of_real_size_back(make):
    data = make(np.random.default_rng(1))
    assert len(data) == REAL_SIZE
    chunks = [data[i : i + 2048] for i in range(0, REAL_SIZE, 2048)]
    rows = classical.measure("x", chunks, SPEECH) + classical.measure("x", chunks, IMAGE, ["png"])
    names = [*classical.compressors(SPEECH), "png"]
    assert [(row["compressor"], row["status"]) for row in rows] == [(name, "ok") for name in names for _ in range(2)]


@pytest.mark.parametrize("seed", [1, 5, 8])
def test_ppmd_gives_random_bytes_back(seed):
    """pyppmd's encoder loses a byte where one symbol's bytes cross the end of its output block."""
    data = np.random.default_rng(seed).bytes(REAL_SIZE if seed == 1 else 1 << 20)
    tool = classical.GENERAL["ppmd"]
    assert tool.decompress(tool.compress(data)) == data


def broken(how):
    """A compressor that fails on all that is longer than 1,500 bytes."""

    def fail(data):
        if len(data) > 1500:
            how()
        return data[:1500]

    return classical.Compressor("half", fail, bytes)


def raises():
    raise ValueError("no such\nbuffer")


@pytest.mark.parametrize(
    ("how", "status"),
    [(lambda: None, "failed: decompresses to other bytes"), (raises, "failed: ValueError: no such")],
)
def test_a_compressor_that_fails_costs_its_own_row(monkeypatch, caplog, prose, how, status):
    monkeypatch.setitem(classical.GENERAL, "bzip2", broken(how))
    rows = by_name(classical.measure("text", [prose[:1000], prose[1000:2000]], TEXT))
    assert list(rows["bzip2", "whole"]) == list(classical.COLUMN_NAMES)
    failed = rows.pop(("bzip2", "whole"))
    assert failed["status"] == f"{status} (whole 0)" and failed["bytes_in"] == 2000 and failed["flags"] == "half"
    assert failed["bytes_out"] is None and failed["ratio"] is None
    assert all(row["status"] == "ok" and row["bytes_out"] > 0 for row in rows.values()) and len(rows) == 11
    last = caplog.records[-1]
    assert last.levelname == "WARNING" and last.getMessage().startswith(f"text: bzip2, whole: {status}")


def test_the_configuration_says_which_run(prose):
    rows = classical.measure("text", [prose], TEXT, ["flac", "xz", "gzip"])
    assert [row["compressor"] for row in rows[::2]] == ["gzip", "xz"]  # in this module's order; flac is for speech
    assert classical.measure("text", [prose], TEXT, []) == []


def test_the_schema_knows_every_compressor():
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    known = [*classical.compressors(IMAGE), "flac"]
    assert schema["properties"]["classical"]["items"]["enum"] == known
    assert yaml.safe_load((ROOT / "config.yaml").read_text())["classical"] == known
