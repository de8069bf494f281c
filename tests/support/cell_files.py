"""The files of a cell, made of given rows."""

import json

import pyarrow as pa
import pyarrow.parquet as pq


def write_cell(folder, modality, model, step, rows, name="cells", **columns):
    path = folder / name / modality / model / f"step{step}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([{"file": "one"} | row | columns for row in rows]), path)
    about = {"modality": modality, "model": model, "step": step, "params_total": 1000}
    path.with_suffix(".json").write_text(json.dumps(about))
    return path.with_suffix(".json")
