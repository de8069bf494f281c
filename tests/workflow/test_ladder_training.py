"""The ladder's rules on a tiny recipe: what they leave, and a training that was killed."""

import os
import signal
import subprocess
import time

import pytest
import yaml

from repository import SNAKEMAKE, run

OUT = "results/ladder/tiny"
TRAINING = "results/ladder/training/tiny"
RECIPE = {
    "source": {"train_range": [0, 4000], "validation_range": [4000, 6000]},
    "tokenizer": {"vocabulary": 300},
    "training": {
        **{"seed": 1, "sequence_length": 32, "batch_size": 2, "steps": 1000, "warmup_steps": 3},
        **{"final_learning_rate": 0.1, "checkpoints": [4, 1000], "weight_decay": 0.1, "betas": [0.9, 0.95]},
        **{"clip": 1.0, "compute_dtype": "float32"},
    },
    "validation": {"sequences": 4},
    "models": {"tiny": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "learning_rate": 1e-3}},
}


@pytest.fixture
def trainable(clone, passage):
    """The clone with RECIPE, and enwik8's place taken by a short text."""
    (clone / "data/ladder/recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    raw = clone / "data/raw/enwik8"
    raw.mkdir(parents=True)
    (raw / "enwik8").write_bytes((passage * 10).encode()[:6000])
    (raw / "source.json").write_text("{}")
    return clone


def test_a_killed_training_goes_on_and_leaves_what_the_recipe_says(trainable):
    first = subprocess.Popen(
        [SNAKEMAKE, "--cores", "2", "ladder"],
        cwd=trainable,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        waited = time.monotonic()
        while not (trainable / TRAINING / "losses.csv").exists():
            assert first.poll() is None
            assert time.monotonic() - waited < 300
            time.sleep(0.02)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    assert not (trainable / OUT / "losses.csv").exists()

    assert run(trainable, "--unlock").returncode == 0
    again = run(trainable, "ladder", "--rerun-incomplete")
    assert again.returncode == 0, again.stderr
    assert "tiny: goes on after step" in (trainable / "results/ladder/logs/tiny.log").read_text()
    files = ["config.json", "model.safetensors", "tokenizer.json"]
    assert sorted(str(p.relative_to(trainable / OUT)) for p in (trainable / OUT).rglob("*") if p.is_file()) == sorted(
        ["losses.csv", *(f"step{step}/{file}" for step in (4, 1000) for file in files)]
    )
    assert len((trainable / OUT / "losses.csv").read_text().splitlines()) == 1 + 1000
    assert not (trainable / TRAINING).exists()
