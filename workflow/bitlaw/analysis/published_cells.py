"""The published study's own numbers: its cells as a table of ours, and our cells beside its.

Source: A. R. Bharadwaj, Scaling laws for compression (2025), compression_results.csv of its repository (a mean over
the kept chunks of 2048 for each cell), or the two-decimal tables of the post (`data/published/`).
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from bitlaw import InputError
from bitlaw.analysis.block_bootstrap import mean_intervals
from bitlaw.analysis.cell_table import CELL_COLUMNS, PARAMETERS

CHUNKS, CHUNK_BYTES = 2048, 2048  # of each of its cells
MODALITIES = {"enwik8": "text", "imagenet": "image", "librispeech": "speech"}
SAME_TEXT = 0.005  # its text is the very bytes of ours: ratios further apart than this are different results
PUBLISHED_COLUMNS = ["modality", "model", "step", "cr_mean", "cr_std", "chunks", "seconds"]


def cells(path):
    """The published cells in `path`: DataFrame with PUBLISHED_COLUMNS.

    cr_std is over chunks, chunks how many were kept, seconds the time on one H200.
    `path` is the authors' compression_results.csv or a printed table (modality, model, step, cr), whose cr_std, chunks
    and seconds are NaN; or the source.json of a folder that holds one of them. Raises InputError for another file.
    """
    path = Path(path)
    if path.name == "source.json":
        files = [file["path"] for file in json.loads(path.read_text())["files"]]
        if len(files) != 1:
            raise InputError(f"{path}: {len(files)} files; published cells are one CSV: narrow `members` or `pattern`")
        path = path.parent / files[0]
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error}); fetch it again") from None
    if {"dataset", "checkpoint", "compression_ratio"} <= set(table):
        table = table.rename(
            columns={"compression_ratio": "cr_mean", "compression_std": "cr_std", "chunks_processed": "chunks"}
        )
        table["modality"] = table["dataset"].map(MODALITIES)
        table["step"] = table["checkpoint"].str.removeprefix("step").astype(int)
        table["seconds"] = 60 * table["eval_time_minutes"]
        if (unknown := table["modality"].isna()).any():
            raise InputError(f"{path}: data set {table['dataset'][unknown].iloc[0]!r}; known: {', '.join(MODALITIES)}")
    elif {"modality", "model", "step", "cr"} <= set(table):
        table = table.rename(columns={"cr": "cr_mean"}).assign(cr_std=np.nan, chunks=np.nan, seconds=np.nan)
    else:
        raise InputError(f"{path}: neither compression_results.csv nor a printed table; it has {', '.join(table)}")
    order = {name: i for i, name in enumerate(MODALITIES.values())}
    return table.sort_values("modality", key=lambda column: column.map(order), kind="stable", ignore_index=True)[
        PUBLISHED_COLUMNS
    ]


def as_cells(published, models):
    """`published` (see `cells`) in the columns of cells.csv; what such a cell does not know is NaN.

    `models`: the entries of the configuration, with name, total, nonembedding and nominal counts of parameters.
    Raises InputError for a cell of a model without an entry.
    """
    counts = {model["name"]: model for model in models}
    if unknown := sorted(set(published["model"]) - set(counts)):
        raise InputError(f"config: models: {unknown[0]!r} of the published cells has no entry; add its parameters")
    table = pd.DataFrame(index=published.index, columns=list(CELL_COLUMNS), dtype=float)
    for name in ("modality", "model", "step", "seconds"):
        table[name] = published[name]
    for column, key in zip(PARAMETERS, ("total", "nonembedding", "nominal"), strict=True):
        table[column] = [counts[name][key] for name in published["model"]]
    table["cr_published"] = published["cr_mean"]
    table["cr_published_ci"] = 1.96 * published["cr_std"] / np.sqrt(published["chunks"])
    table["chunks"], table["dropped"] = CHUNKS, CHUNKS - published["chunks"]
    table["bytes_per_second"] = CHUNKS * CHUNK_BYTES / published["seconds"]
    return table


def compare(ours, published, chunks):
    """Our cells beside the published: DataFrame with PUBLISHED_COLUMNS of ours, cr_there, difference, low, high, flag.

    ours: cells.csv; chunks: {(modality, model, step): float `[chunks]`}, the published ratio of each chunk, NaN where
    dropped. difference is ours - published; low, high: 95 % of our mean by bootstrap over blocks of chunks. flag is
    true where the published ratio is off by more than SAME_TEXT (text: the same bytes) or lies outside [low, high]
    (other modalities: other chunks of the same data set). One row for each cell of ours that has a published one.
    """
    ours = ours.merge(published, on=["modality", "model", "step"], suffixes=("", "_there"))
    if ours.empty:
        raise InputError("config: compare_with: no cell of this study has a published one; remove the key")
    samples = [chunks[key] for key in zip(ours["modality"], ours["model"], ours["step"], strict=True)]
    low, high = mean_intervals(samples)
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
