"""The engines of exact arithmetic compute the same integers, whatever the batch, the blocks and the threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_decoders
from bitlaw import InputError
from bitlaw.models.exact import arithmetic_torch, decoder
from bitlaw.models.exact.model import Model
from bitlaw.runtime.compiling import compiled

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
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


@pytest.fixture(scope="module", params=DEVICES)
def by_digits(request, models):
    """The models once more, by torch operations."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # its operations are small
    yield {name: model.digits(request.param) for name, model in models.items()}
    torch.set_num_threads(before)


def logits_of(model, states, count):
    return model.head(states, 0, count).copy()


def one_shot(model, ids):
    return logits_of(model, model.hidden(ids), len(ids))


def digit_logits(model, ids, cache=None, past=0):
    """Of ids `[tokens]` or `[sequences, tokens]` by torch operations."""
    states = model.hidden(torch.from_numpy(np.atleast_2d(ids)), cache, past)
    return model.head(states.flatten(0, 1)).cpu().numpy().reshape(*np.shape(ids), -1)


def ids_of(model, seed, length):
    return np.random.default_rng(seed).integers(0, model.vocabulary, length)


@pytest.mark.parametrize("name", VARIANTS)
@given(length=st.integers(1, 300), seed=st.integers(0, 99))
@settings(max_examples=8, deadline=None)
def test_three_engines_agree_to_the_last_bit(models, by_digits, name, length, seed):
    model = models[name]
    ids = ids_of(model, seed, length)
    states = model.hidden(ids)
    digits, scales = model.float64().hidden(ids)
    assert np.array_equal(states.digits[:length], digits)
    assert np.array_equal(states.scales[:length], scales)
    found = logits_of(model, states, length)
    assert np.array_equal(found, model.float64().head(digits, scales))
    assert np.array_equal(found, digit_logits(by_digits[name], ids))


@pytest.mark.parametrize("name", VARIANTS)
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_blocks_of_any_size_are_the_whole(models, by_digits, name, data):
    model, other = models[name], by_digits[name]
    length = data.draw(st.integers(1, 300))
    ids = ids_of(model, length, length)
    cache, other_cache, past = model.new_cache(1, length), other.new_cache(1, length), 0
    whole = one_shot(model, ids)
    while past < length:
        end = min(length, past + data.draw(st.sampled_from((1, 1, 2, 3, 7, 8, 9, 64, 65, 130))))
        states = model.hidden(ids[past:end], cache, past=past)
        assert np.array_equal(logits_of(model, states, end - past), whole[past:end])
        assert np.array_equal(digit_logits(other, ids[past:end], other_cache, past), whole[past:end])
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


@pytest.mark.parametrize("name", VARIANTS)
def test_batches_by_digits_are_the_whole_of_each(models, by_digits, name):
    """Sequences of different lengths side by side, padded, in one pass and in blocks."""
    model, other = models[name], by_digits[name]
    lengths = (40, 7, 33, 1, 90, 18)
    padded = ids_of(model, 0, (len(lengths), max(lengths)))
    cache, ends = other.new_cache(len(lengths), max(lengths)), (1, 2, 10, 60, 90)
    blocks = [digit_logits(other, padded[:, a:b], cache, a) for a, b in zip((0, *ends), ends, strict=False)]
    whole, blocks = digit_logits(other, padded), np.concatenate(blocks, 1)
    for row, length in enumerate(lengths):
        expected = one_shot(model, padded[row, :length])
        assert np.array_equal(whole[row, :length], expected) and np.array_equal(blocks[row, :length], expected)


def test_few_rows_of_attention_and_of_a_linear_layer_at_a_time(models, by_digits, monkeypatch):
    """What does not fit in a block of memory is done in several."""
    ids = ids_of(models["qwen2"], 6, (2, 150))
    whole = digit_logits(by_digits["qwen2"], ids)
    for module in ("arithmetic_torch", "digits"):
        monkeypatch.setattr(f"bitlaw.models.exact.{module}.ELEMENTS", 1 << 12)
    assert np.array_equal(digit_logits(by_digits["qwen2"], ids), whole)


def test_digits_where_int8_products_saturate(models, by_digits, monkeypatch):
    """As the library below torch does on processors without VNNI; products of int32 take their place."""
    monkeypatch.setattr(arithmetic_torch, "_int_mm_adds_exactly", lambda: False)
    monkeypatch.setattr(torch, "_int_mm", None)
    if by_digits["qwen2"].device.type == "cpu":
        ids = ids_of(models["qwen2"], 6, 150)
        assert np.array_equal(digit_logits(by_digits["qwen2"], ids), one_shot(models["qwen2"], ids))


def test_a_slot_may_be_used_again(models, by_digits):
    model, other = models["llama"], by_digits["llama"]
    cache, other_cache = model.new_cache(1, 100), other.new_cache(1, 100)
    before, ids = ids_of(model, 1, 100), ids_of(model, 2, 50)
    model.hidden(before, cache)
    digit_logits(other, before, other_cache)
    whole = one_shot(model, ids)
    assert np.array_equal(logits_of(model, model.hidden(ids, cache), 50), whole)
    assert np.array_equal(digit_logits(other, ids, other_cache), whole)


def test_tokens_and_positions_that_digits_refuse(by_digits):
    model = by_digits["llama"]
    for ids in ([[101]], [[5, -1]]):
        with pytest.raises(InputError, match="token (101|-1): expected 0 to 100"):
            model.hidden(torch.tensor(ids))
    with pytest.raises(InputError, match="position 16: expected 0 to 15"):
        model.hidden(torch.tensor([[1]]), model.new_cache(1, 16), past=16)
    assert model.hidden(torch.zeros((2, 0), dtype=torch.int64)).shape == (2, 0, 48)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("high, inputs", [(2, 48), (2, (1 << 17) + 64), (3, 48), (3, 1 << 17)])
def test_products_of_digits_are_exact(device, high, inputs):
    """Up to the largest digits and the longest sums, which two or three products of one accumulator share."""
    random = np.random.default_rng(inputs)
    left = random.integers(-(1 << 14), (1 << 14) + 1, (1, 17, inputs))
    if high == 3:
        left = random.integers(0, (1 << 22) + 1, (1, 17, inputs))
    right = random.integers(-(1 << 14), (1 << 14) + 1, (1, 16, inputs))
    ends = {2: (-(1 << 14), 1 << 14, 63 * 256 - 128, -127), 3: (1 << 22, (1 << 22) - (1 << 15) - 128, 32640, 0)}
    for row, value in enumerate(ends[high]):
        left[0, row] = value
    for row, value in enumerate((-(1 << 14), 1 << 14, -(64 << 8) + 128, 63 * 256 - 128)):
        right[0, row] = value

    def digits(q, count):
        return arithmetic_torch.split(torch.from_numpy(q).to(torch.int32), count).movedim(0, 1).to(device)

    found = arithmetic_torch.products(digits(left, high), digits(right, 2)).cpu().numpy()
    assert np.array_equal(found.astype(np.int64), left @ right.transpose(0, 2, 1))


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
    assert np.array_equal(whole, digit_logits(model.digits(), ids))
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
    assert np.isnan(digit_logits(model.digits(), ids_of(model, 0, 20))).all()


@pytest.mark.parametrize("part", ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", "norm"])
def test_an_overflow_by_digits_goes_on_to_all_that_sees_it(tmp_path, part):
    """Whatever row is too large, of the token 7: its logits are NaN and those after it, in its own sequence alone."""
    config = tiny_decoders.config_of("llama", num_hidden_layers=3)
    weights = tiny_decoders.weights_of(config)
    width = config["hidden_size"]
    for name, values in weights.items():
        if "embed" in name:  # a direction that only the token 7 has
            values[:, 0] = 0
            values[7] = 0
            values[7, 0] = 1
        elif "norm" in name:
            values[0] = 1
        elif values.shape[1] == width and "layers.0" not in name:
            values[:, 0] = 0
    weights["model.layers.0.self_attn.o_proj.weight"][0] = 0
    name = f"model.layers.0.self_attn.{part}.weight" if part[0] in "qkvo" else f"model.layers.0.mlp.{part}.weight"
    if part == "norm":
        weights["model.layers.0.post_attention_layernorm.weight"][0] = 1e36
    elif part in ("o_proj", "down_proj"):
        weights[name] *= np.float32(1e34)
        weights[name.replace(part, "v_proj" if part == "o_proj" else "up_proj")][:, 0] = 1e6
    else:
        weights[name][:, 0] = 1.3e36
    model = Model(tiny_decoders.write(tmp_path, config, weights))
    texts = np.array([[1, 2, 3, 7, 4, 5], [1, 2, 3, 4, 5, 6]])
    with pytest.raises(FloatingPointError):
        model.hidden(texts[0])
    found = digit_logits(model.digits(), texts)
    assert np.isnan(found[0, 3:]).all()
    assert np.array_equal(found[0, :3], one_shot(model, texts[0, :3]))
    assert np.array_equal(found[1], one_shot(model, texts[1]))


def test_exponents_of_values_that_differ_by_key(tmp_path):
    """A token whose values are 2^20 times another's: weights are shifted, not lost."""
    config = tiny_decoders.config_of("llama")
    weights = tiny_decoders.weights_of(config)
    weights["model.embed_tokens.weight"][1] *= 1e-6
    model = Model(tiny_decoders.write(tmp_path, config, weights))
    ids = np.array([1, 1, 5, 1, 9, 1, 1])
    assert len(np.unique(_value_scales(model, ids))) > 1
    other, whole = model.float64(), one_shot(model, ids)
    assert np.array_equal(whole, other.head(*other.hidden(ids)))
    assert np.array_equal(whole, digit_logits(model.digits(), ids))


def _value_scales(model, ids):
    cache = model.new_cache(1, len(ids))
    model.hidden(ids, cache)
    return cache.value_scales[..., : len(ids)]
