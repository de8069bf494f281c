"""Tokens and a model to coding intervals and code lengths: every token predicted from those before it, in one pass."""

import copy
import math
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import NamedTuple

import numpy as np

from bitlaw.compression import integer_softmax
from bitlaw.models import checkpoint
from bitlaw.runtime.logs import progress

HEAD_ROWS = 512  # logits exist for this many positions at a time, in one reused buffer


class Window(NamedTuple):
    """Tokens [begin, end) of a chunk pass through the model together; [first, end) are scored."""

    begin: int
    end: int
    first: int


def windows(count, context, prefix=None):
    """Windows over `count` tokens: `context` long, advancing by half, so each token is scored once, with the most
    context available.

    Without a `prefix` token 0 is scored by none of them: nothing precedes it. A prefix, a token's id, stands in front
    of every window and takes one position of its context.
    """
    room = context - ahead(prefix)
    found, begin, first = [], 0, 1 - ahead(prefix)
    while first < count:
        end = min(begin + room, count)
        found.append(Window(begin, end, first))
        begin, first = begin + room // 2, end
    return found


def ahead(prefix):
    """Tokens that stand in front of every window: 1, or 0 where `prefix` is None."""
    return int(prefix is not None)


def passing(ids, window, prefix):
    """The ids of a chunk that pass through the model in one window, int array: the prefix, if any, and the window's."""
    own = ids[window.begin : window.end]
    return own if prefix is None else np.concatenate((np.array([prefix], dtype=own.dtype), own))


class Scores(NamedTuple):
    """Code of one chunk's tokens: integer intervals (uint64) and -log2 p (float64 bits), `[tokens]` each.

    Entry 0 is the first token: uniform over the vocabulary, unless a prefix stands in front of it.
    """

    starts: np.ndarray
    frequencies: np.ndarray
    totals: np.ndarray
    lengths: np.ndarray


def without_prefix(model):
    """`model`, sharing its weights, with nothing in front of its windows."""
    bare = copy.copy(model)
    bare.prefix = None
    return bare


def first_token(token, vocabulary):
    """The interval of a chunk's first token, uniform over the vocabulary."""
    return token, 1, vocabulary, math.log2(vocabulary)


def score(model, chunks, tokens_at_a_time, threads=1, what="score"):
    """Scores of every chunk of token ids (int arrays) under `model`, in the order given.

    On `threads` threads of a processor; a model of torch takes up to `tokens_at_a_time` tokens at once (see
    `torch_scoring`), compiled exact arithmetic a window a thread. No number depends on either.
    """
    if checkpoint.is_compiled(model):
        return _score_exactly(model, chunks, threads, what)
    from bitlaw.compression import torch_scoring  # torch takes seconds to import, and a cell may do without

    return torch_scoring.score(model, chunks, tokens_at_a_time, threads, what)


def code_lengths(model, chunks, tokens_at_a_time, threads=1, what="score"):
    """-log2 p of the tokens of every chunk, float64 `[tokens]` each: as `score`, where no interval is wanted.

    A model in floating point then computes no integers, and its lengths may lie 1e-5 bit from those of `score`.
    """
    if checkpoint.is_compiled(model):
        return [own.lengths for own in score(model, chunks, tokens_at_a_time, threads, what)]
    from bitlaw.compression import torch_scoring

    return torch_scoring.lengths(model, chunks, tokens_at_a_time, threads, what)


def _score_exactly(model, chunks, threads, what):
    """Windows by length, the longest first, each on one thread; logits of HEAD_ROWS positions at a time."""
    scores = empty_scores(chunks, model)
    todo = [(c, w) for c, ids in enumerate(chunks) for w in windows(len(ids), model.context, model.prefix)]
    todo.sort(key=lambda item: item[1].begin - item[1].end)
    done, report = 0, progress(what, sum(w.end - w.begin for _, w in todo), "tokens")
    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(_score_window, model, chunks[c], scores[c], w) for c, w in todo]
        try:
            for future in as_completed(running):
                done += future.result()
                report(done)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return scores


def _score_window(model, ids, scores, window):
    """Fill `scores` for one window of a chunk's token ids; returns how many tokens passed through the model."""
    begin, end, first = window
    begin -= ahead(model.prefix)
    states = model.hidden(passing(ids, window, model.prefix))
    buffer = model.new_logits(min(HEAD_ROWS, end - first))
    for i in range(first, end, HEAD_ROWS):
        last = min(i + HEAD_ROWS, end)
        # the state at position i - 1 predicts the token at i
        logits = model.head(states, i - 1 - begin, last - 1 - begin, buffer)
        put(scores, i, integer_softmax.intervals(logits, ids[i:last]))
    return end - begin


def score_by_products(model, ids):
    """Scores of one chunk by exact arithmetic's other engine, float64 matrix products: the same bits, to compare."""
    engine, scores = model.float64(), empty_scores([ids], model)[0]
    for window in windows(len(ids), model.context, model.prefix):
        begin, end, first = window
        begin -= ahead(model.prefix)
        states = engine.hidden(passing(ids, window, model.prefix))
        for i in range(first, end, HEAD_ROWS):
            last = min(i + HEAD_ROWS, end)
            logits = engine.head(*(array[i - 1 - begin : last - 1 - begin] for array in states))
            put(scores, i, integer_softmax.intervals(logits, ids[i:last]))
    return scores


def empty_scores(chunks, model):
    """Scores of every chunk of token ids for `put` to fill; the first token is in if `model` does not predict it."""
    scores = [Scores(*(np.empty(len(ids), dtype=t) for t in (np.uint64, np.uint64, np.uint64, np.float64)))
              for ids in chunks]  # fmt: skip
    for ids, own in zip(chunks, scores, strict=True):
        if len(ids) and model.prefix is None:
            put(own, 0, [[value] for value in first_token(ids[0], model.vocabulary)])
    return scores


def put(scores, first, values):
    """Write `values`, four arrays as of Scores, into `scores` from token `first` on."""
    for array, part in zip(scores, values, strict=True):
        array[first : first + len(part)] = part
