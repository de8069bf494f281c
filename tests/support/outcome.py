"""What a run leaves, without what time and memory it took: equal for any two runs of one study on one machine."""

import json

import pandas as pd

TIMING = ("seconds", "seconds_by_part", "bytes_per_second", "tokens_per_second", "peak_memory_bytes")


def cells(results):
    """Path to content of each cell that is there."""
    folder, found = results / "cells", {}
    for path in sorted(folder.glob("*/*/*.json")):
        about = {key: value for key, value in json.loads(path.read_text()).items() if key not in TIMING}
        found[str(path.relative_to(folder))] = (about, path.with_suffix(".parquet").read_bytes())
    return found


def laws_and_tables(results):
    """Path to bytes of each law and table; of the table of cells without the columns of time."""
    paths = sorted([*results.glob("laws/*"), *results.glob("tables/*")])
    found = {path.name: path.read_bytes() for path in paths if path.name != "benchmarks.csv"}
    found["cells.csv"] = pd.read_csv(results / "tables/cells.csv").drop(columns=[*TIMING], errors="ignore").to_csv()
    return found
