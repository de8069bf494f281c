"""The entropy coder: integer intervals to bytes and back.

A range coder in the manner of Subbotin and Schindler with carry propagation: 64 bits of `low` and `span`,
output byte by byte, `span` kept at 2^56 or more. A symbol that owns [start, start + frequency) of `total`
costs log2(total / frequency) bits plus less than total / 2^56 * log2(e), from the integer division: 9e-5
bits at a total of 2^42. The end costs at most 8 bits: some multiple of 2^56 always lies in the final span.
"""

import numpy as np

from bitlaw.runtime.compiling import compiled

BLOCK = 256  # symbols whose frequencies are summed at once in the search for a symbol
MAX_TOTAL = 1 << 48  # a division by more would waste over 2^-8 of the span
_MASK = np.uint64(0xFFFFFFFFFFFFFFFF)
_FLOOR = np.uint64(1 << 56)
_BYTE = np.uint64(8)
_TOP = np.uint64(56)
_ONE = np.uint64(1)
_ZERO = np.uint64(0)


@compiled
def _carry(out, size):
    i = size - 1
    while out[i] == 255:
        out[i] = 0
        i -= 1
    out[i] += 1


@compiled
def _encode(starts, frequencies, totals, out):
    """Bytes written to `out`; -1 - i when interval i is not a proper part of its total."""
    low, span, size = _ZERO, _MASK, 0
    for i in range(len(starts)):
        start, frequency, total = starts[i], frequencies[i], totals[i]
        if frequency == _ZERO or total > np.uint64(MAX_TOTAL) or start >= total or frequency > total - start:
            return -1 - i
        unit = span // total
        before = low
        low += unit * start
        if low < before:
            _carry(out, size)
        span = unit * frequency
        while span < _FLOOR:
            out[size] = np.uint8(low >> _TOP)
            size += 1
            low <<= _BYTE
            span <<= _BYTE
    # the multiple of 2^56 at or above low: one byte, then zeros, which need not be written
    last = low + (_FLOOR - _ONE)
    if last < low:
        _carry(out, size)
    out[size] = np.uint8(last >> _TOP)
    size += 1
    while size > 0 and out[size - 1] == 0:
        size -= 1
    return size


def encode(starts, frequencies, totals):
    """Code the intervals [start, start + frequency) of [0, total), one a symbol, into bytes.

    All three are integer arrays `[symbols]`, taken as uint64; trailing zero bytes of the result are stripped
    (the decoder reads zeros past the end). Raises ValueError for an empty or improper interval or a total
    above 2^48.
    """
    starts, frequencies, totals = (np.ascontiguousarray(a, dtype=np.uint64) for a in (starts, frequencies, totals))
    if not len(starts) == len(frequencies) == len(totals):
        raise ValueError("starts, frequencies and totals differ in length")
    out = np.zeros(8 * len(starts) + 16, dtype=np.uint8)  # a symbol shifts out 6 bytes at the most
    size = _encode(starts, frequencies, totals, out)
    if size < 0:
        i = -1 - size
        raise ValueError(f"symbol {i}: [{starts[i]}, +{frequencies[i]}) of {totals[i]} is no interval (total <= 2^48)")
    return out[:size].tobytes()


def start_decoding(data):
    """(state, data as uint8 array): `state`, uint64 `[3]`, holds code - low, the span and the next position."""
    data = np.frombuffer(bytes(data), dtype=np.uint8)
    head = data[:8].tobytes().ljust(8, b"\0")
    return np.array([int.from_bytes(head, "big"), _MASK, 8], dtype=np.uint64), data


@compiled
def target(state, total):
    """Where in [0, total) the next symbol's interval lies; `total` (uint64) is what the encoder had."""
    t = state[0] // (state[1] // total)
    return min(t, total - _ONE)  # only a damaged stream reaches past the end


@compiled
def consume(state, data, start, frequency, total):
    """Remove the symbol [start, start + frequency) of `total` (all uint64) from the stream."""
    unit = state[1] // total
    code = state[0] - unit * start
    span = unit * frequency
    position = state[2]
    while span < _FLOOR:
        byte = np.uint64(data[position]) if position < np.uint64(len(data)) else _ZERO
        code = (code << _BYTE) | byte
        span <<= _BYTE
        position += _ONE
    state[0], state[1], state[2] = code, span, position


@compiled
def decode_uniform(state, data, count):
    """Next symbol of `count` equally likely ones."""
    total = np.uint64(count)
    symbol = target(state, total)
    consume(state, data, symbol, _ONE, total)
    return symbol


@compiled
def decode_symbol(state, data, frequencies, total):
    """(next symbol, its start): of frequencies, uint64 `[symbols]`, each at least 1, and their `total` (uint64)."""
    sought = target(state, total)
    symbol, start = 0, _ZERO
    while symbol + BLOCK <= len(frequencies):  # by blocks first, whose sums are vectorised
        block = _ZERO
        for i in range(np.uint64(symbol), np.uint64(symbol + BLOCK)):
            block += frequencies[i]
        if start + block > sought:
            break
        start += block
        symbol += BLOCK
    while start + frequencies[symbol] <= sought:
        start += frequencies[symbol]
        symbol += 1
    consume(state, data, start, frequencies[symbol], total)
    return symbol, start


@compiled
def _decode(state, data, frequencies, totals, rows, out):
    for i in range(len(out)):
        out[i], _ = decode_symbol(state, data, frequencies[rows[i]], totals[rows[i]])


def decode(data, frequencies, rows):
    """Decode len(rows) symbols, the i-th under row rows[i] of `frequencies` (uint64 `[tables, symbols]`)."""
    state, data = start_decoding(data)
    out = np.empty(len(rows), dtype=np.int64)
    frequencies = np.ascontiguousarray(frequencies, dtype=np.uint64)
    _decode(state, data, frequencies, frequencies.sum(axis=1), np.asarray(rows, dtype=np.int64), out)
    return out
