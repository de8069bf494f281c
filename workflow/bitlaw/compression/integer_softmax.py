"""The softmax in integers: logits to the intervals that are coded, for the encoder and for the decoder.

A row of logits becomes integer weights w = int(e^(l - max l) * 2^26) by `_fine` below, and frequencies w + 1, so
that every token can be coded and the total is an exact integer: the same for encoder and decoder, whatever the
order of summation. Only integer and correctly rounded float32 operations are used, in a fixed order, so equal
logits give equal intervals on every machine (docs/arithmetic.md, section 8).
"""

import math

import numpy as np
from numba import njit

from bitlaw.models.exact.arithmetic import exponential
from bitlaw.runtime.compiling import compiled

_UNIT = np.float32(1 << 24)
NOT_FINITE = "the model gives a logit that is NaN or infinite (row {row}); try another precision or checkpoint"


@njit(inline="always")
def _fine(difference):
    """int(e^difference * 2^38) for a float32 difference <= 0; its upper part, >> 12, is the weight w."""
    p, k = exponential(difference)
    return (np.int64(np.int32(p * _UNIT)) << 14) >> np.int64(-k)


@compiled
def _largest(bits):
    """Index-free maximum of a row of float32, given as int32 bits; (key, whether any is NaN or infinite)."""
    key, bad = np.int32(-(2**31)), np.int32(0)
    for i in range(np.uint64(len(bits))):
        b = bits[i]
        bad |= np.int32((b & np.int32(0x7F800000)) == np.int32(0x7F800000))
        key = max(key, np.int32(b ^ ((b >> np.int32(31)) & np.int32(0x7FFFFFFF))))  # order of floats as integers
    return np.int32(key ^ ((key >> np.int32(31)) & np.int32(0x7FFFFFFF))), bad


@compiled
def _part(row, top, first, last):
    """Sum of weights and of fine weights over row[first:last]."""
    weight, fine = np.int64(0), np.int64(0)
    for v in range(np.uint64(first), np.uint64(last)):  # unsigned: an index that may be negative is not vectorised
        e = _fine(row[v] - top)
        weight += e >> 12
        fine += e
    return weight, fine


@compiled
def code_length(fine, logit, largest):
    """-log2 of the softmax, in bits, from the sum of fine weights, the token's logit and the largest."""
    return math.log2(fine / 2.0**38) - (np.float64(logit) - np.float64(largest)) * math.log2(math.e)


@compiled
def _intervals(logits, bits, targets, starts, frequencies, totals, lengths):
    """Fill the last four arrays for each row; returns the number of a row that is not finite, or -1."""
    top = np.empty(1, dtype=np.int32)
    for i in range(len(targets)):
        row, target = logits[i], targets[i]
        top[0], bad = _largest(bits[i])
        if bad:
            return i
        largest = top.view(np.float32)[0]
        below, fine_below = _part(row, largest, 0, target)
        above, fine_above = _part(row, largest, target, len(row))
        own = _fine(row[target] - largest) >> 12
        starts[i] = below + target
        frequencies[i] = own + 1
        totals[i] = below + above + len(row)
        lengths[i] = code_length(fine_below + fine_above, row[target], largest)
    return -1


@compiled
def frequencies(row, out):
    """Fill `out`, uint64 `[vocabulary]`, with the frequencies under the float32 logits `row`; return their total.

    0 where a logit is NaN or infinite: `NOT_FINITE` says so. For a decoder, which does not know the token yet.
    """
    top = np.empty(1, dtype=np.int32)
    top[0], bad = _largest(row.view(np.int32))
    if bad:
        return np.uint64(0)
    largest = top.view(np.float32)[0]
    total = np.uint64(0)
    for v in range(np.uint64(len(row))):
        out[v] = np.uint64((_fine(row[v] - largest) >> 12) + 1)
        total += out[v]
    return total


def intervals(logits, targets):
    """(starts, frequencies, totals, lengths) of `targets` under `logits`.

    logits float32 `[rows, vocabulary]`, targets int `[rows]`; the first three are uint64 `[rows]`, lengths is
    float64 `[rows]`: -log2 of the softmax in bits, before frequencies are made integers. Raises
    FloatingPointError where a logit is NaN or infinite.
    """
    logits = np.ascontiguousarray(logits)
    targets = np.ascontiguousarray(targets, dtype=np.int64)
    out = tuple(np.empty(len(targets), dtype=t) for t in (np.uint64, np.uint64, np.uint64, np.float64))
    bad = _intervals(logits, logits.view(np.int32), targets, *out)
    if bad >= 0:
        raise FloatingPointError(NOT_FINITE.format(row=bad))
    return out
