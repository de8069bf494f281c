"""Data sets of the Hub, streamed from a loopback server by the real clients: order, early stop, refusals."""

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image

from bitlaw import InputError, dataset_stream, shards
from hub_server import HubServer

ROOT = Path(__file__).parents[1]
RNG = np.random.default_rng(11)
IMAGES, SPEECH = "ILSVRC/imagenet-1k", "openslr/librispeech_asr"
CROP = {"source": "photos", "cut": "image", "patches": "crop", "sampling": "head", "seed": 1, "chunk_bytes": 2048}
READ = {"source": "voices", "cut": "speech", "rate": 16000, "sampling": "head", "chunk_bytes": 2048}
PHOTOS = {"licence": "terms of ImageNet", "dataset": IMAGES, "split": "validation", "column": "image"}
VOICES = {"licence": "CC-BY-4.0", "dataset": SPEECH, "config": "clean", "split": "train.100", "column": "audio"}

# A process of its own, as the address of the Hub is read once, at the import of its client. A line in, a line out.
WORKER = """
import json, os, sys
from bitlaw import InputError
from bitlaw.sources import fetch
for line in sys.stdin:
    call = json.loads(line)
    os.environ.pop("HF_TOKEN", None)
    os.environ |= {"HF_TOKEN": call["token"]} if call["token"] else {}
    try:
        answer = {"record": fetch(*call["arguments"])}
    except InputError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
"""


class Client:
    """`fetch` in a worker process whose Hub is at `address`."""

    def __init__(self, address, home):
        path = os.pathsep.join(p for p in sys.path if p)
        known = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        self.environment = {**known, "PYTHONPATH": path, "HF_ENDPOINT": address, "HF_HOME": str(home)}
        self.process = self.start(WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def start(self, code, *arguments, **options):
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.Popen(command, env=self.environment, text=True, stderr=subprocess.DEVNULL, **options)

    def fetch(self, source, folder, wanted, token=None):
        call = {"arguments": ["mine", source, str(folder), wanted], "token": token}
        self.process.stdin.write(json.dumps(call) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise InputError(answer["error"])
        return answer["record"]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with HubServer() as hub:
        client = Client(hub.base, tmp_path_factory.mktemp("home"))
        yield hub, client
        client.process.kill()
        client.process.wait()


@pytest.fixture
def hub(running):
    hub, _ = running
    for state in (hub.refs, hub.gated, hub.tokens, hub.rules, hub.storage.rules):
        state.clear()
    hub.requests.clear()
    hub.storage.requests.clear()
    return hub


@pytest.fixture
def client(running):
    return running[1]


def photograph(height, width):
    """JPEG of a sloping, grainy plane, different each time."""
    slope = np.linspace(0, RNG.integers(60, 180), width) + np.linspace(0, RNG.integers(20, 70), height)[:, None]
    pixels = np.clip(slope[..., None] + RNG.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def utterance(samples, rate=16000):
    """FLAC of `samples` int16 values, and the values."""
    values = np.cumsum(RNG.integers(-200, 201, samples)).clip(-20000, 20000).astype("<i2")
    buffer = io.BytesIO()
    soundfile.write(buffer, values, rate, "PCM_16", format="FLAC")
    return buffer.getvalue(), values


def parquet(column, kind, items, names, more, row_group=4):
    """A file as the Hub's viewer writes it: a column of struct<bytes, path>, others, and the features as metadata."""
    values = [{"bytes": data, "path": name} for data, name in zip(items, names, strict=True)]
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({column: pa.array(values, struct), **{name: pa.array(row) for name, row in more.items()}})
    plain = {name: {"dtype": str(table[name].type), "_type": "Value"} for name in more}
    features = {"info": {"features": {column: kind, **plain}}}
    buffer = io.BytesIO()
    table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, buffer, row_group_size=row_group, compression="none")
    return buffer.getvalue()


def card(config, split, path):
    return (
        f"---\nconfigs:\n- config_name: {config}\n  data_files:\n  - split: {split}\n    path: {path}\n---\n".encode()
    )


def add_images(hub, items, per_file=8, **more):
    """In ImageNet's schema and its names of files; the names of the images are in no order."""
    files = {"README.md": card("default", "validation", "data/validation-*")}
    count = -(-len(items) // per_file)
    for n in range(count):
        part = items[n * per_file : (n + 1) * per_file]
        names = [f"ILSVRC2012_val_{(7919 * (n * per_file + i)) % 50000:08d}.JPEG" for i in range(len(part))]
        data = parquet("image", {"_type": "Image"}, part, names, {"label": list(range(len(part)))})
        files[f"data/validation-{n:05d}-of-{count:05d}.parquet"] = data
    return hub.add(f"datasets/{IMAGES}", files, **more)


def add_speech(hub, items, names=None):
    """In LibriSpeech's schema."""
    names = names or [f"374-180298-{i:04d}.flac" for i in range(len(items))]
    more = {
        "file": names,
        "text": ["CHAPTER SIXTEEN"] * len(items),
        "speaker_id": [374] * len(items),
        "chapter_id": [180298] * len(items),
        "id": [name.removesuffix(".flac") for name in names],
    }
    data = parquet("audio", {"sampling_rate": 16000, "_type": "Audio"}, items, names, more)
    files = {"README.md": card("clean", "train.100", "clean/train.100/*.parquet"), "clean/train.100/0000.parquet": data}
    return hub.add(f"datasets/{SPEECH}", files)


def test_images_come_in_the_order_of_the_stream_and_no_more_of_them_than_needed(hub, client, tmp_path):
    sizes = [(40, 70), (31, 500), (90, 63), (32, 64)] + [(50 + i, 80 + i) for i in range(20)]
    items = [photograph(*size) for size in sizes]
    commit = add_images(hub, items)
    record = client.fetch(PHOTOS, tmp_path / "raw", CROP | {"chunks": 7})
    assert len(record["files"]) == 9  # two of the first four are too small
    for index, entry in enumerate(record["files"]):
        data = (tmp_path / "raw" / entry["path"]).read_bytes()
        assert data == items[index] and entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert entry["index"] == index and entry["path"] == f"{index:08d}.JPEG"
        assert entry["member"] == f"ILSVRC2012_val_{(7919 * index) % 50000:08d}.JPEG"
    assert record["places"] == [
        {"dataset": IMAGES, "config": None, "split": "validation", "column": "image", "revision": "main"}
        | {"commit": commit}
    ]
    assert record == json.loads((tmp_path / "raw" / "source.json").read_text())
    files = hub.commits[commit]
    asked = [files[f"data/validation-{n:05d}-of-00003.parquet"] for n in range(3)]
    assert [hub.storage.count(hub.blob(data)) > 0 for data in asked] == [True, True, False]

    found = shards.cut(
        tmp_path / "raw", {k: v for k, v in CROP.items() if k != "chunk_bytes"} | {"chunks": 7}, 2048, tmp_path / "out"
    )
    assert found["counts"]["available"] == 7
    assert found["counts"]["images_too_small"] == ["00000001.JPEG", "00000002.JPEG"]
    assert [row["file"] for row in found["chunks"]] == [f"{i:08d}.JPEG" for i in (0, 3, 4, 5, 6, 7, 8)]
    assert {f["path"]: (f["index"], f["place"]) for f in found["source"]["files"]}["00000008.JPEG"] == (
        8,
        f"{IMAGES} (validation) at {commit[:12]}",
    )


def test_speech_ends_with_the_utterance_that_completes_the_chunks(hub, client, tmp_path):
    sounds = [utterance(n) for n in (3000, 700, 1, 5000, 4000, 9000)]
    names = [f"{100 - i}-1-{i:04d}.flac" for i in range(6)]  # by name they would come the other way round
    add_speech(hub, [data for data, _ in sounds], names)
    for chunks, count in ((1, 1), (2, 1), (3, 2), (4, 4), (8, 4), (9, 5), (21, 6)):
        record = client.fetch(VOICES, tmp_path / "raw", READ | {"chunks": chunks})
        assert [entry["member"] for entry in record["files"]] == names[:count]
        found = shards.cut(tmp_path / "raw", READ | {"chunks": chunks}, 2048, tmp_path / "out")
        expected = np.concatenate([values for _, values in sounds]).tobytes()[: 2048 * chunks]
        assert shards.read(tmp_path / "out").tobytes() == expected
    assert found["chunks"][3] == {
        "of_available": 3,
        "file": "00000001.flac",
        "sample": 72,
        "then": ["00000002.flac", "00000003.flac"],
    }
    assert {entry["place"] for entry in record["files"]} == {f"{SPEECH} (clean, train.100) at {commit_of(hub)[:12]}"}


def commit_of(hub, dataset=SPEECH):
    return hub.refs[f"datasets/{dataset}"]["main"]


def test_other_rates_count_as_they_are_cut(hub, client, tmp_path):
    add_speech(hub, [utterance(1024, 8000)[0] for _ in range(3)])
    wanted = READ | {"chunks": 3, "convert": True}
    assert len(client.fetch(VOICES, tmp_path / "raw", wanted)["files"]) == 2
    assert shards.cut(tmp_path / "raw", wanted, 2048, tmp_path / "out")["counts"]["available"] == 4


def test_all_patches_of_an_image_count(hub, client, tmp_path):
    add_images(hub, [photograph(70, 130), photograph(20, 20), photograph(64, 64), photograph(64, 64)])
    wanted = CROP | {"patches": "all", "chunks": 5}
    assert len(client.fetch(PHOTOS, tmp_path / "raw", wanted)["files"]) == 3
    assert shards.cut(tmp_path / "raw", wanted, 2048, tmp_path / "out")["counts"]["available"] == 6


def test_a_revision_stays_what_it_was(hub, client, tmp_path):
    items = [photograph(40, 70) for _ in range(4)]
    first = add_images(hub, items[:2])
    second = add_images(hub, items[2:])
    add_images(hub, items[:2], revision="v1")
    for revision, commit, item in ((None, second, items[2]), (first, first, items[0]), ("v1", first, items[0])):
        source = PHOTOS | ({"revision": revision} if revision else {})
        record = client.fetch(source, tmp_path / "raw", CROP | {"chunks": 1})
        assert record["places"][0]["commit"] == commit
        assert record["places"][0]["revision"] == (revision or "main")
        assert (tmp_path / "raw" / "00000000.JPEG").read_bytes() == item


def test_a_gated_data_set_says_what_to_do(hub, client, tmp_path):
    add_images(hub, [photograph(40, 70)])
    hub.tokens |= {"hf_accepted", "hf_stranger"}
    hub.gated[f"datasets/{IMAGES}"] = {"hf_accepted"}
    page = re.escape(f"{hub.base}/datasets/{IMAGES}")
    for token, words in (
        (None, f"is gated and no access token is set; accept the terms at {page}, then set HF_TOKEN"),
        ("hf_stranger", f"is gated and the account of this access token has no access; accept the terms at {page}"),
        ("hf_wrong", "the Hub refuses the access token of this machine; set HF_TOKEN to a valid one"),
    ):
        started = time.monotonic()
        with pytest.raises(InputError, match=f"^mine: .*{words}") as caught:
            client.fetch(PHOTOS, tmp_path / "raw", CROP | {"chunks": 1}, token)
        assert "\n" not in str(caught.value) and time.monotonic() - started < 5
        assert not (tmp_path / "raw").exists()
    assert hub.storage.requests == []
    client.fetch(PHOTOS, tmp_path / "raw", CROP | {"chunks": 1}, "hf_accepted")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"dataset": "ILSVRC/imagenet-2k"}, "the Hub has no data set 'ILSVRC/imagenet-2k', or it is private"),
        ({"revision": "v7"}, "has no revision 'v7'; correct `revision`"),
        ({"split": "train"}, r"cannot be streamed \(ValueError: Bad split: train. Available splits: \['validation'\]"),
        ({"config": "large"}, r"\(ValueError: BuilderConfig 'large' not found. Available: \['default'\]"),
        ({"column": "picture"}, "has no column 'picture'; set `column` to one of: image, label"),
        ({"column": "label"}, "column 'label' of .* is no Image, which `cut: image` needs; columns that are: image"),
    ],
)
def test_what_the_hub_does_not_have_is_named(hub, client, tmp_path, change, words):
    add_images(hub, [photograph(40, 70)])
    with pytest.raises(InputError, match=words) as caught:
        client.fetch(PHOTOS | change, tmp_path / "raw", CROP | {"chunks": 1})
    assert "\n" not in str(caught.value) and not (tmp_path / "raw").exists()


@pytest.mark.parametrize(
    "items, chunks, words",
    [
        ([(40, 70), (20, 20), (50, 90)], 3, "has 3 items, which give 2 chunks where 3 are asked for; lower `chunks`"),
        ([(40, 70), None], 2, "item 1 of .* has no bytes"),
        ([(40, 70), b"no image"], 2, "item 1 of .* cannot be read as an image"),
    ],
)
def test_a_stream_that_is_short_or_broken(hub, client, tmp_path, items, chunks, words):
    add_images(hub, [photograph(*item) if isinstance(item, tuple) else item for item in items])
    with pytest.raises(InputError, match=words):
        client.fetch(PHOTOS, tmp_path / "raw", CROP | {"chunks": chunks})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status, words", [(429, "limits the requests"), (500, r"the Hub fails \(500\)")])
def test_a_hub_that_fails_says_so_at_once(hub, client, tmp_path, status, words):
    add_images(hub, [photograph(40, 70)])
    hub.rules[hub.page(f"datasets/{IMAGES}", "main")] = {"status": status}
    started = time.monotonic()
    with pytest.raises(InputError, match=words):
        client.fetch(PHOTOS, tmp_path / "raw", CROP | {"chunks": 1})
    assert time.monotonic() - started < 5


def test_a_connection_that_is_cut_is_taken_up_again(hub, client, tmp_path):
    items = [photograph(40, 70) for _ in range(4)]
    commit = add_images(hub, items)
    (data,) = (data for path, data in hub.commits[commit].items() if path.endswith(".parquet"))
    hub.storage.rules[hub.blob(data)] = [{"cut": 100}, {"status": 503}]
    record = client.fetch(PHOTOS, tmp_path / "raw", CROP | {"chunks": 4})
    assert [(tmp_path / "raw" / f["path"]).read_bytes() for f in record["files"]] == items


def test_a_killed_stream_leaves_nothing_and_an_old_folder_whole(hub, client, tmp_path):
    items = [photograph(40, 70) for _ in range(24)]
    commit = add_images(hub, items)
    client.fetch(PHOTOS, tmp_path / "raw", CROP | {"chunks": 2})
    last = hub.commits[commit]["data/validation-00002-of-00003.parquet"]
    hub.storage.rules[hub.blob(last)] = {"hang": 60}
    call = ["mine", PHOTOS, str(tmp_path / "raw"), CROP | {"chunks": 24}]
    process = client.start(
        "import json, sys; from bitlaw.sources import fetch; fetch(*json.loads(sys.argv[1]))", json.dumps(call)
    )
    end = time.monotonic() + 30
    while not list(tmp_path.glob(".raw.*.tmp/00000015.JPEG")):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    names = ["00000000.JPEG", "00000001.JPEG", "source.json"]
    assert sorted(p.name for p in (tmp_path / "raw").iterdir()) == names
    hub.storage.rules.clear()
    assert len(client.fetch(PHOTOS, tmp_path / "raw", CROP | {"chunks": 24})["files"]) == 24
    assert [p.name for p in tmp_path.iterdir()] == ["raw"]  # what the kill left is swept


def test_without_a_network_it_says_so_within_seconds(client, tmp_path):
    alone = Client("http://127.0.0.1:9", tmp_path / "home")
    try:
        started = time.monotonic()
        with pytest.raises(InputError, match=r"the Hub at http://127.0.0.1:9 cannot be reached \(ConnectError.*folder"):
            alone.fetch(PHOTOS, tmp_path / "raw", CROP | {"chunks": 1})
        assert time.monotonic() - started < 20
    finally:
        alone.process.kill()
        alone.process.wait()


def test_offline_mode_is_named():
    from huggingface_hub.errors import OfflineModeIsEnabled

    words = dataset_stream._remedy(OfflineModeIsEnabled("no"), {"dataset": IMAGES})
    assert words == f"HF_HUB_OFFLINE is set but {IMAGES} is on the Hub; unset it, or take a source with `folder`"
