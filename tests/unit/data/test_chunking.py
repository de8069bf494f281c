"""Cutting sources into chunks: every chunk is where its manifest says, and what is not as expected is refused."""

import io
import json
import shutil
import struct
import zlib

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bitlaw import InputError
from bitlaw.data.shards import cut, read
from source_folder import source

RNG = np.random.default_rng(3)
TEXT = {"cut": "bytes", "sampling": "head", "chunks": 4, "seed": 1}
IMAGE = {"cut": "image", "sampling": "head", "chunks": 4, "seed": 1, "patches": "all"}
SPEECH = {"cut": "speech", "sampling": "head", "chunks": 4, "seed": 1, "rate": 16000}


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


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 200), min_size=1, max_size=7), seed=st.integers(0, 9), data=st.data())
def test_even_takes_as_many_from_every_file(tmp_path_factory, sizes, seed, data):
    tmp = tmp_path_factory.mktemp("cut")
    folder = source(tmp / "in", {f"{i}.txt": RNG.bytes(size) for i, size in enumerate(sizes)})
    even = TEXT | {"sampling": "even", "seed": seed}
    starts = np.cumsum([0, *sizes])
    whole = range(0, starts[-1] - 15, 16)
    files = np.searchsorted(starts, whole, side="right")
    have = np.bincount(files[files == np.searchsorted(starts, np.array(whole) + 15, side="right")], minlength=1)
    if not have.sum():
        with pytest.raises(InputError, match="chunks|range"):
            cut(folder, even | {"chunks": 1}, 16, tmp / "out")
        return
    wanted = data.draw(st.integers(1, int(have.sum())))
    found = cut(folder, even | {"chunks": wanted}, 16, tmp / "out")
    assert not any("then" in row for row in found["chunks"])
    numbers = [row["of_available"] for row in found["chunks"]]
    assert numbers == sorted(set(numbers)) and len(numbers) == wanted
    taken = np.bincount([int(row["file"].split(".")[0]) + 1 for row in found["chunks"]], minlength=len(have))
    least = min((taken[i] for i in range(len(have)) if taken[i] < have[i]), default=taken.max())
    assert (taken <= have).all() and taken.max() <= least + 1
    if have.sum() > wanted:
        with pytest.raises(InputError, match="gives .* chunks"):
            cut(folder, even | {"chunks": int(have.sum()) + 1}, 16, tmp / "out")


def test_even_draws_by_its_seed_and_fewer_chunks_are_among_more(tmp_path):
    folder = source(tmp_path / "in", {name: RNG.bytes(1600) for name in "abc"})
    even = TEXT | {"sampling": "even"}
    many, again, few, other = (
        [row["of_available"] for row in cut(folder, even | change, 16, tmp_path / "out")["chunks"]]
        for change in ({"chunks": 30}, {"chunks": 30}, {"chunks": 7}, {"chunks": 30, "seed": 2})
    )
    assert many == again != other and set(few) < set(many)
    assert min(many) < 40 and max(many) > 260 and len({number % 100 for number in many}) > 15


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


@pytest.mark.parametrize(
    "setting, key",
    [
        (TEXT | {"sampling": "spread"}, "seed"),
        (TEXT | {"sampling": "even"}, "seed"),
        (IMAGE | {"patches": "crop"}, "seed"),
        (SPEECH, "rate"),
    ],
)
def test_numbers_that_are_missing_or_cannot_be_are_one_line(tmp_path, setting, key):
    data = {"bytes": bytes(9000), "image": picture(32, 64)[1], "speech": sound(5000)[1]}[setting["cut"]]
    folder = source(tmp_path / "in", {"a": data})
    for value in (None, -1, 1.5, True, "1"):
        with pytest.raises(InputError, match=f"^{key} is {value!r}; set it to a whole number of at least"):
            cut(folder, setting | {key: value}, 2048, tmp_path / "out")
    with pytest.raises(InputError, match=f"^{key} is None"):
        cut(folder, {name: value for name, value in setting.items() if name != key}, 2048, tmp_path / "out")


@pytest.mark.parametrize("sampling", ["head", "spread", "even"])
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


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_a_channel_are_refused_in_grey_and_in_colour(tmp_path, form, channels):
    """Pillow opens 16-bit colour as 8-bit colour: only how the file is stored tells."""
    name = f"deep.{form.lower()}"
    data = deep_png(channels) if form == "PNG" else deep_tiff(channels)
    assert Image.open(io.BytesIO(data)).size == (64, 32)
    with pytest.raises(InputError, match=rf"{name} has pixels of mode .*;16.*, more than 8 bits"):
        cut(source(tmp_path / "in", {name: data}), IMAGE | {"chunks": 1}, 2048, tmp_path / "out")


def deep_png(channels):
    """A 64×32 PNG of 16 bits a channel, which Pillow can read but not write in colour."""

    def part(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 64, 32, 16, {1: 0, 3: 2}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + RNG.bytes(64 * channels * 2) for _ in range(32))
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")


def deep_tiff(channels):
    """A 64×32 TIFF of 16 bits a channel, little-endian, not compressed."""
    pixels = RNG.bytes(64 * 32 * channels * 2)
    bits = struct.pack("<" + "H" * channels, *[16] * channels)
    entries = [(256, 3, 1, 64), (257, 3, 1, 32), (258, 3, channels, 8 if channels > 1 else 16), (259, 3, 1, 1),
               (262, 3, 1, {1: 1, 3: 2}[channels]), (273, 4, 1, 8 + len(bits)), (277, 3, 1, channels),
               (278, 3, 1, 32), (279, 4, 1, len(pixels))]  # fmt: skip
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    start = 8 + len(bits) + len(pixels)
    return struct.pack("<2sHI", b"II", 42, start) + bits + pixels + struct.pack("<H", len(entries)) + table + bytes(4)


def saved(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def only_patch(tmp_path, data):
    cut(source(tmp_path / "in", {"a": data}), IMAGE | {"chunks": 1}, 2048, tmp_path / "out")
    return read(tmp_path / "out").reshape(32, 64)


def test_transparency_is_dropped(tmp_path):
    pixels, data = picture(32, 64, "RGBA")
    assert (only_patch(tmp_path, data) == np.asarray(Image.fromarray(pixels[..., :3]).convert("L"))).all()


def test_of_an_animation_the_first_picture_is_taken(tmp_path):
    frames = [Image.fromarray(picture(32, 64)[0]) for _ in range(3)]
    assert (only_patch(tmp_path, saved(frames[0], "GIF", save_all=True, append_images=frames[1:])) == frames[0]).all()


def test_pixels_stay_where_they_are_stored(tmp_path):
    """An EXIF orientation asks the viewer to turn the picture; the bytes of the file are not turned."""
    pixels, _ = picture(32, 64)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    assert (only_patch(tmp_path, saved(Image.fromarray(pixels), "PNG", exif=exif)) == pixels).all()


def test_four_inks_become_the_grey_that_pillow_makes(tmp_path):
    image = Image.fromarray(picture(32, 64, "RGB")[0]).convert("CMYK")
    data = saved(image, "TIFF")
    assert (only_patch(tmp_path, data) == np.asarray(image.convert("L"))).all()


@pytest.mark.parametrize("convert", [False, True])
def test_a_truncated_flac_is_refused_by_name(tmp_path, convert):
    """Its header tells how long it should be; a WAV that was cut short cannot be told from a short one."""
    whole = sound(40_000, rate=8000 if convert else 16_000, form="FLAC")[1]
    folder = source(tmp_path / "in", {"a.flac": sound(1500, form="FLAC")[1], "half.flac": whole[: len(whole) // 2]})
    with pytest.raises(InputError, match=r"half\.flac (cannot be read as sound|has .* samples where)"):
        cut(folder, SPEECH | {"convert": convert, "chunks": 20}, 2048, tmp_path / "out")
    assert not (tmp_path / "out").exists()


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
