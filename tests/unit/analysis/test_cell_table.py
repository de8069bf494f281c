"""Cells to one table: its columns, and what it refuses."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.stats

from bitlaw import InputError
from bitlaw.analysis import cell_table


@pytest.fixture
def cells(tmp_path):
    """Paths of two cells, as `cell.compress` leaves them, of two models."""
    paths = []
    for model in ("small", "large"):
        numbers = {column: 1.0 for column in cell_table.CELL_COLUMNS if not column.endswith("_ci")}
        path = tmp_path / model / "step10.json"
        path.parent.mkdir()
        path.write_text(json.dumps(numbers | {"model": model, "step": 10, "weights_sha256": model}))
        row = {"file": "one", "bytes": 8, "kept": True, "bits_published": 32.0, "bits_stream": 64.0}
        pq.write_table(pa.Table.from_pylist([row, row | {"bits_stream": 32.0}]), path.with_suffix(".parquet"))
        paths.append(path)
    return paths


def test_the_interval_of_a_ratio_is_over_the_files_of_its_chunks(cells):
    """Five readers of four chunks each: chunks of a reader alike, so twenty chunks tell as much as five."""
    ratios, files = np.repeat([0.5, 0.6, 0.55, 0.7, 0.4], 4), np.repeat(list("abcde"), 4)
    rows = [
        {"file": file, "bytes": 8, "kept": file != "e", "bits_published": 32.0, "bits_stream": 64 * ratio}
        for file, ratio in zip(files, ratios, strict=True)
    ]
    for path in cells:
        pq.write_table(pa.Table.from_pylist(rows), path.with_suffix(".parquet"))
    assert (cell_table.chunk_files(cells[0].with_suffix(".parquet")) == files).all()
    table = cell_table.collect(cells)
    expected = scipy.stats.t.ppf(0.975, 4) * np.std(ratios[::4], ddof=1) / 5**0.5
    assert table["cr_lossless_ci"].to_numpy() == pytest.approx([expected] * 2)
    assert table["cr_published_ci"].to_numpy() == pytest.approx([0.0] * 2)  # of the four files that are kept


def test_the_nominal_count_is_a_column_only_when_it_is_given(cells):
    with_it = cell_table.collect(cells, {"small": 70, "large": 160})
    assert list(with_it["params_nominal"]) == [70, 160]
    assert list(with_it) == list(cell_table.CELL_COLUMNS)
    without = cell_table.collect(cells)
    assert [column for column in with_it if column not in without] == ["params_nominal"]


def test_two_checkpoints_with_the_same_weights_are_refused(cells):
    cells[1].write_text(json.dumps(json.loads(cells[1].read_text()) | {"weights_sha256": "small"}))
    with pytest.raises(InputError, match="large step 10 has the same weights as small step 10"):
        cell_table.collect(cells)
