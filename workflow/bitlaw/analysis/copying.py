"""Copying: what a model pays for random tokens the second time it sees them, against the first.

A sequence is [r, r], r drawn uniformly from the vocabulary. Nothing but the first r can help with the second, so what
the second costs less was learnt in context. The test is that of Olsson et al. 2022 ("In-context learning and induction
heads"), in bits.
"""

import math
from typing import NamedTuple

import numpy as np

from bitlaw import InputError
from bitlaw.compression import scoring


class Copying(NamedTuple):
    """Bits a token of r the first and the second time, their ratio second / first, each the mean over `draws` of r.

    `*_error` is the standard error of that mean: the spread over the draws divided by the root of their number.
    """

    draws: int
    first: float
    first_error: float
    second: float
    second_error: float
    ratio: float
    ratio_error: float


def sequences(vocabulary, length, draws, seed=0):
    """`draws` sequences [r, r], int64 `[2 * length]` each: r is `length` tokens drawn uniformly from `vocabulary`."""
    draw = np.random.default_rng(seed)
    return [np.tile(draw.integers(vocabulary, size=length), 2) for _ in range(draws)]


def halves(lengths):
    """Bits a token of the two halves of one sequence [r, r], from its code lengths in bits `[2 * length]`.

    The first token of r counts in neither: nothing precedes it the first time, and the second time nothing has said yet
    that r comes again.
    """
    first, second = lengths.reshape(2, -1)[:, 1:].mean(1)
    return float(first), float(second)


def measure(model, vocabulary, length, draws, tokens_at_a_time, seed=0):
    """Copying of `model` (see `checkpoint.load`) on `draws` sequences [r, r] with r of `length` tokens.

    `vocabulary` is the tokenizer's, which may be smaller than the model's head; `tokens_at_a_time` bounds the memory
    (see `scoring.score`). Raises InputError when [r, r] is longer than the model's context, when r has no second token
    and when fewer than two draws leave no spread.
    """
    if not 2 <= length <= model.context // 2:
        raise InputError(f"length {length}: r must have 2 tokens or more and fit twice in the context {model.context}")
    if draws < 2:
        raise InputError(f"draws {draws}: one draw has no spread; take 2 or more")
    scores = scoring.score(model, sequences(vocabulary, length, draws, seed), tokens_at_a_time, what="copying")
    rates = np.array([halves(found.lengths) for found in scores])
    columns = np.column_stack([rates, rates[:, 1] / rates[:, 0]])
    errors = columns.std(0, ddof=1) / math.sqrt(draws)
    return Copying(draws, *np.column_stack([columns.mean(0), errors]).ravel().tolist())
