"""Configurations whose sizes cannot be, or are not those of the tensors: one line at load, at every precision."""

import json
import shutil

import pytest
from transformers import GPT2Config, GPTNeoXConfig, LlamaConfig

from bitlaw import InputError
from bitlaw.models import checkpoint
from tiny_models import random_checkpoint

SHAPE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
MODELS = {
    "gpt_neox": GPTNeoXConfig(vocab_size=100, max_position_embeddings=64, **SHAPE),
    "llama": LlamaConfig(vocab_size=100, max_position_embeddings=64, **SHAPE),
    "gpt2": GPT2Config(vocab_size=100, n_positions=64, n_embd=16, n_layer=2, n_head=2),
}
KEYS = {  # what GPT-2 calls them
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
}
CHANGES = [
    *(("num_attention_heads", value) for value in (0, 3, -2, [2])),
    *(("max_position_embeddings", value) for value in (0, 1, -5, 2.5)),
    *(("hidden_size", value) for value in (0, "16", 16.0, True, 32)),
    *(("num_hidden_layers", value) for value in (-1, 0, 1, 3)),
    *(("vocab_size", value) for value in (0, 50, 120, [3])),
]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sizes")
    return {name: random_checkpoint(config, folder / name) for name, config in MODELS.items()}


def changed(folder, key, value, where):
    shutil.copytree(folder, where)
    config = json.loads((where / "config.json").read_text())
    assert key in config
    (where / "config.json").write_text(json.dumps(config | {key: value}))
    return where


@pytest.mark.parametrize(("name", "precision"), [*((name, "fp32") for name in MODELS), ("gpt_neox", "exact")])
@pytest.mark.parametrize(("key", "value"), CHANGES)
def test_sizes_that_cannot_be_are_refused_in_one_line(checkpoints, tmp_path, name, precision, key, value):
    key = KEYS.get(key, key) if name == "gpt2" else key
    folder = changed(checkpoints[name], key, value, tmp_path / "changed")
    with pytest.raises(InputError) as refused:
        checkpoint.load(folder, precision)
    line = str(refused.value)
    assert line.startswith(str(folder)) and "\n" not in line and len(line) < 600
    assert "config.json" in line or "lacks" in line


@pytest.mark.parametrize("share", [1.5, -0.25, 0, "a"])
def test_rotary_shares_that_cannot_be_are_refused(checkpoints, tmp_path, share):
    rope = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": share}
    folder = changed(checkpoints["gpt_neox"], "rope_parameters", rope, tmp_path / "changed")
    for precision in ("fp32", "exact"):
        with pytest.raises(InputError, match=r"config\.json"):
            checkpoint.load(folder, precision)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_right_is_loaded(checkpoints, name):
    assert checkpoint.load(checkpoints[name], "fp32").vocabulary == 100


@pytest.mark.parametrize(
    ("key", "value"), [("rope_parameters", "linear"), ("layer_norm_eps", "small"), ("model_type", 3)]
)
def test_other_values_that_cannot_be_are_refused(checkpoints, tmp_path, key, value):
    folder = changed(checkpoints["gpt_neox"], key, value, tmp_path / "changed")
    for precision in ("fp32", "exact"):
        with pytest.raises(InputError, match=r"config\.json"):
            checkpoint.load(folder, precision)
