"""The shard format: what is on disk, and that damage is found."""

import hashlib
import io
import runpy
from types import SimpleNamespace

import numpy as np
import pytest

from bitlaw import InputError
from bitlaw.data import shards
from bitlaw.data.shards import SHARD, cut, manifest, read
from bitlaw.runtime import atomic, logs
from repository import ROOT
from source_folder import source

RNG = np.random.default_rng(3)
TEXT = {"cut": "bytes", "sampling": "head", "chunks": 4, "seed": 1}


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


def test_changed_source_is_refused(tmp_path):
    folder = source(tmp_path / "in", {"a": bytes(1024)})
    (folder / "a").write_bytes(bytes(1023) + b"x")
    with pytest.raises(InputError, match="changed since it was fetched"):
        cut(folder, TEXT, 16, tmp_path / "out")
    (folder / "a").unlink()
    with pytest.raises(InputError, match="missing"):
        cut(folder, TEXT, 16, tmp_path / "out")


def test_the_job_claims_its_folder_before_it_cuts(tmp_path, monkeypatch):
    """A job that a cluster gave up and started anew elsewhere must not replace what the second one wrote."""
    folder = tmp_path / "shards" / "key"
    snakemake = SimpleNamespace(
        log=[tmp_path / "log"],
        input=SimpleNamespace(source=source(tmp_path / "in", {"a": bytes(64)}) / "source.json"),
        output=[str(folder / "manifest.json")],
        params=SimpleNamespace(modality=TEXT, chunk_bytes=16),
    )
    monkeypatch.setattr(logs, "log_to", lambda path: None)
    digest = shards.digest

    def overtaken(path):
        for claim in folder.parent.glob(".key.*.claim"):
            claim.unlink()
        return digest(path)

    monkeypatch.setattr(shards, "digest", overtaken)  # while the first job checks its source, the second one starts
    with pytest.raises(atomic.Superseded):
        runpy.run_path(str(ROOT / "scripts" / "shard.py"), {"snakemake": snakemake})
    assert list(folder.parent.iterdir()) == []
    monkeypatch.setattr(shards, "digest", digest)
    runpy.run_path(str(ROOT / "scripts" / "shard.py"), {"snakemake": snakemake})
    assert read(folder).tobytes() == bytes(64) and list(folder.parent.iterdir()) == [folder]


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
