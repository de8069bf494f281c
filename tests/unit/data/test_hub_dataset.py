"""Data sets of the Hub, streamed from a loopback server by the real clients: order, early stop, refusals, the path."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

from archives import tarred
from bitlaw import InputError, study
from bitlaw.data import shards, tokens
from bitlaw.data.sources import fetch
from hub_datasets import (
    IMAGES,
    RNG,
    SPEECH,
    add_images,
    add_speech,
    photograph,
    real_photographs,
    real_speech,
    utterance,
)
from hub_server import HubServer
from repository import ROOT, jobs, run

CROP = {"source": "photos", "cut": "image", "patches": "crop", "sampling": "head", "seed": 1, "chunk_bytes": 2048}
READ = {"source": "voices", "cut": "speech", "rate": 16000, "sampling": "head", "chunk_bytes": 2048}
PHOTOS = {"licence": "terms of ImageNet", "dataset": IMAGES, "split": "validation", "column": "image"}
VOICES = {"licence": "CC-BY-4.0", "dataset": SPEECH, "config": "clean", "split": "train.100", "column": "audio"}

# A process of its own, as the address of the Hub is read once, at the import of its client. A line in, a line out.
WORKER = """
import json, os, sys
import datasets, torch  # once, not in each process that streams; the one looks whether the other is there
from bitlaw import InputError
from bitlaw.data.sources import fetch
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
FETCH = "import json, sys; from bitlaw.data.sources import fetch; fetch(*json.loads(sys.argv[1]))"


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


def test_images_come_in_the_order_of_the_stream_and_no_more_of_them_than_needed(hub, client, tmp_path):
    sizes = [(40, 70), (31, 500), (90, 63), (32, 64)] + [(50 + i, 80 + i) for i in range(60)]
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
    data = [files[f"data/validation-{n:05d}-of-00008.parquet"] for n in range(8)]
    asked = [hub.storage.count(hub.blob(part)) > 0 for part in data]
    assert asked[:2] == [True, True] and asked[-2:] == [False, False]  # a pipe's worth may be read ahead

    found = shards.cut(tmp_path / "raw", CROP | {"chunks": 7}, 2048, tmp_path / "out")
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
    for chunks, count in ((2, 1), (3, 2), (8, 4), (21, 6)):
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
    tagged = add_images(hub, items[:2], revision="v1")
    second = add_images(hub, items[2:])
    for revision, commit, item in ((None, second, items[2]), (first, first, items[0]), ("v1", tagged, items[0])):
        source = PHOTOS | ({"revision": revision} if revision else {})
        record = client.fetch(source, tmp_path / "raw", CROP | {"chunks": 1})
        assert record["places"][0] | {"commit": commit, "revision": revision or "main"} == record["places"][0]
        assert (tmp_path / "raw" / "00000000.JPEG").read_bytes() == item


def test_a_gated_data_set_says_what_to_do(hub, client, tmp_path):
    add_images(hub, [photograph(40, 70)])
    hub.tokens |= {"hf_accepted", "hf_stranger"}
    hub.gated[f"datasets/{IMAGES}"] = {"hf_accepted"}
    page = re.escape(f"{hub.base}/datasets/{IMAGES}")
    for token, words in (
        (None, f"its owners want their terms accepted first; accept them at {page}, then set HF_TOKEN"),
        ("hf_stranger", f"not admitted the account of your token; ask for access at {page}"),
        ("hf_wrong", "the Hub does not know your token; set HF_TOKEN .* to a valid one"),
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
        ({"dataset": "ILSVRC/imagenet-2k"}, "datasets/ILSVRC/imagenet-2k main: no such repository, or a private one"),
        ({"revision": "v7"}, "datasets/ILSVRC/imagenet-1k v7: no such revision"),
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


@pytest.mark.parametrize(
    "status, words", [(429, "too many requests; run again in"), (500, "the Hub answers with status 500")]
)
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
    call = json.dumps(["mine", PHOTOS, str(tmp_path / "raw"), CROP | {"chunks": 24}])
    process = client.start(FETCH, call)
    end = time.monotonic() + 30
    while not list(tmp_path.glob(".raw.*.tmp/00000015.JPEG")):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    names = ["00000000.JPEG", "00000001.JPEG", "source.json"]
    assert sorted(p.name for p in (tmp_path / "raw").glob("[!.]*")) == names
    hub.storage.rules.clear()
    assert len(client.fetch(PHOTOS, tmp_path / "raw", CROP | {"chunks": 24})["files"]) == 24
    assert [p.name for p in tmp_path.iterdir()] == ["raw"]  # what the kill left is swept


def test_without_a_network_it_says_so_within_seconds(client, tmp_path):
    alone = Client("http://127.0.0.1:9", tmp_path / "home")
    try:
        started = time.monotonic()
        with pytest.raises(InputError, match=r"http://127.0.0.1:9 cannot be reached .*ConnectError"):
            alone.fetch(PHOTOS, tmp_path / "raw", CROP | {"chunks": 1})
        assert time.monotonic() - started < 20
    finally:
        alone.process.kill()
        alone.process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("trouble, words", [({"status": 429}, "too many requests"), ({"cut": 100}, "or broke off")])
def test_a_stream_that_never_recovers_ends_within_a_minute(hub, client, tmp_path, trouble, words):
    commit = add_images(hub, [photograph(40, 70) for _ in range(4)])
    hub.storage.rules[hub.blob(hub.commits[commit]["data/validation-00000-of-00001.parquet"])] = trouble
    started = time.monotonic()
    with pytest.raises(InputError, match=words):
        client.fetch(PHOTOS, tmp_path / "raw", CROP | {"chunks": 1})
    assert time.monotonic() - started < 90 and not (tmp_path / "raw").exists()


def test_the_process_ends_although_the_stream_does_not(hub, client, tmp_path):
    """Row groups that are being read ahead when the stream is left have kept interpreters from ending."""
    commit = add_images(hub, [photograph(40, 70) + RNG.bytes(1_000_000) for _ in range(80)], per_file=80)
    call = json.dumps(["mine", PHOTOS, str(tmp_path / "raw"), CROP | {"chunks": 2}])
    process = client.start(FETCH, call)
    assert process.wait(timeout=60) == 0
    whole = len(hub.commits[commit]["data/validation-00000-of-00001.parquet"])
    served = [re.fullmatch(r"bytes=(\d+)-(\d+)", asked).groups() for _, asked, _ in hub.storage.requests]
    assert sum(int(last) - int(first) + 1 for first, last in served) < 0.6 * whole


def published_sources():
    return yaml.safe_load((ROOT / "workflow/studies/pythia.yaml").read_text())["sources"]


def test_the_stream_of_the_study_and_its_archive_give_the_same_chunks(hub, client, tmp_path):
    """Both entries of the study itself: the archive holds its members in another order, and other speakers first."""
    sounds = [utterance(n)[0] for n in (3000, 700, 5000)]
    commit = add_speech(hub, sounds)
    study_says = published_sources()
    record = client.fetch(
        study_says["librispeech-clean-100"] | {"revision": commit}, tmp_path / "a", READ | {"chunks": 8}
    )
    assert record["licence"].startswith("CC-BY-4.0")
    folder = "LibriSpeech/train-clean-100"
    members = {f"{folder}/103/1240/103-1240-0000.flac": utterance(2000)[0], f"{folder}/374/180298/374.trans.txt": b"x"}
    members |= {f"{folder}/374/180298/374-180298-{i:04d}.flac": sounds[i] for i in (2, 0, 1)}
    archive = tarred(members)
    entry = study_says["librispeech-openslr"]
    assert [place["md5"] for place in entry["places"]] == ["2a93770f6d5c6c964bc36631d331a522"] * 3
    (tmp_path / "train-clean-100.tar.gz").write_bytes(archive)
    place = {"url": (tmp_path / "train-clean-100.tar.gz").as_uri(), "members": entry["places"][0]["members"]}
    assert len(fetch("mine", entry | {"places": [place]}, tmp_path / "b")["files"]) == 3
    for raw in "ab":
        shards.cut(tmp_path / raw, READ | {"chunks": 8}, 2048, tmp_path / f"out-{raw}")
    assert (shards.read(tmp_path / "out-a") == shards.read(tmp_path / "out-b")).all()


@pytest.mark.parametrize("tree", [True, False])
def test_a_local_folder_of_imagenet(tmp_path, tree):
    """As image-net.org has it, or with a folder for each class; in the order of the paths, the first thousands only."""
    items = {n: photograph(40, 70) for n in (1, 2, 293, 2999, 3000, 50000)}
    for n, data in items.items():
        folder = tmp_path / "val" / (f"n{1e6 + 37 * n % 11:08.0f}" if tree else "")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"ILSVRC2012_val_{n:08d}.JPEG").write_bytes(data)
    source = published_sources()["imagenet-folder"] | {"folder": str(tmp_path / "val")}
    record = fetch("mine", source, tmp_path / "raw")
    paths = [entry["path"] for entry in record["files"]]
    assert paths == sorted(paths) and {int(path[-13:-5]) for path in paths} == {1, 2, 293, 2999}
    found = shards.cut(tmp_path / "raw", CROP | {"chunks": 4}, 2048, tmp_path / "out")
    assert [row["file"] for row in found["chunks"]] == paths


def test_a_study_has_a_folder_for_each_amount_of_a_stream(tmp_path):
    config = yaml.safe_load((ROOT / "config.yaml").read_text()) | {"modalities": [CROP | {"name": "image"}]}
    del config["modalities"][0]["chunk_bytes"]
    config["sources"]["photos"] = PHOTOS
    study.check(config)
    (few,) = study.datasets(config)
    (many,) = study.datasets(config | {"chunks": 2048})
    assert study.raw(config, few) == few != many == study.raw(config | {"chunks": 2048}, many)
    found = study.raws(config | {"chunks": 2048})[many]
    assert found["name"] == "photos" and found["source"] == PHOTOS
    assert found["wanted"] | {"chunks": 2048, "chunk_bytes": 2048, "cut": "image", "patches": "crop"} == found["wanted"]
    assert study.raws(config)["enwik8"]["wanted"] is None and "photos" not in study.raws(config)
    for change, words in (
        ({"sampling": "spread"}, r"modalities\[0\].sampling: 'spread' given; allowed: head, as the source 'photos' is"),
        ({"cut": "bytes"}, r"modalities\[0\].cut: 'bytes' given; allowed: image, speech"),
        ({"cut": "speech"}, r"modalities\[0\]: the key 'rate' is missing"),
    ):
        with pytest.raises(InputError, match=words):
            study.check(config | {"modalities": [config["modalities"][0] | change]})


@pytest.mark.slow
def test_the_workflow_streams_cuts_and_tokenises(hub, clone, tmp_path):
    add_images(hub, real_photographs(12))
    sounds = real_speech(12, 3000)
    add_speech(hub, [data for data, _ in sounds])
    modalities = [CROP | {"name": "image"}, READ | {"name": "speech"}]
    mine = {
        "study": "streams",
        "modalities": [{k: v for k, v in m.items() if k != "chunk_bytes"} for m in modalities],
        "sources": {"photos": PHOTOS, "voices": VOICES},
    }
    (clone / "streams.yaml").write_text(yaml.safe_dump(mine))
    known = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment = known | {"HF_ENDPOINT": hub.base, "HF_HOME": str(tmp_path / "home")}
    for chunks in (4, 8):  # more of them are streamed anew, beside the fewer
        keys = [f"photos-image-crop-head-{chunks}x2048-seed1", f"voices-speech-head-{chunks}x2048-16000hz"]
        targets = [f"data/tokens/{key}/ladder.npz" for key in keys]
        ran = run(clone, *targets, "--configfile", "streams.yaml", "--config", f"chunks={chunks}", env=environment)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert jobs(ran.stdout + ran.stderr) == {"fetch": 2, "shard": 2, "tokenize": 2}
        ids, _, _ = tokens.read(clone / targets[1])
        assert len(ids) == chunks
        expected = np.concatenate([values for _, values in sounds]).tobytes()[: 2048 * chunks]
        assert shards.read(clone / "data/shards" / keys[1]).tobytes() == expected
        found = shards.manifest(clone / "data/shards" / keys[0])
        assert [row["file"] for row in found["chunks"]] == [f"{i:08d}.JPEG" for i in range(chunks)]
        assert found["source"]["name"] == "photos" and found["source"]["files"][3]["index"] == 3
