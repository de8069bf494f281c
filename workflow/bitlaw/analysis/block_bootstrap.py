"""Chunks drawn again in blocks of neighbours (Künsch 1989, circular): the same draws for every cell of a study."""

import numpy as np

LEVEL = 0.95  # of every interval of the project
TAILS = 50 * (1 - LEVEL), 100 - 50 * (1 - LEVEL)  # percent
DRAWS = 200
BLOCK = 8  # neighbouring chunks share a passage, a photograph or an utterance


def redraws(count, draws=DRAWS, block=BLOCK, seed=0):
    """Yield, `draws` times, the numbers of `count` chunks drawn again in blocks of neighbours, int `[count]`."""
    block, rng = block_of(count, block), np.random.default_rng(seed)
    for _ in range(draws):
        first = rng.integers(0, count, -(-count // block))  # circular, so that every chunk is drawn as often
        yield (first[:, None] + np.arange(block)).ravel()[:count] % count


def block_of(count, block=BLOCK):
    """How many neighbours are drawn together among `count` chunks."""
    return max(1, min(block, count // 4))


def mean_intervals(samples, draws=1000, block=BLOCK, seed=0):
    """(low, high), float64 `[cells]` each: 95 % of each mean over chunks drawn again in blocks of neighbours.

    samples: float `[cells, chunks]`, the ratio of each chunk (NaN where dropped).
    """
    samples = np.asarray(samples, dtype=np.float64)
    means = [np.nanmean(samples[:, drawn], axis=1) for drawn in redraws(samples.shape[1], draws, block, seed)]
    return tuple(np.percentile(means, TAILS, axis=0))
