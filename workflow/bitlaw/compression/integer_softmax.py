"""The softmax in integers: logits to the intervals that are coded, the same ones on the processor and on a GPU.

A row of logits becomes integer weights w = int(e^(l - max l) * 2^26) by `_fine` below, and frequencies w + 1, so
that every token can be coded and the total is an exact integer: the same for encoder and decoder, whatever the
order of summation. Only integer and correctly rounded float32 operations are used, in a fixed order, so equal
logits give equal intervals on every machine.
"""

import math

import numpy as np
import torch
from numba import njit

LOG2_E = np.float32(math.log2(math.e))
# 2^f on [-1/2, 1/2] by Horner's rule: Taylor's coefficients (ln 2)^n / n!, the rest is below float32's resolution
_TAYLOR = [np.float32(math.log(2) ** n / math.factorial(n)) for n in range(7)]
_ONE, _P1, _P2, _P3, _P4, _P5, _P6 = _TAYLOR
_HALF, _UNIT, _LEAST = np.float32(0.5), np.float32(1 << 24), np.float32(-60)
ELEMENTS = 1 << 23  # of one block of rows on a GPU: 40 bytes each


@njit(inline="always")
def _fine(difference):
    """int(e^difference * 2^38) for a float32 difference <= 0; its upper part, >> 12, is the weight w."""
    y = difference * LOG2_E
    y = y if y > _LEAST else _LEAST
    k = np.int32(y - _HALF)
    f = y - np.float32(k)
    p = _P6
    p = p * f + _P5
    p = p * f + _P4
    p = p * f + _P3
    p = p * f + _P2
    p = p * f + _P1
    p = p * f + _ONE
    return (np.int64(np.int32(p * _UNIT)) << 14) >> np.int64(-k)


@njit(cache=True)
def _largest(bits):
    """Index-free maximum of a row of float32, given as int32 bits; (key, whether any is NaN or infinite)."""
    key, bad = np.int32(-(2**31)), np.int32(0)
    for i in range(np.uint64(len(bits))):
        b = bits[i]
        bad |= np.int32((b & np.int32(0x7F800000)) == np.int32(0x7F800000))
        key = max(key, np.int32(b ^ ((b >> np.int32(31)) & np.int32(0x7FFFFFFF))))  # order of floats as integers
    return np.int32(key ^ ((key >> np.int32(31)) & np.int32(0x7FFFFFFF))), bad


@njit(cache=True)
def _part(row, top, first, last):
    """Sum of weights and of fine weights over row[first:last]."""
    weight, fine = np.int64(0), np.int64(0)
    for v in range(np.uint64(first), np.uint64(last)):  # unsigned: an index that may be negative is not vectorised
        e = _fine(row[v] - top)
        weight += e >> 12
        fine += e
    return weight, fine


@njit(cache=True)
def _length(fine, logit, largest):
    """-log2 of the softmax, in bits, from the sum of fine weights, the token's logit and the largest."""
    return math.log2(fine / 2.0**38) - (np.float64(logit) - np.float64(largest)) * math.log2(math.e)


@njit(cache=True, nogil=True)
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
        lengths[i] = _length(fine_below + fine_above, row[target], largest)
    return -1


@njit(cache=True)
def _lengths(fine, logit, largest, lengths):
    for i in range(len(fine)):
        lengths[i] = _length(fine[i], logit[i], largest[i])


@njit(cache=True)
def _cumulate(row, bits, cumulative):
    top = np.empty(1, dtype=np.int32)
    top[0], bad = _largest(bits)
    if bad:
        return False
    largest = top.view(np.float32)[0]
    total = np.int64(0)
    for v in range(len(row)):
        cumulative[v] = np.uint64(total)
        total += (_fine(row[v] - largest) >> 12) + 1
    cumulative[len(row)] = np.uint64(total)
    return True


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
        raise FloatingPointError(f"the model gives a logit that is NaN or infinite (row {bad}); try precision fp32")
    return out


def cumulative(logits):
    """The decoder's side of `intervals`: cumulative frequencies, uint64 `[vocabulary + 1]`, of one row of logits."""
    out = np.empty(len(logits) + 1, dtype=np.uint64)
    if not _cumulate(logits, logits.view(np.int32), out):
        raise FloatingPointError("the model gives a logit that is NaN or infinite; try precision fp32")
    return out


def integers(logits, targets):
    """int64 `[7, rows]` on the device of `logits`, float32 `[rows, vocabulary]`, for `from_integers`; targets int64.

    Each step of `_intervals` is a torch operation of its own, so none is fused into a multiply-add, and what leaves a
    GPU is 56 bytes a token: the sum of weights before the target, its weight, the sum of all weights, that of all fine
    weights, the target's and the largest logit as the bits of a float32, and whether one is NaN or infinite.
    """
    rows = max(1, ELEMENTS // logits.shape[1])
    parts = zip(logits.split(rows), targets.to(logits.device).split(rows), strict=True)
    return torch.cat([_integers(*part) for part in parts], 1)


def _integers(logits, targets):
    targets = targets[:, None]
    largest = logits.amax(1, keepdim=True)
    y = (logits - largest).mul_(float(LOG2_E)).clamp_(min=float(_LEAST))
    k = (y - 0.5).to(torch.int32)
    y -= k  # int32 to float32, exact
    p = torch.full_like(y, float(_TAYLOR[6]))
    for coefficient in _TAYLOR[5::-1]:
        p.mul_(y).add_(float(coefficient))
    fine = p.mul_(1 << 24).to(torch.int64).bitwise_left_shift_(14).bitwise_right_shift_(k.neg_())
    weights = fine >> 12
    before = torch.arange(logits.shape[1], device=logits.device) < targets
    chosen = logits.gather(1, targets)
    return torch.stack(
        (
            (weights * before).sum(1),
            weights.gather(1, targets)[:, 0],
            weights.sum(1),
            fine.sum(1),
            chosen[:, 0].contiguous().view(torch.int32).long(),
            largest[:, 0].contiguous().view(torch.int32).long(),
            (~logits.isfinite()).any(1).long(),
        )
    )


def from_integers(found, targets, vocabulary):
    """What `intervals` returns, from `integers`, as a numpy array."""
    below, own, total, fine, logit, largest, bad = found
    if bad.any():
        raise FloatingPointError(
            f"the model gives a logit that is NaN or infinite (row {bad.argmax()}); try precision fp32"
        )
    lengths = np.empty(len(fine), dtype=np.float64)
    _lengths(fine, *(bits.astype(np.int32).view(np.float32) for bits in (logit, largest)), lengths)
    return (*(a.astype(np.uint64) for a in (below + targets, own + 1, total + vocabulary)), lengths)
