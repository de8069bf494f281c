"""Rows of made-up chunks, as `accounting` makes them from a real pass."""

import math

import numpy as np

from bitlaw.compression import accounting, range_coder, top_bits
from bitlaw.compression.scoring import Scores


def chunk(seed, size, scale, top):
    """A made-up chunk of `size` bytes: (bytes of each token, Scores, coded bits, ideal bits of the top bits)."""
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.choice(np.arange(1, size), rng.integers(0, size), replace=False))
    token_bytes = np.diff([0, *cuts, size])
    count = len(token_bytes)
    weights = np.minimum(2.0**26 * np.exp2(-rng.exponential(scale, count)), 2**26)
    totals = (2**26 + rng.integers(300, 2**30, count)).astype(np.uint64)
    frequencies = weights.astype(np.uint64) + np.uint64(1)
    lengths = np.log2(totals / weights)
    frequencies[0], totals[0], lengths[0] = 1, 300, math.log2(300)
    plane = (rng.random(size) < top).astype(np.uint8)
    parts = zip(top_bits.intervals(plane), (np.zeros(count, dtype=np.uint64), frequencies, totals), strict=True)
    coded = range_coder.encode(*(np.concatenate(pair) for pair in parts))
    scores = Scores(np.zeros(count, np.uint64), frequencies, totals, lengths)
    return token_bytes, scores, 8 * len(coded), top_bits.ideal_bits(plane)


def rows_of(seeds, size, scale=5.0, top=0.0, precision="fp32", container=70.25):
    rows = []
    for number, seed in enumerate(seeds):
        token_bytes, scores, coded, plane_bits = chunk(seed, size, scale, top)
        rows.append(row_of(number, size, token_bytes, scores, coded, container, plane_bits, precision))
    return rows


def row_of(number, size, token_bytes, scores, coded, container, plane_bits, precision, study_lengths=None):
    """A chunk's row as a cell has it; `coded`, `container` and `plane_bits` in bits."""
    return accounting.chunk_row(
        number,
        size,
        accounting.position_costs(scores, token_bytes),
        accounting.published_costs(size, precision, scores.lengths, study_lengths),
        accounting.audit_costs(scores),
        accounting.stream_costs(scores, plane_bits, coded, container),
    )
