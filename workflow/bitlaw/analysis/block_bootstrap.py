"""Bootstrap over chunks in blocks of neighbours (Künsch 1989, circular): the same draws for every cell of a study."""

import math

import numpy as np

LEVEL = 0.95  # of every interval of the project
TAILS = 50 * (1 - LEVEL), 100 - 50 * (1 - LEVEL)  # percent
DRAWS = 200
BLOCK = 8  # neighbouring chunks share a passage, a photograph or an utterance


def redraws(count, draws=DRAWS, block=BLOCK, seed=0):
    """Yield `draws` samples of the chunk numbers 0 to count - 1, int `[count]` each, drawn in blocks of neighbours.

    The block after the last chunk goes on at the first one, so every chunk is as likely as any other.
    """
    block, rng = block_of(count, block), np.random.default_rng(seed)
    for _ in range(draws):
        first = rng.integers(0, count, math.ceil(count / block))
        yield (first[:, None] + np.arange(block)).ravel()[:count] % count


def block_of(count, block=BLOCK):
    """How many neighbours are drawn together among `count` chunks: `block`, or a quarter of them if that is less."""
    return max(1, min(block, count // 4))


def mean_intervals(samples, draws=1000, block=BLOCK, seed=0):
    """(low, high), float64 `[cells]` each: the 95 % bootstrap interval of each cell's mean ratio.

    samples: float `[cells, chunks]`, the ratio of each chunk (NaN where dropped).
    """
    samples = np.asarray(samples, dtype=np.float64)
    there = ~np.isnan(samples)
    values, drawn = np.where(there, samples, 0), list(redraws(samples.shape[1], draws, block, seed))
    with np.errstate(invalid="ignore"):  # a draw of dropped chunks alone has no mean, and the cell then no interval
        means = [values[:, own].sum(axis=1) / there[:, own].sum(axis=1) for own in drawn]
    return tuple(np.percentile(means, TAILS, axis=0))
