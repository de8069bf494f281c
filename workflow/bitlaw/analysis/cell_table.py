"""Cells to tables: one CSV with a row a cell, and a markdown grid (models × steps) per modality and protocol."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from bitlaw import InputError
from bitlaw.analysis import block_bootstrap
from bitlaw.compression.accounting import AUDIT_TERMS
from bitlaw.runtime.atomic import replacing, write_text
from bitlaw.study import PROTOCOLS

LABELS = ("modality", "model", "step", "params_total")  # what the tables of cells' parts call a cell by
PARAMETERS = ("params_total", "params_nonembedding", "params_nominal")  # the last where the configuration gives it
CELL_COLUMNS = (
    *("modality", "model", "step", *PARAMETERS, "cr_published", "cr_lossless"),
    *("cr_published_ci", "cr_lossless_ci"),
    *AUDIT_TERMS,
    *("chunks", "dropped", "seconds", "bytes_per_second"),
)


def collect(paths, nominal=None):
    """The table of cells: a DataFrame with CELL_COLUMNS, a row for each path of `paths`, in their order.

    paths: the cells' json files, parquet files beside them.

    nominal: model to nominal count of parameters; without it there is no such column.
    cr_..._ci is the half-width of the ratio's 95 % interval over the files of the chunks, or over chunks of few files:
    see `block_bootstrap.half_width`.
    Raises InputError when two steps of a model hold the same weights: then one of them is not what it says.
    """
    cells = [json.loads(Path(path).read_text()) for path in paths]
    owners = {}  # of each hash of weights: the first model and step
    for cell in cells:
        name, step = cell["model"], cell["step"]
        other = owners.setdefault(cell["weights_sha256"], (name, step))
        if other != (name, step):
            raise InputError(
                f"{name} step {step} has the same weights as {other[0]} step {other[1]} "
                f"(sha256 {cell['weights_sha256'][:16]}): one of the two checkpoints is mislabelled; fetch it again"
            )
    table = pd.DataFrame(cells)
    for protocol in PROTOCOLS:
        table[f"cr_{protocol}_ci"] = [_half_width(Path(path).with_suffix(".parquet"), protocol) for path in paths]
    if nominal:
        table["params_nominal"] = table["model"].map(nominal)
    return table[[column for column in CELL_COLUMNS if nominal or column != "params_nominal"]]


def _half_width(path, protocol):
    ratios, files = chunk_ratios([path], protocol)[0], chunk_files(path)
    kept = ~np.isnan(ratios)
    return block_bootstrap.half_width(ratios[kept], files[kept])


def chunk_files(path):
    """The file that each chunk came from, or began in: array of str `[chunks]`, from a cell's parquet file."""
    return np.array(pq.read_table(path, columns=["file"])["file"].to_pylist(), dtype=str)


def chunk_ratios(paths, protocol):
    """Ratio of every chunk under a protocol, float64 `[cells, chunks]`, from the cells' parquet files.

    NaN where `published` drops the chunk. Raises InputError when the cells do not hold the same chunks.
    """
    rows = []
    for path in paths:
        table = pq.read_table(path, columns=["bytes", "kept", "bits_published", "bits_stream"]).to_pandas()
        ratio = table["bits_published" if protocol == "published" else "bits_stream"] / (8 * table["bytes"])
        rows.append(ratio.where(table["kept"] | (protocol != "published")).to_numpy())
        if len(rows[-1]) != len(rows[0]):
            raise InputError(f"{path}: {len(rows[-1])} chunks, {paths[0]} has {len(rows[0])}: remove both, run again")
    return np.array(rows)


def write(table, csv, grids):
    """Write the table of cells, and a grid to each path named <modality>_<protocol>.md."""
    write_csv(table, csv)
    for path in map(Path, grids):
        write_text(path, grid(table, *path.stem.rsplit("_", 1)))


def write_csv(table, path):
    """Write the DataFrame `table` to `path`, complete or not at all."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def grid(table, modality, protocol):
    """Markdown: ratios of one modality, a row a model, a column a step."""
    part = table[table["modality"] == modality]
    steps = list(dict.fromkeys(part["step"]))
    lines = [
        f"| {modality}, {protocol} | parameters | " + " | ".join(f"step {s:,}" for s in steps) + " |",
        "|---|---:|" + "---:|" * len(steps),
    ]
    for model, rows in part.groupby("model", sort=False):
        ratios = rows.set_index("step")[f"cr_{protocol}"]
        cells = " | ".join(f"{ratios[s]:.3f}" for s in steps)
        lines.append(f"| {model} | {rows['params_total'].iloc[0]:,} | {cells} |")
    return "\n".join(lines) + "\n"
