"""The laws of a study side by side."""

import re

import numpy as np
import pandas as pd
import pytest

from bitlaw.figures import exponents
from bitlaw.laws import bootstrap, fitting, together

P, S = (grid.ravel() for grid in np.meshgrid([64e3, 160e3, 400e3, 900e3, 1.9e6], [75.0, 150, 300, 600, 1200]))


def fitted(size, seed=0):
    ratio = 0.2 + size * P**-0.45 + 20 * S**-0.9 + 0.001 * np.random.default_rng(seed).normal(size=len(P))
    law = fitting.fit(P, S, ratio)
    for one in filter(None, (law, law["supported"])):
        one["samples"] = bootstrap.over_cells(one, draws=40)["samples"]
    return law


@pytest.fixture(scope="module")
def laws():
    flat = fitted(0.0)
    assert flat["verdict"] == "law in training only"
    return {"text": {"lossless": fitted(30.0)}, "lines": {"lossless": flat, "published": flat}}


@pytest.fixture
def classical():
    """Of text, a ratio that the law reaches at 500,000 parameters; of lines one that it does not reach."""
    crossed = 0.2 + 30 * 5e5**-0.45 + 20 * 1200**-0.9
    rows = [("text", "gzip", "chunk", crossed), ("text", "xz", "chunk", 0.9), ("text", "gzip", "whole", 0.01)]
    rows += [("lines", "gzip", "chunk", 0.95), ("lines", "PNG", "chunk", 0.1), ("lines", "FLAC", "chunk", np.nan)]
    return pd.DataFrame(rows, columns=["modality", "compressor", "scope", "ratio"])


def test_exchange_rates_are_the_exponents_turned_over(laws):
    text, flat, other = together.table(laws)
    span = laws["text"]["lossless"]["profile"]["alpha"]
    assert text["parameters_to_halve"] == pytest.approx(2 ** (1 / text["alpha"]))
    assert text["parameters_to_halve_low"] == pytest.approx(2 ** (1 / span["high"]))
    assert text["parameters_to_halve_high"] == pytest.approx(2 ** (1 / span["low"]))
    coefficients = {name: entry["value"] for name, entry in laws["text"]["lossless"]["coefficients"].items()}
    once, more = (coefficients["b"] * (f * 1e6) ** -coefficients["alpha"] for f in (1, text["parameters_to_halve"]))
    assert more == pytest.approx(once / 2)
    assert flat["alpha"] is None and flat["parameters_to_halve"] is None and flat["steps_to_halve"] > 1
    assert flat["verdict"] == "law in training only" and other["protocol"] == "published" and text["crossing"] == ""


def test_an_open_end_of_an_exponent_is_an_open_end_of_its_rate(laws):
    law = laws["text"]["lossless"]
    law = law | {"profile": law["profile"] | {"alpha": {"low": 0.1, "high": None, "low_unbounded": False,
                                                        "high_unbounded": True}}}  # fmt: skip
    (row,) = together.table({"text": {"lossless": law}})
    assert row["parameters_to_halve_low"] is None and row["parameters_to_halve_high"] == pytest.approx(2**10)


def test_crossings_are_within_the_data_or_not_in_reach(laws, classical):
    text, flat, published = together.table(laws, classical)
    at, low, high = map(float, re.findall(r"\d[\d.e+]*", text["crossing"].replace("95 %", "")))
    assert text["crossing"].startswith("gzip: crossed at") and low < 5e5 < high and at == pytest.approx(5e5, rel=0.05)
    assert "gzip: below at all sizes, from 6.4e+04 on" in flat["crossing"]
    assert "PNG: not in reach of these data (up to 1.9e+06 parameters, 0 of 40 draws)" in flat["crossing"]
    assert published["crossing"] == ""


def test_the_picture_says_which_exponents_there_are(laws, tmp_path):
    exponents.draw(laws, {"svg": tmp_path / "e.svg", "png": tmp_path / "e.png"}, null="lines")
    seen = (tmp_path / "e.svg").read_text()
    assert "<!-- text, lossless -->" in seen and "<!-- lines, published -->" in seen
    assert seen.count("<!-- no dependence on size seen -->") == 2
