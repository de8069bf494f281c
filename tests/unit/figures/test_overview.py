"""The picture of a study in one look says what its tables say."""

import numpy as np
import pandas as pd
import pytest

from bitlaw import InputError
from bitlaw.figures import overview

CELLS = pd.DataFrame(
    [
        ("random", "big", 300, 2e6, 1.2789, 0.5821, 0.005, 0.004),
        ("text", "small", 300, 1e6, 0.3001, 0.2902, 0.02, 0.02),
        ("text", "big", 75, 2e6, 0.4001, 0.3902, 0.02, 0.02),
        ("text", "big", 300, 2e6, 0.2567, 0.2489, 0.017, 0.016),
        ("noise", "big", 300, 2e6, 1.1999, np.nan, 0.01, np.nan),
    ],
    columns=["modality", "model", "step", "params_total", "cr_lossless", "cr_published",
             "cr_lossless_ci", "cr_published_ci"],
)  # fmt: skip
CLASSICAL = pd.DataFrame(
    [
        ("text", "gzip", "chunk", 0.5071),
        ("text", "ppmd", "chunk", np.nan),
        ("text", "brotli", "chunk", 0.3812),
        ("text", "bzip2", "whole", 0.1111),
        ("random", "gzip", "chunk", 1.0023),
    ],
    columns=["modality", "compressor", "scope", "ratio"],
)


def test_it_draws_the_largest_model_at_its_last_step_and_the_best_compressor_of_chunks(tmp_path):
    overview.draw(CELLS, CLASSICAL, {"svg": tmp_path / "a.svg"})
    words = " ".join((tmp_path / "a.svg").read_text().split())
    for shown in ("0.381 brotli", "0.257 every bit counted", "0.249 counted as published", "1.279 every", "1.002 gzip"):
        number, name = shown.split(" ", 1)
        assert f"{number}  {name}" in words or f"{number} {name}" in words, shown
    for left_out in ("0.111", "0.300", "0.400", "nan"):
        assert left_out not in words
    assert words.index("<!-- text -->") < words.index("<!-- noise -->") < words.index("<!-- random -->")


def test_the_bytes_depend_on_the_tables_alone(tmp_path):
    for name in ("a", "b"):
        overview.draw(CELLS, CLASSICAL, {kind: tmp_path / f"{name}.{kind}" for kind in ("svg", "pdf", "png")})
    for kind in ("svg", "pdf", "png"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_a_table_without_ratios_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no ratio"):
        overview.draw(CELLS.assign(cr_lossless=np.nan, cr_published=np.nan), CLASSICAL, {"svg": tmp_path / "a.svg"})
    assert not (tmp_path / "a.svg").exists()
