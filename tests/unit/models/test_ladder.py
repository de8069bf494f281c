"""The embedded model family: it can be trained again, and it is a ladder."""

import csv
from itertools import pairwise

import numpy as np
import pytest
import torch
import yaml

from bitlaw.data import sources, tokens
from bitlaw.models import checkpoint, ladder
from repository import ROOT

LADDER = ROOT / "data" / "ladder"
RECIPE = ladder.read_recipe(LADDER / "recipe.yaml")
MODELS = list(RECIPE["models"])
STEPS = RECIPE["training"]["checkpoints"]


def losses(model):
    with open(LADDER / model / "losses.csv") as file:
        return list(csv.DictReader(file))


def validation(model):
    return {
        int(r["step"]): float(r["validation_bits_per_byte"]) for r in losses(model) if r["validation_bits_per_byte"]
    }


@pytest.fixture(scope="module")
def enwik8(tmp_path_factory):
    """The real enwik8: the pipeline's own if it is there, else fetched."""
    here = ROOT / "data" / "raw" / "enwik8" / "enwik8"
    if here.exists():
        return here
    folder = tmp_path_factory.mktemp("raw") / "enwik8"
    sources.fetch("enwik8", yaml.safe_load((ROOT / "config.yaml").read_text())["sources"]["enwik8"], folder)
    return folder / "enwik8"


def test_the_smallest_model_trains_again_with_the_committed_losses(enwik8, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = ladder.train(MODELS[0], RECIPE, enwik8, LADDER / "tokenizer.json", tmp_path / "again", stop_after=6)
    finally:
        torch.set_num_threads(threads)
    committed = [float(row["train_loss"]) for row in losses(MODELS[0])[:6]]
    assert committed[0] - committed[5] > 0.1  # it learns, so that equal losses mean equal steps
    np.testing.assert_allclose(found, committed, rtol=2e-3)  # other processors round bfloat16 products otherwise


def test_longer_trained_members_are_clearly_better_on_held_out_text():
    for model in MODELS:
        bits = validation(model)
        assert list(bits) == STEPS
        assert all(bits[a] - bits[b] > 0.05 for a, b in pairwise(STEPS)), (model, bits)


def test_bigger_members_are_clearly_better_on_held_out_text():
    last = [validation(model)[STEPS[-1]] for model in MODELS]
    assert all(a - b > 0.03 for a, b in pairwise(last)), last


def test_sizes_are_geometric_and_the_files_small():
    sizes = [checkpoint.describe(LADDER / model / f"step{STEPS[-1]}")["params_total"] for model in MODELS]
    ratios = [b / a for a, b in pairwise(sizes)]
    assert all(2.1 < ratio < 2.6 for ratio in ratios)
    assert sum(path.stat().st_size for path in LADDER.rglob("*") if path.is_file()) < 40e6


def test_every_checkpoint_carries_the_tokenizer_it_was_trained_with():
    hashes = {tokens.open_tokenizer(path)[2] for path in LADDER.rglob("tokenizer.json")}
    assert len(hashes) == 1
    assert len(list(LADDER.rglob("tokenizer.json"))) == 1 + len(MODELS) * len(STEPS)


def test_nobody_trains_on_the_test_set():
    first, _ = RECIPE["source"]["train_range"]
    low, high = RECIPE["source"]["validation_range"]
    assert 4 * 2**20 <= low < high <= first
