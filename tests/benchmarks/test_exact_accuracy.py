"""Exact arithmetic costs nothing: code lengths of every kind of bytes are those in fp32."""

import exact_accuracy
import numpy as np
import pytest
import yaml

from bitlaw import study
from bitlaw.data import seven_bit, tokens
from repository import ROOT, run

LADDER = ROOT / "data/ladder"
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())


def kinds_of_bytes(passage):
    """Three chunks of each kind: English, a smooth picture with noise, a decaying sound in 16 bits, random bytes."""
    random, chunk = np.random.default_rng(9), CONFIG["chunk_bytes"]
    size = 3 * chunk
    y, x = np.mgrid[0 : size // 64, 0:64]
    picture = 128 + 60 * np.sin(x / 19 + y / 47) + 30 * np.cos(y / 13) + random.normal(0, 3, x.shape)
    time = np.arange(size // 2)
    sound = sum(3000 / n * np.sin(time * n * 0.031 + n) for n in range(1, 9)) * np.exp(-(time % 1500) / 600)
    made = {
        "text": (passage * (1 + size // len(passage))).encode()[:size],
        "image": picture.clip(0, 255).astype(np.uint8).tobytes(),
        "speech": (sound + random.normal(0, 20, len(time))).astype("<i2").tobytes(),
        "random": random.bytes(size),
    }
    return {kind: [data[i : i + chunk] for i in range(0, size, chunk)] for kind, data in made.items()}


@pytest.mark.parametrize("name", ["ladder-64k/step1200", "ladder-331k/step75"])
def test_code_lengths_are_those_of_fp32(passage, name):
    """Within 0.001 %, as cells of the ladder."""
    tokenizer, spelling, _ = tokens.open_tokenizer(LADDER / "tokenizer.json")
    for kind, chunks in kinds_of_bytes(passage).items():
        ids = tokens.encode(tokenizer, spelling, [seven_bit.to_ascii(chunk) for chunk in chunks])
        exact, fp32 = exact_accuracy.both(LADDER / name, ids)
        print(name, kind, exact_accuracy.difference(exact, fp32), np.abs(exact / fp32 - 1).max())
        assert (exact != fp32).any() and fp32.sum() > 1000
        assert abs(exact_accuracy.difference(exact, fp32)) <= 1e-5, kind


def test_a_planted_model_is_the_same_function(tmp_path, passage):
    tokenizer, spelling, _ = tokens.open_tokenizer(LADDER / "tokenizer.json")
    ids = tokens.encode(tokenizer, spelling, [passage[:600]])
    folder = LADDER / "ladder-64k/step1200"
    planted = exact_accuracy.plant(folder, tmp_path / "planted", 64, [0, 1])
    (exact, fp32), (_, before) = exact_accuracy.both(planted, ids), exact_accuracy.both(folder, ids)
    assert abs(fp32.sum() / before.sum() - 1) <= 1e-5
    assert (planted / "model.safetensors").read_bytes() != (folder / "model.safetensors").read_bytes()
    assert exact.sum() != fp32.sum()


@pytest.mark.slow
def test_every_cell_of_the_ladder_is_that_of_fp32(clone, monkeypatch):
    """On the embedded study's own chunks: all checkpoints, all kinds of bytes."""
    files = [f"data/tokens/{key}/ladder.npz" for key in study.datasets(CONFIG)]
    ran = run(clone, *files, timeout=3600)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    cells, far = study.cells(CONFIG), {}
    monkeypatch.chdir(clone)
    for kind, model, step in cells:
        folder = study.checkpoint(CONFIG, model, step)
        pair = exact_accuracy.both(folder, exact_accuracy.ids_of(CONFIG, kind, model, CONFIG["chunks"]))
        if abs(exact_accuracy.difference(*pair)) > 1e-5:
            far[kind, model, step] = exact_accuracy.difference(*pair)
    assert len(cells) == 100 and not far


def test_the_script_prints_its_tables(tmp_path, monkeypatch, capsys, passage):
    entry = {"name": "ladder-64k", "folder": f"{LADDER}/{{name}}/step{{step}}", "tokenizer": "ladder"}
    text = study.by_name(CONFIG, "modalities", "text")
    few = {"models": [entry], "modalities": [text], "steps": [75, 1200]}
    (tmp_path / "few.yaml").write_text(yaml.safe_dump(few))
    tokenizer, spelling, sha256 = tokens.open_tokenizer(LADDER / "tokenizer.json")
    folder = tmp_path / "data/tokens" / study.dataset(CONFIG, "text")
    folder.mkdir(parents=True)
    ids = tokens.encode(tokenizer, spelling, [passage[:300], passage[300:600]])
    tokens.write(folder / "ladder.npz", ids, spelling, sha256)
    monkeypatch.chdir(tmp_path)
    for arguments, columns in (([], [3, 1]), (["--outliers"], [5, 5])):
        monkeypatch.setattr("sys.argv", ["exact_accuracy.py", "--study", "few.yaml", "--chunks", "2", *arguments])
        exact_accuracy.main()
        said = capsys.readouterr().out
        rows = [line.strip("| ").split(" | ")[1:] for line in said.splitlines() if line.startswith("| ladder-64k")]
        assert list(map(len, rows)) == columns
        assert all(abs(float(field.split()[0].rstrip("%"))) < 0.05 for row in rows for field in row), said
