"""The plane of top bits: it comes back, and costs what Krichevsky and Trofimov's estimate says."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitlaw.compression import range_coder, top_bits
from bitlaw.data import seven_bit

BITS = st.one_of(
    st.lists(st.integers(0, 1), max_size=300),
    st.lists(st.sampled_from([0] * 30 + [1]), max_size=300),
    st.integers(0, 300).map(lambda n: [1] * n),
)


@settings(max_examples=60, deadline=None)
@given(BITS)
def test_any_bits_come_back(bits):
    intervals = top_bits.intervals(np.array(bits, dtype=np.uint8))
    state, data = range_coder.start_decoding(range_coder.encode(*intervals))
    assert top_bits.decode(state, data, len(bits)).tolist() == bits
    assert 8 * len(data) <= top_bits.ideal_bits(np.array(bits, dtype=np.uint8)) + 8 + 1e-6


@settings(max_examples=60, deadline=None)
@given(BITS)
def test_what_follows_the_plane_in_the_stream_comes_back(bits):
    after = (np.array([3, 41], dtype=np.uint64), np.array([1, 9], dtype=np.uint64), np.array([7, 50], dtype=np.uint64))
    both = (np.concatenate(pair) for pair in zip(top_bits.intervals(np.array(bits, np.uint8)), after, strict=True))
    state, data = range_coder.start_decoding(range_coder.encode(*both))
    top_bits.decode(state, data, len(bits))
    assert range_coder.target(state, np.uint64(7)) == 3
    range_coder.consume(state, data, np.uint64(3), np.uint64(1), np.uint64(7))
    assert 41 <= range_coder.target(state, np.uint64(50)) < 50


@pytest.mark.parametrize("size", [1, 2, 2048])
def test_a_plane_of_zeros_costs_one_bit(size):
    assert top_bits.ideal_bits(np.zeros(size, dtype=np.uint8)) == 1


def test_no_bytes_cost_nothing():
    nothing = np.empty(0, dtype=np.uint8)
    assert [len(column) for column in top_bits.intervals(nothing)] == [0, 0, 0] and top_bits.ideal_bits(nothing) == 0


@settings(max_examples=60, deadline=None)
@given(BITS)
def test_the_cost_is_that_of_the_estimate_by_context(bits):
    probability = Fraction(1, 2) if bits else Fraction(1)
    seen = {}
    for i, bit in enumerate(bits if any(bits) else []):
        context = (bits[i - 1] if i > 0 else 0, bits[i - 2] if i > 1 else 0, i % 2)
        history = seen.setdefault(context, [])
        probability *= (history.count(bit) + Fraction(1, 2)) / (len(history) + 1)
        history.append(bit)
    expected = math.log2(probability.denominator) - math.log2(probability.numerator)
    assert top_bits.ideal_bits(np.array(bits, dtype=np.uint8)) == pytest.approx(expected, abs=1e-9)


def test_one_period_of_16_bit_samples_is_learnt():
    bits = np.tile([0, 1], 1024).astype(np.uint8)  # every other byte is the upper half of a negative sample
    assert top_bits.ideal_bits(bits) < 20


@given(st.binary())
def test_bytes_are_their_ascii_image_and_their_top_bits(data):
    text, bits = seven_bit.to_ascii(data), seven_bit.top_bits(data)
    assert text == "".join(chr(b % 128) for b in data) and bits.tolist() == [b // 128 for b in data]
    assert seven_bit.from_ascii(text.encode(), bits) == data
