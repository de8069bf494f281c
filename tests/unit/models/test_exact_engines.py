"""The engines of exact arithmetic compute the same integers, whatever the batch, the blocks and the threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_decoders
from bitlaw.models.exact import decoder
from bitlaw.models.exact.model import Model
from bitlaw.runtime.compiling import compiled

VARIANTS = {
    **{family: (family, {}) for family in tiny_decoders.FAMILIES},
    "sequential": ("gpt_neox", {"use_parallel_residual": False, "hidden_act": "gelu_new", "rotary_pct": 0.8}),
    "llama3": (
        "llama",
        {
            "tie_word_embeddings": True,
            "attention_bias": True,
            "mlp_bias": True,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    "wide": ("llama", {"hidden_size": 1100, "num_attention_heads": 10, "num_key_value_heads": 1, "head_dim": 7 * 2}),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("exact")
    return {
        name: Model(tiny_decoders.checkpoint(root / name, family, seed=n, **changes))
        for n, (name, (family, changes)) in enumerate(VARIANTS.items())
    }


def logits_of(model, states, count):
    return model.head(states, 0, count).copy()


def one_shot(model, ids):
    return logits_of(model, model.hidden(ids), len(ids))


def ids_of(model, seed, length):
    return np.random.default_rng(seed).integers(0, model.vocabulary, length)


@pytest.mark.parametrize("name", VARIANTS)
@given(length=st.integers(1, 300), seed=st.integers(0, 99))
@settings(max_examples=8, deadline=None)
def test_two_engines_agree_to_the_last_bit(models, name, length, seed):
    model = models[name]
    ids = ids_of(model, seed, length)
    states = model.hidden(ids)
    digits, scales = model.float64().hidden(ids)
    assert np.array_equal(states.digits[:length], digits)
    assert np.array_equal(states.scales[:length], scales)
    assert np.array_equal(logits_of(model, states, length), model.float64().head(digits, scales))


@pytest.mark.parametrize("name", VARIANTS)
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_blocks_of_any_size_are_the_whole(models, name, data):
    model = models[name]
    length = data.draw(st.integers(1, 300))
    ids, whole = ids_of(model, length, length), None
    cache, past = model.new_cache(1, length), 0
    whole = one_shot(model, ids)
    while past < length:
        end = min(length, past + data.draw(st.sampled_from((1, 1, 2, 3, 7, 8, 9, 64, 65, 130))))
        states = model.hidden(ids[past:end], cache, past=past)
        assert np.array_equal(logits_of(model, states, end - past), whole[past:end])
        past = end


@pytest.mark.parametrize("name", VARIANTS)
def test_steps_of_many_sequences_are_the_whole_of_each(models, name):
    model = models[name]
    lengths = (40, 7, 33, 1, 90, 18, 25, 61, 2, 12)
    texts = [ids_of(model, n, length) for n, length in enumerate(lengths)]
    expected = [one_shot(model, ids) for ids in texts]
    cache, out = model.new_cache(len(texts), max(lengths)), model.new_logits(len(texts))
    for position in range(max(lengths)):
        slots = [s for s, ids in enumerate(texts) if position < len(ids)]
        states = model.forward(cache, slots, [position] * len(slots), [texts[s][position] for s in slots])
        for row, slot in zip(model.head(states, 0, len(slots), out), slots, strict=True):
            assert np.array_equal(row, expected[slot][position])


def test_a_slot_may_be_used_again(models):
    model = models["llama"]
    cache = model.new_cache(1, 100)
    model.hidden(ids_of(model, 1, 100), cache)
    ids = ids_of(model, 2, 50)
    assert np.array_equal(logits_of(model, model.hidden(ids, cache), 50), one_shot(model, ids))


def test_rows_of_several_sequences_in_one_call(models):
    model = models["qwen3"]
    texts = [ids_of(model, n, length) for n, length in enumerate((130, 5, 70))]
    slots = np.repeat(np.arange(3), [len(t) for t in texts])
    positions = np.concatenate([np.arange(len(t)) for t in texts])
    states = model.forward(model.new_cache(3, 130), slots, positions, np.concatenate(texts))
    found = logits_of(model, states, len(slots))
    for slot, ids in enumerate(texts):
        assert np.array_equal(found[slots == slot], one_shot(model, ids))


def test_threads_do_not_matter(models):
    for name in ("gpt_neox", "olmo2"):
        model = models[name]
        texts = [ids_of(model, n, 150) for n in range(6)]
        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(lambda ids, m=model: one_shot(m, ids), texts))
        for found, ids in zip(together, texts, strict=True):
            assert np.array_equal(found, one_shot(model, ids))


@compiled
def _greedy(weights, shape, cache, token, count, states, scales, out):
    """A loop of steps in compiled code, as a decoder of streams has it."""
    found = np.empty(count, dtype=np.int64)
    slot, position, tokens = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64), np.empty(1, dtype=np.int64)
    for i in range(count):
        position[0], tokens[0] = i, token
        if not decoder.step(weights, shape, cache, slot, position, tokens, states, scales, out):
            return found[:i]
        token = np.argmax(out[0, : shape.vocabulary])
        found[i] = token
    return found


def test_a_loop_of_steps_may_be_compiled(models):
    model = models["gpt_neox"]
    found = _greedy(
        *(model.weights, model.shape, model.new_cache(1, 60), 5, 60),
        *(*model.new_states(1), model.new_logits(1)),
    )
    whole = one_shot(model, np.concatenate(([5], found[:-1])))
    assert np.array_equal(whole.argmax(1), found)


# --- extreme weights --------------------------------------------------------------------------------------------------


def _extreme(kind, weights, random):
    """Some rows of every matrix changed to what `kind` says."""
    for name, values in weights.items():
        if values.ndim < 2:
            continue
        rows = random.integers(0, len(values), 3)
        if kind == "subnormal":
            values[rows] *= np.float32(1e-39)
        elif kind == "huge":
            if name == "lm_head.weight" or ("embed" in name and "model.layers.0.input_layernorm.weight" in weights):
                values[rows[0]] *= np.float32(1e30)
            elif "dense." in name or "4h_to_h" in name or "o_proj" in name or "down" in name:
                values[rows[0]] *= np.float32(1e20)
        elif kind == "zero":
            values[rows] = 0
        elif kind == "outlier":
            values[rows[0], random.integers(0, values.shape[1])] = 1e4
        elif kind == "tiny":
            values *= np.float32(1e-20)
    return weights


@pytest.mark.parametrize("kind", ["subnormal", "huge", "zero", "outlier", "tiny"])
@pytest.mark.parametrize("family", tiny_decoders.FAMILIES)
def test_extreme_weights(tmp_path, family, kind):
    config = tiny_decoders.config_of(family)
    weights = _extreme(kind, tiny_decoders.weights_of(config, seed=3), np.random.default_rng(4))
    model = Model(tiny_decoders.write(tmp_path, config, weights))
    ids = ids_of(model, 5, 40)
    whole = one_shot(model, ids)
    assert np.isfinite(whole).all()
    other = model.float64()
    assert np.array_equal(whole, other.head(*other.hidden(ids)))
    cache = model.new_cache(1, len(ids))
    for i in range(len(ids)):
        assert np.array_equal(logits_of(model, model.hidden(ids[i : i + 1], cache, past=i), 1)[0], whole[i])


def test_a_head_of_1e30_stays_finite_and_an_overflow_is_an_error(tmp_path):
    config = tiny_decoders.config_of("llama")
    weights = tiny_decoders.weights_of(config)
    weights["lm_head.weight"][7] *= np.float32(1e30)
    model = Model(tiny_decoders.write(tmp_path / "head", config, weights))
    found = one_shot(model, ids_of(model, 0, 20))
    assert np.isfinite(found).all() and np.abs(found[:, 7]).max() > 1e29

    weights["model.layers.0.mlp.up_proj.weight"] *= np.float32(1e25)
    weights["model.layers.0.mlp.down_proj.weight"] *= np.float32(1e25)
    model = Model(tiny_decoders.write(tmp_path / "overflow", config, weights))
    for engine in (model, model.float64()):
        with pytest.raises(FloatingPointError, match="activation"):
            engine.hidden(ids_of(model, 0, 20))


def test_exponents_of_values_that_differ_by_key(tmp_path):
    """A token whose values are 2^20 times another's: weights are shifted, not lost."""
    config = tiny_decoders.config_of("llama")
    weights = tiny_decoders.weights_of(config)
    weights["model.embed_tokens.weight"][1] *= 1e-6
    model = Model(tiny_decoders.write(tmp_path, config, weights))
    ids = np.array([1, 1, 5, 1, 9, 1, 1])
    assert len(np.unique(_value_scales(model, ids))) > 1
    other = model.float64()
    assert np.array_equal(one_shot(model, ids), other.head(*other.hidden(ids)))


def _value_scales(model, ids):
    cache = model.new_cache(1, len(ids))
    model.hidden(ids, cache)
    return cache.value_scales[..., : len(ids)]
