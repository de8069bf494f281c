"""How many positions a window has: read from what a configuration has, given by a study, or refused."""

import numpy as np
import pytest
import torch
import transformers

from bitlaw import InputError
from bitlaw.compression import codec, lockstep, range_coder, scoring, stream_format
from bitlaw.models import checkpoint, contexts
from tiny_models import SIZES, V, random_checkpoint

LONGROPE = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
NAMED = {
    "n_positions": (transformers.GPT2Config(**V, n_positions=48, n_embd=32, n_layer=1, n_head=2), 48),
    "max_seq_len": (transformers.MptConfig(**V, max_seq_len=80, d_model=32, n_layers=1, n_heads=2), 80),
    "seq_length": (transformers.BloomConfig(**V, seq_length=72, hidden_size=32, n_layer=1, n_head=2), 72),
    "context_length": (transformers.RwkvConfig(**V, context_length=56, hidden_size=32, num_hidden_layers=2), 56),
    "of a recurrent model": (transformers.MambaConfig(**V, hidden_size=32, num_hidden_layers=1, state_size=8), 2048),
    "longrope": (
        transformers.Phi3Config(
            **SIZES,
            pad_token_id=0,
            max_position_embeddings=256,
            original_max_position_embeddings=64,
            rope_parameters=LONGROPE | {"rope_theta": 1e4, "original_max_position_embeddings": 64},
        ),
        64,
    ),
    "learned, after a row for padding": (
        transformers.RobertaConfig(**SIZES, max_position_embeddings=66, pad_token_id=1, is_decoder=True),
        64,
    ),
}
NONE = transformers.BloomConfig(**V, hidden_size=32, n_layer=1, n_head=2)


@pytest.mark.parametrize(("config", "expected"), NAMED.values(), ids=NAMED)
def test_the_context_is_read_from_what_the_configuration_has(config, expected, tmp_path):
    folder = random_checkpoint(config, tmp_path)
    assert checkpoint.load(folder).context == expected
    shorter = checkpoint.load(folder, context=32)
    assert shorter.context == 32 and codec.header(shorter, "ab" * 32, "cd" * 32, "fp32", 1).context == 32
    if config.model_type in contexts.RECURRENT:  # no table ends
        assert checkpoint.load(folder, context=4096).context == 4096
    else:
        with pytest.raises(InputError, match=f"context 4096 given, but the model has {expected} positions"):
            checkpoint.load(folder, context=4096)


def test_a_model_that_names_no_context_needs_one(tmp_path):
    folder = random_checkpoint(NONE, tmp_path)
    with pytest.raises(InputError, match=r"config\.json: has none of max_position_embeddings, .*`context`") as refusal:
        checkpoint.load(folder)
    assert "\n" not in str(refusal.value)
    assert checkpoint.load(folder, context=64).context == 64


def test_a_given_context_holds_in_exact_arithmetic_too(neox_folder):
    assert checkpoint.load(neox_folder, "exact", context=40).context == 40
    with pytest.raises(InputError, match="context 321 given, but the model has 320 positions"):
        checkpoint.load(neox_folder, "exact", context=321)


LONG = {
    "learned positions of 512": transformers.GPT2Config(**V, n_positions=512, n_embd=32, n_layer=1, n_head=2),
    "a window of 16 in a context of 512": transformers.MistralConfig(
        **SIZES, max_position_embeddings=512, num_key_value_heads=2, sliding_window=16
    ),
}


@pytest.mark.parametrize("config", LONG.values(), ids=LONG)
def test_chunks_longer_than_context_or_window_decode(config, tmp_path):
    model = checkpoint.load(random_checkpoint(config, tmp_path, scale=4))
    ids = np.random.default_rng(1).integers(0, 300, 800)
    one_pass = scoring.score(model, [ids], 2000)[0]
    (steps,) = lockstep.encode(model, [ids], 1)
    difference = np.log2(steps[2] / steps[1]) - np.log2(one_pass.totals / one_pass.frequencies)
    assert np.abs(difference).max() < 0.01 and np.log2(steps[2] / steps[1]).std() > 0.3
    opened = [range_coder.start_decoding(range_coder.encode(*steps))]
    ((decoded, _),) = lockstep.decode(model, opened, [len(ids)], 1)
    assert np.array_equal(decoded, ids)


def test_positions_are_those_of_the_model_itself(tmp_path):
    """RoBERTa counts from 2: nobody may count for it."""
    folder = random_checkpoint(NAMED["learned, after a row for padding"][0], tmp_path)
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.arange(64)[None] * 7 % 296 + 3
    with torch.inference_mode():
        expected = reference(ids, use_cache=False).logits
    model = checkpoint.load(folder)
    assert torch.equal(model.head(model.hidden(ids)), expected)


def test_streams_of_a_given_context_are_of_a_later_version_and_others_are_not(neox_folder):
    for given, version in ((None, stream_format.VERSION), (64, stream_format.FRAMED)):
        header = codec.header(checkpoint.load(neox_folder, "exact", context=given), "ab" * 32, "cd" * 32, "exact", 0)
        stream = stream_format.pack(header, [])
        assert stream[4] == version and stream_format.unpack(stream) == (header, [])
