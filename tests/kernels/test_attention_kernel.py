"""The kernel of attention gives the bits of the plain operations; whole models through kernels are all engines'."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_decoders
from bitlaw.compression import integer_softmax_torch, known_answers, torch_scoring
from bitlaw.models import checkpoint
from bitlaw.models.exact import arithmetic_torch as exact
from bitlaw.models.exact import digits
from bitlaw.models.exact.model import Model
from bitlaw.runtime import fused

pytestmark = pytest.mark.kernel
TABLE = known_answers.read_table()
EXAMPLES = 200 if torch.cuda.is_available() else 12  # the interpreter takes a second each


class Plain:
    """What `digits.Digits._attend` takes from a model."""

    def __init__(self, head_dim, device):
        self.device, self.description = torch.device(device), self
        self.head_dim = head_dim

    def attend(self, parts, scales, past, cache, group):
        """`attention_kernel.attend` by the plain operations, which take queries by key/value heads."""
        parts = exact.pad(parts, (0, -self.head_dim % exact.UNIT)).unflatten(3, (-1, group)).permute(1, 3, 0, 4, 2, 5)
        scales = scales.unflatten(2, (-1, group)).permute(0, 2, 3, 1, 4)
        found = digits.Digits._attend(self, parts, scales, past, cache)
        return found.permute(0, 3, 1, 2, 4).flatten(2)


def scales_of(random, shape, spread):
    return torch.from_numpy(np.exp2(random.integers(-spread, spread + 1, shape)).astype(np.float32))


def made(random, sequences, kv_heads, group, size, past, tokens, room, spread):
    """Digits and scales of queries and a Cache, exponents within ±spread, large integers, equal and zero rows."""
    padded, positions = exact.up(size), exact.up(past + tokens + room)

    def integers(*shape):
        q = random.integers(-(1 << 14), (1 << 14) + 1, shape)
        q[random.random(shape[:-1]) < 0.2] = random.choice((0, 1 << 14, -(1 << 14), 63 * 256 - 128))
        return exact.split(torch.from_numpy(q).to(torch.int32), 2)

    queries = integers(sequences, tokens, kv_heads * group, size)
    query_scales = scales_of(random, (sequences, tokens, kv_heads * group, 1), spread) * np.float32(size**-0.5 * 2**-20)
    keys = torch.zeros((sequences, kv_heads, 2, positions, padded), dtype=torch.int8)
    values = torch.zeros((sequences, kv_heads, 2, padded, positions), dtype=torch.int8)
    keys[..., : past + tokens, :size] = integers(sequences, kv_heads, past + tokens, size).movedim(0, 2)
    values[..., :size, : past + tokens] = integers(sequences, kv_heads, past + tokens, size).movedim(0, 2).mT
    scales = [scales_of(random, (sequences, kv_heads, positions), s) for s in (spread, min(12 + spread, 60))]
    return queries, query_scales, digits.Cache(keys, scales[0], values, scales[1])


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    sequences=st.integers(1, 2),
    kv_heads=st.integers(1, 2),
    group=st.integers(1, 2),
    size=st.sampled_from((2, 10, 16, 33, 64, 80)),
    past=st.sampled_from((0, 0, 1, 15, 63)),
    tokens=st.sampled_from((1, 2, 16, 17, 65)),
    room=st.sampled_from((0, 40)),
    spread=st.sampled_from((0, 2, 12, 50)),
    seed=st.integers(0, 2**31),
)
def test_attention(attention_kernel, device, sequences, kv_heads, group, size, past, tokens, room, spread, seed):
    check_attention(attention_kernel, device, sequences, kv_heads, group, size, past, tokens, room, spread, seed)


@pytest.mark.parametrize(("size", "past", "tokens"), [(10, 0, 300), (160, 3, 70), (256, 0, 33), (128, 250, 20)])
def test_attention_of_long_texts_and_of_large_heads(attention_kernel, device, size, past, tokens):
    check_attention(attention_kernel, device, 1, 1, 1, size, past, tokens, 0, 2, 1)


def check_attention(attention_kernel, device, sequences, kv_heads, group, size, past, tokens, room, spread, seed):
    random = np.random.default_rng(seed)
    queries, scales, cache = made(random, sequences, kv_heads, group, size, past, tokens, room, spread)
    if seed % 4 == 0:  # errors: a row of keys, of queries and a score that are too large
        cache.key_scales[0, 0, random.integers(past + tokens)] = float("nan")
        scales[-1, random.integers(tokens), 0] = random.choice((float("nan"), 2.0**120))
    queries, scales = queries.to(device), scales.to(device)
    cache = digits.Cache(*(part.to(device) for part in cache))
    found = attention_kernel.attend(queries, scales, past, cache)
    expected = Plain(size, device).attend(queries, scales, past, cache, group)
    nan = expected.isnan()
    assert torch.equal(found.isnan(), nan)
    assert torch.equal(found[~nan], expected[~nan])


def test_attention_refuses_what_does_not_fit(attention_kernel, device):
    queries, scales, cache = made(np.random.default_rng(0), 1, 1, 1, 16, 0, 16, 0, 1)
    with pytest.raises(ValueError, match="1 \\+ 16 tokens, room for 16: not for this kernel"):
        attention_kernel.attend(queries.to(device), scales.to(device), 1, cache)
    assert not attention_kernel.fits(257, 10) and not attention_kernel.fits(64, (1 << 16) + 1)


# --- whole models ---------------------------------------------------------------------------------------------------


def bits(logits):
    return hashlib.sha256(logits.cpu().numpy().tobytes()).hexdigest()


def logits_of(model, ids, cache=None, past=0):
    return model.head(model.hidden(torch.from_numpy(ids), cache, past).flatten(0, 1))


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("gpt_neox", {}),
        ("granite", {}),
        ("llama", {"num_attention_heads": 6, "num_key_value_heads": 2, "hidden_size": 60, "intermediate_size": 300}),
    ],
)
def test_a_model_through_kernels_is_every_engines(tmp_path, kernels, device, family, changes):
    """One pass, batches and blocks that continue a cache; against the plain operations and the compiled loops."""
    model = Model(tiny_decoders.checkpoint(tmp_path / family, family, seed=1, **changes))
    ids = np.random.default_rng(0).integers(0, model.vocabulary, (2, 70))
    through = model.digits(device)
    assert through._kernels is kernels
    with fused.plain(device):
        plain = model.digits(device)
    assert plain._kernels is None
    found = logits_of(through, ids)
    assert bits(found) == bits(logits_of(plain, ids))
    loops = np.concatenate([model.head(model.hidden(row), 0, 70).copy() for row in ids])
    assert bits(found) == hashlib.sha256(np.ascontiguousarray(loops).tobytes()).hexdigest()
    engine = model.float64()
    assert bits(found[:70]) == hashlib.sha256(engine.head(*engine.hidden(ids[0])).tobytes()).hexdigest()
    cache, blocks = through.new_cache(2, 70), []
    for first, last in ((0, 1), (1, 2), (2, 20), (20, 68), (68, 70)):
        blocks.append(logits_of(through, ids[:, first:last], cache, first).unflatten(0, (2, -1)))
    assert bits(torch.cat(blocks, 1)) == bits(found)


@pytest.mark.parametrize("family", ["gpt_neox", "qwen3"])
def test_known_answers_through_kernels(tmp_path, monkeypatch, interval_kernel, device, family):
    """Logits and intervals by kernels alone; on a processor, too, where loops take the intervals otherwise."""
    calls = []

    def intervals(logits, targets):
        logits, targets = torch.as_tensor(logits, device=device), torch.from_numpy(np.asarray(targets, dtype=np.int64))
        calls.append(len(targets))
        found = integer_softmax_torch.integers(logits, targets)
        return integer_softmax_torch.from_integers(found.cpu().numpy(), targets.numpy(), logits.shape[1])

    if device == "cpu":
        monkeypatch.setattr(torch_scoring.integer_softmax, "intervals", intervals)
    name = f"tiny/{family}"
    model = checkpoint.load(known_answers.model_folder(TABLE, name, tmp_path), "exact")
    found = known_answers.by_kernels(device)(model, known_answers.token_ids(TABLE))
    assert known_answers.answer(*found) == TABLE["answers"][name]
    assert calls or device != "cpu"
    assert fused.usable(device)  # the kernel of intervals agreed


def test_an_error_reaches_the_logits_of_its_token_and_of_those_after_it(tmp_path, kernels, device):
    model = Model(tiny_decoders.checkpoint(tmp_path / "llama", "llama", seed=3))
    through = model.digits(device)
    through._layers[1]["gain1"][3] = 2.0**119
    found = logits_of(through, np.arange(2, 30)[None])
    with fused.plain(device):
        plain = model.digits(device)
    plain._layers[1]["gain1"][3] = 2.0**119
    expected = logits_of(plain, np.arange(2, 30)[None])
    assert expected.isnan().any() and torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found[~found.isnan()], expected[~expected.isnan()])
