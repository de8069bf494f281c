"""Bootstrap over chunks: by the files they come from, or in blocks of neighbours; the same draws for every cell.

Chunks of one photograph or reader resemble each other, so what another sample would have given is asked of other
files: whole files are drawn, with all their chunks (a cluster bootstrap). Where too few files are there to draw from,
neighbouring chunks are drawn together (Künsch 1989, circular).
"""

import math

import numpy as np
import scipy.stats

LEVEL = 0.95  # of every interval of the project
TAILS = 50 * (1 - LEVEL), 100 - 50 * (1 - LEVEL)  # percent
DRAWS = 200
BLOCK = 8  # neighbouring chunks share a passage
LEAST_FILES = 4  # of fewer hardly any different samples could be drawn


def redraws(files, draws=DRAWS, block=BLOCK, seed=0):
    """Yield `draws` samples of chunk numbers, int arrays, for chunks that come from `files` (a name for each chunk).

    Samples of whole files hold one file fewer than there are, so that means spread over the draws as a mean does over
    samples (Rao and Wu 1988), and differ in length. Those of blocks have as many chunks as there are, and the block
    after the last chunk goes on at the first one: every chunk is as likely as any other.
    """
    rng = np.random.default_rng(seed)
    members = _by_file(files)
    if members is None:
        count, block = len(files), block_of(files, block)
        for _ in range(draws):
            first = rng.integers(0, count, math.ceil(count / block))
            yield (first[:, None] + np.arange(block)).ravel()[:count] % count
        return
    for _ in range(draws):
        yield np.concatenate([members[i] for i in rng.integers(0, len(members), len(members) - 1)])


def block_of(files, block=BLOCK):
    """How many neighbours `redraws` draws together: `block`, a quarter of the chunks if that is less; None: files."""
    return None if _by_file(files) else max(1, min(block, len(files) // 4))


def half_width(values, files):
    """Half of the 95 % interval of the mean of `values`, float64 `[chunks]` without NaN, by their standard error.

    Over chunks, 1.96 standard errors. Over files where there are enough of them: the error of a mean of clusters, times
    Student's t of their number less one, as five readers tell little of how readers differ.
    """
    members = _by_file(files)
    if members is None:
        return 1.96 * scipy.stats.sem(values)
    left = values - np.mean(values)
    clusters = np.array([left[numbers].sum() for numbers in members])
    error = math.sqrt(len(members) / (len(members) - 1) * np.sum(clusters**2)) / len(values)
    return scipy.stats.t.ppf((1 + LEVEL) / 2, len(members) - 1) * error


def mean_interval(sample, files, draws=1000):
    """(low, high): the 95 % bootstrap interval of the mean of `sample`, float `[chunks]`, NaN where dropped."""
    means = [np.nanmean(sample[drawn]) for drawn in redraws(files, draws)]
    return tuple(np.percentile(means, TAILS))


def _by_file(files):
    """The numbers of each file's chunks, a list of int arrays, or None where there are fewer than LEAST_FILES."""
    names, of = np.unique(np.asarray(files, dtype=str), return_inverse=True)
    return [np.flatnonzero(of == i) for i in range(len(names))] if len(names) >= LEAST_FILES else None
