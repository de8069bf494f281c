"""The embedded model family: it can be trained again, and it is a ladder."""

import csv
import os
import shutil
import signal
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
import yaml

from bitlaw import InputError
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


TINY = {
    "source": {"train_range": [0, 4000], "validation_range": [4000, 6000]},
    "training": {
        **{"seed": 1, "sequence_length": 32, "batch_size": 2, "pieces": [2, 1], "steps": 12, "warmup_steps": 3},
        **{"final_learning_rate": 0.1, "checkpoints": [4, 8, 12], "weight_decay": 0.1, "betas": [0.9, 0.95]},
        **{"clip": 1.0, "compute_dtype": "float32", "rotary_pct": 1.0},
    },
    "validation": {"sequences": 4},
    "models": {"tiny": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "learning_rate": 1e-2}},
}
KILLED = """
import os, signal, sys
import torch, yaml
from bitlaw.models import ladder
torch.set_num_threads(1)
raw, tokenizer, out, where, call = sys.argv[1:]
calls, owner = 0, torch if where == "save" else ladder
original = getattr(owner, where)
def killing(*arguments, **named):
    global calls
    calls += 1
    if calls == int(call):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **named)
setattr(owner, where, killing)
ladder.train("tiny", yaml.safe_load(sys.stdin), raw, tokenizer, out)
"""


@pytest.fixture(scope="module")
def tiny(passage, tokenizer, tmp_path_factory):
    """Text, tokenizer and the folder of an undisturbed run of TINY."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "text").write_bytes((passage * 10).encode()[:6000])
    tokenizer.save(str(folder / "tokenizer.json"))
    ladder.train("tiny", TINY, folder / "text", folder / "tokenizer.json", folder / "undisturbed")
    return folder


def files(folder):
    """The files that a run leaves, but for its state, which has the time of its writing in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "state.pt"
    }


@pytest.mark.parametrize(
    ("where", "call"),
    [
        pytest.param("learning_rate", 10, id="between saved states"),
        pytest.param("learning_rate", 2, id="before the first saved state"),
        pytest.param("validation_loss", 2, id="after a checkpoint, before its state"),
        pytest.param("save_file", 2, id="within a checkpoint"),
        pytest.param("save", 2, id="within a saved state"),
    ],
)
def test_a_killed_run_ends_with_the_files_of_an_undisturbed_one(tiny, tmp_path, where, call):
    arguments = (tiny / "text", tiny / "tokenizer.json", tmp_path / "out")
    child = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments, where, str(call)],
        input=yaml.safe_dump(TINY),
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "workflow")},
    )
    assert child.returncode == -signal.SIGKILL
    ladder.train("tiny", TINY, *arguments)
    assert files(tmp_path / "out") == files(tiny / "undisturbed")
    assert len(files(tmp_path / "out")) == 1 + 3 * len(TINY["training"]["checkpoints"])


def test_a_finished_run_stays_as_it_is(tiny, tmp_path):
    shutil.copytree(tiny / "undisturbed", tmp_path / "out")
    found = ladder.train("tiny", TINY, tiny / "text", tiny / "tokenizer.json", tmp_path / "out")
    assert len(found) == TINY["training"]["steps"]
    assert files(tmp_path / "out") == files(tiny / "undisturbed")


def test_the_state_of_another_run_is_refused(tiny, tmp_path):
    shutil.copytree(tiny / "undisturbed", tmp_path / "out")
    other = TINY | {"training": TINY["training"] | {"clip": 2.0}}
    with pytest.raises(InputError, match=r"state\.pt: the state of a run with another recipe"):
        ladder.train("tiny", other, tiny / "text", tiny / "tokenizer.json", tmp_path / "out")
    (tmp_path / "out" / "state.pt").write_bytes(b"no state")
    with pytest.raises(InputError, match=r"state\.pt: not a saved state"):
        ladder.train("tiny", TINY, tiny / "text", tiny / "tokenizer.json", tmp_path / "out")
    assert files(tmp_path / "out") == files(tiny / "undisturbed")


def test_text_shorter_than_a_sequence_is_refused(tiny, tmp_path):
    short = TINY | {"source": TINY["source"] | {"train_range": [0, 20]}}
    with pytest.raises(InputError, match="less than one sequence"):
        ladder.train("tiny", short, tiny / "text", tiny / "tokenizer.json", tmp_path / "out")


def test_pieces_predict_the_tokens_of_the_whole():
    ids = np.arange(1000, dtype=np.uint16)
    whole, cut = (ladder.batch_of(ids, [7, 3], 32, pieces).numpy() for pieces in (1, 4))
    assert whole.shape == (2, 33)
    assert whole[0, 0] == 7 * 33
    assert cut.shape == (8, 9)
    np.testing.assert_array_equal(np.sort(cut[:, 1:].ravel()), np.sort(whole[:, 1:].ravel()))
    np.testing.assert_array_equal(np.diff(cut), 1)  # each a stretch of the text


def test_the_text_is_used_up_before_it_comes_again():
    order = ladder.order_of(10, 25, seed=3)
    assert sorted(order[:10]) == sorted(order[10:20]) == list(range(10))
    assert len(set(order[20:])) == 5
    assert (order[:10] != order[10:20]).any()
