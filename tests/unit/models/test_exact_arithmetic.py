"""The parts of exact arithmetic against definitions in fractions and high precision."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitlaw.models.exact import arithmetic, products, rotary, weights

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**119), max_value=2.0**119)
ROWS = st.one_of(
    st.lists(FLOATS, min_size=1, max_size=40),
    st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=40),
    st.lists(st.sampled_from((0.0, -0.0, 1e-45, 1e-39, 2.0**-47, 2.0**-48, 3.0, 16383.5, 16384.5)), min_size=1),
)


def expected_quantisation(row, least, bits):
    """(q, exponent) by fractions: section 2 of docs/arithmetic.md."""
    largest = max(abs(Fraction(float(x))) for x in row)
    exponent = least
    while largest >= Fraction(2) ** (exponent + bits):  # |q| <= 2^bits after rounding
        exponent += 1
    q = []
    for x in row:
        exact = Fraction(float(x)) / Fraction(2) ** exponent
        floor = exact.numerator // exact.denominator
        rest = exact - floor
        q.append(floor + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and floor % 2 == 1)))
    return q, exponent


@given(ROWS)
@settings(deadline=None)
def test_rows_become_the_nearest_integers(row):
    row = np.array(row, dtype=np.float32)
    expected, exponent = expected_quantisation(row, -60, 14)
    q = np.empty(len(row), dtype=np.int16)
    scale, large = arithmetic.quantise(row, q)
    assert q.tolist() == expected and float(scale) == 2.0**exponent and not large
    high, low = np.empty_like(q), np.empty_like(q)
    assert arithmetic.quantise_digits(row, high, low)[0] == scale
    assert (256 * high.astype(int) + low).tolist() == expected
    assert abs(high).max() <= 64 and low.min() >= -128 and low.max() <= 127
    matrix = np.stack([np.zeros_like(row)] * 17 + [row])
    packed, scales = products.pack(np.zeros(matrix.shape, dtype=np.int16)), np.zeros(len(matrix), dtype=np.float32)
    weights.pack_rows(matrix, packed, scales)
    q = products.unpack(packed, *matrix.shape)
    assert q[17].tolist() == expected and not q[:17].any()
    assert scales.tolist() == [2.0**-60] * 17 + [2.0**exponent]


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 2.0**120, -(2.0**127)])
def test_a_row_that_is_too_large_is_reported(value):
    row = np.array([1.0, value, 2.0], dtype=np.float32)
    assert arithmetic.quantise(row, np.empty(3, dtype=np.int16))[1]
    assert arithmetic.quantise_digits(row, *np.empty((2, 3), dtype=np.int16))[1]
    assert arithmetic.norm(row, row, row, 1e-5, True, np.empty_like(row))


@given(ROWS, st.booleans())
@settings(deadline=None)
def test_norms_are_what_they_say(row, layer):
    row = np.array(row, dtype=np.float32)
    random = np.random.default_rng(len(row))
    gain, bias = random.standard_normal((2, len(row))).astype(np.float32)
    out = np.empty_like(row)
    assert not arithmetic.norm(row, gain, bias, 1e-5, layer, out)
    q, exponent = expected_quantisation(row, -69, 23)
    unit, n = np.float64(2.0**exponent), np.float64(len(row))
    variance = np.float64(sum(x * x for x in q)) / n
    if layer:
        mean = np.float64(sum(q)) / n
        variance = max(variance - mean * mean, np.float64(0))
    inverse = np.float32(np.float64(1) / np.sqrt(variance * unit * unit + np.float64(1e-5)))
    expected = (row - np.float32(mean * unit)) * inverse * gain + bias if layer else row * inverse * gain
    assert np.array_equal(out, expected)


def test_norms_are_close_to_norms():
    row = np.random.default_rng(0).standard_normal(777).astype(np.float32) * 3 + 1
    gain, bias, out = np.ones_like(row), np.zeros_like(row), np.empty_like(row)
    arithmetic.norm(row, gain, bias, 1e-5, True, out)
    exact = row.astype(np.float64)
    assert np.abs(out - (exact - exact.mean()) / np.sqrt(exact.var() + 1e-5)).max() < 1e-6
    arithmetic.norm(row, gain, bias, 1e-6, False, out)
    assert np.abs(out - exact / np.sqrt((exact**2).mean() + 1e-6)).max() < 1e-6


# --- functions --------------------------------------------------------------------------------------------------------


@arithmetic.compiled
def _each(x, which, out):
    for i in range(len(x)):
        if which == 0:
            p, k = arithmetic.exponential(x[i])
            out[i] = p * arithmetic.power_of_two(k)
        elif which == 1:
            out[i] = arithmetic.sigmoid(x[i])
        else:
            out[i] = arithmetic.erf(x[i])


def values(which, x):
    out = np.empty_like(x)
    _each(x, which, out)
    return out.astype(np.float64)


def test_functions_are_close_to_what_they_stand_for():
    x = np.linspace(-40, 0, 200001).astype(np.float32)
    assert np.abs(values(0, x) / np.exp(x.astype(np.float64)) - 1).max() < 3e-6  # d·log2 e is rounded: grows with |d|
    near = x[x > -1]
    assert np.abs(values(0, near) / np.exp(near.astype(np.float64)) - 1).max() < 3e-7
    assert values(0, np.array([0, -np.inf], dtype=np.float32)).tolist() == [1.0, 2.0**-60]
    x = np.linspace(-20, 20, 200001).astype(np.float32)
    exact = x.astype(np.float64)
    assert np.abs(values(1, x) - 1 / (1 + np.exp(-exact))).max() < 2e-7
    assert np.abs(values(2, x) - np.array([math.erf(v) for v in exact])).max() < 4e-7


@pytest.mark.parametrize(
    "activation, function",
    [
        (arithmetic.GELU, lambda x: x / 2 * (1 + np.array([math.erf(v / math.sqrt(2)) for v in x]))),
        (arithmetic.GELU_TANH, lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
        (arithmetic.SILU, lambda x: x / (1 + np.exp(-x))),
    ],
)
def test_activations(activation, function):
    x = np.linspace(-12, 12, 50001).astype(np.float32)
    out = np.empty_like(x)
    arithmetic.activate(x, activation, False, out)
    assert np.abs(out - function(x.astype(np.float64))).max() < 2e-6
    gated = np.empty(25000, dtype=np.float32)
    arithmetic.activate(x[:50000], activation, True, gated)
    assert np.array_equal(gated, out[:25000] * x[25000:50000])
    large = np.array([3e38, 1e30, -3e38, -1e30, 0.0], dtype=np.float32)
    out = np.empty_like(large)
    arithmetic.activate(large, activation, False, out)
    assert np.abs(out[:4] / large[:4] - [1, 1, 0, 0]).max() < 1e-6 and out[4] == 0


# --- products ---------------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 40), st.integers(1, 70), st.sampled_from((1, 2, 3, 31, 512, 513, 1024, 1500)), st.integers(0, 2**32)
)
@settings(deadline=None, max_examples=60)
def test_products_are_exact(rows, outputs, inputs, seed):
    random = np.random.default_rng(seed)
    q = random.integers(-(2**14), 2**14 + 1, (rows, inputs))
    w = random.integers(-(2**14), 2**14 + 1, (outputs, inputs)).astype(np.int16)
    q[0], w[0] = 2**14, -(2**14)  # the largest sum there is
    packed = products.pack(w)
    assert np.array_equal(products.unpack(packed, outputs, inputs), w)
    blocks, pairs = packed.shape[:2]
    x = np.zeros((rows + products.GROUP, 2, 2 * pairs), dtype=np.int16)
    x[:rows, 0, :inputs] = (q + 128) >> 8
    x[:rows, 1, :inputs] = q - 256 * ((q + 128) >> 8)
    row_scales = np.ldexp(np.float32(1), random.integers(-9, 9, len(x))).astype(np.float32)
    scales = np.ldexp(np.float32(1), random.integers(-9, 9, 16 * blocks)).astype(np.float32)
    bias = random.standard_normal(16 * blocks).astype(np.float32)
    out = np.empty((len(x), 16 * blocks), dtype=np.float32)
    products.linear(packed, blocks, pairs, x, 0, rows, row_scales, scales, bias, out)
    sums = (q.astype(object) @ w.T.astype(object)).astype(np.int64)
    expected = sums.astype(np.float32) * row_scales[:rows, None] * scales[:outputs] + bias[:outputs]
    assert np.array_equal(out[:rows, :outputs], expected)


# --- rotary tables ----------------------------------------------------------------------------------------------------


def test_rotary_tables():
    rates = rotary.frequencies(20, 10000.0, None)
    assert rates.dtype == np.float32 and rates[0] == 1
    cosines, sines = rotary.tables(rates, 1500)
    angles = np.arange(1500)[:, None] * rates.astype(np.float64)
    for table, function in ((cosines, np.cos), (sines, np.sin)):
        assert table.dtype == np.float32 and table.shape == (1500, 10)
        integers = np.rint(function(angles) * 2**30)  # numpy's is right to 2^-50: doubt only next to a tie
        doubtful = np.abs(np.abs(function(angles) * 2**30 - integers) - 0.5) < 1e-4
        assert np.array_equal(table[~doubtful], (integers.astype(np.float32) * np.float32(2.0**-30))[~doubtful])
        assert doubtful.mean() < 1e-3


def test_rotary_rates_are_those_of_transformers():
    import torch
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    scaling = {
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    for kind, own, parameters in (
        ("default", None, {}),
        ("linear", ("linear", 3.0), {"factor": 3.0}),
        ("llama3", ("llama3", *scaling.values()), scaling),
    ):
        rope = {"rope_type": kind, "rope_theta": 500000.0} | parameters
        sizes = {"hidden_size": 256, "num_attention_heads": 2, "max_position_embeddings": 131072}
        config = LlamaConfig(**sizes, rope_parameters=rope)
        theirs = LlamaRotaryEmbedding(config).inv_freq.to(torch.float32).numpy()
        ours = rotary.frequencies(128, 500000.0, own)
        assert np.abs(ours / theirs - 1).max() < 3e-7
