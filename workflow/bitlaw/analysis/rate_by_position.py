"""Bits a byte by position in the chunk (the marginal curve), and the power law r(x) = h + A x^-gamma fitted to it."""

import numpy as np
import pandas as pd

from bitlaw.analysis.prior_and_context import bounds, passes, summed
from bitlaw.compression.accounting import POSITION_EDGES

GAMMAS = np.geomspace(0.02, 5, 460)  # where gamma is sought: steps of 1.2 %
COEFFICIENTS = ("h", "A", "gamma")


def edges(size):
    """(first, last) bytes, last not included, of each position bin within chunks of `size` bytes."""
    return np.minimum(POSITION_EDGES, size), np.minimum([*POSITION_EDGES[1:], max(size, POSITION_EDGES[-1])], size)


def shape(first, last, gamma):
    """The mean of x^-gamma over x from `first` to `last`, arrays that broadcast: the curve's value for a bin."""
    power = 1 - gamma
    near = np.abs(power) < 1e-9
    power = np.where(near, 1.0, power)
    return np.where(near, np.log(last / first), (last**power - first**power) / power) / (last - first)


def fit(rates, errors, first, last):
    """h, A, gamma for each row of `rates` (`[draws, bins]`, bits a byte): least squares weighted by 1 / errors^2.

    h and A are linear, so gamma is sought over GAMMAS alone; h, the rate far from the start, is at least 0.
    errors, first, last: `[bins]`. Returns float64 `[draws, 3]`.
    """
    weight = 1 / errors**2
    weight = weight / weight.sum()
    seen = shape(first, last, GAMMAS[:, None])  # [gammas, bins]
    seen_mean, mean = seen @ weight, (rates @ weight)[:, None]
    both, square = (rates * weight) @ seen.T, seen**2 @ weight  # weighted means of products: [draws, gammas], [gammas]
    a = (both - mean * seen_mean) / (square - seen_mean**2)
    h = mean - a * seen_mean
    a, h = np.where(h < 0, both / square, a), np.maximum(h, 0)
    # the mean of (r - h - a x)^2 less that of r^2, which is the same for every gamma
    misfit = h**2 + a**2 * square - 2 * h * mean - 2 * a * both + 2 * a * h * seen_mean
    best = misfit.argmin(axis=1)
    rows = np.arange(len(rates))
    return np.stack([h[rows, best], a[rows, best], GAMMAS[best]], axis=1)


def law(rate, drawn, first, last):
    """{h, A, gamma, each with _low and _high (95 % of the draws), rmse, note} of one curve.

    rate: bits a byte, `[bins]`; drawn: the same of each bootstrap draw, `[draws, bins]`; first, last: the bins' bytes.
    note is empty when the curve falls by a power that the draws agree on; else it says why the numbers must not be
    read.
    """
    spread = drawn.std(axis=0)
    # a bin whose draws hardly differ must not decide alone; with a single chunk no draw differs
    errors = np.maximum(spread, 0.1 * np.median(spread)) if spread.any() else np.ones_like(spread)
    best = fit(rate[None], errors, first, last)[0]
    low, high = bounds(fit(drawn, errors, first, last))
    out = {}
    for name, *values in zip(COEFFICIENTS, best, low, high, strict=True):
        out |= dict(zip((name, f"{name}_low", f"{name}_high"), map(float, values), strict=True))
    left = rate - best[0] - best[1] * shape(first, last, best[2])
    out["rmse"] = float(np.sqrt(np.mean(left**2)))
    notes = []
    if low[1] <= 0 <= high[1]:
        notes.append("the interval of A holds 0: no trend")
    if low[2] <= GAMMAS[0] or high[2] >= GAMMAS[-1]:
        notes.append("gamma has no end within its range")
    out["note"] = "; ".join(notes)
    return out


def tables(cells, controls=()):
    """(curves, laws), DataFrames. curves: a row a pass and bin: labels, first_byte, last_byte, tokens, bytes,
    bits_per_byte, low, high (95 % over chunks). laws: a row a pass, see `law`. Paths: see `passes`.

    A bin that is empty, or is so in any draw, is in neither; under 4 bins there is no law, and the note says so.
    """
    curves, laws = [], []
    for labels, chunks, draws in passes(cells, controls):
        whole, drawn = summed(chunks), summed(chunks, draws)
        full = drawn.later_bytes.min(axis=0) > 0
        first, last = (edge[full] for edge in edges(int(chunks.bytes[0])))
        rate = whole.later_bits[full] / whole.later_bytes[full]
        rates = drawn.later_bits[:, full] / drawn.later_bytes[:, full]
        columns = (first, last, whole.later_tokens[full].astype(int), whole.later_bytes[full].astype(int), rate)
        names = ("first_byte", "last_byte", "tokens", "bytes", "bits_per_byte", "low", "high")
        for values in zip(*columns, *bounds(rates), strict=True):
            curves.append(labels | dict(zip(names, values, strict=True)))
        if full.sum() >= 4:
            laws.append(labels | law(rate, rates, first.astype(float), last.astype(float)))
        else:
            laws.append(labels | {"note": f"{full.sum()} position bins, 4 are needed"})
    return pd.DataFrame(curves), pd.DataFrame(laws)
