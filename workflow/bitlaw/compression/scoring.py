"""Tokens and a model to coding intervals and code lengths, in one teacher-forced pass."""

import logging
import math
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from typing import NamedTuple

import numpy as np
import torch

from bitlaw import InputError
from bitlaw.compression import integer_softmax
from bitlaw.runtime.logs import progress

log = logging.getLogger("bitlaw")

HEAD_ROWS = 512  # logits exist for this many positions at a time, in one reused buffer


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
    batches hold at most `tokens_at_a_time` tokens (at least one window each). Where they do not fit in the device's
    memory, half as many are tried; InputError when one window alone does not fit.
    """
    found = [
        tuple(np.empty(len(ids), dtype=t) for t in (np.uint64, np.uint64, np.uint64, np.float64)) for ids in chunks
    ]
    for ids, arrays in zip(chunks, found, strict=True):
        if len(ids):
            for array, value in zip(arrays, first_token(ids[0], model.vocabulary), strict=True):
                array[0] = value
    todo = [(c, w) for c, ids in enumerate(chunks) for w in windows(len(ids), model.context)]
    threads = torch.get_num_threads()
    workers = threads if model.device.type == "cpu" else 1
    done, at = 0, progress(what, sum(w.end - w.begin for _, w in todo), "tokens")
    try:
        if workers > 1:
            torch.set_num_threads(1)
        with ThreadPoolExecutor(workers) as pool:
            while todo:
                batches = _batches(todo, tokens_at_a_time // workers, workers)
                buffers = [
                    torch.empty((HEAD_ROWS, model.vocabulary), device=model.device)
                    for _ in range(min(workers, len(batches)))
                ]
                running = {pool.submit(_score_batch, model, chunks, found, b, buffers): b for b in batches}
                todo, least = [], None
                try:
                    for future in as_completed(running):
                        batch = running.pop(future)
                        try:
                            done += future.result()
                        except CancelledError:
                            todo += batch
                        except torch.OutOfMemoryError:
                            todo += batch
                            least = min(least or len(batch), len(batch))
                            for other in running:
                                other.cancel()
                        at(done)
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
                if todo:
                    del future, buffers  # the failure holds on to the tensors of its pass
                    tokens_at_a_time = _half(tokens_at_a_time, least, model.device)
    finally:
        torch.set_num_threads(threads)
    return [Scores(*arrays) for arrays in found]


def _batches(todo, tokens, workers):
    """Lists of (chunk, window) of similar length, the longest first, each of at most `tokens` tokens or one window."""
    todo = sorted(todo, key=lambda item: item[1].end - item[1].begin)
    batches = []
    while todo:
        longest = todo[-1][1].end - todo[-1][1].begin
        size = max(1, min(tokens // longest, len(todo) // (2 * workers)))  # the last ones small
        batches.append(todo[-size:])
        todo = todo[:-size]
    return batches


def _half(tokens, windows_at_once, device):
    """Half of `tokens`, after a batch of `windows_at_once` windows ran out of memory."""
    if windows_at_once == 1:
        raise InputError(f"{device}: one window of tokens does not fit in its memory; choose another device or model")
    if device.type == "cuda":
        torch.cuda.empty_cache()
    log.info("out of memory at %d tokens at a time: trying %d", tokens, tokens // 2)
    return tokens // 2


def _score_batch(model, chunks, found, batch, buffers):
    """Fill `found` for the windows of `batch`; returns how many tokens passed through the model."""
    longest = max(w.end - w.begin for _, w in batch)
    ids = np.zeros((len(batch), longest), dtype=np.int64)
    for row, (c, w) in enumerate(batch):
        ids[row, : w.end - w.begin] = chunks[c][w.begin : w.end]
    buffer = buffers.pop()
    try:
        waiting = []  # for a GPU, which goes on meanwhile
        for state, (c, w) in zip(model.hidden(torch.from_numpy(ids)), batch, strict=True):
            # the state at position i - 1 predicts the token at i
            for i in range(w.first, w.end, HEAD_ROWS):
                last = min(i + HEAD_ROWS, w.end)
                logits, targets = model.head(state[i - 1 - w.begin : last - 1 - w.begin], buffer), chunks[c][i:last]
                if model.device.type == "cpu":
                    _put(found[c], i, integer_softmax.intervals(logits.numpy(), targets))
                else:
                    targets = targets.astype(np.int64)
                    waiting.append((c, i, targets, integer_softmax.integers(logits, torch.from_numpy(targets))))
        for c, i, targets, integers in waiting:
            _put(found[c], i, integer_softmax.from_integers(integers.cpu().numpy(), targets, model.vocabulary))
    finally:
        buffers.append(buffer)
    return sum(w.end - w.begin for _, w in batch)


def _put(arrays, first, values):
    for array, part in zip(arrays, values, strict=True):
        array[first : first + len(part)] = part
