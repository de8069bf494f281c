"""Tokens and a model to integer coding intervals and code lengths, in one teacher-forced pass.

A row of logits becomes integer weights w = int(e^(l - max l) * 2^26) by `_fine` below, and frequencies w + 1, so
that every token can be coded and the total is an exact integer: the same for encoder and decoder, whatever the
order of summation. Only integer and correctly rounded float32 operations are used, in a fixed order, so equal
logits give equal intervals on every machine.
"""

import math
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import NamedTuple

import numpy as np
import torch
from numba import njit

from bitlaw.progress import progress

HEAD_ROWS = 512  # logits exist for this many positions at a time, in one reused buffer
LOG2_E = np.float32(math.log2(math.e))
# 2^f on [-1/2, 1/2] by Horner's rule: Taylor's coefficients (ln 2)^n / n!, the rest is below float32's resolution
_P1, _P2, _P3, _P4, _P5, _P6 = [np.float32(math.log(2) ** n / math.factorial(n)) for n in range(1, 7)]
_HALF, _ONE, _UNIT, _LEAST = np.float32(0.5), np.float32(1), np.float32(1 << 24), np.float32(-60)


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


@njit(cache=True, nogil=True)
def _intervals(logits, bits, targets, starts, frequencies, totals, lengths):
    """Fill the last four arrays for each row; returns the number of a row that is not finite, or -1."""
    scale = 2.0**38
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
        log_sum = math.log2((fine_below + fine_above) / scale)
        lengths[i] = log_sum - (np.float64(row[target]) - np.float64(largest)) * math.log2(math.e)
    return -1


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


class Window(NamedTuple):
    """Tokens [begin, end) of a chunk pass through the model together; [first, end) are scored."""

    begin: int
    end: int
    first: int


def windows(count, context):
    """Windows over `count` tokens: `context` long, advancing by half, so each token is scored once, with the most
    context available. Token 0 is scored by none of them: nothing precedes it."""
    half = context // 2
    found, begin, first = [], 0, 1
    while first < count:
        end = min(begin + context, count)
        found.append(Window(begin, end, first))
        begin, first = begin + half, end
    return found


class Scores(NamedTuple):
    """Code of one chunk's tokens: integer intervals (uint64) and -log2 p (float64 bits), `[tokens]` each.

    Entry 0 is the first token: uniform over the vocabulary.
    """

    starts: np.ndarray
    frequencies: np.ndarray
    totals: np.ndarray
    lengths: np.ndarray


def first_token(token, vocabulary):
    """The interval of a chunk's first token, uniform over the vocabulary."""
    return token, 1, vocabulary, math.log2(vocabulary)


def score(model, chunks, tokens_at_a_time, what="score"):
    """Scores of every chunk of token ids (int arrays), in the order given.

    Windows are sorted by length and pass through the model in batches, padded to the batch's longest. On the CPU each
    of torch's threads takes batches of its own, which wastes less than sharing every small operation; together the
    batches hold at most `tokens_at_a_time` tokens (at least one window each).
    """
    found = [
        tuple(np.empty(len(ids), dtype=t) for t in (np.uint64, np.uint64, np.uint64, np.float64)) for ids in chunks
    ]
    for ids, arrays in zip(chunks, found, strict=True):
        if len(ids):
            for array, value in zip(arrays, first_token(ids[0], model.vocabulary), strict=True):
                array[0] = value
    todo = [(c, w) for c, ids in enumerate(chunks) for w in windows(len(ids), model.context)]
    todo.sort(key=lambda item: item[1].end - item[1].begin)
    threads = torch.get_num_threads()
    workers = threads if model.device.type == "cpu" else 1
    batches = []
    while todo:
        longest = todo[-1][1].end - todo[-1][1].begin
        size = max(1, min(tokens_at_a_time // workers // longest, len(todo) // (2 * workers)))  # the last ones small
        batches.append(todo[-size:])
        todo = todo[:-size]
    buffers = [
        torch.empty((HEAD_ROWS, model.vocabulary), device=model.device) for _ in range(min(workers, len(batches)))
    ]
    done, at = 0, progress(what, sum(w.end - w.begin for batch in batches for _, w in batch), "tokens")
    try:
        if workers > 1:
            torch.set_num_threads(1)
        with ThreadPoolExecutor(workers) as pool:
            running = [pool.submit(_score_batch, model, chunks, found, batch, buffers) for batch in batches]
            try:
                for finished in as_completed(running):
                    done += finished.result()
                    at(done)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        torch.set_num_threads(threads)
    return [Scores(*arrays) for arrays in found]


def _score_batch(model, chunks, found, batch, buffers):
    """Fill `found` for the windows of `batch`; returns how many tokens passed through the model."""
    longest = max(w.end - w.begin for _, w in batch)
    ids = np.zeros((len(batch), longest), dtype=np.int64)
    for row, (c, w) in enumerate(batch):
        ids[row, : w.end - w.begin] = chunks[c][w.begin : w.end]
    states = model.hidden(torch.from_numpy(ids))
    buffer = buffers.pop()
    for state, (c, w) in zip(states, batch, strict=True):
        # the state at position i - 1 predicts the token at i
        for i in range(w.first, w.end, HEAD_ROWS):
            last = min(i + HEAD_ROWS, w.end)
            logits = model.head(state[i - 1 - w.begin : last - 1 - w.begin], buffer)
            for array, values in zip(found[c], intervals(logits.cpu().numpy(), chunks[c][i:last]), strict=True):
                array[i:last] = values
    buffers.append(buffer)
    return sum(w.end - w.begin for _, w in batch)
