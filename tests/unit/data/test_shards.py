"""Cutting sources into chunks: every chunk is where its manifest says, and what is not as expected is refused."""

import hashlib
import io
import json
import shutil

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bitlaw import InputError
from bitlaw.data.shards import SHARD, cut, manifest, read

RNG = np.random.default_rng(3)
TEXT = {"cut": "bytes", "sampling": "head", "chunks": 4, "seed": 1}
IMAGE = {"cut": "image", "sampling": "head", "chunks": 4, "seed": 1, "patches": "all"}
SPEECH = {"cut": "speech", "sampling": "head", "chunks": 4, "seed": 1, "rate": 16000}


def source(folder, files):
    """A source folder of name -> bytes, as `sources.fetch` leaves it."""
    folder.mkdir(exist_ok=True)
    entries = []
    for name, data in files.items():
        (folder / name).write_bytes(data)
        entries.append({"path": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    (folder / "source.json").write_text(json.dumps({"name": "mine", "licence": "CC0", "files": entries}))
    return folder


def picture(height, width, mode="L"):
    pixels = RNG.integers(0, 256, (height, width) if mode == "L" else (height, width, len(mode)), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels, mode=None).save(buffer, "PNG")
    return pixels, buffer.getvalue()


def sound(samples, rate=16000, subtype="PCM_16", form="WAV", channels=1):
    values = RNG.integers(-3000, 3000, (samples, channels)).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, values if channels > 1 else values[:, 0], rate, subtype, format=form)
    return values[:, 0], buffer.getvalue()


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 300), min_size=1, max_size=6),
    chunk=st.integers(1, 64),
    spread=st.booleans(),
    bounds=st.tuples(st.integers(0, 200), st.integers(1, 400)),
    data=st.data(),
)
def test_bytes_are_where_the_manifest_says(tmp_path_factory, sizes, chunk, spread, bounds, data):
    tmp = tmp_path_factory.mktemp("cut")
    files = {f"{i}.txt": RNG.bytes(size) for i, size in enumerate(sizes)}
    whole = b"".join(files.values())
    first, last = bounds[0], min(sum(bounds), len(whole))
    pool = (last - first) // chunk
    modality = TEXT | {"sampling": "spread" if spread else "head", "range": [first, last]}
    if pool < 1:
        with pytest.raises(InputError):
            cut(source(tmp / "in", files), modality, chunk, tmp / "out")
        return
    modality["chunks"] = data.draw(st.integers(1, pool))
    found = cut(source(tmp / "in", files), modality, chunk, tmp / "out")
    chunks = read(tmp / "out")
    assert chunks.shape == (modality["chunks"], chunk) and chunks.dtype == np.uint8
    numbers = [row["of_available"] for row in found["chunks"]]
    assert numbers == sorted(set(numbers)) and (spread or numbers == list(range(len(numbers))))
    starts = dict(zip(files, np.cumsum([0, *sizes[:-1]]), strict=True))
    for row, content in zip(found["chunks"], chunks, strict=True):
        at = first + row["of_available"] * chunk
        assert content.tobytes() == whole[at : at + chunk]
        assert starts[row["file"]] + row["offset"] == at and row["offset"] < len(files[row["file"]])
        then = [name for name in files if files[name] and at < starts[name] < at + chunk]
        assert row.get("then", []) == then
    assert found["counts"] == {
        "chunks": modality["chunks"],
        "available": pool,
        "bytes_left_out_at_end": last - first - pool * chunk,
    }


def test_format_on_disk(tmp_path):
    data = RNG.bytes(2048 * 600 + 100)
    folder = source(tmp_path / "in", {"a": data})
    found = cut(folder, TEXT | {"chunks": 600}, 2048, tmp_path / "out")
    names = [f"shard-{i:05d}.npy" for i in range(3)]
    assert sorted(p.name for p in (tmp_path / "out").glob("[!.]*")) == ["manifest.json", *names]
    assert [(s["file"], s["chunks"]) for s in found["shards"]] == list(zip(names, (SHARD, SHARD, 88), strict=True))
    for shard in found["shards"]:
        raw = (tmp_path / "out" / shard["file"]).read_bytes()
        assert hashlib.sha256(raw).hexdigest() == shard["sha256"]
        assert np.load(io.BytesIO(raw)).shape == (shard["chunks"], 2048)
    assert manifest(tmp_path / "out") == found and read(tmp_path / "out").tobytes() == data[: 2048 * 600]
    assert found["source"]["name"] == "mine" and found["source"]["licence"] == "CC0"
    assert found["source"]["files"][0]["sha256"] == hashlib.sha256(data).hexdigest()
    assert found["chunk_bytes"] == 2048 and found["sampling"]["chunks"] == 600
    again = cut(folder, TEXT | {"chunks": 5}, 2048, tmp_path / "out")  # an older cut does not show through
    assert len(again["shards"]) == 1 and len(list((tmp_path / "out").glob("[!.]*"))) == 2


def test_files_are_taken_in_the_order_of_their_names(tmp_path):
    folder = source(tmp_path / "in", {"b": b"bb", "a": b"aa", "c": b"cc"})
    cut(folder, TEXT | {"chunks": 2}, 3, tmp_path / "out")
    assert read(tmp_path / "out").tobytes() == b"aabbcc"


def test_an_empty_file_has_no_part_in_a_chunk(tmp_path):
    folder = source(tmp_path / "in", {"a": b"012", "b": b"", "c": b"345"})
    found = cut(folder, TEXT | {"chunks": 1}, 4, tmp_path / "out")
    assert found["chunks"] == [{"of_available": 0, "file": "a", "offset": 0, "then": ["c"]}]


def test_absolute_paths_of_a_local_folder(tmp_path):
    folder = source(tmp_path / "in", {"a": b"0123", "b": b"4567"})
    for sub in ("x", "y"):  # one base name twice
        (tmp_path / sub).mkdir()
    record = json.loads((folder / "source.json").read_text())
    for sub, entry in zip("xy", record["files"], strict=True):
        shutil.move(folder / entry["path"], tmp_path / sub / "same")
        entry["path"] = str(tmp_path / sub / "same")
    (folder / "source.json").write_text(json.dumps(record))
    found = cut(folder, TEXT, 2, tmp_path / "out")
    assert read(tmp_path / "out").tobytes() == b"01234567"
    assert found["chunks"][2] == {"of_available": 2, "file": str(tmp_path / "y" / "same"), "offset": 0}


def test_head_and_spread(tmp_path):
    folder = source(tmp_path / "in", {"a": bytes(range(256)) * 10})
    spread = TEXT | {"sampling": "spread", "chunks": 20}
    cuts = [TEXT | {"chunks": 20}, spread, spread, spread | {"seed": 2}]
    head, first, again, other = (
        [row["of_available"] for row in cut(folder, m, 16, tmp_path / "out")["chunks"]] for m in cuts
    )
    assert head == list(range(20)) and first == again != other
    assert first == sorted(set(first)) and max(first) > 80
    everything = cut(folder, spread | {"chunks": 160}, 16, tmp_path / "out")
    assert [row["of_available"] for row in everything["chunks"]] == list(range(160))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"chunks": 0}, "chunks is 0"),
        ({"chunks": None}, "chunks is None"),
        ({"chunks": 65}, "gives 64 chunks but 65 are asked for"),
        ({"cut": "video"}, "cut is 'video'; set it to one of: bytes, image, speech"),
        ({"sampling": "tail"}, "sampling is 'tail'"),
        ({"range": [0, 1025]}, "range is"),
        ({"range": [5, 5]}, "range is"),
    ],
)
def test_settings_out_of_bounds(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        cut(source(tmp_path / "in", {"a": bytes(1024)}), TEXT | change, 16, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_changed_source_is_refused(tmp_path):
    folder = source(tmp_path / "in", {"a": bytes(1024)})
    (folder / "a").write_bytes(bytes(1023) + b"x")
    with pytest.raises(InputError, match="changed since it was fetched"):
        cut(folder, TEXT, 16, tmp_path / "out")
    (folder / "a").unlink()
    with pytest.raises(InputError, match="missing"):
        cut(folder, TEXT, 16, tmp_path / "out")


@pytest.mark.parametrize("sampling", ["head", "spread"])
def test_all_patches_of_images(tmp_path, sampling):
    pictures = {
        "a.png": picture(70, 130),
        "b.png": picture(32, 64),
        "c.png": picture(31, 500),
        "d.png": picture(64, 64),
    }
    folder = source(tmp_path / "in", {name: data for name, (_, data) in pictures.items()})
    found = cut(folder, IMAGE | {"sampling": sampling, "chunks": 7}, 2048, tmp_path / "out")
    assert found["counts"] == {
        "chunks": 7,
        "available": 7,
        "images": 4,
        "images_too_small": ["c.png"],
        "pixels_outside_patches": 70 * 130 - 4 * 2048 + 31 * 500,
    }
    places = [(row["file"], row["row"], row["column"]) for row in found["chunks"]]
    assert places[:4] == [("a.png", 0, 0), ("a.png", 0, 64), ("a.png", 32, 0), ("a.png", 32, 64)]
    assert places[4:] == [("b.png", 0, 0), ("d.png", 0, 0), ("d.png", 32, 0)]
    for (name, row, column), chunk in zip(places, read(tmp_path / "out"), strict=True):
        assert (chunk.reshape(32, 64) == pictures[name][0][row : row + 32, column : column + 64]).all()


def test_crops_are_one_an_image_and_reproducible(tmp_path):
    pictures = {f"{i}.png": picture(200, 300) for i in range(6)} | {"small.png": picture(20, 300)}
    folder = source(tmp_path / "in", {name: data for name, (_, data) in pictures.items()})
    crop = IMAGE | {"patches": "crop", "chunks": 6}
    found = cut(folder, crop, 2048, tmp_path / "out")
    first = read(tmp_path / "out")
    assert found["counts"]["images_too_small"] == ["small.png"] and found["counts"]["available"] == 6
    places = {(row["row"], row["column"]) for row in found["chunks"]}
    assert len(places) == 6 and [row["file"] for row in found["chunks"]] == [f"{i}.png" for i in range(6)]
    for row, chunk in zip(found["chunks"], first, strict=True):
        y, x = row["row"], row["column"]
        assert (chunk.reshape(32, 64) == pictures[row["file"]][0][y : y + 32, x : x + 64]).all()
    assert cut(folder, crop, 2048, tmp_path / "out") == found
    assert cut(folder, crop | {"seed": 2}, 2048, tmp_path / "out")["chunks"] != found["chunks"]


def test_colour_becomes_luma(tmp_path):
    pixels, data = picture(32, 64, "RGB")
    cut(source(tmp_path / "in", {"a.png": data}), IMAGE | {"chunks": 1}, 2048, tmp_path / "out")
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read(tmp_path / "out").reshape(32, 64) - luma).max() <= 1


def test_images_that_do_not_fit_are_refused(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((32, 64), np.uint16)).save(buffer, "PNG")
    whole = picture(64, 64)[1]
    for name, data, message in [
        ("deep.png", buffer.getvalue(), "deep.png has pixels of mode I;16"),
        ("text.png", b"not an image", "text.png cannot be read as an image"),
        ("half.png", whole[: len(whole) // 2], "half.png cannot be read as an image"),
    ]:
        with pytest.raises(InputError, match=message):
            cut(source(tmp_path / "in", {name: data}), IMAGE | {"chunks": 1}, 2048, tmp_path / "out")
    with pytest.raises(InputError, match="chunk_bytes is 1024"):
        cut(source(tmp_path / "in", {"a.png": whole}), IMAGE, 1024, tmp_path / "out")
    with pytest.raises(InputError, match="patches is None"):
        cut(source(tmp_path / "in", {"a.png": whole}), IMAGE | {"patches": None}, 2048, tmp_path / "out")


@pytest.mark.parametrize("form", ["WAV", "FLAC"])
def test_speech_is_taken_as_stored(tmp_path, form):
    sounds = {f"{name}.x": sound(size, form=form) for name, size in (("b", 700), ("a", 1500), ("c", 2300))}
    folder = source(tmp_path / "in", {name: data for name, (_, data) in sounds.items()})
    found = cut(folder, SPEECH, 2048, tmp_path / "out")
    samples = np.concatenate([sounds[name][0] for name in ("a.x", "b.x", "c.x")]).astype("<i2")
    assert read(tmp_path / "out").tobytes() == samples.tobytes()[: 4 * 2048]
    assert found["counts"] == {
        "chunks": 4,
        "available": 4,
        "files": 3,
        "files_converted": [],
        "bytes_left_out_at_end": 2 * 4500 - 4 * 2048,
    }
    assert found["chunks"] == [
        {"of_available": 0, "file": "a.x", "sample": 0},
        {"of_available": 1, "file": "a.x", "sample": 1024, "then": ["b.x"]},
        {"of_available": 2, "file": "b.x", "sample": 548, "then": ["c.x"]},
        {"of_available": 3, "file": "c.x", "sample": 872},
    ]


@pytest.mark.parametrize(
    "odd, message",
    [
        ({"rate": 8000}, "rate 8000, not 16000"),
        ({"subtype": "PCM_24"}, "samples PCM_24, not PCM_16"),
        ({"subtype": "ULAW"}, "samples ULAW, not PCM_16"),
        ({"channels": 2}, "channels 2, not 1"),
    ],
)
def test_other_speech_is_refused_or_converted(tmp_path, odd, message):
    stored, plain = sound(1024)
    folder = source(tmp_path / "in", {"a.wav": plain, "b.wav": sound(5000, **odd)[1]})
    with pytest.raises(InputError, match=f"b.wav has {message}; set `convert: true`"):
        cut(folder, SPEECH | {"chunks": 1}, 2048, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    found = cut(folder, SPEECH | {"convert": True}, 2048, tmp_path / "out")
    assert found["counts"]["files_converted"] == ["b.wav"]
    assert found["counts"]["available"] == (1024 + (10000 if "rate" in odd else 5000)) * 2 // 2048
    assert read(tmp_path / "out")[0].tobytes() == stored.astype("<i2").tobytes()  # what fits stays as stored


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_resampled_speech_is_the_same_sound(tmp_path, rate):
    buffer = io.BytesIO()
    time = np.arange(rate) / rate
    wave = 0.5 * np.sin(2 * np.pi * 440 * time)
    soundfile.write(buffer, np.stack([wave, wave], axis=1), rate, "PCM_16", format="WAV")
    modality = SPEECH | {"convert": True, "chunks": 15}
    cut(source(tmp_path / "in", {"a.wav": buffer.getvalue()}), modality, 2048, tmp_path / "out")
    got = read(tmp_path / "out").reshape(-1).view("<i2") / 32768
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(got)) / 16000)
    assert np.abs(got - expected)[500:].max() < 0.005  # the first samples ring


def test_speech_settings(tmp_path):
    with pytest.raises(InputError, match="even number"):
        cut(source(tmp_path / "in", {"a.wav": sound(5000)[1]}), SPEECH, 2047, tmp_path / "out")
    with pytest.raises(InputError, match="a.wav cannot be read as sound"):
        cut(source(tmp_path / "in", {"a.wav": b"no sound"}), SPEECH, 2048, tmp_path / "out")


@pytest.mark.parametrize("damage", ["bit", "shorter", "missing"])
def test_damaged_shard_is_detected(tmp_path, damage):
    folder = tmp_path / "out"
    cut(source(tmp_path / "in", {"a": RNG.bytes(300 * 16)}), TEXT | {"chunks": 300}, 16, folder)
    path = folder / "shard-00001.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data if damage == "bit" else data[:-5])
    if damage == "missing":
        path.unlink()
    with pytest.raises(InputError, match=r"shard-00001.npy is missing or not .* delete .* and cut it again"):
        read(folder)


def test_damaged_manifest_is_detected(tmp_path):
    folder = tmp_path / "out"
    for text in (None, "{", "[]", '{"format": 2}'):
        if text is not None:
            folder.mkdir(exist_ok=True)
            (folder / "manifest.json").write_text(text)
        with pytest.raises(InputError, match="manifest.json .* cut it again"):
            read(folder)
