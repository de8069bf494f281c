"""Code lengths by position, split into what context buys (ICL) and what the prior alone gives (USP): docs/context.md.

A pass is one way in which the chunks of a cell were scored: "plain" is the cell itself, others are controls
(see `control_passes`). All bits are ideal: what a coder without loss would write for the integer frequencies.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from bitlaw.analysis import block_bootstrap, cell_table
from bitlaw.analysis.cell_table import LABELS
from bitlaw.compression.accounting import POSITION_EDGES

HORIZONS = (8, 16, 32, 64, 128, 256)  # bytes; each an edge of the position bins
HEADLINE = 32  # the K of figures and texts
SPLIT_TERMS = ("top_bits", "tokeniser", "first_token", "prior", "context")
SUMMED_COLUMNS = (
    *("bytes", "bits_first_token", "bits_top_bits"),
    *("bits_by_position", "bytes_by_position", "tokens_by_position"),
)  # of a cell's parquet file, in the order of Sums


class Sums(NamedTuple):
    """Sums over chunks, or over each of several draws of chunks, which are then the leading axis of every array.

    bits are ideal; `later...` hold tokens from the second on, by the byte of their chunk at which they start
    (`[..., bins]`, bins from POSITION_EDGES); uniform is log2 of the vocabulary, the cost of a chunk's first token.
    """

    bytes: np.ndarray
    first_bits: np.ndarray
    top_bits: np.ndarray
    later_bits: np.ndarray
    later_bytes: np.ndarray
    later_tokens: np.ndarray
    uniform: float


def read(path):
    """{pass: Sums} of a cell's or a control's parquet file; the leading axis is chunks, in order."""
    named = [column for column in ("pass", *SUMMED_COLUMNS) if column in pq.read_schema(path).names]
    table = pq.read_table(path, columns=named).to_pydict()
    passes = np.array(table.get("pass", ["plain"] * len(table["bytes"])))
    sums = {}
    for name in dict.fromkeys(passes):
        own = passes == name
        arrays = [np.array(table[column], dtype=np.float64)[own] for column in SUMMED_COLUMNS]
        if np.ptp(arrays[1]) > 0:
            raise ValueError(f"{path}: first tokens of different cost belong to different vocabularies")
        sums[str(name)] = Sums(*arrays, uniform=float(arrays[1][0]))
    return sums


def summed(chunks, draws=()):
    """Sums over all `chunks`; with `draws` (arrays of chunk numbers), over each of those instead."""
    counts = np.array([np.bincount(drawn, minlength=len(chunks.bytes)) for drawn in draws])
    counts = counts if len(counts) else np.ones(len(chunks.bytes))
    return Sums(*(counts @ array for array in chunks[:-1]), uniform=chunks.uniform)


def rate_of_later(sums):
    """C: bits a byte over all tokens from the second on."""
    with np.errstate(invalid="ignore"):
        return sums.later_bits.sum(axis=-1) / sums.later_bytes.sum(axis=-1)


def split(sums, horizon):
    """The 8 bits of a raw byte in parts, bits a byte: {total, each of SPLIT_TERMS, F_K}; 8 - total = their sum.

    total counts the top bits, the first tokens and all others, a byte of the chunks. With F(K) the rate of the tokens
    from the second on that start before byte K = `horizon`, C that of all from the second on, and u the rate of those
    had each cost log2 V: top_bits = 1 - T, tokeniser = 7 - u, prior = u - F(K), context = F(K) - C, and first_token is
    what the first tokens would cost at rate C less what they do cost. NaN where no token starts before K.
    """
    before = np.s_[..., : POSITION_EDGES.index(horizon)]
    later = sums.later_bytes.sum(axis=-1)
    whole = rate_of_later(sums)
    with np.errstate(invalid="ignore"):
        early = sums.later_bits[before].sum(axis=-1) / sums.later_bytes[before].sum(axis=-1)
        uniform = sums.uniform * sums.later_tokens.sum(axis=-1) / later
    return {
        "total": (sums.top_bits + sums.first_bits + sums.later_bits.sum(axis=-1)) / sums.bytes,
        "top_bits": 1 - sums.top_bits / sums.bytes,
        "tokeniser": 7 - uniform,
        "first_token": (whole * (sums.bytes - later) - sums.first_bits) / sums.bytes,
        "prior": uniform - early,
        "context": early - whole,
        "F_K": early,
    }


def bounds(values):
    """95 % of the draws, (low, high); NaN where a draw has no value."""
    return np.percentile(values, block_bootstrap.TAILS, axis=0)


def passes(cells, controls=()):
    """Yield (labels, Sums by chunk, draws) of every cell's passes, the plain one first.

    labels: {modality, model, step, params_total, pass}; draws: the chunk numbers of each draw that intervals are made
    of, the same for all cells of a modality (see `block_bootstrap.redraws`).
    cells: paths of json files, parquet files beside them; controls: paths of parquet files that end in
    <modality>/<model>/step<step>.parquet like those of the cells.
    """
    for cell in map(Path, cells):
        about = json.loads(cell.read_text())
        labels = {name: about[name] for name in LABELS}
        mine = [path for path in map(Path, controls) if path.with_suffix(".json").parts[-3:] == cell.parts[-3:]]
        draws = list(block_bootstrap.redraws(cell_table.chunk_files(cell.with_suffix(".parquet"))))
        for path in (cell.with_suffix(".parquet"), *mine):
            for name, chunks in read(path).items():
                yield labels | {"pass": name}, chunks, draws


def table(cells, controls=()):
    """DataFrame, a row for each pass and K: labels of `passes`, K, `split`, and 95 % bounds of prior and context."""
    rows = []
    for labels, chunks, draws in passes(cells, controls):
        whole, drawn = summed(chunks), summed(chunks, draws)
        for horizon in HORIZONS:
            parts = split(whole, horizon)
            early = parts.pop("F_K")
            low_high = {}
            for term, values in split(drawn, horizon).items():
                if term in ("prior", "context"):
                    low_high[f"{term}_low"], low_high[f"{term}_high"] = bounds(values)
            rows.append(labels | {"K": horizon} | parts | low_high | {"F_K": early})
    return pd.DataFrame(rows)


def halves(cells, controls):
    """DataFrame, a row a cell with the after-another pass: what a first half buys in bits a byte of the second half.

    none, other, own: rate of the second half's tokens from the second on, after nothing, after another chunk's first
    half, after its own; domain = none - other, file = other - own, with 95 % bounds over chunks.
    """
    cells_rates, cells_draws = {}, {}  # by cell: {what comes before: rate over all chunks, and over each draw}
    for labels, chunks, draws in passes(cells, controls):
        if (name := labels.pop("pass")).startswith("after_"):
            cell, before = tuple(labels.values()), name.removeprefix("after_")
            cells_rates.setdefault(cell, {})[before] = rate_of_later(summed(chunks))
            cells_draws.setdefault(cell, {})[before] = rate_of_later(summed(chunks, draws))
    rows = []
    for cell, rates in cells_rates.items():
        drawn = cells_draws[cell]
        row = dict(zip(LABELS, cell, strict=True)) | {before: rates[before] for before in ("none", "other", "own")}
        for term, more, less in (("domain", "none", "other"), ("file", "other", "own")):
            row[term] = rates[more] - rates[less]
            row[f"{term}_low"], row[f"{term}_high"] = bounds(drawn[more] - drawn[less])
        rows.append(row)
    return pd.DataFrame(rows)
