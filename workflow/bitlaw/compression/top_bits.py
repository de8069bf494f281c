"""The plane of top bits as coding intervals: an adaptive binary model in front of every chunk's tokens.

First a flag, one bit, says whether any top bit is set; if so, one bit a byte follows under Krichevsky and
Trofimov's estimate (n1 + 1/2) / (n + 1), counted apart for each of 8 contexts: the top bits of the two bytes
before (16-bit samples: the byte of the same place is two back) and the parity of the position.
"""

import numpy as np

from bitlaw.compression.range_coder import consume, target
from bitlaw.runtime.compiling import compiled


@compiled
def _context(bits, i):
    one = bits[i - 1] if i > 0 else 0
    two = bits[i - 2] if i > 1 else 0
    return 4 * (i & 1) + 2 * one + two


@compiled
def _intervals(bits, starts, frequencies, totals):
    counts = np.ones((8, 2), dtype=np.int64)  # twice the count plus one, so that a half is an integer
    for i in range(len(bits)):
        c = _context(bits, i)
        zero, one = counts[c, 0], counts[c, 1]
        starts[i] = zero if bits[i] else 0
        frequencies[i] = one if bits[i] else zero
        totals[i] = zero + one
        counts[c, bits[i]] += 2


@compiled
def _decode(state, data, bits):
    counts = np.ones((8, 2), dtype=np.int64)
    for i in range(len(bits)):
        c = _context(bits, i)
        zero, one = np.uint64(counts[c, 0]), np.uint64(counts[c, 1])
        bits[i] = 1 if target(state, zero + one) >= zero else 0
        if bits[i]:
            consume(state, data, zero, one, zero + one)
        else:
            consume(state, data, np.uint64(0), zero, zero + one)
        counts[c, bits[i]] += 2


def intervals(bits):
    """(starts, frequencies, totals), uint64 arrays: the intervals that code the plane `bits`, uint8 `[bytes]`.

    One for the flag, then one for each bit if any is set; none for no bytes.
    """
    bits = np.ascontiguousarray(bits, dtype=np.uint8)
    if not len(bits):
        return tuple(np.empty((3, 0), dtype=np.uint64))
    flag = int(bits.any())
    coded = bits if flag else bits[:0]
    out = np.empty((3, 1 + len(coded)), dtype=np.uint64)
    out[:, 0] = (flag, 1, 2)
    _intervals(coded, out[0, 1:], out[1, 1:], out[2, 1:])
    return tuple(out)


def ideal_bits(bits):
    """What a coder without loss writes for the flag and the plane `bits` (uint8 `[bytes]`), in bits."""
    _, frequencies, totals = intervals(bits)
    return float(np.sum(np.log2(totals / frequencies)))


def decode(state, data, size):
    """Decode the flag and the plane of `size` bytes from an open stream (see `range_coder`): uint8 `[size]`."""
    bits = np.zeros(size, dtype=np.uint8)
    if size:
        two = np.uint64(2)
        flag = target(state, two)
        consume(state, data, flag, np.uint64(1), two)
        if flag:
            _decode(state, data, bits)
    return bits
