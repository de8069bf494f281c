"""The published study's own numbers: its cells as a table of ours, and our cells beside its.

The tables are in `data/published/`; its README.md names their source.
"""

import numpy as np
import pandas as pd

from bitlaw import InputError
from bitlaw.analysis.block_bootstrap import mean_interval
from bitlaw.analysis.cell_table import CELL_COLUMNS, PARAMETERS

CHUNKS, CHUNK_BYTES = 2048, 2048  # of each of its cells
SAME_TEXT = 0.005  # its text is the very bytes of ours; beyond this a ratio is another
PUBLISHED_COLUMNS = ["modality", "model", "step", "cr_mean", "cr_std", "chunks", "seconds"]
KEY, NUMBERS = PUBLISHED_COLUMNS[:3], PUBLISHED_COLUMNS[2:]


def cells(path):
    """The published cells in the CSV file `path`: DataFrame with PUBLISHED_COLUMNS, a row a cell, in the file's order.

    cr_mean and cr_std: mean and standard deviation of the ratio over the chunks kept; chunks: how many were kept;
    seconds: on one H200. The file must have modality, model, step and cr_mean; what else it lacks is NaN.
    Raises InputError for a file that cannot be read, a missing column, what is no number, and a cell given twice.
    """
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error}); compare data/published") from None
    for column in (*KEY, "cr_mean"):
        if column not in table:
            raise InputError(f"{path}: has no column {column!r}; published cells need {', '.join(KEY)}, cr_mean")
    table = table.reindex(columns=PUBLISHED_COLUMNS)
    for column in NUMBERS:
        number = pd.to_numeric(table[column], errors="coerce")
        wrong = number.isna() & (table[column].notna() | (column in ("step", "cr_mean")))
        if wrong.any():
            line = wrong.idxmax()
            raise InputError(f"{path}: line {line + 2}: {column} is {str(table[column][line])!r}; give a number")
        table[column] = number
    if (twice := table.duplicated(KEY)).any():
        raise InputError(f"{path}: the cell {' '.join(map(str, table.loc[twice.idxmax(), KEY]))} is given twice")
    return table


def as_cells(published, models):
    """`published` (see `cells`) in the columns of cells.csv; what such a cell does not know is NaN.

    `models`: the entries of the configuration, with name, total, nonembedding and nominal counts of parameters.
    Raises InputError for a cell of a model without an entry.
    """
    known = {model["name"]: model for model in models}
    if unknown := sorted(set(published["model"]) - set(known)):
        raise InputError(f"config: models: {unknown[0]!r} of the published cells has no entry; add its parameters")
    table = pd.DataFrame(index=published.index, columns=list(CELL_COLUMNS), dtype=float)
    for name in ("modality", "model", "step", "seconds"):
        table[name] = published[name]
    for column, key in zip(PARAMETERS, ("total", "nonembedding", "nominal"), strict=True):
        table[column] = [known[name][key] for name in published["model"]]
    table["cr_published"] = published["cr_mean"]
    table["cr_published_ci"] = 1.96 * published["cr_std"] / np.sqrt(published["chunks"])
    table["chunks"], table["dropped"] = CHUNKS, CHUNKS - published["chunks"]
    table["bytes_per_second"] = CHUNKS * CHUNK_BYTES / published["seconds"]
    return table


def compare(ours, published, chunks, files):
    """Our cells beside the published: PUBLISHED_COLUMNS of ours, then cr_there, difference, low, high and flag.

    ours: cells.csv; chunks: {(modality, model, step): float `[chunks]`}, the published ratio of each chunk, NaN where
    dropped; files: {modality: the file of each chunk}. difference is ours - published; low, high: 95 % of our mean by
    bootstrap over chunks (see `block_bootstrap`). flag is
    true where the published ratio is off by more than SAME_TEXT (text: the same bytes) or lies outside [low, high]
    (other modalities: other chunks of the same data set). One row for each cell of ours that has a published one.
    """
    ours = ours.merge(published, on=["modality", "model", "step"], suffixes=("", "_there"))
    if ours.empty:
        raise InputError("config: compare_with: no cell of this study has a published one; remove the key")
    samples = [chunks[key] for key in zip(ours["modality"], ours["model"], ours["step"], strict=True)]
    bounds = [mean_interval(*pair) for pair in zip(samples, map(files.get, ours["modality"]), strict=True)]
    low, high = np.transpose(bounds)
    there = ours["cr_mean"].to_numpy()
    difference = ours["cr_published"].to_numpy() - there
    off = np.where(ours["modality"] == "text", np.abs(difference) > SAME_TEXT, (there < low) | (there > high))
    return pd.DataFrame(
        {
            **{name: ours[name] for name in ("modality", "model", "step")},
            "cr_mean": ours["cr_published"],
            "cr_std": [np.nanstd(sample) for sample in samples],
            "chunks": ours["chunks"] - ours["dropped"],
            "seconds": ours["seconds"],
            "cr_there": there,
            "difference": difference,
            "low": low,
            "high": high,
            "flag": off,
        }
    )
