"""Tables of where the bits go: the audit, the real stream against its ideal size, classical compressors."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from bitlaw.analysis.cell_table import LABELS
from bitlaw.compression.accounting import AUDIT_TERMS

CODEC_COLUMNS = (  # of a cell's parquet file, those that the codec table is made of
    *("chunk", "bytes", "tokens"),
    *("bits_by_position", "bits_first_token", "bits_top_bits", "bits_stream"),
)


def audit(cells):
    """From the published ratio to the lossless one: DataFrame with LABELS, published, AUDIT_TERMS, lossless.

    A row for each of `cells` (see `cell_table.collect`). published + all terms = lossless to float64 rounding; what is
    taken over the chunks that the published study keeps is NaN where it keeps none.
    """
    renamed = cells.rename(columns={"cr_published": "published", "cr_lossless": "lossless"})
    return renamed[[*LABELS, "published", *AUDIT_TERMS, "lossless"]]


def codec(paths):
    """What the real stream takes beside its ideal size: DataFrame, a row for each of `paths`.

    paths: the cells' json files, parquet files beside them. stream_bits: the whole stream as written, header and all.
    ideal_bits: what a coder without loss would write for the integer frequencies, the first tokens and the top bits.
    steps_bits, one_shot_bits: coded strings of the chunks that were decoded, made by steps and in one pass.
    ratio_...: over chunks.
    """
    rows = []
    for path in map(Path, paths):
        about = json.loads(path.read_text())
        chunks = pq.read_table(path.with_suffix(".parquet"), columns=list(CODEC_COLUMNS)).to_pandas()
        ideal = chunks["bits_by_position"].map(np.sum) + chunks["bits_first_token"] + chunks["bits_top_bits"]
        ratio = (chunks["bits_stream"] / (8 * chunks["bytes"])).to_numpy()
        check = about["decode_check"]
        rows.append(
            {name: about[name] for name in (*LABELS, "mode", "chunks", "stream_bits")}
            | {
                "ideal_bits": ideal.sum(),
                "steps_bits": 8 * check["steps_bytes"],
                "one_shot_bits": 8 * check["one_shot_bytes"],
                "overhead_bits_per_token": (about["stream_bits"] - ideal.sum()) / chunks["tokens"].sum(),
                "decode_check": "passed" if check["passed"] else "failed",
                "chunks_decoded": check["chunks"],
                "ratio_min": ratio.min(),
                "ratio_median": np.median(ratio),
                "ratio_p95": np.percentile(ratio, 95),
                "ratio_max": ratio.max(),
                "worst_chunk": int(chunks["chunk"].iloc[ratio.argmax()]),
            }
        )
    return pd.DataFrame(rows)


def read_classical(paths):
    """One DataFrame of CSV files with the rows of `classical.measure`; what a failed row lacks is missing."""
    return pd.concat([pd.read_csv(path, dtype={"bytes_out": "Int64"}) for path in paths], ignore_index=True)


def beside_models(classical, cells, modality):
    """Markdown: classical compressors and each model's last step, best ratio of single chunks first.

    classical: what `read_classical` returns; cells: the table of cells. A compressor that failed is listed as that,
    after all that have a ratio.
    """
    tools = classical[classical["modality"] == modality]
    rows = []
    for name, scopes in tools.groupby("compressor", sort=False):
        ratios = scopes.set_index("scope")["ratio"]
        rows.append((name, "", ratios["chunk"], _ratio(ratios["whole"])))
    own = cells[cells["modality"] == modality].sort_values("step").groupby("model", sort=False).tail(1)
    rows += [
        (f"{c.model}, step {c.step:,}", f"{c.params_total:,}", c.cr_lossless, "") for c in own.itertuples(index=False)
    ]
    lines = [f"| {modality}, lossless | parameters | chunk by chunk | all chunks at once |", "|---|---:|---:|---:|"]
    for name, parameters, chunk, whole in sorted(rows, key=lambda row: (math.isnan(row[2]), row[2])):
        lines.append(f"| {name} | {parameters} | {_ratio(chunk)} | {whole} |")
    return "\n".join(lines) + "\n"


def _ratio(value):
    return "failed" if math.isnan(value) else f"{value:.3f}"
