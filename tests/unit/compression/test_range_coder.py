"""The range coder: what goes in comes out, at the ideal size but for a stated loss."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bitlaw.compression import range_coder


@st.composite
def symbol(draw, largest=range_coder.MAX_TOTAL):
    """(start, frequency, total), with the extremes of each more often than chance would have it."""
    total = draw(st.one_of(st.integers(1, 300), st.integers(1, largest), st.just(largest)))
    start = draw(st.one_of(st.just(0), st.just(total - 1), st.integers(0, total - 1)))
    frequency = draw(st.one_of(st.just(1), st.just(total - start), st.integers(1, total - start)))
    return start, frequency, total


def columns(symbols):
    return np.array(symbols, dtype=np.uint64).reshape(-1, 3).T


def decode_back(data, symbols):
    """Assert that `data` decodes to `symbols` when the decoder is told each total and looks up each interval."""
    state, data = range_coder.start_decoding(data)
    for start, frequency, total in symbols:
        assert start <= range_coder.target(state, np.uint64(total)) < start + frequency
        range_coder.consume(state, data, *map(np.uint64, (start, frequency, total)))


def ideal_bits(starts, frequencies, totals):
    return float(np.sum(np.log2(totals.astype(float)) - np.log2(frequencies.astype(float))))


@settings(max_examples=120, deadline=None)
@given(st.lists(symbol(), max_size=30))
@example([(0, 1, range_coder.MAX_TOTAL)] * 50)
@example([(range_coder.MAX_TOTAL - 1, 1, range_coder.MAX_TOTAL)] * 50)
@example([(0, 1, 1)] * 50)
def test_any_intervals_come_back(symbols):
    decode_back(range_coder.encode(*columns(symbols)), symbols)


@settings(max_examples=60, deadline=None)
@given(st.lists(symbol(1 << 42), max_size=50))
def test_size_is_within_8_bits_of_the_ideal_and_a_ten_thousandth_of_a_bit_a_symbol(symbols):
    intervals = columns(symbols)
    assert 8 * len(range_coder.encode(*intervals)) <= ideal_bits(*intervals) + 1e-4 * len(symbols) + 8


@settings(max_examples=60, deadline=None)
@given(st.lists(symbol(), max_size=50))
def test_size_is_within_the_stated_loss_for_every_total(symbols):
    intervals = columns(symbols)
    # total / 2^56 of the span is lost at most
    loss = float(np.sum(-np.log2(1 - intervals[2] / 2.0**56)))
    assert 8 * len(range_coder.encode(*intervals)) <= ideal_bits(*intervals) + loss + 8 + 1e-9


def test_long_streams_are_as_short_as_the_ideal():
    rng = np.random.default_rng(5)
    frequencies = rng.integers(1, 1 << 26, 20000).astype(np.uint64)
    totals = np.full(20000, (1 << 26) + 50304, dtype=np.uint64)
    starts = (rng.random(20000) * (totals - frequencies)).astype(np.uint64)
    size = 8 * len(range_coder.encode(starts, frequencies, totals))
    ideal = ideal_bits(starts, frequencies, totals)
    assert ideal - 1 <= size <= ideal + 8.1


def exact(symbols):
    """(low, span, bits) of the final interval [low, low + span) / 2^bits, in integers that hold every carry."""
    low, span, bits = 0, (1 << 64) - 1, 64
    for start, frequency, total in symbols:
        unit = span // total
        low, span = low + unit * start, unit * frequency
        while span < 1 << 56:
            low, span, bits = low << 8, span << 8, bits + 8
    return low, span, bits


@settings(max_examples=60, deadline=None)
@given(st.lists(symbol(), max_size=30))
def test_the_code_is_a_number_inside_the_exact_final_interval(symbols):
    low, span, bits = exact(symbols)
    data = range_coder.encode(*columns(symbols))
    assert 8 * len(data) <= bits
    assert low <= int.from_bytes(data, "big") << (bits - 8 * len(data)) < low + span


@pytest.mark.parametrize("count", [20, 60, 300])
def test_a_carry_runs_through_bytes_of_255(count):
    # the symbols of exactly one half: their interval begins just below it, at 7F FF FF ...
    table = np.array([[1, 1, 1]])
    symbols = [(int(s), 1, 3) for s in range_coder.decode(b"\x80", table, [0] * count)]
    low, _, bits = exact(symbols)
    run = count * 3 // 2 // 8 - 2
    assert low.to_bytes(bits // 8, "big").startswith(b"\x7f" + b"\xff" * run)
    across = [*symbols, (2, 1, 3), (2, 1, 3), (2, 1, 3)]  # now it begins above
    data = range_coder.encode(*columns(across))
    assert data.startswith(b"\x80" + bytes(run - 1)) and len(data) > run
    decode_back(data, across)


def test_nothing_is_coded_as_nothing():
    assert range_coder.encode([], [], []) == b""
    assert range_coder.decode(b"", np.array([[1, 1]]), []).tolist() == []


@settings(max_examples=60, deadline=None)
@given(st.lists(symbol(), max_size=30), st.integers(0, 20))
def test_trailing_zeros_are_stripped_and_do_not_matter(symbols, zeros):
    data = range_coder.encode(*columns(symbols))
    assert not data.endswith(b"\0")
    decode_back(data + bytes(zeros), symbols)


def test_a_stream_of_first_symbols_is_empty():
    assert range_coder.encode([0] * 9, [1] * 9, [1000] * 9) == b""
    assert range_coder.decode(b"", np.array([[1, 999]]), [0] * 9).tolist() == [0] * 9


@pytest.mark.parametrize(
    "improper",
    [
        (0, 0, 5),
        (5, 1, 5),
        (4, 2, 5),
        (0, 6, 5),
        (0, 1, 0),
        (0, 1, range_coder.MAX_TOTAL + 1),
        (2**64 - 1, 2, 2**64 - 1),
    ],
)
@pytest.mark.parametrize("place", [0, 2])
def test_an_improper_interval_is_refused(improper, place):
    symbols = [(1, 2, 5)] * 2
    symbols.insert(place, improper)
    with pytest.raises(ValueError, match=rf"symbol {place}\b"):
        range_coder.encode(*columns(symbols))


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="differ in length"):
        range_coder.encode([0, 0], [1, 1], [2])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_symbols_come_back_under_tables(data):
    count = data.draw(st.integers(2, 40) | st.integers(250, 600))
    weights = st.lists(st.integers(1, 1 << 40), min_size=count, max_size=count)
    tables = np.array([data.draw(weights) for _ in range(3)], dtype=np.uint64)
    rows = np.array(data.draw(st.lists(st.integers(0, 2), max_size=50)), dtype=int)
    symbols = np.array([data.draw(st.integers(0, count - 1)) for _ in rows], dtype=int)
    starts = np.array([tables[row, :symbol].sum() for row, symbol in zip(rows, symbols, strict=True)])
    coded = range_coder.encode(starts, tables[rows, symbols], tables[rows].sum(axis=1))
    assert range_coder.decode(coded, tables, rows).tolist() == symbols.tolist()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40), st.lists(st.integers(1, 1 << 40), min_size=1, max_size=20))
def test_any_bytes_decode_to_symbols_of_the_table(garbage, weights):
    table = np.array([weights], dtype=np.uint64)
    found = range_coder.decode(garbage, table, [0] * 30)
    assert ((found >= 0) & (found < len(weights))).all()
